"""Figures of learning curves, parity and dynamics, drawn without a display or pyplot.

NaN and missing values are left out. A figure with nothing to show says so. All figures are 160 mm
wide, with text that can still be read at half of that, a column of a journal.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from torch import Tensor

from gradpot.graph.graph import Properties
from gradpot.process import write_bytes

# Okabe and Ito: distinct for colorblind readers and in gray; the light ones are behind a mean
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#8c8c8c"
PALE_BLUE, PALE_ORANGE, PALE_GREEN = "#A3C9E0", "#F2C4A3", "#A3DBC9"
STYLE: Any = {
    "font.size": 12.0,
    "axes.titlesize": 12.0,
    "axes.labelsize": 12.0,
    "figure.titlesize": 12.0,
    "xtick.labelsize": 11.0,
    "ytick.labelsize": 11.0,
    "legend.fontsize": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
}
# inches: the width of a figure, the height of a row of panels, and of a wide and low panel
WIDTH, ROW, LOW = 6.3, 3.1, 1.9
# curves with fewer points have markers
FEW_POINTS = 30
# more points are counted in hexagons, because dots would hide one another
MAX_DOTS = 3000
# digits at which a logarithmic axis has ticks, from coarse to fine
DIGITS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0))
# the running mean of dynamics is over this share of the run
MEAN_OVER = 0.05


def learning_curve(metrics: Sequence[Mapping], path: str | Path, per_atom: bool = False) -> None:
    """Training loss and validation errors against gradient steps, and which step was kept.

    Args:
        metrics: rows of `metrics.jsonl`: "step", "train_loss", "best" and "valid" with the keys of
            `potential.metrics.errors`.
        path: of the PNG file.
        per_atom: whether to show energies per atom, for frames that differ in size.
    """
    valid = [{**(row.get("valid") or {}), "step": row["step"]} for row in metrics]
    energy = "energy_mae_meV_per_atom" if per_atom else "energy_mae_meV"
    panels = (
        ("training loss", GRAY, metrics, "train_loss"),
        (f"energy MAE, meV{'/atom' if per_atom else ''}", BLUE, valid, energy),
        ("forces MAE, meV/Å", ORANGE, valid, "forces_mae_meV_A"),
        ("stress MAE, meV/Å³", GREEN, valid, "stress_mae_meV_A3"),
    )
    curves = [(label, color, *_curve(rows, key)) for label, color, rows, key in panels]
    curves = [curve for curve in curves if curve[2].size]
    kept = [row["step"] for row in metrics if row.get("best")][-1:]
    n_frames = next((row["n_frames"] for row in valid if row.get("n_frames")), None)
    with mpl.rc_context(STYLE):
        figure, axes = _figure(len(curves))
        for ax, (label, color, step, value) in zip(axes, curves):
            ax.semilogy(
                step, value, color, marker="o" if step.size < FEW_POINTS else None, markersize=4
            )
            for best in kept:
                ax.axvline(best, color="black", linewidth=0.8, linestyle=(0, (4, 3)))
            ax.set(xlabel="step", title=label)
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            _label_powers(ax)
        text = f"errors on {n_frames} validation frames" if n_frames else ""
        text += f"{', ' if text else ''}best model at step {kept[0]}" if kept else ""
        figure.suptitle(text)
        _save(figure, path)


def parity(
    predicted: Properties,
    labels: Properties,
    n_atoms: Int[Tensor, "n_frames"] | Int[np.ndarray, "n_frames"],
    path: str | Path,
    title: str = "",
) -> None:
    """Predictions against labels: energy, forces and, if labeled, stress.

    Energies are relative to the mean label, or per atom if the frames differ in size.

    Args:
        predicted: in eV and Å.
        labels: in eV and Å; NaN where there is none.
        n_atoms: number of atoms of each frame.
        path: of the figure; its suffix gives the format.
        title: names the model, the set and the number of frames.
    """
    pairs = [[_array(getattr(p, key)) for p in (predicted, labels)] for key in Properties._fields]
    (energies, forces, stress), sizes = pairs, _array(n_atoms)
    known = energies[1][np.isfinite(energies[1])]
    if np.unique(sizes).size == 1:
        mean = known.mean() if known.size else 0.0
        of_energy = ("energy − mean", "eV", *(energy - mean for energy in energies))
    else:
        of_energy = ("energy", "eV/atom", *(energy / sizes for energy in energies))
    panels = []
    for name, unit, value, label in (
        of_energy,
        ("forces", "eV/Å", *forces),
        ("stress", "meV/Å³", *(1e3 * values for values in stress)),
    ):
        shown = np.isfinite(value) & np.isfinite(label)
        if shown.any():
            panels.append((name, unit, value[shown], label[shown]))
    with mpl.rc_context(STYLE):
        figure, axes = _figure(len(panels))
        for ax, (name, unit, value, label) in zip(axes, panels):
            _points(ax, value, label)
            error = value - label
            milli, factor = (unit, 1.0) if unit.startswith("meV") else (f"m{unit}", 1e3)
            mae, rmse = factor * np.abs(error).mean(), factor * np.sqrt((error**2).mean())
            ax.set_title(f"MAE {mae:.3g} {milli}\nRMSE {rmse:.3g} {milli}")
            ax.set(xlabel=f"reference {name} ({unit})", ylabel=f"predicted ({unit})")
        figure.suptitle(title)
        _save(figure, path)


def dynamics(
    log: Mapping[str, Float[np.ndarray, "n_rows"]],
    path: str | Path,
    target_K: float | None = None,
    target_GPa: float | None = None,
) -> None:
    """Energies, temperature, what is conserved, and at constant pressure the volume over time.

    A thermostat does not conserve the total energy, so the total is drawn without one only. With
    a barostat, `conserved_eV` takes its place.

    Args:
        log: columns of `md.csv`, see `md.dynamics.read_log`.
        path: of the PNG file.
        target_K: temperature of the thermostat; None without one.
        target_GPa: pressure of the barostat; None without one.
    """
    time, temperature = log["time_fs"] / 1000.0, log["temperature_K"]
    conserved = log.get("conserved_eV", log["total_eV"] if target_K is None else None)
    n_panels = 2 + (conserved is not None) + 2 * ("volume_A3" in log)
    with mpl.rc_context({**STYLE, "lines.linewidth": 1.0}):
        figure = Figure(figsize=(WIDTH, LOW * n_panels), layout="constrained")
        energies, *others = figure.subplots(n_panels, 1, sharex=True)
        # relative to their means: the absolute energies are far apart
        for name, color in (("kinetic", ORANGE), ("potential", BLUE)):
            energy = log[f"{name}_eV"]
            energies.plot(time, energy - _mean(energy), color=color, label=name)
        energies.set(ylabel="energy − mean\n(eV)")
        energies.legend(ncols=2, loc="lower right", bbox_to_anchor=(1.0, 0.95), handlelength=1.2)
        rows = [("temperature\n(K)", temperature, (ORANGE, PALE_ORANGE), target_K, "K")]
        if "volume_A3" in log:
            rows.append(("volume\n(Å³)", log["volume_A3"], (GREEN, PALE_GREEN), None, "Å³"))
            pressure = log["pressure_GPa"]
            rows.append(("pressure\n(GPa)", pressure, (BLUE, PALE_BLUE), target_GPa, "GPa"))
        for ax, (label, values, colors, target, unit) in zip(others, rows):
            _with_mean(ax, time, values, colors, target, unit)
            ax.set(ylabel=label)
        if conserved is not None:
            what = "total" if target_K is None else "conserved"
            ax = others[-1]
            ax.plot(time, 1e3 * (conserved - conserved[:1]), color="black")
            ax.set(ylabel=f"{what} − start\n(meV)")
            start = "".join(f"start {energy:.4f} eV" for energy in conserved[:1])
            ax.set_title(start.replace("-", "−"), loc="right")
        for ax in figure.axes:
            ax.margins(x=0.01)
            ax.yaxis.set_major_locator(MaxNLocator(4))
        figure.align_ylabels()
        figure.axes[-1].set_xlabel("time (ps)")
        _save(figure, path)


def _with_mean(
    ax: Axes,
    time: np.ndarray,
    values: np.ndarray,
    colors: tuple[str, str],
    target: float | None,
    unit: str,
) -> None:
    """A fluctuating quantity, pale, behind its running mean, with its target as a dashed line."""
    color, pale = colors
    ax.plot(time, values, color=pale)
    width = max(round(MEAN_OVER * values.size), 1)
    if np.isfinite(values).all() and values.size:
        smooth = np.convolve(values, np.full(width, 1 / width), "valid")
        middle = np.convolve(time, np.full(width, 1 / width), "valid")
        ax.plot(middle, smooth, color=color, linewidth=1.8)
    # at most three significant digits, without a power of ten below a million
    text = f"mean {float(f'{_mean(values):.3g}'):g} {unit}"
    if target is not None:
        ax.axhline(target, color="black", linestyle=(0, (4, 3)))
        text += f", dashed: target {target:g} {unit}"
    if width > 1:
        text += f", bold: mean over {width * (time[1] - time[0]):.2g} ps"
    ax.set_title(text, loc="right")


def _points(ax: Axes, value: np.ndarray, label: np.ndarray) -> None:
    """Dots, or hexagons colored by the number of points in them, and the diagonal."""
    low, high = min(label.min(), value.min()), max(label.max(), value.max())
    margin = 0.04 * (high - low) or 0.5
    low, high = low - margin, high + margin
    if label.size > MAX_DOTS:
        style: Any = {"gridsize": 60, "bins": "log", "mincnt": 1, "cmap": "viridis"}
        drawn = ax.hexbin(label, value, extent=(low, high, low, high), linewidths=0.1, **style)
        ax.figure.colorbar(drawn, ax=ax, fraction=0.05, pad=0.03, label="points")
    else:
        style = {"color": BLUE, "markersize": 3.5, "alpha": 0.5, "markeredgewidth": 0}
        ax.plot(label, value, "o", **style)
    ax.plot([low, high], [low, high], color="black", linewidth=0.8)
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_locator(MaxNLocator(4))


def _label_powers(ax: Axes) -> None:
    """Give a logarithmic axis three to seven labeled ticks, in plain numbers."""
    low, high = ax.get_ylim()
    fits = []
    for digits in DIGITS:
        ticks = np.asarray(LogLocator(subs=digits, numticks=99).tick_values(low, high))
        fits.append(ticks[(low <= ticks) & (ticks <= high)])
    for n in (4, 8):  # over less than a power of ten
        ticks = np.asarray(MaxNLocator(n, steps=[1, 2, 5, 10]).tick_values(low, high))
        fits.append(ticks[(low <= ticks) & (ticks <= high)])
    chosen = next((ticks for ticks in fits if ticks.size >= 3), fits[-1])
    step = -(-chosen.size // 7)  # every second or third power, if there are many
    ax.yaxis.set_major_locator(FixedLocator(chosen[::step].tolist()))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.3g}"))


def _curve(rows: Sequence[Mapping], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a key, where it is finite and positive (the axis is logarithmic)."""
    known = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    steps, values = np.array(known, dtype=float).reshape(-1, 2).T
    shown = np.isfinite(values) & (values > 0)
    return steps[shown], values[shown]


def _figure(n_panels: int) -> tuple[Figure, list[Axes]]:
    """Square panels in rows of two, or the text "nothing to show"."""
    n_rows = max(-(-n_panels // 2), 1)
    figure = Figure(figsize=(WIDTH, ROW * n_rows + 0.3), layout="constrained")
    if n_panels == 0:
        figure.text(0.5, 0.5, "nothing to show", ha="center", va="center")
    axes = [figure.add_subplot(n_rows, 2, i + 1) for i in range(n_panels)]
    return figure, axes


def _save(figure: Figure, path: str | Path) -> None:
    """Write a figure as a whole: a full disk leaves the old one, or none."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix[1:])
    write_bytes(path, buffer.getvalue())


def _mean(values: Float[np.ndarray, "n"]) -> float:
    """Mean of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else np.nan


def _array(values: Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().numpy()
