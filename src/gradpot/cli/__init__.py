"""Parse the command line and call what does the work. One file per group of commands.

A user's mistake is an `InputError`: one line on standard error, exit code 2, no traceback.
"""

import os
import signal
import sys
import traceback
import warnings
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from gradpot import __version__
from gradpot.cli.hints import Command, of_usage
from gradpot.cli.streams import complete, json_alone, print_json, say, silence
from gradpot.errors import InputError, RunError, reason
from gradpot.locks import give_back_all

__all__ = ["Json", "app", "data_app", "main", "print_json", "say"]

# panels of the help
POTENTIALS, DATA = "Potentials", "Data"
# exit codes: wrong input, a run that cannot continue, and a bug (EX_SOFTWARE of sysexits.h)
INPUT, RUN, BUG = 2, 1, 70
# a shell reports a process ended by signal n as exit code 128 + n
SIGNALED = 128
# of a training run that time ended before it could learn
TOO_SOON = 3


class Commands(typer.Typer):
    """Commands that refuse options given twice."""

    def command(self, *arguments: Any, **options: Any) -> Any:
        """Add a command, as typer does."""
        return super().command(*arguments, **{"cls": Command, **options})


app = Commands(
    name="gradpot",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = Commands(
    help="Inspect data files; list and download public data sets.", no_args_is_help=True
)
app.add_typer(data_app, name="data", rich_help_panel=DATA)

# a network of the user's own; only these words make gradpot run its code
Own = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="FILE.py:CLASS", help="If the network is your own: its file and class"
    ),
]
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
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show where an error comes from; so does GRADPOT_DEBUG=1."),
    ] = False,
) -> None:
    """Interatomic potentials that learn energies and their derivatives."""


def main() -> None:
    """Entry point: run the command; report what went wrong in one line and the exit code."""
    complete()
    warnings.showwarning = lambda message, *_: say(_one_line(f"warning: {message}"))
    # Python's KeyboardInterrupt can get lost while large libraries are imported
    before = signal.signal(signal.SIGINT, _leave)
    try:
        from gradpot.cli import commands  # noqa: F401

        with json_alone() if "--json" in sys.argv else nullcontext():
            code = app(prog_name="gradpot", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader of our output has closed it, as in `gradpot data list | head`
        silence(sys.stdout)
        sys.exit(RUN)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(SIGNALED + signal.SIGINT)  # as typer does inside a command; the terminal shows ^C
    except Exception as error:
        _stop(error)
    else:
        sys.exit(code if isinstance(code, int) else 0)
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(error: Exception) -> None:
    """Print what is wrong in one line, with a traceback if asked for or if it is a bug; exit."""
    code, message = INPUT, str(error)
    if isinstance(error, OSError):
        if error.strerror is not None:  # the system's message without its number
            what = error.strerror[0].lower() + error.strerror[1:]
            message = f"{what}: {error.filename}" if error.filename is not None else what
        if error.errno and error.filename is None:  # a full disk behind standard output
            silence(sys.stdout)
    elif isinstance(error, RunError):
        code = RUN
    elif hasattr(error, "format_message"):  # wrong usage
        message = of_usage(error)
        if not message:  # without any argument, the help was printed
            sys.exit(INPUT)
    elif _lacks_memory(error):
        code, message = RUN, f"there is not enough memory: {reason(error)}"
    elif not isinstance(error, InputError):
        code = BUG
        message = (
            f"this is a bug in gradpot {__version__}; please report it with the lines above, the "
            "command and, if possible, its files: see CONTRIBUTING.md"
        )
    asked = sys.argv[1:2] == ["--debug"] or os.environ.get("GRADPOT_DEBUG", "0") not in ("", "0")
    if code == BUG or asked:
        say("".join(traceback.format_exception(error)).rstrip())
    say(_one_line(f"error: {message}"))
    sys.exit(code)


def _lacks_memory(error: Exception) -> bool:
    """Whether memory could not be allocated; torch has no class of its own for that on a CPU."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in words)
    )


def _leave(*_signal: object) -> None:
    """Exit at once; loops with something to save handle signals themselves (`process.signals`)."""
    give_back_all()
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")  # show the cursor, which a progress bar hides
    os.write(2, b"interrupted: the command did not finish\n")
    os._exit(SIGNALED + signal.SIGINT)


def _one_line(text: str) -> str:
    return " ".join(text.split())
