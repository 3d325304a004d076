"""`gradpot train` and `gradpot eval`."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradpot.cli import (
    POTENTIALS,
    EnergyUnit,
    ForceUnit,
    Json,
    LengthUnit,
    StressKey,
    StressOrder,
    StressSign,
    StressUnit,
    app,
    say,
    stress_label,
)
from gradpot.errors import InputError

if TYPE_CHECKING:
    from gradpot.train.config import Config

SIGNALED = 128  # exit code of a process that a signal ended: 128 + its number


@app.command(rich_help_panel=POTENTIALS)
def train(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SETTINGS",
            help="a TOML file, then KEY=VALUE such as train.epochs=100 model.width=128",
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="file, or a name of `gradpot data list`")] = None,
    model: Annotated[
        str | None, typer.Option(help="painn, gemnet-dt, dimenet++, schnet ...")
    ] = None,
    activation: Annotated[str | None, typer.Option(help="silu, irelu, ssp, tanh ...")] = None,
    out: Annotated[Path | None, typer.Option(help="run folder; default runs/MODEL-DATA-N")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run in --out")] = False,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    force_unit: ForceUnit = None,
    stress_key: StressKey = None,
    stress_unit: StressUnit = None,
    stress_order: StressOrder = None,
    stress_sign: StressSign = None,
    as_json: Json = False,
) -> int:
    """Train a potential on energies and forces.

    Without options: PaiNN on the ethanol set that comes with the package.
    A flag wins over KEY=VALUE, and that over the TOML file. docs/training.md
    has all keys; the most used are:

    data.n_train, data.n_valid   frames; the others are the test set
    data.split                   random, block (trajectories), or a file
    model.cutoff                 in Å
    model.width, model.n_layers  size of the network
    model.filter                 spline, or mlp as published
    train.epochs                 how long
    train.max_minutes            how long at most
    train.batch_size             frames in a step
    train.optimizer              muon, adam or adamw
    train.learning_rate          its highest value
    train.compile                auto, true or false
    seed                         of split, weights and order
    """
    flags = {
        "data.file": data,
        "data.energy_unit": energy_unit,
        "data.length_unit": length_unit,
        "data.force_unit": force_unit,
        "data.stress_key": stress_key,
        "data.stress_unit": stress_unit,
        "data.stress_order": stress_order,
        "data.stress_sign": stress_sign,
        "model.name": model,
        "model.activation": activation,
    }
    tables = _tables(list(settings or []), flags)
    resolved = _configuration(tables, out, resume)

    from gradpot.cli.progress import TrainingProgress, table
    from gradpot.train.run import train as run

    folder = out or _free_folder(resolved.model.name, resolved.data.file)
    with TrainingProgress() as progress:
        results = run(resolved, folder, resume, progress.say, progress.watch)
    if "stopped" in results:
        say(f"stopped at step {results['step']}; go on with: gradpot train --out {folder} --resume")
        return SIGNALED + results["stopped"]
    if as_json:
        print(json.dumps(results))
    else:
        table(results)
        print(f"Everything is in {folder}: model.safetensors, results.json, learning_curve.png ...")
    return 0


@app.command("eval", rich_help_panel=POTENTIALS)
def evaluate(
    model: Annotated[Path, typer.Argument(help="model.safetensors of a run")],
    file: Annotated[str, typer.Argument(help="labeled structures, or a name of `data list`")],
    plot: Annotated[
        Path | None, typer.Option(help="parity plot; default parity-FILE.png beside the model")
    ] = None,
    within_energy_eV: Annotated[
        float, typer.Option("--within-energy-eV", min=0.0, help="EFwT: largest error of an energy")
    ] = 0.02,
    within_forces_eV_A: Annotated[
        float,
        typer.Option(
            "--within-forces-eV-A", min=0.0, help="EFwT: largest error of a force component"
        ),
    ] = 0.03,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    force_unit: ForceUnit = None,
    stress_key: StressKey = None,
    stress_unit: StressUnit = None,
    stress_order: StressOrder = None,
    stress_sign: StressSign = None,
    as_json: Json = False,
) -> None:
    """Measure the errors of a potential on a file, in meV and meV/Å.

    EFwT is the share of frames whose energy, of the whole structure, and all of
    whose force components are within two thresholds.
    """
    from gradpot.cli.progress import table
    from gradpot.potential.evaluate import evaluate_file
    from gradpot.potential.metrics import Within

    stress = stress_label(stress_key, stress_unit, stress_order, stress_sign)
    units = {"energy_unit": energy_unit, "length_unit": length_unit, "force_unit": force_unit}
    if plot is None and os.access(model.parent, os.W_OK):
        plot = model.parent / f"parity-{Path(file.replace(':', '-')).stem}.png"
    within = Within(within_energy_eV, within_forces_eV_A)
    results = evaluate_file(model, file, plot, say, within, stress=stress, **units)
    if plot:
        say(f"parity plot: {plot}")
    if as_json:
        print(json.dumps(results))
    else:
        table({"test": results})


def _tables(settings: list[str], flags: dict[str, str | None]) -> dict[str, Any]:
    """Nested tables from a TOML file, then key=value texts, then flags."""
    from gradpot.train.config import override, put, read_toml

    tables: dict[str, Any] = {}
    if settings and "=" not in settings[0]:
        tables = read_toml(settings.pop(0))
    override(tables, settings)
    for key, value in flags.items():
        if value is not None:
            put(tables, key, value)
    return tables


def _configuration(tables: dict[str, Any], out: Path | None, resume: bool) -> "Config":
    """Of a new run; or of the one to go on with, and what is given lies over it."""
    from gradpot.train.config import config, merge, read_json

    if resume and out is None:
        raise InputError("--resume needs --out RUN, the folder of the run to go on with")
    saved = out / "config.json" if out and resume else None
    if saved and saved.exists():
        before = read_json(saved)
        file = tables.get("data", {}).get("file", before.data.file)
        if file != before.data.file:  # its units would be looked for in the other file
            raise InputError(
                f"--resume: {out} was begun with data.file={before.data.file}, not {file}"
            )
        tables = merge(before.model_dump(), tables)
    elif saved and not tables:
        raise InputError(f"--resume: there is no run in {out}; to begin one, say with which data")
    return config(tables)


def _free_folder(model: str, data: str) -> Path:
    """runs/MODEL-DATA-N with the first N that is free."""
    from itertools import count

    stem = f"{model}-{Path(data.replace(':', '-')).stem}"
    return next(p for n in count(1) if not (p := Path("runs") / f"{stem}-{n}").exists())
