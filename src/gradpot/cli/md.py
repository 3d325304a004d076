"""`gradpot md`: molecular dynamics with a trained potential."""

import shlex
from dataclasses import fields
from functools import partial
from pathlib import Path
from timeit import repeat
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradpot.cli import POTENTIALS, SIGNALED, Json, Own, app, print_json, say
from gradpot.cli.reading import Device, ModelFile, Precision, Reading, check_model, options
from gradpot.errors import InputError, RunError, unknown
from gradpot.locks import claimed, created
from gradpot.md.settings import Settings

if TYPE_CHECKING:
    from ase import Atoms

    from gradpot.md.calculator import Calculator

COMPILE = ("auto", "true", "false")
# compiling takes about a minute, and then saves three quarters of a run or more
COMPILE_FROM_S = 120.0
# a relaxed start ends at half its temperature, by equipartition; small molecules fluctuate
COLD_BELOW, HOT_ABOVE = 0.7, 1.3
COLD = (
    ", because half of the kinetic energy of a relaxed start becomes potential energy; start "
    "from a frame of a langevin run with --keep-velocities, or at twice the temperature"
)
HOT = (
    ", because the potential energy of a start that is not relaxed becomes kinetic energy; relax "
    "the structure first, or use --ensemble langevin"
)
# relaxation times of a thermostat until the start hardly counts in the mean, and the deviation,
# relative to the target, that is not worth a word
RELAXED_AFTER, NEAR = 20, 0.1


@app.command("md", rich_help_panel=POTENTIALS)
@options(Settings)
@options(Reading, "length_unit")
def md_command(
    model: ModelFile,
    structure: Annotated[
        str, typer.Argument(help="A file that ASE reads, an npz, or a molecule: CH3CH2OH")
    ],
    *,
    settings: Settings,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: md-1, md-2 ...")] = None,
    index: Annotated[str, typer.Option(help="Structure of the file; -1 is the last")] = "-1",
    reading: Reading,
    dtype: Precision = None,
    device: Device = "cpu",
    own: Own = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch; default: 1 below 100 atoms")
    ] = None,
    compile: Annotated[str, typer.Option(help="true, false, or auto: if it saves time")] = "auto",
    as_json: Json = False,
) -> int:
    """Run molecular dynamics with a potential.

    Write a trajectory, a log, a summary and a plot. If the dynamics blow up,
    the run stops and keeps what it has written.

    Example: gradpot md RUN/model.safetensors CH3CH2OH --time-ps 5
    """
    if compile not in COMPILE:
        raise unknown("--compile", compile, COMPILE)
    check_model(model, structure)
    if own:
        from gradpot.models.own import add_own

        add_own(own)
    atoms = read_structure(structure, index, reading.length_unit)
    if settings.keep_velocities and not atoms.has("momenta"):
        raise InputError(f"--keep-velocities: {structure} has no momenta; leave the option out")

    from gradpot.cli.progress import MDProgress
    from gradpot.md import dynamics as md
    from gradpot.potential.device import device as find_device
    from gradpot.process import signals
    from gradpot.report.figures import dynamics

    hardware = {"dtype": dtype, "device": find_device(device), "threads": threads}
    with created(out) if out else claimed(Path("md")) as folder:
        md.check_folder(folder)  # now, not after the minutes of compiling
        atoms.calc = _calculator(model, hardware, compile, atoms, settings.n_steps)
        with signals() as stop, MDProgress(settings) as progress:
            summary = md.run(atoms, settings, folder, progress.watch, stop)
            signal = stop()
        thermostat = settings.ensemble != "nve"
        dynamics(
            md.read_log(folder / md.LOG),
            folder / "md.png",
            target_K=settings.temperature_K if thermostat else None,
            target_GPa=settings.pressure_GPa,
        )
    if as_json:
        print_json(summary)
    else:
        print(_in_words(summary, settings))
        if summary["interrupted"] and not summary["blow_up"] and not summary["finished"]:
            given = {"dtype": dtype, "model": own, "threads": threads}
            given |= {"device": device, "compile": compile}
            chosen = {k: v for k, v in given.items() if v not in (None, "cpu", "auto")}
            print(f"to go on: {_command_to_go_on(model, summary, settings, chosen)}")
    if why := summary["blow_up"]:
        raise RunError(f"the dynamics blew up: {why}. Output is in {folder}")
    return SIGNALED + signal if signal else 0


