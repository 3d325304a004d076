"""A network of the user's own, from a file, through the whole command line; and never unasked."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import TINY, gradpot

import gradpot as package
from gradpot.errors import InputError
from gradpot.models import MODELS, build
from gradpot.models.own import add_own

PAGE = Path(__file__).parents[2] / "docs" / "write-a-model.md"
SHELLS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)[0]
TRACE = "from pathlib import Path\nPath('ran').touch()\n"
OWN = "shells.py:Shells"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """The class of docs/write-a-model.md in a file that leaves a trace when it runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shells.py").write_text(TRACE + SHELLS)
    yield tmp_path
    MODELS.pop(OWN, None)


def ran(folder: Path) -> bool:
    """Whether the file was run since the last look."""
    was = (folder / "ran").exists()
    (folder / "ran").unlink(missing_ok=True)
    MODELS.pop(OWN, None)
    return was


def test_from_training_to_dynamics(folder, monkeypatch, capfd):
    def code(line: str) -> int:
        said = gradpot(monkeypatch, capfd, line.split())
        last.append(said.err.splitlines()[-1] if said.err else "")
        return said.code

    last: list[str] = []
    model = "R/model.safetensors"
    assert code(f"train {TINY} --out R --model {OWN}".replace("model.n_layers=1", "")) == 0, last
    assert ran(folder)
    assert json.loads((folder / "R" / "config.json").read_text())["model"]["name"] == OWN
    # nobody named the file: its code is not run, though it lies there
    for line in (f"eval {model} ethanol", f"md {model} H2O", f"compile {model}"):
        assert code(line) == 2
        assert "whose code runs only if you name its file: --model FOLDER/shells.py:She" in last[-1]
    assert code("train --out R --resume train.epochs=2") == 2
    assert not ran(folder)
    (folder / "elsewhere").mkdir()
    (folder / "shells.py").rename(folder / "elsewhere" / "shells.py")
    named = f"--model elsewhere/{OWN}"
    assert code(f"train --out R --resume train.epochs=2 {named}") == 0, last
    assert ran(folder)
    assert code(f"eval {model} ethanol {named}") == 0, last
    md = "CH3CH2OH --time-ps 0.002 --temperature-K 1 --max-temperature-K inf --compile false"
    assert code(f"md {model} {md} {named}") == 0, last


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.py:Shells", "there is no file none.py"),
        ("shells.py:Shell", "shells.py has no class Shell derived from gradpot.Model; it has Sh"),
        ("shells.py:envelope", "has no class envelope derived"),
        ("shells.py:Model", "has no class Model derived"),
        ("broken.py:A", "broken.py cannot be imported: ZeroDivisionError: division by zero"),
        ("wrong.py:A", "wrong.py cannot be imported: SyntaxError"),
    ],
)
def test_what_cannot_be_used_is_named(folder, name, message):
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "wrong.py").write_text("class\n")
    with pytest.raises(InputError, match=message):
        add_own(name)
    assert name not in MODELS


def test_other_names_are_not_files(folder):
    assert add_own("painn") == "painn"
    with pytest.raises(InputError, match="runs only if you name its file"):
        build(OWN)
    assert not ran(folder)


def test_annotations_may_be_texts(folder):
    text = "from __future__ import annotations\n" + SHELLS
    (folder / "shells.py").write_text(text)
    assert build(add_own("shells.py:Shells"), width=8).spec == {
        "name": OWN,
        "cutoff": 5.0,
        "width": 8,
        "n_radial": 8,
        "activation": "silu",
    }
    assert sys.modules["gradpot_own_shells"].Shells is MODELS[OWN]
    with pytest.raises(InputError, match=r"width is 1\.5 but must be a whole number"):
        build(OWN, width=1.5)


def test_machine_code_of_another_file_does_not_fit(folder):
    from gradpot.compile.package import fingerprint

    def digest() -> str | None:
        import torch

        torch.manual_seed(0)
        return fingerprint(package.Potential(build(add_own(OWN), width=8), {1: 0.0}))

    before = digest()
    assert digest() == before
    (folder / "shells.py").write_text(SHELLS.replace("x + total", "x - total"))
    assert digest() != before
