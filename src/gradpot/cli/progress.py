"""Live progress of training and of dynamics, and the table of errors."""

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table

from gradpot.cli.streams import say
from gradpot.md.settings import Settings, ns_per_day

if TYPE_CHECKING:
    from gradpot.train.state import State

# a terminal is redrawn often enough to look live; a log file gets a line now and then
REDRAW_S, LINE_S = 0.2, 15.0
# characters: the shortest bar that still shows progress, and the share, the time left and the
# gaps beside it
BAR, BESIDE = 12, 24

ROWS = {
    "energy_mae_meV": ("energy MAE", "meV"),
    "energy_mae_meV_per_atom": ("energy MAE per atom", "meV"),
    "forces_mae_meV_A": ("forces MAE", "meV/Å"),
    "forces_rmse_meV_A": ("forces RMSE", "meV/Å"),
    "efwt": ("within thresholds (EFwT)", ""),
    "stress_mae_meV_A3": ("stress MAE", "meV/Å³"),
    "n_frames": ("frames", ""),
}


class LiveProgress(Progress):
    """A bar on standard error with the time left; plain lines if that is not a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        super().__init__(
            # takes the place that the text leaves
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=BAR)),
            TextColumn("{task.percentage:>5.1f}%"),
            TextColumn("{task.fields[left]} left"),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            console=console,
            expand=True,
            refresh_per_second=1 / REDRAW_S,
            disable=not console.is_terminal,
        )
        self.task = self.add_task("", total=1.0, left="?")
        self.began = self.drawn = time.monotonic()

    def say(self, line: str) -> None:
        """Print a notice above the bar."""
        if self.console.is_terminal:
            self.console.print(line, highlight=False, markup=False)
        else:
            say(line)

    def show(self, done: float, elapsed_s: float, texts: list[str]) -> None:
        """Draw the share that is done, the time left at this pace, and the texts for which is room.

        Not more often than a reader can use, but always at the end, when `done` is 1.
        """
        interval = REDRAW_S if self.console.is_terminal else LINE_S
        if done < 1 and time.monotonic() - self.drawn < interval:
            return
        self.drawn = time.monotonic()
        left = "?"
        if done:
            left = str(timedelta(seconds=round(elapsed_s * (1 - done) / done))).removeprefix("0:")
        if self.console.is_terminal:
            room = self.console.width - BAR - BESIDE
            fits = [n for n in range(len(texts) + 1) if len("  ".join(texts[:n])) <= room]
            text = "  ".join(texts[: max(fits, default=0)])
            self.update(self.task, completed=done, left=left, description=text)
        else:
            self.say(f"{done:6.1%}  {left} left  {'  '.join(texts)}")


class TrainingProgress(LiveProgress):
    """Progress of a training run, with the newest validation errors."""

    def __init__(self, stress: bool = False) -> None:
        super().__init__()
        self.stress = stress
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.over = False

    def say(self, line: str) -> None:
        """Print a notice above the bar; keep a warning for `repeat_warnings`."""
        if line.startswith("warning: ") and not self.over:
            self.warnings.append(line)
        super().say(line)

    def repeat_warnings(self) -> None:
        """Print the warnings from before the last step again: they have scrolled away."""
        for line in ["warnings of this run:", *self.warnings] if self.warnings else ():
            say(line)

    def watch(self, state: "State", done: float, row: dict | None) -> None:
        """Take note of a step, and of the row of `metrics.jsonl` if it was a validation."""
        if row:
            valid = row["valid"]
            energy, forces = valid["energy_mae_meV"], valid["forces_mae_meV_A"]
            parts = [f"forces {_number(forces)} meV/Å"] if forces is not None else []
            parts += [f"energy {_number(energy)} meV"] if energy is not None else []
            self.errors = [f"valid: {', '.join(parts)}"]
            stress = valid.get("stress_mae_meV_A3") if self.stress else None
            self.errors += [f"stress {_number(stress)} meV/Å³"] if stress is not None else []
            self.errors.append(f"(step {row['step']})")
        self.over = done == 1
        # compiling is not part of the share, so it says nothing of the time left
        seconds = state.wall_s - state.compile_wall_s
        self.show(done, seconds, [*self.errors, f"now epoch {state.epoch}, step {state.step}"])


class MDProgress(LiveProgress):
    """Progress of a dynamics run, with temperature, total energy and speed."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings

    def watch(self, step: int, row: dict[str, float]) -> None:
        """Take note of a step and its row of the log."""
        seconds = time.monotonic() - self.began
        speed = ns_per_day(row["time_fs"], max(seconds, 1e-9))
        # whole steps, which may be a little more or less than what was asked for
        whole_ps = self.settings.n_steps * self.settings.timestep_fs / 1000
        texts = [
            f"{row['time_fs'] / 1000:.4g} of {whole_ps:.6g} ps",
            f"{_number(row['temperature_K'])} K",
            f"{speed:.3g} ns/day",
            f"{row['total_eV']:.4f} eV",
        ]
        self.show(step / self.settings.n_steps, seconds, texts)


def print_errors(results: dict) -> None:
    """Print the errors of a run ("valid" and "test") or of an evaluation ("test") as a table."""
    names = [n for n in ("valid", "test") if n in results and results[n].get("n_frames", 1)]
    columns = [results[name] for name in names]
    numbers = [Column(name, justify="right") for name in names]
    table = Table("", *numbers, "unit", title="Errors", title_justify="left")
    for key, (label, unit) in ROWS.items():
        values = [column.get(key) for column in columns]
        if key == "efwt":
            values = [value if value is None else 100 * value for value in values]
            energy = 1e3 * columns[0].get("efwt_energy_eV", 0.0)
            forces = 1e3 * columns[0].get("efwt_forces_eV_A", 0.0)
            unit = f"%, ΔE ≤ {energy:g} meV, ΔF ≤ {forces:g} meV/Å"
        if any(value is not None for value in values):
            table.add_row(label, *map(_number, values), unit)
    Console().print(table)


def _number(value: float | int | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) or 99.95 <= value < 1e6:
        return f"{value:.0f}"
    return f"{value:#.3g}"  # with zeros at the end: three digits always
