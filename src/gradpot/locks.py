"""Outputs that belong to one process: free folders claimed by name, and locks.

A lock is a file that the process holds through the operating system (flock), so it is free again
as soon as the process ends, however it ends. It names its holder for whoever comes second.
"""

import errno
import fcntl
import os
import re
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from gradpot.errors import InputError

# what a file system without locks says
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
# how each output that this process holds is given back
_held: list[Callable[[], None]] = []


@contextmanager
def claimed(stem: Path) -> Iterator[Path]:
    """Create the first of STEM-1, STEM-2, ... that does not exist.

    No two processes get the same folder. In the end it is removed again if it is empty.
    """
    missing = _missing(stem.parent)
    for n in count(1):
        stem.parent.mkdir(parents=True, exist_ok=True)
        folder = stem.with_name(f"{stem.name}-{n}")
        # FileNotFoundError: another process has just removed the empty parent
        with suppress(FileExistsError, FileNotFoundError):
            folder.mkdir()
            break
    with _until(lambda: _remove_empty([folder, *missing])):
        yield folder


@contextmanager
def created(folder: Path) -> Iterator[Path]:
    """Create a folder with its parents, unless they exist.

    In the end those that were created are removed again if they are empty: a command that fails
    before it writes anything leaves no trace.

    Raises:
        InputError: it is a file.
    """
    missing = _missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputError(f"{folder} is a file; --out names a folder") from error
    with _until(lambda: _remove_empty(missing)):
        yield folder


@contextmanager
def locked(output: Path, wait: bool = False) -> Iterator[None]:
    """Hold an output, a file or a folder that exists, for this process alone.

    Unfinished files that dead processes left there (`process.write_bytes`) are removed.

    Args:
        wait: wait until another process gives it back, instead of raising.

    Warns:
        UserWarning: the file system has no locks, so the output is used without one; or another
            process is waited for.

    Raises:
        InputError: another process holds it (the message names that process), or there is no
            folder for it.
    """
    if not output.parent.is_dir():
        raise InputError(f"{output}: there is no folder {output.parent}; create it first")
    whole = output.is_dir()
    path = output / ".lock" if whole else output.with_name(f".{output.name}.lock")
    descriptor = _take(path, output, wait)
    unfinished = re.compile(
        r"\..+\.\d+\.part" if whole else rf"\.{re.escape(output.name)}\.\d+\.part"
    )
    for part in path.parent.glob(".*.part"):
        if unfinished.fullmatch(part.name):
            part.unlink(missing_ok=True)

    def give_back() -> None:
        if _names(path, descriptor):
            path.unlink(missing_ok=True)  # before it is free: whoever opened it will notice
        os.close(descriptor)

    with _until(give_back):
        yield


def give_back_all() -> None:
    """Give back whatever this process holds: for leaving it without an exception."""
    while _held:
        _held.pop()()


def _take(path: Path, output: Path, wait: bool) -> int:
    """Lock the file `path`, and write there whose it is; return its descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            text = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            holder = f"process {text}" if text else "another process"
            if not wait:
                os.close(descriptor)
                raise InputError(
                    f"{output} is in use by {holder}: wait until it ends, or choose another output"
                ) from error
            warnings.warn(f"waiting for {holder}, which makes {output}", stacklevel=4)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            warnings.warn(
                f"the file system of {output} has no locks: let no other process write there",
                stacklevel=4,
            )
        if _names(path, descriptor):
            break
        os.close(descriptor)  # its last holder removed the file after it was opened here
    with suppress(OSError):  # on a full disk, the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor


def _names(path: Path, descriptor: int) -> bool:
    """Whether `path` is still the file that was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _missing(folder: Path) -> list[Path]:
    """The folder and its parents, as far as they do not exist."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _until(give_back: Callable[[], None]) -> Iterator[None]:
    """Call `give_back` once: at the end of the block, or from `give_back_all`."""
    _held.append(give_back)
    try:
        yield
    finally:
        if give_back in _held:
            _held.remove(give_back)
            give_back()
