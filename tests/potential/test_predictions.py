"""`gradpot eval --out`: labels, predictions and errors of every frame, read back."""

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.testing import assert_allclose

from gradpot import Calculator, InputError, Potential, build, read, save
from gradpot.potential.evaluate import evaluate_file

CUTOFF = 4.0


@pytest.fixture
def model(tmp_path) -> Path:
    torch.manual_seed(0)
    network = build("painn", cutoff=CUTOFF, width=4, n_layers=1, n_radial=4).double()
    potential = Potential(network, dict.fromkeys((1, 6, 8, 11, 17), -1.0), 1.0)
    save(potential, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def written(path: Path, labels: bool = True) -> list[Any]:
    """Molecules of several sizes and a crystal, whose forces are wrong by more and more."""
    structures: list[Any] = [molecule("H2O"), molecule("CH3OH"), bulk("NaCl", "rocksalt", a=5.6)]
    for i, atoms in enumerate(structures):
        atoms.rattle(0.02, seed=i)
        forces = np.full((len(atoms), 3), 10.0 * i)
        if labels:
            atoms.calc = SinglePointCalculator(atoms, energy=-3.0 * i, forces=forces)
    ase.io.write(path, structures)
    return structures


def frames_in(path: Path) -> list[Any]:
    return list(ase.io.iread(path))


def evaluated(model: Path, name: str, data: str = "data.extxyz", **options) -> tuple[Path, dict]:
    out, units = model.parent / name, {"energy_unit": "eV", "length_unit": "Ang"}
    data = str(model.with_name(data))
    options = {"say": lambda line: None, **units, **options}
    return out, evaluate_file(model, data, out=out, **options)


@pytest.mark.parametrize("name", ["out.extxyz", "out.npz"])
def test_labels_and_predictions_are_read_back(model, name):
    """By default the labels are read; with their names, the predictions."""
    structures = written(model.with_name("data.extxyz"))
    out, _ = evaluated(model, name)
    labels = read(out)
    before = read(model.with_name("data.extxyz"), "eV", "Ang")
    assert_allclose(labels.energy, before.energy, atol=1e-7)
    assert_allclose(labels.forces, before.forces, atol=1e-7)
    assert_allclose(labels.positions, before.positions, atol=1e-7)
    assert_allclose(labels.cell, before.cell, atol=1e-7)
    again = read(out, energy_key="gradpot_energy", forces_key="gradpot_forces")
    calculator = Calculator(model, compile=False)
    for i, atoms in enumerate(structures):
        part = slice(*again.first[i : i + 2])
        assert again.energy[i] == pytest.approx(calculator.get_potential_energy(atoms), abs=1e-6)
        assert_allclose(again.forces[part], calculator.get_forces(atoms), atol=1e-6)


def test_errors_are_predictions_minus_labels(model):
    written(model.with_name("data.extxyz"))
    out, results = evaluated(model, "out.extxyz")
    frames = frames_in(out)
    assert [atoms.info["frame"] for atoms in frames] == [0, 1, 2]
    for atoms in frames:
        wrong = atoms.info["gradpot_energy"] - atoms.get_potential_energy()
        assert atoms.info["energy_error"] == pytest.approx(wrong, abs=1e-6)
        wrong = atoms.arrays["gradpot_forces"] - atoms.get_forces()
        assert_allclose(atoms.arrays["forces_error"], wrong, atol=1e-6)
    mean = 1e3 * np.mean([abs(atoms.info["energy_error"]) for atoms in frames])
    assert results["energy_mae_meV"] == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("name", ["out.extxyz", "out.npz"])
def test_worst_first(model, name):
    written(model.with_name("data.extxyz"))
    out, _ = evaluated(model, name, worst_first=True)
    expected = [2, 1, 0]
    if name.endswith("npz"):
        found = np.load(out)["frame"].tolist()
    else:
        found = [atoms.info["frame"] for atoms in frames_in(out)]
    assert found == expected


def test_without_labels_there_are_only_predictions(model):
    written(model.with_name("data.extxyz"), labels=False)
    said: list[str] = []
    out, results = evaluated(model, "out.extxyz", say=said.append)
    assert any("has no labels: there is nothing to compare with" in line for line in said)
    assert results["n_frames"] == 0
    frames = frames_in(out)
    assert all(np.isfinite(atoms.info["gradpot_energy"]) for atoms in frames)
    assert not any("energy_error" in atoms.info for atoms in frames)
    with pytest.raises(InputError, match=r"nothing to compare|neither energies .* --out FILE"):
        evaluate_file(model, str(model.with_name("data.extxyz")), say=said.append)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "its name must end in"),
        ("taken.npz", "exists already"),
        ("none/out.npz", "there is no folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_first(model, name, message):
    model.with_name("taken.npz").write_text("mine")
    with pytest.raises(InputError, match=message):
        evaluated(model, name, data="missing.extxyz")
    assert model.with_name("taken.npz").read_text() == "mine"
