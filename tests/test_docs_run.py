"""The documentation's Python runs, its commands parse, its links and listing are right."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer

import gradpot
from gradpot.cli import app, commands  # noqa: F401 (commands fill the app)
from gradpot.models import specification
from gradpot.process import write_json
from gradpot.train.config import config, override

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINKED = [*PAGES, *sorted(ROOT.glob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, except those marked no-run."""
    found = FENCE.findall(page.read_text())
    return [text for name, rest, text in found if name == language and "no-run" not in rest]


def calls() -> list[tuple[str, str]]:
    """Every shell line that calls gradpot, with the name of its page."""
    return [
        (page.name, line)
        for page in (*PAGES, ROOT / "README.md")
        for text in blocks(page, "sh")
        for line in text.replace("\\\n", " ").splitlines()
        if re.match(r"(\w+=\S+ +)*gradpot ", line)
    ]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """A folder with a model.safetensors whose forces are too weak to break a molecule."""
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("docs")
    network = gradpot.build("painn", width=16, n_layers=1)
    potential = gradpot.Potential(network, {1: -45.0, 6: -15.0, 8: -7.5}, scale=0.001)
    gradpot.save(potential, out / "model.safetensors")
    write_json(out / "split.json", {"test": list(range(20))})
    return out


@pytest.fixture(scope="session")
def silicon_folder(data, tmp_path_factory) -> Path:
    """A run folder of silicon, made by the command of docs/materials.md in seconds on few cells."""
    out = tmp_path_factory.mktemp("silicon") / "RUN"
    [(_, line)] = [call for call in calls() if call[0] == "materials.md" and "train" in call[1]]
    line = re.sub(r"--out RUN|\b(data.n_train|data.n_valid|train.max_cpu_minutes)=\S+", "", line)
    words = line.replace("silicon.npz", str(data / "mlearn_si" / "si_test25.npz")).split()
    small = "data.n_train=20 data.n_valid=5 model.width=16 model.n_layers=2 train.max_cpu_minutes=1"
    small += f" train.epochs=25 train.learning_rate=1e-2 --out {out}"
    command = [sys.executable, "-m", *words, *small.split()]
    subprocess.run(command, check=True, capture_output=True)
    return out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_runs(page, request, tmp_path, monkeypatch, capsys):
    """Run all blocks of a page in order, as a reader would type them."""
    code = blocks(page, "python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gradpot.models, "MODELS", dict(gradpot.models.MODELS))
    if any("torch_geometric" in text for text in code):
        pytest.importorskip("torch_geometric", reason='needs pip install "gradpot[pyg]"')
    if any("RUN/" in text for text in code):
        folder = "silicon_folder" if page.stem == "materials" else "run_folder"
        (tmp_path / "RUN").symlink_to(request.getfixturevalue(folder))
    names: dict = {}
    for text in code:
        exec(compile(text, page.name, "exec"), names)


@pytest.mark.parametrize(("page", "line"), calls())
def test_commands_parse(page, line):
    words = shlex.split(line, comments=True)
    words = words[words.index("gradpot") + 1 :]
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"{page}: no command {words[0]} in {line!r}"
        command = command.commands[words.pop(0)]
    # raises what a user would see: unknown option, missing argument, wrong type
    context = command.make_context("gradpot", words)
    if command.name == "train":
        keys = [word for word in context.params["settings"] or [] if "=" in word]
        specification(**config(override({}, keys)).model.model_dump())


def test_examples_were_found():
    assert {page for page, _ in calls()} >= {"data.md", "dynamics.md", "units-and-formats.md"}
    assert sum(len(blocks(page, "python")) for page in PAGES) >= 8


def test_layout_lists_every_file():
    text = (ROOT / "docs" / "layout.md").read_text()
    listing = text.split("```")[1]
    source = Path(gradpot.__file__).parent
    files = {path for path in source.rglob("*.py") if path.name != "__init__.py"}
    for path in files - set(source.glob("data/catalog/embedded/*")):
        assert re.search(rf"\b{path.name}\b", listing), f"{path.name} is not in docs/layout.md"
        assert path.parent == source or f"{path.parent.name}/" in listing
    for name in re.findall(r"\w+\.py", listing):
        assert list(source.rglob(name)), f"docs/layout.md lists {name}, which does not exist"


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text()
    for image in re.findall(r'src(?:set)?="([^"]+)"', text):
        assert (page.parent / image).exists(), f"{page.name} shows {image}"
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes from the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
