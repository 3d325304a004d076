"""`gradpot label`: energies and forces of structures from a reference method."""

from pathlib import Path
from typing import Annotated

import typer

from gradpot.cli import DATA, Json, app, print_json, say
from gradpot.cli.reading import Reading, options
from gradpot.errors import InputError


@app.command("label", rich_help_panel=DATA)
@options(Reading, "length_unit")
def label_command(
    structures: Annotated[Path, typer.Argument(help="A file that ASE reads, or an npz")],
    *,
    method: Annotated[str, typer.Option("--with", help="gfn2-xtb or gfn1-xtb, both from tblite")],
    out: Annotated[Path, typer.Option("--out", help=".extxyz or .npz; continued if unfinished")],
    index: Annotated[str, typer.Option(help="Structures to label: ':', '::10', '0:500'")] = ":",
    skip_failures: Annotated[
        bool, typer.Option("--skip-failures", help="Continue after a structure that fails")
    ] = False,
    charge: Annotated[
        int | None, typer.Option(help="Total charge in e; default: sum of the initial charges")
    ] = None,
    multiplicity: Annotated[
        int | None, typer.Option(help="2S + 1; default: the lowest possible")
    ] = None,
    reading: Reading,
    as_json: Json = False,
) -> None:
    """Compute energies and forces with a reference method.

    An interrupted run resumes where it stopped.

    Example: gradpot label my.xyz --with gfn2-xtb --out labeled.extxyz
    """
    from gradpot.data import label
    from gradpot.data.files import read_structures

    if out.resolve() == structures.resolve():
        raise InputError(f"--out {out} is the input itself; choose another name")
    calculator = label.reference(method, charge, multiplicity)
    found = read_structures(structures, reading.length_unit, index)
    label.check_state(found, charge, multiplicity)
    done = label.label(found, calculator, out, skip_failures, progress=not as_json)
    if as_json:
        print_json({"out": str(out), **done._asdict()})
        return
    for i, reason in done.skipped.items():
        say(f"skipped structure {i}: {reason}")
    before = f" ({done.n_found} were labeled before)" if done.n_found else ""
    say(f"labeled {done.n_labeled} structures with {method}{before}: {out}")
