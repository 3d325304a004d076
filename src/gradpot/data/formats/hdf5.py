"""HDF5 files of groups of conformers: SPICE, ANI-1x, Transition1x, QM7-X and their like.

A group that has positions and atomic numbers is read, wherever it is. Its arrays have one row per
conformer; all conformers of a group are the same molecule. Units are read from the attributes of
the arrays, as SPICE writes them. Links to other groups and files are not followed.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.data import atomic_numbers
from jaxtyping import Num

from gradpot.data.declared import Declared
from gradpot.data.formats.boundary import check_size, needed, reading
from gradpot.data.raw import Keys, Raw
from gradpot.errors import InputError

POSITIONS = ("conformations", "coordinates", "positions", "coord", "atXYZ")
NUMBERS = ("atomic_numbers", "species", "numbers", "atNUM")
# energies and forces of one level of theory
PAIRS = (
    ("dft_total_energy", "dft_total_gradient"),
    ("energy", "forces"),
    ("energies", "forces"),
    ("ePBE0+MBD", "totFOR"),
)
# ANI-1x and Transition1x name the level of theory: wb97x_dz.energy, wb97x_dz.forces
LEVEL = (".energy", ".forces")
CELL, PBC = "cell", "pbc"
# names under which people write a cell that is not read as one
OTHER_CELLS = ("cells", "lattice", "box", "unit_cell", "lattice_vectors")


class Group(NamedTuple):
    """A group of conformers of one molecule."""

    data: Any
    """an `h5py.Group`"""
    positions: str
    """name of the array"""
    numbers: str
    n_frames: int
    n_atoms: int

    def rows(self, key: str, *shape: int) -> Num[np.ndarray, "..."]:
        """An array with one row per conformer, in this shape; NaN if the group lacks it.

        Raises:
            InputError: it has another size, or is not of numbers.
        """
        if key not in self.data:
            return np.full((self.n_frames, *shape), np.nan)
        stored = self.data[key]
        size, kind = self.n_frames * int(np.prod(shape)), getattr(stored, "dtype", np.dtype("O"))
        if kind.kind not in "fiu" or stored.size != size:
            raise InputError(
                f"{self.place(key)} has shape {list(getattr(stored, 'shape', []))} of {kind}; "
                f"expected numbers in shape {[self.n_frames, *shape]}"
            )
        return stored[()].reshape(self.n_frames, *shape)

    def vectors(self, key: str) -> Num[np.ndarray, "total 3"]:
        """One vector for each atom of each conformer."""
        return self.rows(key, self.n_atoms, 3).reshape(-1, 3)

    def place(self, key: str) -> str:
        """File and name of an array, for messages."""
        return f"{self.data.file.filename}: {self.data.name.rstrip('/')}/{key}"

    def width(self, key: str) -> int:
        """How many numbers of a stress each conformer has; six if the group lacks it."""
        return self.data[key].size // self.n_frames if key in self.data else 6

    def stored(self, key: str, *shape: int) -> np.ndarray:
        """An array in this shape that all conformers share, or with one for each of them.

        Raises:
            InputError: it has another shape.
        """
        array, whole = self.data[key], (self.n_frames, *shape)
        if array.shape not in (shape, whole):
            raise InputError(
                f"{self.place(key)} has shape {list(array.shape)}; expected {list(shape)} or "
                f"{list(whole)}"
            )
        return array[()]

    def atomic_numbers(self) -> Num[np.ndarray, "total"]:
        """Atomic numbers of all conformers, from numbers or element symbols.

        Raises:
            InputError: a symbol is unknown.
        """
        values = self.stored(self.numbers, self.n_atoms)
        if values.dtype.kind not in "fiu":
            symbols = [s.decode() if isinstance(s, bytes) else str(s) for s in values.ravel()]
            unknown = [s for s in symbols if s not in atomic_numbers]
            if unknown:
                raise InputError(f"{self.place(self.numbers)} has an element {unknown[0]!r}")
            values = np.array([atomic_numbers[s] for s in symbols]).reshape(values.shape)
        return np.broadcast_to(values, (self.n_frames, self.n_atoms)).ravel()

    def cell_and_pbc(self) -> tuple[np.ndarray, np.ndarray]:
        """Cells [n_frames, 3, 3] with lattice vectors in rows, and pbc [n_frames, 3]."""
        cell, pbc = np.zeros((self.n_frames, 3, 3)), np.zeros((self.n_frames, 3))
        if CELL in self.data:
            cell[:] = self.stored(CELL, 3, 3)
        if PBC not in self.data:
            return cell, np.abs(cell).sum(-1) > 0
        pbc[:] = self.stored(PBC, 3)
        return cell, pbc.astype(bool)


def read_hdf5(path: Path, wanted: Keys) -> Raw:
    """What an HDF5 file of groups of conformers holds; `field` reads any other array of them.

    Raises:
        InputError: h5py is not installed, the file is damaged, no group has structures, there are
            several levels of theory, or the arrays of a group do not fit together.
    """
    h5py = needed(path, "h5py")
    with reading(path, "HDF5 of groups of conformers"), h5py.File(path, "r") as file:
        groups = find_groups(path, file)
        check_size(path, sum(g.n_frames * g.n_atoms for g in groups))
        names = {key for g in groups for key in g.data}
        keys = names - {*POSITIONS, *NUMBERS, CELL, PBC}
        wanted.check(path, keys)
        energy, forces = choose_level(path, keys, wanted)
        tensors = [key for key in keys if re.search("stress|virial", key, re.IGNORECASE)]
        stress = {key: _join(g.rows(key, g.width(key)) for g in groups) for key in tensors}
        other = [key for key in OTHER_CELLS if key in names]
        if other and CELL not in names:
            raise InputError(
                f"{path} has {other[0]!r}, which is not read as a cell; name it 'cell', with "
                "lattice vectors in rows"
            )
        cells, pbcs = zip(*(g.cell_and_pbc() for g in groups))
        n_frames = np.array([g.n_frames for g in groups])
        labels, has = (("energies", energy), ("forces", forces)), ", ".join(sorted(keys))
        notices = [f"{label} from {key}" for label, key in labels if key]
        notices += [f"no {label}: the file has {has}" for label, key in labels if not key]
        return Raw(
            n_atoms=np.repeat([g.n_atoms for g in groups], n_frames),
            numbers=_join(g.atomic_numbers() for g in groups),
            positions=_join(g.vectors(g.positions) for g in groups),
            cell=_join(cells),
            pbc=_join(pbcs),
            energy=_join(g.rows(energy) for g in groups) if energy else None,
            forces=_join(g.vectors(forces) for g in groups) if forces else None,
            keys=keys,
            field=lambda key: stress[key],
            units=Declared(
                _unit(path, [(g, energy) for g in groups]),
                _unit(path, [(g, g.positions) for g in groups]),
                _unit(path, [(g, forces) for g in groups]),
            ),
            forces_key=forces,
            unused=tuple(keys - {energy, forces}),
            notices=tuple(notices),
        )


def find_groups(path: Path, file: Any) -> list[Group]:
    """All groups with structures, in the order of their names.

    Raises:
        InputError: there is none, or positions have no conformers and atoms.
    """
    items: list[Any] = [file]
    # datasets have no keys
    file.visititems(lambda _, item: items.append(item) if hasattr(item, "keys") else None)
    found = []
    for item in items:
        positions = next((key for key in POSITIONS if key in item), None)
        numbers = next((key for key in NUMBERS if key in item), None)
        if positions is None or numbers is None or len(item[numbers].shape) == 0:
            continue
        shape, n_atoms = item[positions].shape, item[numbers].shape[-1]
        if shape[-2:] != (n_atoms, 3) or len(shape) > 3:
            raise InputError(
                f"{path}: {item.name}/{positions} has shape {list(shape)}; expected "
                f"[conformers, {n_atoms}, 3] to match {numbers}"
            )
        found.append(Group(item, positions, numbers, shape[0] if len(shape) == 3 else 1, n_atoms))
    found = [g for g in found if g.n_frames]
    if not found:
        members = {key for item in items for key in item}
        raise InputError(
            f"{path} has no group with positions ({', '.join(POSITIONS)}) and atomic numbers "
            f"({', '.join(NUMBERS)}); it has {', '.join(sorted(members)[:20]) or 'nothing'}: "
            "rename them, or convert it to extended XYZ or npz"
        )
    return found


def choose_level(path: Path, keys: set[str], wanted: Keys) -> tuple[str | None, str | None]:
    """Names of the energies and forces of one level of theory; None for what it lacks.

    Raises:
        InputError: there are several levels, and the user names none.
    """
    if wanted.energy and wanted.forces:
        return wanted.energy, wanted.forces
    ends = {end: {key.removesuffix(end) for key in keys if key.endswith(end)} for end in LEVEL}
    levels = [tuple(level + end for end in LEVEL) for level in sorted(set.union(*ends.values()))]
    pairs = [tuple(k if k in keys else None for k in pair) for pair in (*PAIRS, *levels)]
    # a level with another name for what the user names is not meant
    known = {name for names in PAIRS for name in names}
    special = {key for key in wanted if key and (key in known or key.endswith(LEVEL))}
    pairs = [pair for pair in pairs if any(pair) and (not special or special & {*pair})]
    # a level with both comes first, then one with forces
    best = max((_rank(pair) for pair in pairs), default=None)
    found = sorted({pair for pair in pairs if _rank(pair) == best}, key=str)
    if len(found) > 1:
        options = "; ".join(
            " ".join(f"--{what}-key '{k}'" for what, k in zip(("energy", "forces"), pair) if k)
            for pair in found
        )
        raise InputError(f"{path} has several levels of theory; choose one: {options}")
    energy, forces = found[0] if found else (None, None)
    return wanted.energy or energy, wanted.forces or forces


def _rank(pair: tuple) -> tuple[bool, bool]:
    return None not in pair, pair[1] is not None


def _join(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(arrays))


def _unit(path: Path, arrays: Iterable[tuple[Group, str | None]]) -> str | None:
    """The unit that the attributes of some arrays state, which must be the same in all groups."""
    found: str | None = None
    for group, key in arrays:
        if key is None or key not in group.data:
            continue
        attributes = group.data[key].attrs
        unit = attributes.get("units", attributes.get("unit"))
        unit = unit.decode() if isinstance(unit, bytes) else unit
        if unit is not None and found is not None and str(unit) != found:
            raise InputError(
                f"{path}: {group.data.name}/{key} is in {unit}, and groups before it are in {found}"
            )
        found = found if unit is None else str(unit)
    return found
