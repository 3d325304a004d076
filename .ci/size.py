"""How large the package is; fails on a function over 80 lines or a file over 400."""

import ast
import io
import statistics
import sys
import tokenize
from pathlib import Path

LONGEST_FUNCTION, LONGEST_FILE = 80, 400


def docstring_lines(tree: ast.AST) -> int:
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, owners)]
    return sum(text.count("\n") + 1 for text in texts if text)


def comment_lines(source: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return sum(token.type == tokenize.COMMENT for token in tokens)


functions, files, code, docs, comments = [], [], 0, 0, 0
for path in sorted(Path("src").rglob("*.py")):
    source = path.read_text()
    tree = ast.parse(source)
    files.append((len(source.splitlines()), str(path)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            functions.append((node.end_lineno - node.lineno + 1, f"{path}:{node.name}"))
    doc, comment = docstring_lines(tree), comment_lines(source)
    filled = sum(bool(line.strip()) for line in source.splitlines())
    code, docs, comments = code + filled - doc - comment, docs + doc, comments + comment

lengths = sorted(length for length, _ in functions)
print(f"code lines {code}, docstrings {docs / code:.0%}, comments {comments / code:.0%}")
print(f"files {len(files)}, median {statistics.median(n for n, _ in files)}, longest {max(files)}")
p95 = lengths[int(0.95 * len(lengths))]
print(f"functions {len(lengths)}, median {statistics.median(lengths)}, 95 % {p95}", end=", ")
print(f"longest {max(functions)}")
if max(functions)[0] > LONGEST_FUNCTION or max(files)[0] > LONGEST_FILE:
    sys.exit("a function or a file is too long: redesign it")
