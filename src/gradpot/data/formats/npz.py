"""npz files in the three forms in common use: sGDML (MD17), rMD17 and PhysNet.

Nothing is unpickled. There is no Python loop over frames: one mask removes the padding.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from gradpot.data.declared import Declared
from gradpot.data.formats import npz_members
from gradpot.data.formats.labels import complete, torn_apart
from gradpot.data.raw import CHARGE, ISOLATED_ATOM, MARK, SPIN, Keys, Raw
from gradpot.errors import InputError, damaged


class Form(NamedTuple):
    """Names of the arrays in one kind of file."""

    name: str
    positions: str
    numbers: str
    energy: str
    forces: str
    count: str | None = None


FORMS = (
    Form("rMD17", "coords", "nuclear_charges", "energies", "forces"),
    Form("PhysNet", "R", "Z", "E", "F", "N"),
    Form("sGDML", "R", "z", "E", "F"),
)
UNITS = ("e_unit", "r_unit", "f_unit")
CELLS = ("cell", "lattice", "pbc")
# bookkeeping of sGDML and rMD17, not worth a notice
BOOKKEEPING = {"name", "theory", "type", "md5", "code_version", "perms"} | {
    f"{label}_{what}" for label in "EF" for what in ("min", "max", "mean", "var")
}


class Arrays:
    """The arrays of one file. Each is read when it is asked for, so that unused ones cost nothing.

    Raises:
        InputError: not an npz file, arrays in none of `FORMS`, a damaged array, or a wrong shape.
    """

    def __init__(self, path: Path):
        self.path = path
        self.keys = npz_members.names(path)
        found = [form for form in FORMS if {form.positions, form.numbers} <= self.keys]
        if not found:
            expected = "; ".join(f"{f.name}: {' '.join(k for k in f[1:] if k)}" for f in FORMS)
            raise InputError(
                f"{path} has the arrays {sorted(self.keys)}; expected one of {expected}"
            )
        self.form = found[0]

    def __getitem__(self, key: str) -> np.ndarray:
        return npz_members.read(self.path, key)

    def numbers(self, key: str, *shapes: tuple[int, ...]) -> np.ndarray:
        """An array of numbers, which must have one of the shapes if any are given."""
        array = self[key]
        if array.dtype.kind not in "fiub":
            raise InputError(f"{self.path}: {key} has type {array.dtype} but must be numbers")
        if shapes and array.shape not in shapes:
            expected = " or ".join(str(list(shape)) for shape in shapes)
            raise InputError(
                f"{self.path}: {key} has shape {list(array.shape)}; expected {expected} to match "
                f"{self.form.positions}"
            )
        return array

    def text(self, key: str) -> str | None:
        """A string, which may be stored as bytes; None if it is absent or empty.

        Raises:
            InputError: the array is not one string.
        """
        if key not in self.keys:
            return None
        value = self[key]
        if value.size != 1 or value.dtype.kind not in "SU":
            raise InputError(
                f"{self.path}: {key} has type {value.dtype} and shape {list(value.shape)} but must "
                "be the name of a unit"
            )
        with damaged(f"{self.path}: array {key!r} is damaged"):
            # numpy makes strings of any bytes, and Python stumbles over these later
            content = value.astype(value.dtype.newbyteorder("<")).tobytes()
            encoding = "utf-32-le" if value.dtype.kind == "U" else "utf-8"
            return content.decode(encoding).rstrip("\0") or None


def read_npz(path: Path, wanted: Keys) -> Raw:
    """What an npz file holds: positions, cells and labels without padding.

    Raises:
        InputError: the file is damaged, or its arrays do not fit together.
    """
    arrays = Arrays(path)
    form, keys = arrays.form, arrays.keys
    wanted.check(path, keys)
    usual = Keys(*(key if key in keys else None for key in (form.energy, form.forces)))
    chosen = complete(wanted, usual, keys)
    form = form._replace(energy=chosen.energy or form.energy, forces=chosen.forces or form.forces)
    positions = arrays.numbers(form.positions)
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise InputError(
            f"{path}: {form.positions} has shape {list(positions.shape)}; "
            "expected [frames, atoms, 3]"
        )
    if positions.size == 0:
        raise InputError(f"{path} holds no structures: {form.positions} is empty")
    n_frames, n_max, _ = positions.shape
    numbers = arrays.numbers(form.numbers, (n_max,), (n_frames, n_max))
    padded = np.broadcast_to(numbers, (n_frames, n_max))
    mask = padded != 0

    def column(key: str | None) -> np.ndarray | None:
        """One number for each frame; None if there is no such array."""
        if key not in keys:
            return None
        return arrays.numbers(key, (n_frames,), (n_frames, 1)).reshape(n_frames)

    stated, energy = column(form.count), column(form.energy)
    forces = arrays.numbers(form.forces, positions.shape) if form.forces in keys else None
    places = positions if forces is None else np.concatenate([positions, forces], axis=2)
    _check_padding(arrays, np.asarray(np.nan_to_num(places).any(2)), padded, stated)
    cell, cell_notices = _cell(arrays, n_frames)
    pbc = np.abs(cell).sum(-1) > 0
    if "pbc" in keys:
        pbc = arrays.numbers("pbc", (3,), (n_frames, 3), ()).astype(bool)
    texts = arrays[MARK] if MARK in keys else np.zeros(0)
    is_marked = texts.dtype.kind in "SU" and texts.shape == (n_frames,)
    absent = (("energies", form.energy), ("forces", form.forces))
    return Raw(
        n_atoms=mask.sum(1),
        numbers=padded[mask],
        positions=positions[mask],
        cell=cell,
        pbc=np.broadcast_to(pbc, (n_frames, 3)).copy(),
        energy=energy,
        forces=None if forces is None else forces[mask],
        keys=keys,
        field=arrays.numbers,
        charge=_of_frame(arrays, (*CHARGE, "q"), n_frames),
        spin=_of_frame(arrays, SPIN, n_frames),
        isolated=np.isin(np.char.lower(texts.astype(str)), ISOLATED_ATOM) if is_marked else None,
        units=Declared(*(arrays.text(key) for key in UNITS)),
        forces_key=chosen.forces,
        unused=tuple(keys - {*form[1:], *UNITS, *CELLS, *BOOKKEEPING, MARK}),
        notices=(
            *cell_notices,
            *(
                f"{what} from {key}"
                for what, key in zip(("energies", "forces"), chosen)
                if key and key not in usual
            ),
            *torn_apart(wanted, usual, chosen),
            *(f"no {name}: there is no array {key}" for name, key in absent if key not in keys),
        ),
    )


def _of_frame(
    arrays: Arrays, names: tuple[str, ...], n_frames: int
) -> Float[np.ndarray, "n_frames"] | None:
    """One number for each frame from the first array of these names, whatever their case."""
    for key in (key for name in names for key in arrays.keys if key.lower() == name):
        array = arrays[key]
        if array.dtype.kind in "fiu" and array.size in (1, n_frames):
            return np.broadcast_to(array.reshape(-1).astype(float), (n_frames,))
    return None


def _check_padding(
    arrays: Arrays,
    placed: Bool[np.ndarray, "n_frames n_max"],
    numbers: Num[np.ndarray, "n_frames n_max"],
    stated: Num[np.ndarray, "n_frames"] | None,
) -> None:
    """Raise an InputError for an atomic number 0 that is no padding.

    Padding is behind the atoms of a frame. If the file does not state the number of atoms, padding
    has no position and no force either, but zeros or NaN: it is not `placed`.
    """
    path, form, empty = arrays.path, arrays.form, numbers == 0
    n_atoms = (~empty).sum(1)
    if stated is not None and (stated != n_atoms).any():
        i = (stated != n_atoms).argmax()
        raise InputError(
            f"{path}: frame {i} has {form.count} = {stated[i]} but {n_atoms[i]} atoms in "
            f"{form.numbers}; pad with zeros"
        )
    wrong = empty & (np.arange(empty.shape[1]) < n_atoms[:, None])
    if stated is None:
        wrong |= empty & placed
    wrong[n_atoms == 0] = False  # has an error of its own, in files of all formats
    if wrong.any():
        i, atom = np.argwhere(wrong)[0]
        raise InputError(
            f"{path}: atom {atom} of frame {i} has atomic number 0 in {form.numbers}; expected an "
            f"element, or padding behind all atoms of the frame, with zeros in {form.positions} too"
        )


def _cell(arrays: Arrays, n_frames: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Cells [n_frames, 3, 3] with lattice vectors in rows, and notices.

    sGDML defines the columns of `lattice` as the lattice vectors (its source: "3 x 3 matrix
    containing lattice vectors as columns"), so that one is transposed.
    """
    key = next((key for key in ("cell", "lattice") if key in arrays.keys), None)
    rows = np.zeros((3, 3)) if key is None else arrays.numbers(key, (3, 3), (n_frames, 3, 3))
    notices = ()
    if key == "lattice":
        rows = np.swapaxes(rows, -1, -2)
        if not np.allclose(rows, np.swapaxes(rows, -1, -2)):
            notices = (
                "lattice: columns are read as lattice vectors, as sGDML defines it; if yours are "
                "rows, name the array cell",
            )
    return np.broadcast_to(rows.astype(np.float64), (n_frames, 3, 3)), notices
