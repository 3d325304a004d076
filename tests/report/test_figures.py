"""Figures: complete files for every kind of gap in the data, without pyplot."""

import sys

import matplotlib.image
import numpy as np
import pytest
import torch

from gradpot.graph.graph import Properties
from gradpot.report.figures import _curve, dynamics, learning_curve, parity


def labels(n_atoms: list[int], seed: int = 0) -> Properties:
    rng = np.random.default_rng(seed)
    n = len(n_atoms)
    return Properties(
        energy=torch.tensor(rng.normal(size=n) - 4.0 * np.array(n_atoms)),
        forces=torch.tensor(rng.normal(size=(sum(n_atoms), 3))),
        stress=torch.tensor(rng.normal(size=(n, 3, 3)) * 0.01),
    )


def assert_is_figure(path, n_panels: int | None = None) -> None:
    image = matplotlib.image.imread(path)
    assert image[..., :3].min() < 0.5 < image[..., :3].max()
    if n_panels:
        assert round(image.shape[1] / image.shape[0]) == n_panels


def metrics(n_epochs: int) -> list[dict]:
    return [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            "seconds": 1.0 * epoch,
            "train_loss": 1.0 / (1 + epoch),
            "learning_rate": 1e-3,
            "valid": {"energy_mae_meV": 50.0 / (1 + epoch), "forces_mae_meV_A": 90.0 / (1 + epoch)},
        }
        for epoch in range(n_epochs)
    ]


@pytest.mark.parametrize(("n_epochs", "n_panels"), [(0, 1), (1, 3), (200, 3)])
def test_learning_curve(tmp_path, n_epochs, n_panels):
    learning_curve(metrics(n_epochs), tmp_path / "curve.png")
    assert_is_figure(tmp_path / "curve.png", n_panels)


def test_learning_curve_leaves_out_what_is_missing(tmp_path):
    rows = metrics(4)
    rows[1]["valid"] = None
    rows[2]["train_loss"] = float("nan")
    for row in rows:
        if row["valid"]:
            row["valid"]["energy_mae_meV"] = None
    epochs, values = _curve(rows, "train_loss")
    assert epochs.tolist() == [0, 10, 30]
    assert np.isfinite(values).all()
    learning_curve(rows, tmp_path / "curve.png")
    assert_is_figure(tmp_path / "curve.png", 2)


@pytest.mark.parametrize("n_atoms", [[3, 3, 3], [9], [50, 2] * 40])
def test_parity_has_a_panel_for_each_label(tmp_path, n_atoms):
    known, predicted = labels(n_atoms), labels(n_atoms, seed=1)
    parity(predicted, known, torch.tensor(n_atoms), tmp_path / "all.png")
    assert_is_figure(tmp_path / "all.png", 3)
    no_stress = known._replace(stress=torch.full_like(known.stress, torch.nan))
    parity(predicted, no_stress, np.array(n_atoms), tmp_path / "two.png")
    assert_is_figure(tmp_path / "two.png", 2)


def test_parity_shows_what_is_labeled(tmp_path):
    known, n_atoms = labels([4, 4, 4]), torch.tensor([4, 4, 4])
    known.forces[:6] = torch.nan
    known.energy[:] = torch.nan
    known.stress[:] = torch.nan
    parity(known, known, n_atoms, tmp_path / "forces.png")
    assert_is_figure(tmp_path / "forces.png", 1)
    known.forces[:] = torch.nan
    parity(known, known, n_atoms, tmp_path / "nothing.png")
    assert_is_figure(tmp_path / "nothing.png", 1)


@pytest.mark.parametrize(("n_rows", "npt"), [(1, False), (2, True), (500, True)])
def test_dynamics(tmp_path, n_rows, npt):
    rng = np.random.default_rng(0)
    names = ["potential_eV", "kinetic_eV", "total_eV", "temperature_K"]
    names += ["volume_A3", "pressure_GPa"] if npt else []
    log = {"time_fs": 5.0 * np.arange(n_rows)} | {n: rng.random(n_rows) for n in names}
    log["potential_eV"][-1] = np.nan
    dynamics(log, tmp_path / "md.png")
    assert_is_figure(tmp_path / "md.png")


def test_pyplot_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    learning_curve(metrics(3), tmp_path / "curve.png")
    parity(labels([2, 3]), labels([2, 3]), torch.tensor([2, 3]), tmp_path / "parity.png")
    assert_is_figure(tmp_path / "parity.png", 3)
