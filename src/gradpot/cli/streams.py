"""The three standard streams: always there, able to show any text, and clean for `--json`."""

import ctypes
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

OUT, ERR = 1, 2

# what gives the standard output back to `print_json`, while nothing else may print there
_give_back: list[Callable[[str], None]] = []


def complete() -> None:
    """Open streams that were closed at the start on the null device, and let all show any text.

    Without this, the next file that is opened would become standard output. A character that the
    encoding of a stream lacks is shown as a question mark.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (OUT, "stdout", "w"), (ERR, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(line: str) -> None:
    """Print a notice to standard error, if anybody reads it."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def silence(stream: Any) -> None:
    """Send what is still to come, and what is still in the buffer, to the null device."""
    with suppress(OSError):  # a stream without a descriptor needs nothing
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def json_alone() -> Iterator[None]:
    """Send everything to standard error that libraries print, in Python or in C.

    Only `print_json` still reaches standard output.
    """
    out = sys.stdout
    out.flush()
    saved = os.dup(OUT)

    def show(text: str) -> None:
        _flush_c()
        os.dup2(saved, OUT)
        print(text, file=out, flush=True)
        os.dup2(ERR, OUT)

    os.dup2(ERR, OUT)
    sys.stdout = sys.stderr
    _give_back.append(show)
    try:
        yield
    finally:
        _give_back.pop()
        _flush_c()
        sys.stdout = out
        os.dup2(saved, OUT)
        os.close(saved)


def print_json(content: object, indent: int | None = None) -> None:
    """Print JSON to standard output; numbers that JSON does not have become null."""
    text = json.dumps(_finite(content), indent=indent, allow_nan=False)
    show: Callable[[str], None] = _give_back[-1] if _give_back else print
    show(text)


def _flush_c() -> None:
    """Empty the buffer of C's standard output, which libraries in C and Fortran print to."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
