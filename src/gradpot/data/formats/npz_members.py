"""The arrays inside an npz file, one at a time, without trust in what the file says of itself.

The type and shape in an array's header are compared with the size of the array in the file, and
with the memory of the machine, before anything is allocated. Nothing is unpickled.
"""

import zipfile
from math import prod
from pathlib import Path

import numpy as np

from gradpot.errors import InputError, damaged
from gradpot.process import memory_bytes

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def names(path: Path) -> set[str]:
    """Names of all arrays of a file.

    Raises:
        InputError: it is not an npz file, or two arrays have one name.
    """
    with damaged(f"{path} is damaged or not an npz file"), open(path, "rb") as file:
        if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
            raise InputError(f"{path} is a single array; expected an npz file of named arrays")
        with zipfile.ZipFile(file) as archive:
            found = [name.removesuffix(".npy") for name in archive.namelist()]
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise InputError(f"{path} has two arrays called {twice[0]!r}; save it again with one")
    return set(found)


def read(path: Path, name: str) -> np.ndarray:
    """One array of a file.

    Raises:
        InputError: it is damaged, holds Python objects, or is larger than the memory.
    """
    array = f"{path}: array {name!r}"
    with damaged(f"{array} is damaged"), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        with archive.open(members[name]) as file:
            version = np.lib.format.read_magic(file)
            if version not in HEADERS:  # version 3 is for structured types only
                raise ValueError(f"version {version} of the npy format")
            shape, _, dtype = HEADERS[version](file)
            if dtype.hasobject:
                raise InputError(
                    f"{array} holds Python objects, which are not read because they can run code; "
                    "save it again as plain numbers, padded with zeros"
                )
            size = prod(shape) * dtype.itemsize
            held = members[name].file_size - file.tell()
            if min(shape, default=0) < 0 or size != held:
                raise InputError(
                    f"{array} is damaged (shape {list(shape)} and type {dtype} need {size} bytes, "
                    f"but {held} are there)"
                )
            if size > (memory := memory_bytes()):
                raise InputError(
                    f"{array} takes {size / 1e9:.3g} GB, more than the {memory / 1e9:.3g} GB of "
                    "memory; save fewer frames"
                )
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
