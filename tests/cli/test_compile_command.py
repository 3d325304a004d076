"""`gradpot compile`, and when `gradpot md` compiles. Only the slow test really does."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from commands import contents, gradpot, process
from numpy.testing import assert_allclose

from gradpot import Potential, build, save
from gradpot.cli import commands  # noqa: F401 (in this order, which is that of the help)
from gradpot.compile import cache, export, package
from gradpot.compile.step import has_compiler
from gradpot.md.dynamics import LOG, read_log

REFERENCES = {1: -13.0, 6: -1030.0, 8: -2040.0}
START = ["--time-ps", "0.001", "--temperature-K", "10"]
MD = ["md", "model.safetensors", "H2O", *START, "--out", "new"]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The working folder, with a weak potential and an empty cache."""
    torch.manual_seed(0)
    network = build("painn", cutoff=4.0, width=4, n_layers=1, n_radial=4)
    save(Potential(network, REFERENCES, 1e-4), tmp_path / "model.safetensors")
    (tmp_path / "notes.txt").write_text("mine\n")
    (tmp_path / "notes.pt2").write_text("mine\n")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "md.csv").write_text("a run\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    return tmp_path


@pytest.fixture
def compiling(monkeypatch) -> list:
    """Compile nothing, and list what would have been compiled."""
    asked = []

    def written(potential, path, dtype=None):
        asked.append((Path(path), dtype))
        Path(path).write_text("machine code\n")

    def instead(potential, dtype):
        asked.append((None, dtype))
        return potential

    monkeypatch.setattr(export, "compile_potential", written)
    monkeypatch.setattr(cache, "compiled_potential", instead)
    monkeypatch.setattr("gradpot.compile.step.has_compiler", lambda: True)
    return asked


def test_the_package_is_put_beside_the_potential(place, compiling, monkeypatch, capsys):
    said = gradpot(monkeypatch, capsys, ["compile", "model.safetensors"])
    assert (said.code, said.out) == (0, "")
    assert said.err.splitlines()[0] == "compiling takes a minute or two"
    assert said.err.splitlines()[1].endswith("s, float32: model.pt2")
    assert (place / "model.pt2").read_text() == "machine code\n"
    assert [(path.parent.name, dtype) for path, dtype in compiling] == [("compiled", torch.float32)]


def test_what_is_compiled_already_is_not_compiled_again(place, compiling, monkeypatch, capsys):
    gradpot(monkeypatch, capsys, ["compile", "model.safetensors"])
    for module in (package, cache):
        monkeypatch.setattr(module, "fits", lambda *_: True)  # "machine code" has no header
    said = gradpot(monkeypatch, capsys, ["compile", "model.safetensors", "--out", "again.pt2"])
    assert (said.code, said.err) == (0, "already compiled, float32: again.pt2\n")
    assert (place / "again.pt2").read_text() == "machine code\n"
    assert len(compiling) == 1


def test_json_and_nothing_else(place, compiling, monkeypatch, capsys):
    options = ["--dtype", "float64", "--out", "double.pt2", "--json"]
    said = gradpot(monkeypatch, capsys, ["compile", "model.safetensors", *options])
    assert (said.code, said.err) == (0, "")
    told = json.loads(said.out)
    assert told.pop("seconds") >= 0
    assert told == {"out": "double.pt2", "dtype": "float64"}
    assert (place / "double.pt2").read_text() == "machine code\n"
    assert [dtype for _, dtype in compiling] == [torch.float64]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("compile nosuch.safetensors", "no such file: nosuch.safetensors"),
        ("compile notes.txt", "notes.txt is damaged or not a safetensors file"),
        ("compile model.safetensors --dtype half", "unknown dtype 'half'; known: float32, float64"),
        ("compile model.safetensors --out a.so", "--out a.so must end in .pt2"),
        ("compile model.safetensors --out no/a.pt2", "--out no/a.pt2: there is no folder no"),
        (
            "compile model.safetensors --out notes.pt2",
            "--out would replace a file: notes.pt2 is",
        ),
        ("md model.safetensors H2O --compile yes", "unknown --compile 'yes'; known: auto, true"),
        ("md notes.pt2 H2O", "notes.pt2 is damaged or not a compiled potential"),
        ("md nosuch.pt2 H2O", "no such file: nosuch.pt2"),
        ("md model.safetensors CH3SH --compile true", "does not know S"),
        ("md model.safetensors H2O --compile true --out done", "done already holds a run"),
    ],
)
def test_wrong_inputs(place, compiling, monkeypatch, capsys, arguments, message):
    before = contents(place)
    said = gradpot(monkeypatch, capsys, arguments.split())
    assert said.code == 2
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert message in said.err
    assert compiling == []
    assert contents(place) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(place, compiling, monkeypatch, capsys):
    place.chmod(0o500)
    said = gradpot(monkeypatch, capsys, ["compile", "model.safetensors"])
    place.chmod(0o700)
    assert said.code == 2
    assert "cannot write to the folder" in said.err
    assert compiling == []


@pytest.mark.parametrize(
    "arguments", [["compile", "model.safetensors"], [*MD, "--compile", "true"]]
)
def test_without_a_compiler(place, monkeypatch, capsys, arguments):
    monkeypatch.setenv("CXX", "no-such-compiler")
    before = contents(place)
    said = gradpot(monkeypatch, capsys, arguments)
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith("error: compiling needs a C++ compiler")
    assert {k: v for k, v in contents(place).items() if not k.startswith("cache")} == before


@pytest.mark.parametrize(
    ("option", "seconds", "compiles"),
    [
        ("auto", 1e9, False),
        ("auto", 0.0, True),
        ("true", 1e9, True),
        ("false", 0.0, False),
    ],
)
def test_md_compiles_long_runs(place, compiling, monkeypatch, capsys, option, seconds, compiles):
    monkeypatch.setattr("gradpot.cli.md.COMPILE_FROM_S", seconds)
    said = gradpot(monkeypatch, capsys, [*MD, "--compile", option])
    assert said.code == 0, said.err
    assert ("compiling the potential takes a minute or two" in said.err) == compiles
    assert len(compiling) == compiles
    assert (place / "new" / "md.json").exists()


def test_md_without_a_compiler_is_not_compiled(place, monkeypatch, capsys):
    monkeypatch.setattr("gradpot.cli.md.COMPILE_FROM_S", 0.0)
    monkeypatch.setenv("CXX", "no-such-compiler")
    said = gradpot(monkeypatch, capsys, MD)
    assert said.code == 0, said.err
    assert "compil" not in said.err


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_from_training_to_compiled_dynamics(place):
    """In new processes; the package runs in a folder without the rest of the run."""
    assert process(["compile", "model.safetensors"], place).code == 0
    shutil.copy(place / "model.pt2", place / "done" / "alone.pt2")
    logs = []
    for model, out, option in (
        ("model.safetensors", "eager", "false"),
        ("model.safetensors", "cached", "auto"),
        ("done/alone.pt2", "alone", "true"),
    ):
        said = process(["md", model, "H2O", *START, "--out", out, "--compile", option], place)
        assert said.code == 0, said.err
        logs.append(read_log(place / out / LOG)["total_eV"])
    assert (logs[1] == logs[2]).all()
    assert_allclose(logs[1], logs[0], atol=1e-5)
