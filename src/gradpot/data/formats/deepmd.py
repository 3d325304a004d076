"""Folders of DeePMD-kit: systems with type.raw, type_map.raw and sets of npy files, or raw text.

Lengths are Å and energies eV. The virial is minus the stress times the volume, in eV.
"""

import warnings
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from jaxtyping import Num

from gradpot.data.declared import Declared
from gradpot.data.formats.boundary import CONVERT, check_size, reading
from gradpot.data.raw import Keys, Raw
from gradpot.data.stress import StressLabel
from gradpot.errors import InputError

VIRIAL = StressLabel("virial", "eV", "matrix", "compression")
# what a system has, and where it is: a whole disk is not searched
SYSTEMS = ("type.raw", "*/type.raw", "*/*/type.raw")
# arrays of a set that describe structures
STRUCTURE = {"coord", "box", "real_atom_types"}


def read_deepmd(path: Path, wanted: Keys) -> Raw:
    """What all systems of a folder and of two levels in it hold, in the order of their names.

    Raises:
        InputError: there is no system, a file is damaged, or arrays do not fit together.
    """
    with reading(path, "a folder of DeePMD-kit"):
        folders = sorted(file.parent for has in SYSTEMS for file in path.glob(has))
        if not folders:
            raise InputError(
                f"{path} has sets but no type.raw, which says what the atoms are: write it, "
                f"or {CONVERT} with dpdata"
            )
        parts = [(folder, arrays) for folder in folders for arrays in sets_of(folder)]
        keys = {key for _, arrays in parts for key in arrays} - STRUCTURE
        wanted.check(path, keys)
        check_size(path, sum(arrays["coord"].size // 3 for _, arrays in parts))
        energy, forces = wanted.energy or "energy", wanted.forces or "force"
        read = [_read_set(folder, arrays, energy, forces) for folder, arrays in parts]
    joined = [np.concatenate(arrays) for arrays in zip(*read)]
    n_atoms, numbers, positions, cell, energies, force, virial = joined
    has_stress = "virial" in keys
    return Raw(
        n_atoms=n_atoms,
        numbers=numbers,
        positions=positions,
        cell=cell,
        pbc=np.repeat((np.abs(cell).sum((1, 2)) > 0)[:, None], 3, axis=1),
        energy=energies if energy in keys else None,
        forces=force if forces in keys else None,
        keys=keys,
        field=lambda key: {"virial": virial}[key],
        units=Declared("eV", "Ang"),
        forces_key=forces,
        stress=VIRIAL if has_stress else None,
        unused=tuple(keys - {energy, forces, "virial"}),
        notices=tuple(
            f"no {label}: the folder has no {key}"
            for label, key in (("energies", energy), ("forces", forces))
            if key not in keys
        ),
    )


def sets_of(folder: Path) -> list[dict[str, Num[np.ndarray, "..."]]]:
    """Arrays of each set of a system by their names; npy files are mapped, not yet read.

    Raises:
        InputError: there is neither a set nor a coord.raw, or a set has no coord.npy.
    """
    folders = sorted(part for part in folder.glob("set.*") if part.is_dir())
    sets = [
        {file.stem: np.load(file, mmap_mode="r") for file in sorted(part.glob("*.npy"))}
        for part in folders
    ]
    if any("coord" not in arrays for arrays in sets):
        raise InputError(f"{folder}: a set has no coord.npy")
    if sets:
        return sets
    texts = sorted({*folder.glob("*.raw")} - {folder / "type.raw", folder / "type_map.raw"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of NumPy about a file without numbers
        arrays = {file.stem: np.loadtxt(file, ndmin=2) for file in texts}
    if "coord" not in arrays:
        raise InputError(f"{folder} has neither set.* folders nor a coord.raw")
    return [arrays]


def _read_set(
    folder: Path, arrays: dict[str, np.ndarray], energy: str, forces: str
) -> tuple[np.ndarray, ...]:
    """Atoms per frame, numbers, positions, cells, energies, forces and virials of one set.

    Raises:
        InputError: arrays do not fit together, or a type has no element.
    """
    types = np.array((folder / "type.raw").read_text().split(), dtype=int)
    n_frames, n_atoms = arrays["coord"].shape[0], types.shape[0]

    def rows(key: str, *shape: int) -> np.ndarray:
        size = n_frames * int(np.prod(shape))
        array = arrays.get(key, np.full(size, np.nan))
        if (
            array.dtype.kind not in "fiu"
            or array.size != size
            or array.shape[0] not in (n_frames, size)
        ):
            raise InputError(
                f"{folder}: {key} has shape {list(array.shape)} of {array.dtype}; expected numbers "
                f"in shape {[n_frames, int(np.prod(shape))]} for {n_atoms} atoms in type.raw"
            )
        return np.array(array).reshape(n_frames, *shape)

    kinds = np.broadcast_to(types, (n_frames, n_atoms))
    if "real_atom_types" in arrays:
        kinds = rows("real_atom_types", n_atoms)
    real = kinds >= 0  # −1 pads frames of a mixed set
    periodic = "box" in arrays and not (folder / "nopbc").exists()
    return (
        real.sum(1),
        _elements(folder, kinds[real].astype(int)),
        rows("coord", n_atoms, 3)[real],
        rows("box", 3, 3) if periodic else np.zeros((n_frames, 3, 3)),
        rows(energy),
        rows(forces, n_atoms, 3)[real],
        rows("virial", 9),
    )


def _elements(folder: Path, types: Num[np.ndarray, "n"]) -> Num[np.ndarray, "n"]:
    """Atomic numbers of types.

    Raises:
        InputError: there is no type_map.raw, it names something that is no element, or it has no
            line for a type.
    """
    file = folder / "type_map.raw"
    if not file.exists():
        raise InputError(
            f"{folder} has no type_map.raw; write it, with the element symbols of types 0, 1 ... "
            "on one line each"
        )
    symbols = file.read_text().split()
    unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
    if unknown:
        raise InputError(f"{file} has {unknown[0]!r}, which is no element")
    if types.size and types.max() >= len(symbols):
        raise InputError(
            f"{folder} has a type {types.max()}; type_map.raw names {len(symbols)} elements"
        )
    return np.array([atomic_numbers[symbol] for symbol in symbols], dtype=int)[types]
