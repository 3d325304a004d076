"""Parse the command line and call what does the work. One file per group of commands.

A user's mistake is an `InputError`: one line on standard error, exit code 2, no traceback.
"""

import os
import signal
import sys
import warnings
from typing import Annotated

import typer

from gradpot import __version__
from gradpot.errors import InputError, RunError
from gradpot.locks import give_back_all

# panels of the help
POTENTIALS, DATA = "Potentials", "Data"
# a shell reports a process ended by signal n as exit code 128 + n
SIGNALED = 128
# of a training run that time ended before it could learn
TOO_SOON = 3

app = typer.Typer(
    name="gradpot",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(
    help="Inspect data files; list and download public data sets.", no_args_is_help=True
)
app.add_typer(data_app, name="data", rich_help_panel=DATA)

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else")]


def _print_version(asked: bool) -> bool:
    if asked:
        print(f"gradpot {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def main_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Interatomic potentials that learn energies and their derivatives."""


def say(line: str) -> None:
    """Print a notice to standard error."""
    print(line, file=sys.stderr)


def main() -> None:
    """Entry point: run the command; report what went wrong in one line and the exit code."""
    warnings.showwarning = lambda message, *_: say(_one_line(f"warning: {message}"))
    # Python's KeyboardInterrupt can get lost while large libraries are imported
    before = signal.signal(signal.SIGINT, _leave)
    try:
        from gradpot.cli import commands  # noqa: F401

        code = app(prog_name="gradpot", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader of our output has closed it, as in `gradpot data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (InputError, RunError) as error:
        _stop(str(error), 2 if isinstance(error, InputError) else 1)
    except OSError as error:
        _stop(_sentence(error), 2)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(SIGNALED + signal.SIGINT)  # as typer does inside a command; the terminal shows ^C
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        # wrong usage; without any argument the help was printed and there is no message
        if message := error.format_message():  # type: ignore[attr-defined]
            context = getattr(error, "ctx", None)
            _stop(message + (f" See: {context.command_path} --help" if context else ""), 2)
        sys.exit(2)
    else:
        sys.exit(code if isinstance(code, int) else 0)
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(*_signal: object) -> None:
    """Exit at once; loops with something to save handle signals themselves (`process.signals`)."""
    give_back_all()
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")  # show the cursor, which a progress bar hides
    os._exit(SIGNALED + signal.SIGINT)


def _sentence(error: OSError) -> str:
    """The system's message without its number, such as "permission denied: runs/a"."""
    if error.strerror is None:
        return str(error)
    what = error.strerror[0].lower() + error.strerror[1:]
    return f"{what}: {error.filename}" if error.filename is not None else what


def _stop(message: str, code: int) -> None:
    say(_one_line(f"error: {message}"))
    sys.exit(code)


def _one_line(text: str) -> str:
    return " ".join(text.split())
