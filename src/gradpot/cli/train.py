"""`gradpot train` and `gradpot eval`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradpot.cli import POTENTIALS, SIGNALED, TOO_SOON, Json, Own, app, print_json, say
from gradpot.cli.reading import DataFile, Device, ModelFile, Reading, check_model, options
from gradpot.data.catalog.catalog import entries, locate
from gradpot.errors import InputError, did_you_mean, shown
from gradpot.locks import claimed, created

if TYPE_CHECKING:
    from gradpot.train.config import Config

DEMO = (
    "no --data is given: training on ethanol, the demo set; Ctrl-C stops the run and saves it, and "
    "--resume continues it"
)


@app.command(rich_help_panel=POTENTIALS)
@options(Reading)
def train(
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="SETTINGS", help="A TOML file, then KEY=VALUE: train.epochs=100"),
    ] = None,
    *,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Data file, or a name from `gradpot data list`; may be repeated"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model: painn, schnet, gemnet-dt ..., or your own: FILE.py:CLASS"),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="Activation: silu, irelu, ssp, tanh ...")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu (default), cuda, mps or auto")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/MODEL-DATA-N")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out")] = False,
    reading: Reading,
    as_json: Json = False,
) -> int:
    """Train a potential on energies and forces.

    Without options, train PaiNN on the ethanol set that comes with the package.
    Options override KEY=VALUE, and KEY=VALUE overrides the TOML file.
    docs/training.md lists all keys; the most used are:

    data.n_train, data.n_valid   number of frames; the rest is the test set
    data.valid_file, data.test_file  files with these sets
    data.split                   random, block (trajectories), or a file
    model.cutoff                 in Å
    model.width, model.n_layers  size of the network
    model.filter                 spline, or mlp as published
    train.epochs                 passes over the training set
    train.max_minutes            time limit
    train.batch_size             frames per step
    train.optimizer              muon, soap, soap-muon, adam or adamw
    train.learning_rate          highest learning rate
    train.compile                auto, true or false
    seed                         of split, weights and order

    Examples:
    gradpot train --data my.extxyz --out RUN train.max_minutes=30
    gradpot train run.toml model.cutoff=6.0 --out RUN
    gradpot train --out RUN --resume train.epochs=200
    """
    flags = {f"data.{name}": value for name, value in vars(reading).items()}
    if model and ".py:" in model:
        from gradpot.models.own import add_own

        model = add_own(model)
    flags |= {"data.file": list(data) if data else None}
    flags |= {"model.name": model, "model.activation": activation, "train.device": device}
    config = _configuration(list(settings or []), flags, out, resume)
    for name in () if resume else config.data.every_file:
        locate(name)  # now, before torch is imported; a set that is not here is downloaded

    from gradpot.cli.progress import TrainingProgress, print_errors
    from gradpot.train.run import train as run

    network = config.model.name.rpartition(":")[2]
    stem = Path("runs") / f"{network}-{_stem(config.data.every_file[0])}"
    if not (settings or resume or any(flags.values())):
        say(DEMO)
    progress = TrainingProgress(stress=config.loss.stress > 0)
    with created(out) if out else claimed(stem) as folder, progress:
        results = run(config, folder, resume, progress.say, progress.watch)
    if "stopped" in results:
        say(f"stopped at step {results['step']}; to resume: gradpot train --out {folder} --resume")
        return SIGNALED + results["stopped"]
    if as_json:
        print_json(results)
    else:
        print_errors(results)
        progress.repeat_warnings()
        print(f"Everything is in {folder}: model.safetensors, results.json, learning_curve.png ...")
    return TOO_SOON if results["ended_too_soon"] else 0


@app.command("eval", rich_help_panel=POTENTIALS)
@options(Reading)
def evaluate(
    model: ModelFile,
    file: DataFile,
    *,
    plot: Annotated[
        Path | None, typer.Option(help="Parity plot; default: parity-FILE.png beside the model")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write labels, predictions and errors: a new .extxyz or .npz file"),
    ] = None,
    worst_first: Annotated[
        bool, typer.Option("--worst-first", help="Sort --out by the errors of the forces")
    ] = False,
    within_energy_eV: Annotated[
        float, typer.Option("--within-energy-eV", min=0.0, help="EFwT: largest energy error")
    ] = 0.02,
    within_forces_eV_A: Annotated[
        float,
        typer.Option("--within-forces-eV-A", min=0.0, help="EFwT: largest force component error"),
    ] = 0.03,
    device: Device = "cpu",
    own: Own = None,
    reading: Reading,
    as_json: Json = False,
) -> None:
    """Measure the errors of a potential on a file, in meV and meV/Å.

    EFwT is the share of frames in which the total energy and every force
    component are within the two thresholds.

    Example: gradpot eval RUN/model.safetensors my-test.extxyz
    """
    check_model(model, file)
    locate(file)
    if worst_first and out is None:
        raise InputError("--worst-first sorts the file of --out; give --out FILE.extxyz")

    from gradpot.cli.progress import print_errors
    from gradpot.models.own import add_own
    from gradpot.potential.evaluate import evaluate_file
    from gradpot.potential.metrics import Within

    if own:
        add_own(own)
    if plot is None and os.access(model.parent, os.W_OK):
        plot = model.parent / f"parity-{_stem(file)}.png"
    within = Within(within_energy_eV, within_forces_eV_A)
    how = {"device": device, "out": out, "worst_first": worst_first, **reading.arguments()}
    replaced = " (replaced)" if plot and plot.exists() else ""
    results = evaluate_file(model, file, plot, say, within, **how)
    if out:
        say(f"predictions: {out}")
    if plot and results["n_frames"]:
        say(f"parity plot: {plot}{replaced}")
    if as_json:
        print_json(results)
    elif results["n_frames"]:
        print_errors({"test": results})


def _configuration(
    settings: list[str], flags: dict[str, Any], out: Path | None, resume: bool
) -> "Config":
    """What the TOML file, KEY=VALUE and flags say, each overriding those before it.

    With `resume`, they override the configuration of the run in `out`.
    """
    from gradpot.train.config import config, merge, override, put, read_json, read_toml

    tables: dict[str, Any] = {}
    if settings and "=" not in settings[0]:
        _check_file(settings[0])
        tables = read_toml(settings.pop(0))
    override(tables, settings)
    for key, value in flags.items():
        if value is not None:
            put(tables, key, value)
    if not resume:
        return config(tables)
    if out is None:
        raise InputError("--resume needs --out RUN, the folder of the run to continue")
    if (out / "config.json").exists():
        before = read_json(out / "config.json")
        tables = merge(before.model_dump(), tables)
    elif not tables:
        raise InputError(f"--resume: there is no run in {out}; to begin one, give its --data")
    return config(tables)


def _check_file(name: str) -> None:
    """Refuse a word that is no file but can only be meant as another setting."""
    if Path(name).exists():
        return
    from gradpot.models import EXTERNAL, MODELS
    from gradpot.train.config import key_hint

    meant = {set_.lower(): f"--data {set_}" for set_ in entries()}
    meant |= {model: f"--model {model}" for model in (*MODELS, *EXTERNAL)}
    if hint := did_you_mean(name, (), meant) or key_hint(name).replace("?", "=...?"):
        raise InputError(f"there is no file {shown(name)}{hint}")


def _stem(data: str) -> str:
    """The name of a data file or set, for use in file names."""
    return Path(data.replace(":", "-")).stem
