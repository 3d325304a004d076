"""The command line: parse and call. One file per group of commands; the work is done elsewhere.

What a user gets wrong is an `InputError`: one line on standard error, exit code 2, no traceback.
"""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gradpot.errors import InputError, RunError

if TYPE_CHECKING:
    from gradpot.data.stress import StressLabel

app = typer.Typer(
    name="gradpot",
    help="Interatomic potentials that learn energies and their derivatives.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(
    help="Look into data files; list and fetch public data sets.", no_args_is_help=True
)
app.add_typer(data_app, name="data")

EnergyUnit = Annotated[
    str | None, typer.Option("--energy-unit", help="of the file: eV, kcal/mol, hartree ...")
]
LengthUnit = Annotated[str | None, typer.Option("--length-unit", help="of the file: Ang, bohr, nm")]
ForceUnit = Annotated[
    str | None, typer.Option("--force-unit", help="default: energy unit over length unit")
]
StressKey = Annotated[
    str | None, typer.Option("--stress-key", help="array or field of the file with the stress")
]
StressUnit = Annotated[
    str | None, typer.Option("--stress-unit", help="kbar, GPa, eV/Ang^3; eV for a virial")
]
StressOrder = Annotated[
    str | None,
    typer.Option(
        "--stress-order", help="voigt: xx yy zz yz xz xy; vasp: xx yy zz xy yz zx; matrix: 3 × 3"
    ),
]
StressSign = Annotated[
    str | None,
    typer.Option(
        "--stress-sign", help="tension: positive when stretched (ASE); compression: opposite (VASP)"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="standard output holds JSON and nothing else")]


def stress_label(
    key: str | None, unit: str | None, order: str | None, sign: str | None
) -> "StressLabel | None":
    """The four stress options as one: None where none is given, an InputError where some are."""
    from gradpot.data import stress

    return stress.stress_label(key, unit, order, sign)


def say(line: str) -> None:
    """A notice for the person at the terminal, on standard error."""
    print(line, file=sys.stderr)


def main() -> None:
    """Entry point: run the command, turn what the user got wrong into one line and exit code 2."""
    from gradpot.cli import commands  # noqa: F401

    try:
        code = app(standalone_mode=False)
    except (InputError, OSError) as error:
        _stop(str(error), 2)
    except RunError as error:
        _stop(str(error), 1)
    except (typer.Abort, KeyboardInterrupt):
        _stop("interrupted", 130)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _stop(error.format_message(), 2)  # a usage error: unknown option, missing argument ...
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _stop(message: str, code: int) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
