"""npz files in the three forms that circulate: sGDML (MD17), rMD17 and PhysNet.

Nothing is unpickled. There is no Python loop over frames: padding is removed by one mask.
"""

import zipfile
import zlib
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from gradpot.data.declared import Declared, settle
from gradpot.data.frames import Frames
from gradpot.data.stress import StressLabel, left_out, looks_like_stress, to_stress, volumes
from gradpot.errors import InputError


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
# bookkeeping that sGDML and rMD17 write, and that nobody misses
BOOKKEEPING = {"name", "theory", "type", "md5", "code_version", "perms"} | {
    f"{label}_{what}" for label in "EF" for what in ("min", "max", "mean", "var")
}


def read(path: Path, user: Declared, stress: StressLabel | None) -> Frames:
    """Frames of one npz file; see `gradpot.data.files.read`."""
    with open(path, "rb") as file:
        return _frames(path, Arrays(path, file), user, stress)


def _frames(path: Path, arrays: "Arrays", user: Declared, stress: StressLabel | None) -> Frames:
    form = _form(path, arrays.keys)
    positions = _positions(path, arrays, form)
    numbers, mask = _numbers(path, arrays, form, positions.shape[:2])
    has_energy, has_forces = form.energy in arrays.keys, form.forces in arrays.keys
    said = Declared(*(arrays.text(key) for key in UNITS))
    units, notice = settle(path, said, user, has_energy, has_forces)
    to_ev, to_ang, to_ev_ang = units.factors()
    raw_energy = _energy(path, arrays, form, positions.shape[0])
    cell, pbc, cell_notices = _cells(path, arrays, positions.shape[0], to_ang)
    stresses, stress_notices = _stress(path, arrays, stress, cell)
    return Frames(
        n_atoms=mask.sum(1),
        numbers=numbers[mask],
        positions=_unpad(positions, mask) * to_ang,
        cell=cell,
        pbc=pbc,
        energy=raw_energy.astype(np.float64) * to_ev,
        forces=_unpad(_forces(path, arrays, form, positions.shape), mask) * to_ev_ang,
        stress=stresses,
        notices=(
            notice,
            *cell_notices,
            *stress_notices,
            *_absent(form, has_energy, has_forces),
            *_coarse(raw_energy, to_ev),
            *_ignored(arrays.keys, form, stress),
        ),
    )


