"""The command line: parse and call. One file per group of commands; the work is done elsewhere.

What a user gets wrong is an `InputError`: one line on standard error, exit code 2, no traceback.
"""

import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING, Annotated

import typer

from gradpot import __version__
from gradpot.errors import InputError, RunError

if TYPE_CHECKING:
    from gradpot.data.stress import StressLabel

# chapters of the help
POTENTIALS, DATA = "Potentials", "Data"
UNITS, STRESS = "Units, where the file does not say them", "Stress labels, all four or none"

app = typer.Typer(
    name="gradpot",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(
    help="Look into data files; list and fetch public data sets.", no_args_is_help=True
)
app.add_typer(data_app, name="data", rich_help_panel=DATA)

EnergyUnit = Annotated[
    str | None,
    typer.Option(
        "--energy-unit", rich_help_panel=UNITS, help="of the file: eV, kcal/mol, hartree ..."
    ),
]
LengthUnit = Annotated[
    str | None,
    typer.Option("--length-unit", rich_help_panel=UNITS, help="of the file: Ang, bohr, nm"),
]
ForceUnit = Annotated[
    str | None,
    typer.Option(
        "--force-unit", rich_help_panel=UNITS, help="default: energy unit over length unit"
    ),
]
StressKey = Annotated[
    str | None,
    typer.Option("--stress-key", rich_help_panel=STRESS, help="array or field of the file"),
]
StressUnit = Annotated[
    str | None,
    typer.Option(
        "--stress-unit", rich_help_panel=STRESS, help="kbar, GPa, eV/Ang^3; eV for a virial"
    ),
]
StressOrder = Annotated[
    str | None,
    typer.Option(
        "--stress-order",
        rich_help_panel=STRESS,
        help="voigt: xx yy zz yz xz xy; vasp: xx yy zz xy yz zx; matrix: 3 × 3",
    ),
]
StressSign = Annotated[
    str | None,
    typer.Option(
        "--stress-sign",
        rich_help_panel=STRESS,
        help="tension: positive when stretched (ASE); compression: opposite (VASP)",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="standard output holds JSON and nothing else")]


def _print_version(asked: bool) -> bool:
    if asked:
        print(f"gradpot {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Interatomic potentials that learn energies and their derivatives."""


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
    warnings.showwarning = _show_warning
    # an exception, as Python makes of Ctrl-C, can get lost while large libraries are imported
    before = signal.signal(signal.SIGINT, _leave)
    try:
        from gradpot.cli import commands  # noqa: F401

        code = app(prog_name="gradpot", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever read our output has seen enough, as in `gradpot data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except InputError as error:
        _stop(str(error), 2)
    except OSError as error:
        _stop(_sentence(error), 2)
    except RunError as error:
        _stop(str(error), 1)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)  # as typer does inside a command; the terminal shows ^C
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _stop_usage(error)
    else:
        sys.exit(code if isinstance(code, int) else 0)
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(*_signal: object) -> None:
    """End at once. Loops that have something to keep take the signal themselves (`signals`)."""
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")  # a progress bar hides the cursor
    os._exit(130)


def _show_warning(message: Warning | str, *_where: object) -> None:
    say("warning: " + _one_line(str(message)))


def _sentence(error: OSError) -> str:
    """What the system says, without its number: "permission denied: runs/a"."""
    if error.strerror is None:
        return str(error)
    what = error.strerror[0].lower() + error.strerror[1:]
    return f"{what}: {error.filename}" if error.filename is not None else what


def _stop_usage(error: Exception) -> None:
    """An unknown option, a missing argument; or no argument at all, then help was printed."""
    message = error.format_message()  # type: ignore[attr-defined]
    if message:
        context = getattr(error, "ctx", None)
        help_at = f" See: {context.command_path} --help" if context else ""
        _stop(message + help_at, 2)
    sys.exit(2)


def _stop(message: str, code: int) -> None:
    say("error: " + _one_line(message))
    sys.exit(code)


def _one_line(text: str) -> str:
    return " ".join(text.split())
