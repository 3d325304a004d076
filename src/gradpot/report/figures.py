"""Figures of learning curves, parity and dynamics, drawn without a display or pyplot.

NaN and missing values are left out. A figure with nothing to show says so.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

from gradpot.graph.graph import Properties
from gradpot.units import GPA

# Okabe and Ito: distinct for colorblind readers and in gray
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#8c8c8c"
STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "savefig.dpi": 160,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
}
# inches: three panels fill a page; those of dynamics are wide and low, one below the other
PANEL, WIDE, LOW = 3.1, 6.3, 1.6
# curves with fewer points have markers
FEW_POINTS = 30
# more points are counted in hexagons, because dots would hide one another
MAX_DOTS = 3000


def learning_curve(metrics: Sequence[Mapping], path: str | Path) -> None:
    """Training loss and validation errors against gradient steps.

    Args:
        metrics: rows of `metrics.jsonl`: "step", "train_loss" and "valid" with
            "energy_mae_meV" and "forces_mae_meV_A".
        path: of the PNG file.
    """
    valid = [{**(row.get("valid") or {}), "step": row["step"]} for row in metrics]
    panels = (
        ("training loss", GRAY, metrics, "train_loss"),
        ("energy MAE (meV)", BLUE, valid, "energy_mae_meV"),
        ("forces MAE (meV/Å)", ORANGE, valid, "forces_mae_meV_A"),
    )
    curves = [(label, color, *_curve(rows, key)) for label, color, rows, key in panels]
    curves = [curve for curve in curves if curve[2].size]
    with mpl.rc_context(STYLE):
        figure, axes = _figure(len(curves))
        for ax, (label, color, step, value) in zip(axes, curves):
            marker = "o" if step.size < FEW_POINTS else None
            ax.semilogy(step, value, color=color, marker=marker, markersize=3)
            best = int(np.argmin(value))
            lowest = f"lowest {value[best]:.3g} at step {step[best]:.0f}"
            ax.set(xlabel="step", title=f"{label}\n{lowest}")
            ax.locator_params(axis="x", integer=True)
            # plain numbers instead of powers, and some between the powers of ten
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
        figure.savefig(path)


def parity(
    predicted: Properties,
    labels: Properties,
    n_atoms: Int[Tensor, "n_frames"] | Int[np.ndarray, "n_frames"],
    path: str | Path,
) -> None:
    """Predictions against labels: energy, forces and, if labeled, stress.

    Energies are relative to the mean label, or per atom if the frames differ in size.

    Args:
        predicted: in eV and Å.
        labels: in eV and Å; NaN where there is none.
        n_atoms: number of atoms of each frame.
        path: of the figure; its suffix gives the format.
    """
    energies, sizes = [_array(p.energy) for p in (predicted, labels)], _array(n_atoms)
    known = energies[1][np.isfinite(energies[1])]
    if np.unique(sizes).size == 1:
        title, offset = "energy − mean", known.mean() if known.size else 0.0
        energies = [energy - offset for energy in energies]
    else:
        title, energies = "energy per atom", [energy / sizes for energy in energies]
    panels = []
    for name, unit, value, label in (
        (title, "eV", *energies),
        ("forces", "eV/Å", _array(predicted.forces), _array(labels.forces)),
        ("stress", "GPa", _array(predicted.stress) / GPA, _array(labels.stress) / GPA),
    ):
        shown = np.isfinite(value) & np.isfinite(label)
        if shown.any():
            panels.append((name, unit, value[shown], label[shown]))
    with mpl.rc_context(STYLE):
        figure, axes = _figure(len(panels))
        for ax, (name, unit, value, label) in zip(axes, panels):
            low, high = min(label.min(), value.min()), max(label.max(), value.max())
            margin = 0.04 * (high - low) or 0.5
            low, high = low - margin, high + margin
            if label.size > MAX_DOTS:
                style: Any = {"gridsize": 70, "bins": "log", "mincnt": 1, "cmap": "viridis"}
                ax.hexbin(label, value, extent=(low, high, low, high), linewidths=0.1, **style)
            else:
                style = {"color": BLUE, "markersize": 2.5, "alpha": 0.5, "markeredgewidth": 0}
                ax.plot(label, value, "o", **style)
            ax.plot([low, high], [low, high], color="black", linewidth=0.7)
            mae = np.abs(value - label).mean()
            error = f"{mae:.3g} {unit}" if unit == "GPa" else f"{1e3 * mae:.3g} m{unit}"
            ax.set(xlim=(low, high), ylim=(low, high), aspect="equal", title=f"{name}: MAE {error}")
            ax.set(xlabel=f"reference ({unit})", ylabel=f"predicted ({unit})")
            ax.locator_params(nbins=5)
        figure.savefig(path)


def dynamics(log: Mapping[str, Float[np.ndarray, "n_rows"]], path: str | Path) -> None:
    """Energies, temperature and, at constant pressure, the volume over time.

    Args:
        log: columns of `md.csv`, see `md.dynamics.read_log`.
        path: of the PNG file.
    """
    time, total_energy = log["time_fs"] / 1000.0, log["total_eV"]
    n_panels = 4 if "volume_A3" in log else 3
    with mpl.rc_context({**STYLE, "lines.linewidth": 0.8}):
        figure = Figure(figsize=(WIDE, LOW * n_panels), layout="constrained")
        energies, total, temperature, *constant_pressure = figure.subplots(n_panels, 1, sharex=True)

        # relative to their means: the absolute energies are far apart
        for name, color in (("kinetic", ORANGE), ("potential", BLUE)):
            energy = log[f"{name}_eV"]
            energies.plot(time, energy - _mean(energy), color=color, label=name)
        energies.set(ylabel="energy − mean (eV)")
        energies.legend(ncols=2, loc="lower right", bbox_to_anchor=(1.0, 0.97), handlelength=1.2)

        total.plot(time, 1e3 * (total_energy - total_energy[:1]), color="black")
        total.set(ylabel="total − start (meV)")
        start = "".join(f"{energy:.4f} eV" for energy in total_energy[:1])
        total.set_title(f"total energy at the start {start}", loc="right")

        mean = _mean(log["temperature_K"])
        temperature.plot(time, log["temperature_K"], color=ORANGE)
        temperature.axhline(mean, color="black", linestyle=(0, (4, 3)))
        temperature.set(ylabel="temperature (K)")
        temperature.set_title(f"mean {mean:.0f} K", loc="right")

        for volume in constant_pressure:
            volume.plot(time, log["volume_A3"], color=GREEN)
            volume.set(ylabel="volume (Å³)")
            volume.set_title(f"mean pressure {_mean(log['pressure_GPa']):.2f} GPa", loc="right")

        for ax in figure.axes:
            ax.margins(x=0.01)
        figure.align_ylabels()
        figure.axes[-1].set_xlabel("time (ps)")
        figure.savefig(path)


def _curve(rows: Sequence[Mapping], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a key, where it is finite and positive (the axis is logarithmic)."""
    known = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    steps, values = np.array(known, dtype=float).reshape(-1, 2).T
    shown = np.isfinite(values) & (values > 0)
    return steps[shown], values[shown]


def _figure(n_panels: int) -> tuple[Figure, list[Axes]]:
    """Square panels side by side, or the text "nothing to show"."""
    figure = Figure(figsize=(PANEL * max(n_panels, 1), PANEL), layout="constrained")
    if n_panels == 0:
        figure.text(0.5, 0.5, "nothing to show", ha="center", va="center")
        return figure, []
    return figure, list(np.atleast_1d(figure.subplots(1, n_panels)))


def _mean(values: Float[np.ndarray, "n"]) -> float:
    """Mean of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else np.nan


def _array(values: Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().numpy()
