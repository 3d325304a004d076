"""The process: time and memory used, memory kept, signals, and files replaced as a whole."""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, NamedTuple

# ru_maxrss is in bytes on a Mac
MAXRSS_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10
# parameters of mallopt(3)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


class Usage(NamedTuple):
    """What the process has used; the zero of `wall_s` is arbitrary, so only differences count."""

    wall_s: float
    cpu_s: float
    """including compilers and other children that have ended"""
    peak_memory_MiB: float


def usage() -> Usage:
    """What this process has used so far."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    cpu_s = sum(u.ru_utime + u.ru_stime for u in (own, children))
    return Usage(time.perf_counter(), cpu_s, own.ru_maxrss / MAXRSS_PER_MIB)


def keep_memory() -> None:
    """Let glibc keep freed memory for the next step, in the whole process.

    By default glibc returns large blocks to the system at once, and gets them back page by page,
    filled with zeros, at every step. That costs a quarter to a third of a training step with 32
    molecules, and two fifths of a call with thousands of atoms. The process does not grow, because
    freed memory is used again. Without glibc, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def signals() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the signal that asked to stop, or 0.

    A second signal ends the process as usual. Outside the main thread, the only one that receives
    signals, the function always returns 0.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])

    if current_thread() is main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replace a file as a whole: write another one beside it, flush, rename.

    A reader sees the old file or the new one, and a run that is killed leaves one of them.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:  # a full disk, for example
        beside.unlink(missing_ok=True)
        raise


def parse_json(text: str | bytes) -> Any:
    """The content of JSON in which no object has a name twice and no string half a character.

    Raises:
        ValueError: says what is wrong, also for text that is not UTF-8 or is nested too deeply.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"it has {twice!r} twice")
        return table

    try:
        content = json.loads(text, object_pairs_hook=unique)
        json.dumps(content, ensure_ascii=False).encode()  # fails on half characters: "\\ud800"
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return content


def write_json(path: str | Path, content: object) -> None:
    """Replace a JSON file as a whole."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())
