"""`gradpot data info`: its table, its JSON and its errors."""

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from commands import gradpot
from typer.testing import CliRunner

from gradpot.cli import app, commands
from gradpot.errors import InputError

assert commands
rng = np.random.default_rng(0)


@pytest.fixture
def file(tmp_path):
    """A small npz that does not state its units."""
    path = tmp_path / "set.npz"
    R = np.array([[0.0, 0, 0], [1.2, 0, 0]]) + 0.01 * rng.normal(size=(20, 2, 3))
    np.savez(
        path, R=R, z=[6, 8], E=rng.normal(size=20), F=rng.normal(size=R.shape), s=np.ones((20, 6))
    )
    return str(path)


def info(*arguments):
    return CliRunner().invoke(app, ["data", "info", *arguments], catch_exceptions=False)


EV = ("--energy-unit", "eV", "--length-unit", "Ang")
TOLD = ("--energy-unit", "kcal/mol", "--length-unit", "Ang")


def test_a_table_for_people(file):
    result = info(file, *TOLD)
    assert result.exit_code == 0
    for words in ("set.npz", "20, compositions: 1", "C 20, O 20", "cannot tell", "kcal/mol, Ang"):
        assert words in result.stdout


def test_json_and_nothing_else(file):
    summary = json.loads(info(file, *TOLD, "--json").stdout)
    assert summary["frames"] == 20
    assert summary["missing"] == {"energy": 0, "forces": 0, "stress": 20}
    assert summary["warnings"] == [w for w in summary["warnings"] if "add up to zero" in w]


def test_structures_without_labels(tmp_path):
    """What a user wants to know of a POSCAR: formula, cell, shortest distance; no labels."""
    write(tmp_path / "POSCAR", bulk("NaCl", "rocksalt", 5.6, cubic=True))
    summary = json.loads(info(str(tmp_path / "POSCAR"), "--json").stdout)
    assert summary["formulas"] == ["Cl4Na4"]
    assert summary["cell_A_deg"] == pytest.approx([5.6, 5.6, 5.6, 90, 90, 90])
    assert summary["shortest_distance_A"] == pytest.approx(2.8)
    table = " ".join(info(str(tmp_path / "POSCAR")).stdout.split())
    for words in ("1 (Cl4Na4)", "5.600 5.600 5.600, 90.0 90.0 90.0", "gradpot label adds them"):
        assert words in table
    assert "found no problems" not in table


@pytest.mark.parametrize(
    ("energies", "shown"),
    [
        ([-4209.61, -4209.99], "-4209.990 to -4209.610 (std 0.190)"),
        ([-1099.7, -27544.6], "-27545 to -1100 (std 13222)"),
        ([-13.5872, -13.5872], "-13.5872"),
        ([1e-9, 2e-9], "0.000000 to 0.000000 (std 0.000000)"),
    ],
)
def test_digits_follow_the_spread(tmp_path, energies, shown):
    path = tmp_path / "two.npz"
    np.savez(path, R=[[[0.0, 0, 0]]] * 2, z=[2], E=energies, F=np.zeros((2, 1, 3)))
    [row] = [r for r in info(str(path), *EV).stdout.splitlines() if "energy / eV" in r]
    assert row.split("│")[2].strip() == shown


def test_a_row_for_labels_that_some_frames_lack_only(tmp_path):
    path = tmp_path / "two.npz"
    np.savez(path, R=[[[0.0, 0, 0]]] * 2, z=[2], E=[1.0, np.nan], F=np.zeros((2, 1, 3)))
    table = info(str(path), *EV).stdout
    [row] = [r for r in table.splitlines() if "without label" in r]
    assert row.split("│")[2].strip() == "energy 1"


def test_real_file_with_stress(data):
    options = "--stress-key virial_stress --stress-unit kbar --stress-order vasp --stress-sign"
    path = str(data / "mlearn_si" / "si_test25.npz")
    summary = json.loads(info(path, *options.split(), "compression", "--json").stdout)
    assert summary["missing"]["stress"] == 0
    assert summary["consistency"]["verdict"] == "consistent"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TOLD[:2], "add --length-unit"),
        ((*TOLD, "--force-unit", "newton"), "unknown force unit 'newton'"),
        (("--energy-unit", "cal", "--length-unit", "Ang"), "unknown energy unit 'cal'"),
    ],
)
def test_mistakes_are_input_errors(file, options, message):
    with pytest.raises(InputError) as error:
        info(file, *options)
    assert message in str(error.value)


def test_labels_under_other_names_are_missed_loudly(monkeypatch, capsys, tmp_path):
    """The names that the file has are what a user needs to see."""
    (tmp_path / "other.xyz").write_text(
        "1\nProperties=species:S:1:pos:R:3:my_forces:R:3 my_energy=-1.5\nHe 0 0 0 0.1 0 0\n"
    )
    said = gradpot(monkeypatch, capsys, ["data", "info", str(tmp_path / "other.xyz")])
    out = " ".join(said.out.split())
    assert "warning: there are neither energies nor forces" in out
    assert "the file has my_energy, my_forces" in out
    assert "found no problems" not in out
    said = gradpot(monkeypatch, capsys, ["data", "info", str(tmp_path / "other.xyz"), "--json"])
    assert "no energies and forces to compare" in json.loads(said.out)["consistency"]["text"]
