"""Measure the size of the package; fail on a function over 80 lines or a file over 400.

python .ci/size.py            the whole package
python .ci/size.py --parts    also each part, with its private helpers that are used once
"""

import ast
import io
import re
import statistics
import sys
import tokenize
from pathlib import Path
from typing import NamedTuple

SOURCE = Path("src/gradpot")
LONGEST_FUNCTION, LONGEST_FILE = 80, 400


class File(NamedTuple):
    """The counts of one file."""

    path: Path
    lines: int
    code: int
    docstrings: int
    comments: int
    functions: list[tuple[int, str]]
    """length in lines, and name"""
    private: list[str]
    """names of private top-level functions"""
    once: list[str]
    """names in `private` that are used only once"""
    constants: int
    """number of uppercase top-level names"""


def read(path: Path) -> File:
    source = path.read_text()
    tree = ast.parse(source)
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, owners)]
    docstrings = sum(text.count("\n") + 1 for text in texts if text)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = sum(token.type == tokenize.COMMENT for token in tokens)
    filled = sum(bool(line.strip()) for line in source.splitlines())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    private = [f.name for f in tree.body if isinstance(f, ast.FunctionDef) and f.name[0] == "_"]
    private = [name for name in private if not name.startswith("__")]
    uses = {name: len(re.findall(rf"\b{name}\b", source)) - 1 for name in private}
    targets = [n.targets for n in tree.body if isinstance(n, ast.Assign)]
    targets += [[n.target] for n in tree.body if isinstance(n, ast.AnnAssign)]
    names = [n.id for t in targets for n in ast.walk(ast.List(t[0:])) if isinstance(n, ast.Name)]
    return File(
        path=path,
        lines=len(source.splitlines()),
        code=filled - docstrings - comments,
        docstrings=docstrings,
        comments=comments,
        functions=[(f.end_lineno - f.lineno + 1, f"{path}:{f.name}") for f in functions],
        private=private,
        once=[name for name, count in uses.items() if count == 1],
        constants=sum(name.isupper() for name in names),
    )


def report(name: str, files: list[File]) -> None:
    lengths = sorted(length for file in files for length, _ in file.functions)
    code, docs, comments = (sum(getattr(f, k) for f in files) for k in File._fields[2:5])
    private, once = (sum(len(getattr(f, k)) for f in files) for k in ("private", "once"))
    print(
        f"{name}: code lines {code}, docstrings {docs / code:.0%}, comments {comments / code:.0%}; "
        f"files {len(files)}, median {statistics.median(f.lines for f in files):g}; "
        f"functions {len(lengths)}, median {statistics.median(lengths or [0]):g}, "
        f"95 % {lengths[int(0.95 * len(lengths))] if lengths else 0}; "
        f"private {private}, used once {once}; constants {sum(f.constants for f in files)}"
    )


def main() -> None:
    files = [read(path) for path in sorted(SOURCE.rglob("*.py"))]
    report("gradpot", files)
    if "--parts" in sys.argv:
        parts: dict[str, list[File]] = {}
        for file in files:
            parts.setdefault(file.path.relative_to(SOURCE).parts[0], []).append(file)
        for part, members in parts.items():
            report(f"  {part}", members)
            for file in members:
                if file.once:
                    print(f"      {file.path.name}: {' '.join(file.once)}")
    length, function = max(function for file in files for function in file.functions)
    lines, longest = max((file.lines, str(file.path)) for file in files)
    print(f"longest function {length} lines, {function}; longest file {lines} lines, {longest}")
    if length > LONGEST_FUNCTION or lines > LONGEST_FILE:
        sys.exit("a function or a file is too long: split or simplify it")


if __name__ == "__main__":
    main()