class Arrays:
    """The arrays of a file, each read when it is asked for, so that the others cost nothing."""

    def __init__(self, path: Path, file: IO[bytes]):
        self.path = path
        try:
            self.file = np.load(file, allow_pickle=False)
        except (ValueError, zipfile.BadZipFile, EOFError):
            raise InputError(f"{path} is damaged or not an npz file") from None
        if not isinstance(self.file, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is a single array; expected an npz file of named arrays")
        self.keys = set(self.file.files)

    def __getitem__(self, key: str) -> np.ndarray:
        try:
            return self.file[key]
        except ValueError as error:
            if "pickle" not in str(error):
                raise InputError(f"{self.path}: array {key!r} is damaged ({error})") from None
            raise InputError(
                f"{self.path}: array {key!r} holds Python objects, which are not read because they "
                "can run code; save it again as plain numbers, padded with zeros"
            ) from None
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise InputError(f"{self.path}: array {key!r} is damaged ({error})") from None

    def numeric(self, key: str) -> np.ndarray:
        array = self[key]
        if array.dtype.kind not in "fiub":
            raise InputError(f"{self.path}: {key} has type {array.dtype} but must be numbers")
        return array

    def text(self, key: str) -> str | None:
        """A string, also one stored as bytes; None where it is absent or empty."""
        if key not in self.keys:
            return None
        value = self[key]
        if value.size != 1 or value.dtype.kind not in "SU":
            raise InputError(f"{self.path}: {key} is {value!r} but must be the name of a unit")
        item = value.reshape(-1)[0]
        return (item.decode(errors="replace") if isinstance(item, bytes) else str(item)) or None


def _form(path: Path, keys: set[str]) -> Form:
    for form in FORMS:
        if {form.positions, form.numbers} <= keys:
            return form
    expected = "; ".join(f"{f.name}: {' '.join(k for k in f[1:] if k)}" for f in FORMS)
    raise InputError(f"{path} has the arrays {sorted(keys)}; expected one of {expected}")


def _positions(path: Path, arrays: Arrays, form: Form) -> np.ndarray:
    positions = arrays.numeric(form.positions)
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise InputError(
            f"{path}: {form.positions} has shape {positions.shape} but must be [frames, atoms, 3]"
        )
    if positions.shape[0] == 0 or positions.shape[1] == 0:
        raise InputError(f"{path} holds no atoms: {form.positions} has shape {positions.shape}")
    _finite(path, form.positions, positions)
    return positions


def _numbers(
    path: Path, arrays: Arrays, form: Form, shape: tuple[int, int]
) -> tuple[Int[np.ndarray, "n_frames n_max"], Bool[np.ndarray, "n_frames n_max"]]:
    """Atomic numbers of every place, and which places hold an atom."""
    raw = arrays.numeric(form.numbers)
    if raw.shape not in (shape[1:], shape):
        raise InputError(
            f"{path}: {form.numbers} has shape {raw.shape} but {form.positions} has {shape[0]} "
            f"frames of {shape[1]} atoms; expected [{shape[1]}] or [{shape[0]}, {shape[1]}]"
        )
    bad = raw[(raw != np.floor(raw)) | (raw < 0) | (raw > 118)]
    if bad.size:
        raise InputError(
            f"{path}: {form.numbers} holds {bad[0]}; expected atomic numbers, 1 to 118 (0 pads)"
        )
    numbers = np.broadcast_to(raw.astype(np.int64), shape)
    mask = numbers > 0
    _counts(path, arrays, form, mask)
    return numbers, mask


def _counts(path: Path, arrays: Arrays, form: Form, mask: np.ndarray) -> None:
    found = mask.sum(1)
    if (found == 0).any():
        raise InputError(f"{path}: frame {found.argmin()} has no atoms; remove it")
    if form.count is None or form.count not in arrays.keys:
        return
    told = arrays.numeric(form.count).reshape(-1)
    if told.shape != found.shape:
        raise InputError(f"{path}: {form.count} has {told.size} entries for {found.size} frames")
    wrong = np.flatnonzero(told != found)
    if wrong.size:
        i = wrong[0]
        raise InputError(
            f"{path}: frame {i} has {form.count} = {told[i]} but {found[i]} atoms in "
            f"{form.numbers}; pad with zeros"
        )


def _energy(path: Path, arrays: Arrays, form: Form, n_frames: int) -> np.ndarray:
    """As the file has them, in its precision and unit."""
    if form.energy not in arrays.keys:
        return np.full(n_frames, np.nan)
    energy = arrays.numeric(form.energy)
    if energy.shape not in ((n_frames,), (n_frames, 1)):
        raise InputError(
            f"{path}: {form.energy} has shape {energy.shape} but {form.positions} has {n_frames} "
            f"frames; expected [{n_frames}] or [{n_frames}, 1]"
        )
    _not_infinite(path, form.energy, energy)
    return energy.reshape(n_frames)


def _forces(path: Path, arrays: Arrays, form: Form, shape: tuple[int, ...]) -> np.ndarray:
    if form.forces not in arrays.keys:
        return np.broadcast_to(np.nan, shape)
    forces = arrays.numeric(form.forces)
    if forces.shape != shape:
        raise InputError(
            f"{path}: {form.forces} has shape {forces.shape} but {form.positions} has {shape}; "
            "expected the same"
        )
    _not_infinite(path, form.forces, forces)
    return forces


def _cells(
    path: Path, arrays: Arrays, n_frames: int, to_ang: float
) -> tuple[Float[np.ndarray, "n_frames 3 3"], Bool[np.ndarray, "n_frames 3"], tuple[str, ...]]:
    """Cells with lattice vectors in rows, in Å, and which axes are periodic.

    sGDML defines the columns of `lattice` as the lattice vectors (its source: "3 x 3 matrix
    containing lattice vectors as columns"), so that one is transposed.
    """
    key = next((key for key in ("cell", "lattice") if key in arrays.keys), None)
    rows = np.zeros((3, 3)) if key is None else arrays.numeric(key).astype(np.float64)
    if rows.shape not in ((3, 3), (n_frames, 3, 3)):
        raise InputError(
            f"{path}: {key} has shape {rows.shape}; expected [3, 3] or [{n_frames}, 3, 3]"
        )
    _finite(path, str(key), rows)
    notices = ()
    if key == "lattice":
        rows = np.swapaxes(rows, -1, -2)
        if not np.allclose(rows, np.swapaxes(rows, -1, -2)):
            notices = (
                "lattice: its columns were taken as lattice vectors, as sGDML defines it; if yours "
                "are rows, name the array cell",
            )
    cell = np.broadcast_to(rows * to_ang, (n_frames, 3, 3))
    pbc = _pbc(path, arrays, cell)
    return cell * pbc[:, :, None], pbc, notices


def _pbc(path: Path, arrays: Arrays, cell: np.ndarray) -> Bool[np.ndarray, "n_frames 3"]:
    """Which axes are periodic: those with a lattice vector, where the file has no `pbc`."""
    has_vector = np.abs(cell).sum(-1) > 0
    if "pbc" not in arrays.keys:
        return _independent(path, cell, has_vector)
    raw = arrays.numeric("pbc")
    if raw.shape not in ((), (3,), has_vector.shape):
        raise InputError(f"{path}: pbc has shape {raw.shape}; expected [3] or [{cell.shape[0]}, 3]")
    pbc = np.broadcast_to(raw.astype(bool), has_vector.shape)
    if (pbc & ~has_vector).any():
        frame = (pbc & ~has_vector).any(1).argmax()
        raise InputError(f"{path}: frame {frame} is periodic along an axis without a cell vector")
    return _independent(path, cell, pbc.copy())


def _independent(path: Path, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    flat = pbc.all(1) & (np.abs(np.linalg.det(cell)) < 1e-6)
    if flat.any():
        raise InputError(f"{path}: the cell of frame {flat.argmax()} has no volume")
    return pbc


def _stress(
    path: Path, arrays: Arrays, label: StressLabel | None, cell: np.ndarray
) -> tuple[Float[np.ndarray, "n_frames 3 3"], tuple[str, ...]]:
    if label is None:
        present = sorted(key for key in arrays.keys if looks_like_stress(key))
        return np.full(cell.shape, np.nan), left_out(present)
    if label.key not in arrays.keys:
        raise InputError(f"{path} has no stress {label.key!r}; it has {sorted(arrays.keys)}")
    values = arrays.numeric(label.key)
    _not_infinite(path, label.key, values)
    notice = f"stress from {label.key} ({', '.join(label[1:])})"
    return to_stress(path, values, label, volumes(cell)), (notice,)


def _unpad(values: np.ndarray, mask: np.ndarray) -> Float[np.ndarray, "total 3"]:
    kept = values.reshape(-1, 3) if mask.all() else values[mask]
    return kept.astype(np.float64)


def _finite(path: Path, key: str, values: np.ndarray) -> None:
    bad = ~np.isfinite(values).reshape(values.shape[0], -1).all(1)
    if bad.any():
        raise InputError(f"{path}: {key} is not finite in frame {bad.argmax()}; remove that frame")


def _not_infinite(path: Path, key: str, values: np.ndarray) -> None:
    """NaN means no label; infinity means that something went wrong."""
    bad = np.isinf(values).reshape(values.shape[0], -1).any(1)
    if bad.any():
        raise InputError(
            f"{path}: {key} is infinite in frame {bad.argmax()}; write NaN for a missing label"
        )


def _absent(form: Form, has_energy: bool, has_forces: bool) -> tuple[str, ...]:
    found = ((has_energy, "energies", form.energy), (has_forces, "forces", form.forces))
    return tuple(f"no {name}: there is no array {key}" for has, name, key in found if not has)


def _coarse(energy: np.ndarray, to_ev: float) -> tuple[str, ...]:
    """Say so when single precision has cost digits of the energy."""
    if energy.dtype != np.float32 or np.isnan(energy).all():
        return ()
    step = float(np.spacing(np.nanmax(np.abs(energy)))) * to_ev
    if step < 1e-5:
        return ()
    return (f"energies are stored in single precision, in steps of {1000 * step:.2g} meV",)


def _ignored(keys: set[str], form: Form, stress: StressLabel | None) -> tuple[str, ...]:
    known = {*form[1:], *UNITS, *CELLS, *BOOKKEEPING, *([stress.key] if stress else [])}
    rest = sorted(key for key in keys - known if stress or not looks_like_stress(key))
    return (f"arrays not used: {', '.join(rest)}",) if rest else ()
