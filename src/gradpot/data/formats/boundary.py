"""The boundary of a reader: damaged files, missing libraries, and sizes before allocation."""

from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any

from gradpot.errors import InputError, damaged
from gradpot.process import memory_bytes

CONVERT = "convert it to extended XYZ or npz"
# bytes of memory per atom while a file is read: positions and forces as read, joined, and converted
# to float64; measured
PER_ATOM = 300


def reading(path: Path, what: str) -> AbstractContextManager[None]:
    """Turn what a library raises inside about a damaged file into one InputError.

    Args:
        path: of the file, for the message.
        what: what it is read as, such as "HDF5".
    """
    return damaged(f"cannot read {path} as {what}; write it again, or {CONVERT}")


def needed(path: Path, library: str) -> Any:
    """A library that not everybody has installed.

    Raises:
        InputError: it is not installed; the message says how to.
    """
    try:
        return import_module(library)
    except ImportError as error:
        raise InputError(
            f"reading {path} needs {library}; install it: pip install gradpot[formats]"
        ) from error


def check_size(path: Path, n_atoms: int) -> None:
    """Raise an InputError if the atoms of all frames do not fit into the memory of this computer.

    Args:
        path: of the file, for the message.
        n_atoms: sum over frames.
    """
    needed, memory = n_atoms * PER_ATOM, memory_bytes()
    if needed > memory:
        raise InputError(
            f"{path} says that it has {n_atoms:.3g} atoms in all frames, which take about "
            f"{needed / 2**30:.0f} GB of memory; this computer has {memory / 2**30:.0f} GB: write "
            "a part of them into another file"
        )
