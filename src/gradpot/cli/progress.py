"""Live progress of a training run, and the table of its errors."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gradpot.train.state import State

# a terminal redraws; a log file gets a line now and then
REDRAW_S, LINE_S = 0.2, 15.0

ROWS = {
    "energy_mae_meV": ("energy MAE", "meV"),
    "energy_mae_meV_per_atom": ("energy MAE per atom", "meV"),
    "forces_mae_meV_A": ("forces MAE", "meV/Å"),
    "forces_rmse_meV_A": ("forces RMSE", "meV/Å"),
    "efwt": ("energy and forces within threshold", ""),
    "stress_mae_meV_A3": ("stress MAE", "meV/Å³"),
    "n_frames": ("frames", ""),
}


class TrainingProgress:
    """A bar on standard error with the newest errors and the time left; lines where no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>5.1f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left"),
            TextColumn("{task.fields[errors]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=1.0, left="?", errors="")
        self.drawn = time.monotonic()
        self.errors = ""

    def __enter__(self) -> "TrainingProgress":
        self.bar.start()
        return self

    def __exit__(self, *_exception) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        """Print a notice above the bar."""
        if self.console.is_terminal:
            self.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr)

    def watch(self, state: State, done: float, row: dict | None) -> None:
        """Take note of a step; draw now and then."""
        if row:
            self.errors = _short(row)
        now = time.monotonic()
        if now - self.drawn < (REDRAW_S if self.console.is_terminal else LINE_S) and done < 1:
            return
        self.drawn = now
        left = _duration(state.wall_s * (1 - done) / done) if done else "?"
        if self.console.is_terminal:
            fields = {"left": left, "errors": self.errors}
            self.bar.update(self.task, completed=done, **fields)  # type: ignore[arg-type]
        else:
            self.say(f"{done:6.1%}  step {state.step}  {left} left  {self.errors}")


def table(results: dict) -> None:
    """Print the errors of a run or an evaluation."""
    grid = Table(title="Errors", title_justify="left")
    grid.add_column("")
    columns = [name for name in ("valid", "test") if name in results]
    for name in columns:
        grid.add_column(name, justify="right")
    grid.add_column("unit")
    for key, (label, unit) in ROWS.items():
        values = [results[name].get(key) for name in columns]
        if key == "efwt":
            values = [value if value is None else 100 * value for value in values]
            unit = _thresholds(results[columns[0]])
        if any(value is not None for value in values):
            grid.add_row(label, *[_figure(value) for value in values], unit)
    Console().print(grid)


def _thresholds(errors: dict) -> str:
    """Of EFwT, as its unit."""
    energy, forces = (errors.get(f"efwt_{key}", 0.0) for key in ("energy_eV", "forces_eV_A"))
    return f"% (ΔE ≤ {1e3 * energy:g} meV, each ΔF ≤ {1e3 * forces:g} meV/Å)"


def _figure(value: float | int | None) -> str:
    if value is None:
        return "–"
    return (
        str(value) if isinstance(value, int) else f"{value:.3g}" if value < 100 else f"{value:.0f}"
    )


def _short(row: dict) -> str:
    valid = row["valid"]
    parts = [
        f"{name} {_figure(valid[key])} {unit}"
        for name, key, unit in (
            ("energy", "energy_mae_meV", "meV"),
            ("forces", "forces_mae_meV_A", "meV/Å"),
        )
        if valid[key] is not None
    ]
    return f"epoch {row['epoch']}  valid: " + ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
