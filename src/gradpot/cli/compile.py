"""`gradpot compile`: a potential as machine code, in its own file."""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from gradpot.cli import POTENTIALS, Json, Own, app, print_json, say
from gradpot.cli.reading import ModelFile, Precision, check_model
from gradpot.errors import InputError
from gradpot.locks import locked
from gradpot.process import write_bytes


@app.command("compile", rich_help_panel=POTENTIALS)
def compile_command(
    model: ModelFile,
    out: Annotated[Path | None, typer.Option("--out", help="Default: MODEL with .pt2")] = None,
    dtype: Precision = None,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Compile a potential to run dynamics several times faster.

    Compiling needs a C++ compiler and takes a minute or two. The result is kept
    in your cache, where `gradpot md` and Calculator find it, and written to a
    file, which runs alone on machines with the same kind of processor and the
    same version of torch. The file holds machine code: it is run only when it
    is given by its name.

    Example: gradpot compile RUN/model.safetensors
    """
    check_model(model)

    from gradpot.compile import cache, package
    from gradpot.models.own import add_own
    from gradpot.potential import checkpoint

    if own:
        add_own(own)
    potential = checkpoint.load(model)
    out = out or model.with_suffix(package.SUFFIX)
    _check_out(out, model)
    precision = package.read_dtype(dtype) or potential.dtype
    cached = cache.cache_file(potential, precision)
    known = cached and cache.is_ours(cached) and package.fits(cached, potential, precision)
    if not as_json and not known:
        say("compiling takes a minute or two")
    began = time.monotonic()
    with locked(out), TemporaryDirectory(prefix="gradpot-") as folder:
        made = cache.provide(potential, precision, Path(folder))
        write_bytes(out, made.read_bytes())
    seconds, name = time.monotonic() - began, package.dtype_name(precision)
    if as_json:
        print_json({"out": str(out), "dtype": name, "seconds": seconds})
    elif known and made == cached:
        say(f"already compiled, {name}: {out}")
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
            raise InputError(f"--out would replace a file: {error}; choose another") from error
