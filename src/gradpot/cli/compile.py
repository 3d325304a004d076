"""`gradpot compile`: a potential as machine code, in its own file."""

import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from gradpot.cli import POTENTIALS, Json, app, say
from gradpot.errors import InputError
from gradpot.locks import locked


@app.command("compile", rich_help_panel=POTENTIALS)
def compile_command(
    model: Annotated[Path, typer.Argument(help="Model file of a run: model.safetensors")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Default: MODEL with .pt2, where md looks for it")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or float64; default: as trained")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile a potential to run dynamics several times faster.

    Compiling needs a C++ compiler and takes a minute or two. The file runs on
    machines with the same kind of processor and the same version of torch.
    """
    from gradpot.compile import export, package
    from gradpot.potential import checkpoint

    potential = checkpoint.load(model)
    out = out or model.with_suffix(package.SUFFIX)
    _check_out(out, model)
    precision = package.read_dtype(dtype) or potential.dtype
    if not as_json:
        say("compiling takes a minute or two")
    began = time.monotonic()
    with locked(out):
        export.compile_potential(potential, out, precision)
    seconds, name = time.monotonic() - began, package.dtype_name(precision)
    if as_json:
        print(json.dumps({"out": str(out), "dtype": name, "seconds": seconds}))
    else:
        say(f"compiled in {seconds:.0f} s, {name}: {out}")


def _check_out(out: Path, model: Path) -> None:
    """Refuse to replace anything but an old package, before minutes of work."""
    from gradpot.compile import package

    if out.suffix != package.SUFFIX:
        raise InputError(f"--out {out} must end in {package.SUFFIX}")
    if out.resolve() == model.resolve():
        raise InputError(f"--out {out} is the potential itself; choose another name")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}; create it first")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"--out {out}: cannot write to the folder {out.parent}; choose another")
    if out.exists():
        try:
            package.read_header(out)
        except (InputError, OSError) as error:
            raise InputError(f"--out would replace a file: {error}; choose another") from None
