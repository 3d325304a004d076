"""`gradpot md`: molecular dynamics with a trained potential."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gradpot.cli import POTENTIALS, Json, LengthUnit, app, say
from gradpot.errors import InputError, RunError, unknown

if TYPE_CHECKING:
    from ase import Atoms

    from gradpot.md.calculator import Calculator
    from gradpot.md.run import Settings

# a terminal redraws; a log file gets a line now and then
REDRAW_S, LINE_S = 0.25, 15.0
COMPILE = ("auto", "true", "false")
# compiling takes about a minute, and then saves three quarters of a run and more
COMPILE_FROM_S = 120.0
COLD = (
    ", because from a relaxed start half of the kinetic energy goes into the potential; "
    "begin with a frame of a langevin run and --keep-velocities, or at twice the temperature"
)


@app.command("md", rich_help_panel=POTENTIALS)
def md_command(
    model: Annotated[Path, typer.Argument(help="model.safetensors of a run")],
    structure: Annotated[
        str, typer.Argument(help="file (any that ASE reads, or npz), or a molecule: CH3CH2OH")
    ],
    temperature_K: Annotated[
        float, typer.Option("--temperature-K", help="of the start, and of the thermostat")
    ] = 300.0,
    time_ps: Annotated[float, typer.Option("--time-ps")] = 1.0,
    timestep_fs: Annotated[float, typer.Option("--timestep-fs")] = 0.5,
    ensemble: Annotated[str, typer.Option(help="nve, langevin or npt")] = "nve",
    pressure_GPa: Annotated[float, typer.Option("--pressure-GPa", help="for npt")] = 0.0,
    friction_per_ps: Annotated[float, typer.Option(help="for langevin")] = 10.0,
    seed: Annotated[int, typer.Option(help="of velocities and thermostat")] = 0,
    out: Annotated[Path | None, typer.Option(help="folder; default: md-1, md-2 ...")] = None,
    index: Annotated[str, typer.Option(help="which frame of the file; default the last")] = "-1",
    length_unit: LengthUnit = None,
    keep_velocities: Annotated[
        bool, typer.Option("--keep-velocities", help="begin with the momenta of the file")
    ] = False,
    save_every_fs: Annotated[float, typer.Option(help="between frames of the trajectory")] = 10.0,
    log_every_fs: Annotated[float, typer.Option(help="between rows of the log")] = 5.0,
    max_temperature_K: Annotated[
        float | None,
        typer.Option("--max-temperature-K", help="stop above; default max(10 T, T + 3000)"),
    ] = None,
    max_stretch: Annotated[
        float, typer.Option(help="stop when a bond is so many times its first length; inf: never")
    ] = 2.0,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or float64; default: as trained")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda ...")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="of torch; default 1 below 100 atoms")
    ] = None,
    compile: Annotated[
        str, typer.Option(help="true, false, or auto: where it is done already or saves time")
    ] = "auto",
    as_json: Json = False,
) -> int:
    """Run molecular dynamics with a potential.

    Writes a trajectory, a log, a summary and a plot. The dynamics stop when
    they blow up, and what was written stays.
    """
    from gradpot.md import run as md
    from gradpot.process import signals

    settings = md.Settings(
        temperature_K=temperature_K,
        time_ps=time_ps,
        timestep_fs=timestep_fs,
        ensemble=ensemble,
        pressure_GPa=pressure_GPa,
        friction_per_ps=friction_per_ps,
        seed=seed,
        log_every_fs=log_every_fs,
        save_every_fs=save_every_fs,
        keep_velocities=keep_velocities,
        max_temperature_K=max_temperature_K,
        max_stretch=max_stretch,
    )
    if compile not in COMPILE:
        raise unknown("--compile", compile, COMPILE)
    atoms = read_structure(structure, index, length_unit)
    _check_momenta(atoms, structure, keep_velocities)
    folder = out or md.next_free()
    atoms.calc = _calculator(model, dtype, device, threads, compile != "false" and "auto")
    _warn_of_direct_forces(atoms)
    if compile == "true" or (compile == "auto" and _worth_compiling(atoms, settings.n_steps)):
        atoms.calc = _compiled(model, dtype, device, threads, atoms, folder)
    with signals() as stop, MDProgress(settings) as progress:
        summary = md.run(atoms, settings, folder, progress.watch, stop)
        number = stop()
    _plot(folder)
    print(json.dumps(summary) if as_json else _in_words(summary))
    if why := summary["blow_up"]:
        raise RunError(f"the dynamics blew up: {why}. What was written is in {folder}")
    return 128 + number if number else 0


def read_structure(name: str, index: str, length_unit: str | None) -> "Atoms":
    """One frame of a file or, where there is no such file, a molecule that ASE knows.

    Raises:
        InputError: neither, or the index names no frame or more than one.
    """
    if Path(name).exists():
        from gradpot.data.files import read_structures

        frames = read_structures(name, length_unit, index)
        if len(frames) > 1:
            raise InputError(f"--index {index} names {len(frames)} frames of {name}; give one")
        return frames[0]
    from ase.build import molecule

    try:
        return molecule(name)
    except (KeyError, NotImplementedError):
        raise InputError(
            f"there is no file {name!r}, and ASE knows no molecule of that name; "
            "give a structure file, or a name such as CH3CH2OH or H2O"
        ) from None


def _check_momenta(atoms: "Atoms", structure: str, keep_velocities: bool) -> None:
    if keep_velocities and not atoms.has("momenta"):
        raise InputError(f"--keep-velocities: {structure} has no momenta; leave the option out")


def _calculator(
    model: Path,
    dtype: str | None,
    device: str,
    threads: int | None,
    compile: Literal["auto"] | bool,
) -> "Calculator":
    from gradpot.compile.package import read_dtype
    from gradpot.md.calculator import Calculator

    options = {"dtype": read_dtype(dtype), "threads": threads, "compile": compile}
    try:
        return Calculator(model, device=device, **options)
    except RunError:
        raise
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device} cannot be used: {error}") from None


def _warn_of_direct_forces(atoms: "Atoms") -> None:
    from gradpot.potential.potential import NOT_CONSERVATIVE

    calculator: Calculator = atoms.calc  # type: ignore[assignment]
    if calculator.potential.direct:
        say("warning: " + NOT_CONSERVATIVE)


def _worth_compiling(atoms: "Atoms", n_steps: int) -> bool:
    """Whether the run as it is would take clearly longer than compiling."""
    from gradpot.compile.step import has_compiler

    calculator: Calculator = atoms.calc  # type: ignore[assignment]
    if calculator.compiled or calculator.potential.device.type != "cpu" or not has_compiler():
        return False
    if getattr(calculator.potential.model, "slow_to_compile", False):
        return False
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        calculator.calculate(atoms)
        seconds.append(time.perf_counter() - began)
    return min(seconds) * n_steps > COMPILE_FROM_S


def _compiled(
    model: Path,
    dtype: str | None,
    device: str,
    threads: int | None,
    atoms: "Atoms",
    folder: Path,
) -> "Calculator":
    """The calculator with machine code; what could stop the run is looked at before."""
    from gradpot.md import run as md

    calculator: Calculator = atoms.calc  # type: ignore[assignment]
    if calculator.compiled:
        return calculator
    if calculator.potential.device.type != "cpu":
        raise InputError(f"--compile true is for the CPU; leave it out with --device {device}")
    calculator.calculate(atoms)
    if folder.exists():
        md.claim(folder)
    say("compiling the potential: a minute or two, if that was not done before")
    return _calculator(model, dtype, device, threads, True)


def _plot(folder: Path) -> None:
    from gradpot.md import run as md
    from gradpot.report import figures

    figures.dynamics(md.read_log(folder / md.LOG), folder / "md.png")


def _in_words(summary: dict) -> str:
    speed, temperature = summary["ns_per_day"], summary["mean_temperature_K"]
    wanted = summary["settings"]["temperature_K"]
    lines = [
        f"{summary['formula']}, {summary['settings']['ensemble']}: "
        f"{summary['time_fs'] / 1000:g} ps in {summary['n_steps']} steps, {speed:.3g} ns/day, "
        f"{'' if summary['compiled'] else 'not '}compiled"
    ]
    if temperature is not None:
        set_up = summary["settings"]
        relaxed = set_up["ensemble"] == "nve" and not set_up["keep_velocities"]
        cold = relaxed and temperature < 0.7 * wanted
        lines.append(f"mean temperature: {temperature:.0f} K" + (COLD if cold else ""))
    if summary["drift_meV_atom_ps"] is not None:
        lines.append(f"drift of the total energy: {summary['drift_meV_atom_ps']:.3g} meV/atom/ps")
    if summary["interrupted"]:
        lines.append("interrupted; what was written is kept")
    lines.append(f"Everything is in {summary['folder']}: md.extxyz, md.csv, md.json, md.png")
    return "\n".join(lines)


class MDProgress:
    """A bar on standard error, with temperature, energy and speed; lines where no terminal."""

    def __init__(self, settings: "Settings") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.settings = settings
        self.console = Console(stderr=True)
        self.terminal = self.console.is_terminal
        self.bar = Progress(
            TextColumn("dynamics"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}"),
            console=self.console,
            auto_refresh=False,
            disable=not self.terminal,
        )
        self.task = self.bar.add_task("", total=settings.n_steps)
        self.began = self.drawn = time.monotonic()

    def __enter__(self) -> "MDProgress":
        self.bar.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.bar.stop()

    def watch(self, step: int, row: dict[str, float]) -> None:
        """Take note of a step; draw now and then."""
        now, last = time.monotonic(), step == self.settings.n_steps
        if now - self.drawn < (REDRAW_S if self.terminal else LINE_S) and not last:
            return
        self.drawn = now
        line = self._line(step, row, now - self.began)
        if self.terminal:
            self.bar.update(self.task, completed=step, description=line, refresh=True)
        else:
            say(line)
            sys.stderr.flush()

    def _line(self, step: int, row: dict[str, float], seconds: float) -> str:
        speed = row["time_fs"] * 1e-6 * 86400.0 / max(seconds, 1e-9)
        left = seconds * (self.settings.n_steps - step) / max(step, 1)
        minutes, rest = divmod(round(left), 60)
        return (
            f"{row['time_fs'] / 1000:.3f} of {self.settings.time_ps:g} ps  "
            f"{row['temperature_K']:.0f} K  {row['total_eV']:.4f} eV  "
            f"{speed:.3g} ns/day  {minutes}:{rest:02d} left"
        )
