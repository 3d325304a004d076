"""Imports go one way, public names resolve, and heavy libraries are imported late."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import gradpot

SOURCE = Path(gradpot.__file__).parent

# each part imports only from the parts before it
ORDER = (
    *("errors", "other_names", "units", "process", "locks", "geometry", "data", "graph", "report"),
    *("nn", "models", "potential", "compile", "train", "md", "testing", "cli"),
)
# former names of parts, which import only the part
FORMER = {
    "neighbors": "geometry",
    "label": "data",
    "checkpoint": "potential",
    "package": "compile",
}


def imports(path: Path) -> set[str]:
    """The parts of gradpot that a file imports."""
    return {name.split(".")[0] for name in modules(path)}


def modules(path: Path) -> set[str]:
    """Dotted names, without `gradpot.`, of the modules and members that a file imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.removeprefix("gradpot.") for name in names if name.startswith("gradpot.")}


def test_imports_go_one_way():
    wrong = []
    for path in SOURCE.rglob("*.py"):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if part in FORMER:
            assert imports(path) == {FORMER[part]}
        elif not part.startswith("__"):
            before = {*ORDER[: ORDER.index(part) + 1], "__version__"}
            foreign = sorted(imports(path) - before)
            wrong += [f"{path.relative_to(SOURCE)} imports {name}" for name in foreign]
    assert wrong == []


def test_files_have_no_circular_imports():
    """Modules have an order too, not only the parts."""
    files = {path: modules(path) for path in SOURCE.rglob("*.py") if path.name != "__init__.py"}
    names = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in files}
    below = {name: files[path] & names.keys() for name, path in names.items()}
    list(TopologicalSorter(below).static_order())  # raises CycleError


def test_public_names_resolve():
    for name in gradpot.__all__:
        assert getattr(gradpot, name)


def test_help_imports_no_heavy_library():
    code = (
        "import sys, gradpot.cli.commands; "
        "heavy = {'torch', 'ase', 'numpy', 'scipy', 'pydantic', 'matplotlib', 'rich.table'}; "
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    [
        "eval nosuch.safetensors pyproject.toml",
        "eval pyproject.toml nosuch.xyz",
        "md nosuch.safetensors H2O",
        "md pyproject.toml nosuch.xyz",
        "compile nosuch.safetensors",
        "train --data nosuch.xyz",
    ],
)
def test_files_that_are_not_there_are_refused_before_torch_is_imported(command):
    code = (
        "import sys\n"
        "from gradpot.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, *command.split()]
    done = subprocess.run(words, capture_output=True, text=True, cwd=SOURCE.parents[1], check=True)
    assert done.stdout.split() == ["2", "False"]
    assert "nosuch" in done.stderr
    assert done.stderr.count("\n") == 1
