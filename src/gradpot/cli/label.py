"""`gradpot label`: compute energies and forces of structures with a reference method."""

import json
from pathlib import Path
from typing import Annotated

import typer

from gradpot.cli import DATA, Json, LengthUnit, app, say


@app.command("label", rich_help_panel=DATA)
def label_command(
    structures: Annotated[Path, typer.Argument(help="structures: npz, or any file ASE reads")],
    method: Annotated[str, typer.Option("--with", help="gfn2-xtb or gfn1-xtb (tblite)")],
    out: Annotated[Path, typer.Option("--out", help=".extxyz or .npz; an unfinished one goes on")],
    index: Annotated[str, typer.Option("--index", help="which frames: ':', '::10', '0:500'")] = ":",
    skip_failures: Annotated[
        bool, typer.Option("--skip-failures", help="go on after a structure that fails")
    ] = False,
    charge: Annotated[int | None, typer.Option(help="total charge in e; default 0")] = None,
    multiplicity: Annotated[
        int | None, typer.Option(help="2S + 1; default the lowest that is possible")
    ] = None,
    length_unit: LengthUnit = None,
    as_json: Json = False,
) -> None:
    """Compute energies and forces with a reference method.

    Goes on where an earlier run stopped.
    """
    from gradpot.data import label
    from gradpot.data.files import read_structures
    from gradpot.errors import InputError

    if out.resolve() == structures.resolve():
        raise InputError(f"--out {out} is the input itself; choose another name")
    calculator = label.reference(method, charge, multiplicity)
    found = read_structures(structures, length_unit, index)
    done = label.label(found, calculator, out, skip_failures, progress=not as_json)
    if as_json:
        print(json.dumps({"out": str(out), **done._asdict()}))
        return
    for i, reason in done.skipped.items():
        say(f"skipped structure {i}: {reason}")
    before = f" ({done.n_found} were there before)" if done.n_found else ""
    say(f"labeled {done.n_labeled} structures with {method}{before}: {out}")
