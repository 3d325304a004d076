"""Figures: complete files for every kind of gap in the data, without pyplot."""

import re
import sys
from collections.abc import Callable

import matplotlib.image
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from gradpot.graph.graph import Properties
from gradpot.potential.metrics import errors as potential_errors
from gradpot.report.figures import (
    ROW,
    WIDTH,
    _curve,
    _label_powers,
    dynamics,
    learning_curve,
    parity,
)


def labels(n_atoms: list[int], seed: int = 0) -> Properties:
    rng = np.random.default_rng(seed)
    n = len(n_atoms)
    return Properties(
        energy=torch.tensor(rng.normal(size=n) - 4.0 * np.array(n_atoms)),
        forces=torch.tensor(rng.normal(size=(sum(n_atoms), 3))),
        stress=torch.tensor(rng.normal(size=(n, 3, 3)) * 0.01),
    )


def assert_is_figure(path, n_rows: int | None = None) -> None:
    """160 mm wide at 200 dpi, with this number of rows of panels."""
    image = matplotlib.image.imread(path)
    assert image[..., :3].min() < 0.5 < image[..., :3].max()
    assert image.shape[1] == WIDTH * 200
    if n_rows:
        assert round(image.shape[0] / 200 / ROW) == n_rows


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


@pytest.mark.parametrize(("n_epochs", "n_rows"), [(0, 1), (1, 2), (200, 2)])
def test_learning_curve(tmp_path, n_epochs, n_rows):
    learning_curve(metrics(n_epochs), tmp_path / "curve.png")
    assert_is_figure(tmp_path / "curve.png", n_rows)


def texts(monkeypatch, draw: Callable, *arguments: object, **options: object) -> list[str]:
    """Every text of a figure, as it is drawn."""
    found = []

    def save(figure: Figure, path: object) -> None:
        figure.draw_without_rendering()
        found.extend(text.get_text() for text in figure.findobj(Text) if text.get_visible())

    monkeypatch.setattr("gradpot.report.figures._save", save)
    draw(*arguments, **options)
    return found


def test_learning_curve_says_what_was_kept_and_of_how_many_frames(monkeypatch):
    rows = metrics(5)
    for row in rows:
        row["valid"] |= {"n_frames": 12, "energy_mae_meV_per_atom": 1.0, "stress_mae_meV_A3": 2.0}
        row["best"] = row["step"] == 20
    said = texts(monkeypatch, learning_curve, rows, "curve.png", per_atom=True)
    assert "errors on 12 validation frames, best model at step 20" in said
    titles = {"training loss", "energy MAE, meV/atom", "forces MAE, meV/Å", "stress MAE, meV/Å³"}
    assert titles <= {*said}


@given(st.floats(1e-9, 1e6), st.floats(1.0001, 1e9))
@settings(max_examples=60, deadline=None)
def test_a_logarithmic_axis_has_three_to_seven_labels(low, ratio):
    ax = Figure().add_subplot()
    ax.semilogy([0, 1], [low, low * ratio])
    _label_powers(ax)
    bottom, top = ax.get_ylim()
    ticks = [tick for tick in ax.yaxis.get_majorticklocs() if bottom <= tick <= top]
    assert 3 <= len(ticks) <= 7
    assert all(ax.yaxis.get_major_formatter()(tick) for tick in ticks)


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
    assert_is_figure(tmp_path / "curve.png", 1)


@pytest.mark.parametrize("n_atoms", [[3, 3, 3], [9], [50, 2] * 40])
def test_parity_has_a_panel_for_each_label(tmp_path, n_atoms):
    known, predicted = labels(n_atoms), labels(n_atoms, seed=1)
    parity(predicted, known, torch.tensor(n_atoms), tmp_path / "all.png")
    assert_is_figure(tmp_path / "all.png", 2)
    no_stress = known._replace(stress=torch.full_like(known.stress, torch.nan))
    parity(predicted, no_stress, np.array(n_atoms), tmp_path / "two.png")
    assert_is_figure(tmp_path / "two.png", 1)


def test_parity_names_errors_in_the_units_of_the_table(monkeypatch):
    n_atoms = [2, 2, 3]
    known = labels(n_atoms)
    shift = {"energy": 0.001, "forces": 0.002, "stress": 0.003}
    predicted = Properties(**{key: getattr(known, key) + x for key, x in shift.items()})
    said = texts(monkeypatch, parity, predicted, known, torch.tensor(n_atoms), "p.png", "on a set")
    errors = potential_errors(predicted, known, torch.tensor(n_atoms))
    per_atom, forces, stress = (
        errors[f"{key}"]
        for key in ("energy_mae_meV_per_atom", "forces_mae_meV_A", "stress_mae_meV_A3")
    )
    assert "on a set" in said
    assert f"MAE {forces:.3g} meV/Å\nRMSE {forces:.3g} meV/Å" in said
    assert f"MAE {stress:.3g} meV/Å³\nRMSE {stress:.3g} meV/Å³" in said
    assert any(text.startswith(f"MAE {per_atom:.3g} meV/atom\nRMSE ") for text in said)
    assert "reference stress (meV/Å³)" in said


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


def md_log(n_rows: int, npt: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    names = ["potential_eV", "kinetic_eV", "total_eV", "temperature_K"]
    names += ["volume_A3", "pressure_GPa", "conserved_eV"] if npt else []
    log = {"time_fs": 5.0 * np.arange(n_rows)} | {n: rng.random(n_rows) for n in names}
    log["potential_eV"][-1:] = np.nan
    return log


@pytest.mark.parametrize(("n_rows", "npt"), [(0, False), (1, False), (2, True), (500, True)])
def test_dynamics(tmp_path, n_rows, npt):
    dynamics(md_log(n_rows, npt), tmp_path / "md.png", 300.0 if npt else None, 0.0)
    assert_is_figure(tmp_path / "md.png")


@pytest.mark.parametrize(
    ("npt", "target", "drawn"),
    [
        (False, None, {"total − start\n(meV)"}),
        (False, 300.0, set()),
        (True, 300.0, {"conserved − start\n(meV)", "volume\n(Å³)", "pressure\n(GPa)"}),
    ],
)
def test_only_what_is_conserved_is_drawn_as_such(monkeypatch, npt, target, drawn):
    said = texts(monkeypatch, dynamics, md_log(200, npt), "md.png", target, 1.5)
    panels = {text for text in said if "\n" in text}
    assert panels == {"energy − mean\n(eV)", "temperature\n(K)", *drawn}
    [temperature] = [text for text in said if re.match(r"mean \S+ K", text)]
    assert ("dashed: target 300 K" in temperature) == (target is not None)
    assert "bold: mean over 0.05 ps" in temperature
    assert any("target 1.5 GPa" in text for text in said) == npt


def test_pyplot_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    learning_curve(metrics(3), tmp_path / "curve.png")
    parity(labels([2, 3]), labels([2, 3]), torch.tensor([2, 3]), tmp_path / "parity.png")
    assert_is_figure(tmp_path / "parity.png", 2)
