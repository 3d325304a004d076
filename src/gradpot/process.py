"""The process: time and memory used, memory kept, signals, files written as a whole."""

import ctypes
import errno
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, NamedTuple

# ru_maxrss is in bytes on a Mac
MAXRSS_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10
# seconds between two looks at the clock (each costs microseconds); and, after the time was up,
# until the next interruption: code that cleans up takes less
CHECK_S, CHECK_AGAIN_S = 0.2, 5.0
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


def memory_bytes() -> int:
    """Memory of the machine, or what its container allows if that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, ValueError):  # no such file, or "max"
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits)


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
def signals(told: Callable[[], None] = lambda: None) -> Iterator[Callable[[], int]]:
    """Yield a function that returns the signal that asked to stop, or 0.

    A second signal ends the process as usual. Outside the main thread, the only one that receives
    signals, the function always returns 0.

    Args:
        told: called when the signal comes.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])
        told()

    if current_thread() is main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class OutOfTime(BaseException):
    """A `time_limit` is over. No Exception, so that no compiler takes it for one of its own."""


@contextmanager
def time_limit(wall_s: float, cpu_s: float) -> Iterator[None]:
    """Raise `OutOfTime` in the block as soon as it has used so much time, in seconds.

    A timer's signal interrupts whatever Python code runs, and waiting for other programs; these
    end on their own. Outside the main thread, the only one that receives signals, and for infinite
    limits there is no timer.
    """
    if min(wall_s, cpu_s) == float("inf") or current_thread() is not main_thread():
        yield
        return
    began = usage()

    def check(*_signal: object) -> None:
        now = usage()
        if now.wall_s - began.wall_s >= wall_s or now.cpu_s - began.cpu_s >= cpu_s:
            # once more later, in case this one is lost, as in a destructor
            signal.setitimer(signal.ITIMER_REAL, CHECK_AGAIN_S)
            raise OutOfTime

    before = signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, CHECK_S, CHECK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
    except OSError as error:  # a full disk, for example
        beside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


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
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return content


def append(file: FileIO, content: bytes) -> None:
    """Add to the end of an unbuffered file, all of `content` or nothing.

    If the disk is full, the part that was written is cut off again. Until the rest is written, the
    first byte is a line end: after a kill, readers of extxyz stop at an empty line, and do not meet
    half a frame.

    Args:
        file: opened by `open(path, "xb", buffering=0)`.
        content: begins with neither a space nor a line end.

    Raises:
        OSError: nothing was added; the error names the file.
    """
    end, rest = file.seek(0, os.SEEK_END), memoryview(b"\n" + content[1:])
    try:
        while rest:
            rest = rest[file.write(rest) :]
        os.pwrite(file.fileno(), content[:1], end)
    except OSError as error:
        file.truncate(end)
        raise OSError(error.errno, error.strerror, str(file.name)) from error


def check_present(file: FileIO) -> None:
    """Raise a FileNotFoundError if an open file is no longer where it was opened."""
    try:
        same = os.path.samestat(os.stat(file.name), os.fstat(file.fileno()))
    except FileNotFoundError:
        same = False
    if not same:
        raise FileNotFoundError(errno.ENOENT, "it was deleted or moved", str(file.name))


def write_json(path: str | Path, content: object) -> None:
    """Replace a JSON file as a whole."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())
