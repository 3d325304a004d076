"""Draw the figure of the README: force error against CPU minutes of training.

    python benchmarks/readme_figure.py

One line per package, for its best network. The figure uses only results/accuracy.jsonl, the newest
row of each command and budget, and is written twice, for light and dark pages.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from accuracy import read
from matplotlib.axes import Axes

ROWS = Path(__file__).parent / "results" / "accuracy.jsonl"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
# the best network of each package, its label and its marker
LINES = {
    "tensornet": ("TorchMD-NET, TensorNet", "v"),
    "nequip": ("NequIP", "^"),
    "mace": ("MACE", "D"),
    "schnetpack-painn": ("SchNetPack, PaiNN", "s"),
    "gradpot-painn-published": ("gradpot, PaiNN", "o"),
}
OURS = "gradpot-painn-published"
MOLECULES = ("ethanol", "aspirin")
MINUTES = (2.5, 5, 10, 20)
ERRORS = {"ethanol": (5, 10, 20, 40), "aspirin": (12.5, 25, 50, 100, 200)}
# colors of page, text, gradpot and the others, for GitHub's two themes
COLORS = {
    "light": ("#ffffff", "#1f2328", "#d9480f", "#6e7781"),
    "dark": ("#0d1117", "#e6edf3", "#ff922b", "#9198a1"),
}
# smallest distance between two labels, as a fraction of the panel height
APART = 0.062


def errors(molecule: str) -> dict[str, list[float]]:
    """Force MAE in meV/Å of each line of `LINES`, after each of `MINUTES`."""
    newest = {
        (row["name"], row["budget_cpu_min"], row["command"]): row["errors"]["forces_mae_meV_A"]
        for row in read(ROWS)
        if row["molecule"] == molecule and row.get("errors")
    }
    found = {(name, minutes): error for (name, minutes, _), error in newest.items()}
    return {name: [found[name, minutes] for minutes in MINUTES] for name in LINES}


def spread(heights: list[float], least: float) -> list[float]:
    """Move numbers apart, as little as possible, to gaps of at least `least`; keep their order."""
    order = np.argsort(heights)
    moved = np.array(heights)[order]
    for _ in range(200):
        gaps = np.diff(moved)
        short = np.maximum(least - gaps, 0.0) / 2
        moved[:-1] -= short
        moved[1:] += short
    placed = np.empty_like(moved)
    placed[order] = moved
    return placed.tolist()


def panel(axes: Axes, molecule: str, colors: tuple[str, str, str, str]) -> None:
    """Draw the lines of one molecule, with labels at their ends."""
    page, text, ours, others = colors
    lines = errors(molecule)
    ticks = ERRORS[molecule]
    axes.set(xscale="log", yscale="log", xlim=(2.3, 22))
    top = max(map(max, lines.values()))
    bottom = min(map(min, lines.values()))
    axes.set_ylim(bottom / 1.15, top * 1.1)
    low, high = np.log(axes.get_ylim())
    ends = [(np.log(line[-1]) - low) / (high - low) for line in lines.values()]
    for (name, line), height in zip(lines.items(), spread(ends, APART)):
        label, marker = LINES[name]
        color, weight, width = (ours, "bold", 2.6) if name == OURS else (others, "normal", 1.4)
        axes.plot(MINUTES, line, color=color, marker=marker, markersize=5, lw=width)
        axes.text(
            1.02, height, label, transform=axes.transAxes, color=color, weight=weight, va="center"
        )
    axes.set_xticks(MINUTES, [f"{minutes:g}" for minutes in MINUTES])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="y", color=others, alpha=0.25, lw=0.8)
    axes.tick_params(colors=text, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_facecolor(page)
    axes.set_title(f"rMD17 {molecule}: force error, meV/Å", color=text, loc="left", fontsize=11)
    axes.set_xlabel("CPU minutes of training, one core", color=text)


def main() -> None:
    """Write both images."""
    IMAGES.mkdir(exist_ok=True)
    for scheme, colors in COLORS.items():
        figure, panels = plt.subplots(1, 2, figsize=(10.5, 3.8), layout="constrained")
        figure.set_facecolor(colors[0])
        figure.get_layout_engine().set(wspace=0.06)
        for axes, molecule in zip(panels, MOLECULES):
            panel(axes, molecule, colors)
        figure.savefig(IMAGES / f"accuracy-{scheme}.png", dpi=160)
        plt.close(figure)


if __name__ == "__main__":
    main()