def read_structure(name: str, index: str, length_unit: str | None) -> "Atoms":
    """One structure of a file or, if there is no such file, a molecule that ASE knows.

    Raises:
        InputError: neither exists, or the index does not select exactly one structure.
    """
    if Path(name).exists():
        from gradpot.data.files import read_structures

        frames = read_structures(name, length_unit, index)
        if len(frames) > 1:
            raise InputError(f"--index {index} selects {len(frames)} frames of {name}; select one")
        return frames[0]
    from ase.build import molecule

    try:
        return molecule(name)
    except (KeyError, NotImplementedError) as error:
        raise InputError(
            f"there is no file {name!r}, and ASE knows no molecule of that name; "
            "give a structure file, or a name such as CH3CH2OH or H2O"
        ) from error


def _calculator(
    model: Path, hardware: dict[str, Any], compile: str, atoms: "Atoms", n_steps: int
) -> "Calculator":
    """The potential, compiled first if that is asked for or saves time."""
    from gradpot.compile.step import has_compiler
    from gradpot.md.calculator import Calculator
    from gradpot.potential.potential import NOT_CONSERVATIVE

    load = partial(Calculator, model, **hardware)
    calculator = load(compile=False if compile == "false" else "auto")
    if calculator.potential.direct:
        say("warning: " + NOT_CONSERVATIVE)
    if calculator.compiled or compile == "false":
        return calculator
    potential = calculator.potential
    if compile == "auto":
        on_cpu = potential.device.type == "cpu"
        if potential.model.slow_to_compile or not on_cpu or not has_compiler():
            return calculator
        # the fastest of three: the first call is slow
        seconds = min(repeat(lambda: calculator.calculate(atoms), number=1, repeat=3))
        if seconds * n_steps <= COMPILE_FROM_S:
            return calculator
    if potential.device.type != "cpu":
        raise InputError(f"--compile true is for the CPU; leave out --device {hardware['device']}")
    # atoms that would stop the run must do so before the minutes of compiling
    calculator.calculate(atoms)
    say("compiling the potential takes a minute or two, unless it was compiled before")
    try:
        return load(compile=True)
    except RunError as error:
        if compile == "true":
            raise
        say(f"warning: {error}; going on without")
        return calculator


def _in_words(summary: dict, settings: Settings) -> str:
    lines = [
        f"{summary['formula']}, {settings.ensemble}: {summary['time_fs'] / 1000:g} ps in "
        f"{summary['n_steps']} steps, {summary['ns_per_day']:.3g} ns/day, "
        f"{'' if summary['compiled'] else 'not '}compiled"
    ]
    # means and slopes of an explosion say nothing, and not every run has all of them
    means = {} if summary["blow_up"] else summary
    if (mean := means.get("mean_temperature_K")) is not None:
        lines.append(f"mean temperature: {mean:.0f} K{_why(mean, summary, settings)}")
    if (volume := means.get("mean_volume_A3")) is not None:
        lines.append(f"mean volume: {volume:.1f} Å³")
    if (pressure := means.get("mean_pressure_GPa")) is not None:
        lines.append(f"mean pressure: {pressure:.3g} GPa")
    if (drift := means.get("drift_meV_atom_ps")) is not None:
        lines.append(f"drift of the total energy: {drift:.3g} meV/atom/ps")
    if summary["interrupted"]:
        lines.append("interrupted; the files hold everything up to the last step")
    lines.append(f"Everything is in {summary['folder']}: md.extxyz, md.csv, md.json, md.png")
    return "\n".join(lines)


def _why(mean_K: float, summary: dict, settings: Settings) -> str:
    """Why the mean temperature is far from the one that was asked for, if that is known."""
    target = settings.temperature_K
    if settings.ensemble == "nve":
        if settings.keep_velocities:
            return ""
        return COLD if mean_K < COLD_BELOW * target else HOT if mean_K > HOT_ABOVE * target else ""
    n_times = summary["time_fs"] / 1000.0 / settings.relaxation_ps
    if n_times >= RELAXED_AFTER or abs(mean_K - target) <= NEAR * target:
        return ""
    return (
        f", not {target:g} K, because the run is too short: {n_times:.2g} times the thermostat's "
        f"relaxation time of {settings.relaxation_ps:.3g} ps; take at least {RELAXED_AFTER} times"
    )


def _command_to_go_on(
    model: Path, summary: dict, settings: Settings, others: dict[str, Any]
) -> str:
    """The command for the rest of the time, from the last frame, with the options of this run."""
    words = ["gradpot", "md", str(model), f"{summary['folder']}/md.extxyz", "--keep-velocities"]
    left_ps = (settings.n_steps - summary["n_steps"]) * settings.timestep_fs / 1000.0
    again = {f.name: getattr(settings, f.name) for f in fields(Settings)}
    again = {f.name: again[f.name] for f in fields(Settings) if again[f.name] != f.default}
    for name, value in (again | {"time_ps": f"{left_ps:.10g}"} | others).items():
        if name != "keep_velocities":
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
