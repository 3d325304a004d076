"""Imports point one way, public names resolve, and heavy libraries are imported late."""

import ast
import subprocess
import sys
from pathlib import Path

import gradpot

SOURCE = Path(gradpot.__file__).parent

# what each part may import of ours, besides itself
ALLOWED = {
    "errors": set(),
    "units": {"errors"},
    "neighbors": {"errors"},
    "nn": {"errors"},
    "graph": {"neighbors"},
    "surgery": {"errors", "nn"},
    "models": {"errors", "graph", "nn", "surgery"},
    "potential": {"errors", "graph", "nn"},
    "metrics": {"graph"},
    "checkpoint": {"errors", "models", "potential"},
    "data": {"errors", "graph", "neighbors", "units", "checkpoint"},
    "evaluate": {"checkpoint", "data", "errors", "graph", "metrics", "potential", "report"},
    "compile": {"data", "graph"},
}
ABOVE = {"errors", "units", "graph", "potential", "checkpoint", "data", "neighbors", "evaluate"}
ALLOWED |= dict.fromkeys(("calculator", "report", "label"), ABOVE)
ALLOWED["derivatives"] = {"errors", "graph", "potential"}
ALLOWED["package"] = {"checkpoint", "errors", "graph", "potential"}
ALLOWED["export"] = {"checkpoint", "compile", "errors", "graph", "nn", "package", "potential"}
ALLOWED["calculator"] = ABOVE | {"export", "package", "process"}
ALLOWED |= {"signals": set(), "process": set(), "blowup": {"neighbors"}, "motion": set()}
ALLOWED["md"] = {"blowup", "checkpoint", "errors", "motion", "units"}
ALLOWED["train"] = ABOVE | {"compile", "metrics", "models", "nn", "process", "report", "signals"}


def imports(path: Path) -> set[str]:
    """First parts below `gradpot` of what a file imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += (
                [node.module]
                if node.module != "gradpot"
                else [f"gradpot.{a.name}" for a in node.names]
            )
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("gradpot.")}


def test_imports_point_one_way():
    wrong = []
    for path in SOURCE.rglob("*.py"):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        allowed = ALLOWED.get(part)
        if allowed is not None:
            foreign = imports(path) - allowed - {part, "__version__"}
            wrong += [f"{path.relative_to(SOURCE)} imports {name}" for name in sorted(foreign)]
    assert wrong == []


def test_nobody_imports_the_command_line():
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).parts[0] not in ("cli", "__main__.py"):
            assert "cli" not in imports(path), path


def test_public_names():
    for name in gradpot.__all__:
        assert getattr(gradpot, name)


def test_help_does_not_wait_for_torch():
    code = (
        "import sys, gradpot.cli.commands; "
        "print(sorted({'torch', 'ase', 'numpy', 'pydantic', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
