"""Figures: learning curve, parity, dynamics. PNG files, without a display and without pyplot.

What is NaN or missing is left out; a figure with nothing to show says so.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int, Shaped
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from gradpot.graph.graph import Properties
from gradpot.units import GPA

# Okabe and Ito: told apart by colorblind readers, and in gray
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
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
}
PANEL = 3.1  # inches
# above this, points are counted in hexagons: a million dots hide one another
MAX_POINTS = 3000


def learning_curve(metrics: Sequence[Mapping], path: str | Path) -> None:
    """Training loss and the errors of the validation set against the gradient steps done.

    Args:
        metrics: rows of `metrics.jsonl`: "step", "train_loss" and "valid" with
            "energy_mae_meV" and "forces_mae_meV_A".
        path: of the PNG file.
    """
    panels: list[tuple[str, str, Callable[[Mapping], object]]] = [
        ("training loss", GRAY, lambda row: row.get("train_loss")),
        ("energy MAE (meV)", BLUE, lambda row: _valid(row, "energy_mae_meV")),
        ("forces MAE (meV/Å)", ORANGE, lambda row: _valid(row, "forces_mae_meV_A")),
    ]
    curves = [(label, color, _curve(metrics, value)) for label, color, value in panels]
    curves = [curve for curve in curves if curve[2][0].size]
    with mpl.rc_context(STYLE):
        figure, axes = _figure(len(curves))
        for ax, (label, color, (step, value)) in zip(axes, curves):
            few = step.size < 30
            ax.semilogy(step, value, color=color, marker="o" if few else None, markersize=3)
            ax.set(xlabel="step", title=_with_best(label, step, value))
            ax.locator_params(axis="x", integer=True)
            _plain_log(ax)
        _save(figure, path)


def parity(
    predicted: Properties,
    labels: Properties,
    n_atoms: Int[Tensor, "n_frames"] | Int[np.ndarray, "n_frames"],
    path: str | Path,
) -> None:
    """Predictions against labels: energy per atom, forces and, where labeled, stress.

    Args:
        predicted: in eV and Å.
        labels: in eV and Å; NaN where there is none.
        n_atoms: of each frame.
        path: of the PNG file.
    """
    known = np.isfinite(_array(labels.energy))
    offset = _array(labels.energy)[known].mean() if known.any() else 0.0
    sizes = _array(n_atoms)
    one_size = bool(sizes.min(initial=np.inf) == sizes.max(initial=-np.inf))
    energy = "energy − mean" if one_size else "energy per atom"
    shown = [
        (
            energy,
            "eV",
            *(_relative(p.energy, sizes, offset, one_size) for p in (predicted, labels)),
        ),
        ("forces", "eV/Å", _array(predicted.forces), _array(labels.forces)),
        ("stress", "GPa", _array(predicted.stress) / GPA, _array(labels.stress) / GPA),
    ]
    panels = [(name, unit, *_both(p, label)) for name, unit, p, label in shown]
    panels = [panel for panel in panels if panel[2].size]
    with mpl.rc_context(STYLE):
        figure, axes = _figure(len(panels))
        for ax, panel in zip(axes, panels):
            _parity_panel(ax, *panel)
        _save(figure, path)


def dynamics(log: Mapping[str, Float[np.ndarray, "n_rows"]], path: str | Path) -> None:
    """Energies, temperature and, at constant pressure, the volume over time.

    Args:
        log: columns of `md.csv`, see `md.read_log`.
        path: of the PNG file.
    """
    panels = [_energies, _total, _temperature] + ([_volume] if "volume_A3" in log else [])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.3, 1.6 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True)
        for ax, panel in zip(axes, panels):
            panel(ax, log["time_fs"] / 1000.0, log)
            ax.margins(x=0.01)
        figure.align_ylabels()
        axes[-1].set_xlabel("time (ps)")
        _save(figure, path)


def _energies(ax: Axes, time: np.ndarray, log: Mapping[str, np.ndarray]) -> None:
    """Around their means: the absolute energies are far apart."""
    for name, color in (("kinetic", ORANGE), ("potential", BLUE)):
        energy = log[f"{name}_eV"]
        ax.plot(time, energy - _mean(energy), color=color, label=name, linewidth=0.8)
    ax.set(ylabel="energy − mean (eV)")
    ax.legend(ncols=2, loc="lower right", bbox_to_anchor=(1.0, 0.97), handlelength=1.2)


def _total(ax: Axes, time: np.ndarray, log: Mapping[str, np.ndarray]) -> None:
    energy = log["total_eV"]
    ax.plot(time, 1e3 * (energy - energy[:1]), color="black", linewidth=0.8)
    start = "".join(f"{value:.4f} eV" for value in energy[:1])
    ax.set(ylabel="total − start (meV)")
    ax.set_title(f"total energy at the start {start}", loc="right")


def _temperature(ax: Axes, time: np.ndarray, log: Mapping[str, np.ndarray]) -> None:
    mean = _mean(log["temperature_K"])
    ax.plot(time, log["temperature_K"], color=ORANGE, linewidth=0.8)
    ax.axhline(mean, color="black", linewidth=0.8, linestyle=(0, (4, 3)))
    ax.set(ylabel="temperature (K)")
    ax.set_title(f"mean {mean:.0f} K", loc="right")


def _volume(ax: Axes, time: np.ndarray, log: Mapping[str, np.ndarray]) -> None:
    ax.plot(time, log["volume_A3"], color=GREEN, linewidth=0.8)
    ax.set(ylabel="volume (Å³)")
    ax.set_title(f"mean pressure {_mean(log['pressure_GPa']):.2f} GPa", loc="right")


def _parity_panel(
    ax: Axes,
    name: str,
    unit: str,
    predicted: Float[np.ndarray, "n"],
    label: Float[np.ndarray, "n"],
) -> None:
    low, high = _limits(np.concatenate([predicted, label]))
    if label.size > MAX_POINTS:
        ax.hexbin(
            label,
            predicted,
            gridsize=70,
            bins="log",
            mincnt=1,
            cmap="viridis",
            extent=(low, high, low, high),
            linewidths=0.1,
        )
    else:
        ax.plot(label, predicted, "o", color=BLUE, markersize=2.5, alpha=0.5, markeredgewidth=0)
    ax.plot([low, high], [low, high], color="black", linewidth=0.7)
    mae, milli = np.abs(predicted - label).mean(), f"m{unit}"
    error = f"{mae:.3g} {unit}" if unit == "GPa" else f"{1e3 * mae:.3g} {milli}"
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal", title=f"{name}: MAE {error}")
    ax.set(xlabel=f"reference ({unit})", ylabel=f"predicted ({unit})")
    ax.locator_params(nbins=5)


def _relative(energy: Tensor, sizes: np.ndarray, offset: float, one_size: bool) -> np.ndarray:
    return _array(energy) - offset if one_size else _array(energy) / sizes


def _both(
    predicted: Shaped[np.ndarray, "..."], label: Shaped[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """What is predicted and labeled both."""
    known = np.isfinite(predicted) & np.isfinite(label)
    return predicted[known], label[known]


def _curve(metrics: Sequence[Mapping], value: Callable[[Mapping], object]) -> tuple:
    """Steps and values where there is a positive, finite value."""
    rows = [(row["step"], number) for row in metrics if (number := value(row)) is not None]
    steps, values = np.array(rows, dtype=float).reshape(-1, 2).T
    good = np.isfinite(values) & (values > 0)
    return steps[good], values[good]


def _valid(row: Mapping, key: str) -> object:
    return (row.get("valid") or {}).get(key)


def _with_best(label: str, step: np.ndarray, value: np.ndarray) -> str:
    best = int(np.argmin(value))
    return f"{label}\nlowest {value[best]:.3g} at step {step[best]:.0f}"


def _plain_log(ax: Axes) -> None:
    """Numbers as people write them, and some between the powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _figure(n_panels: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(PANEL * max(n_panels, 1), PANEL), layout="constrained")
    if n_panels == 0:
        figure.text(0.5, 0.5, "nothing to show", ha="center", va="center")
        return figure, []
    return figure, list(np.atleast_1d(figure.subplots(1, n_panels)))


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else np.nan


def _array(values: Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def _save(figure: Figure, path: str | Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=160)
