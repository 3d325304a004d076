"""What a reader finds in a file, and how it becomes `Frames`: checked, in eV and Å.

A reader of a format fills a `Raw`. All checks of the content are made here, for every format.
"""

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from gradpot.data.declared import Declared, settle
from gradpot.data.frames import Frames
from gradpot.data.stress import StressLabel, check_unit, to_stress
from gradpot.errors import InputError
from gradpot.geometry import LARGEST_LENGTH, MAX_Z, volume

# Å; a shorter lattice vector is missing, or written in another unit
SHORTEST_VECTOR = 0.01
# volume of a cell with lattice vectors scaled to length 1; real cells have 0.1 or more, rounding
# errors give 1e-7
FLATTEST_CELL = 1e-6
# in any unit: as good as infinite, because float32 ends at 3e38 and conversion overflows
LARGEST_LABEL = 1e30
# eV; steps this coarse limit the accuracy of a good model, which is some 1e-4 eV
COARSE_STEP = 1e-5
# names of a field with the total charge, and with spin or multiplicity, in lower case
CHARGE = ("charge", "total_charge", "net_charge")
SPIN = ("spin", "multiplicity", "spin_multiplicity", "total_spin")
# name of the field, and values in lower case, that mark an isolated atom, as in files of MACE
MARK, ISOLATED_ATOM = "config_type", ("isolatedatom", "isolated_atom")
# a field with such a name is the gradient of the energy, which is minus the forces
GRADIENT = re.compile(r"gradient|(^|[._])grads?($|[._])|^de_?dr$", re.IGNORECASE)
# frames that a message lists: as many as fit into a line of text
NAMED = 10


class Keys(NamedTuple):
    """Names of the fields that hold the labels, as the user gives them; None: the usual names."""

    energy: str | None = None
    forces: str | None = None

    def check(self, path: Path, known: Collection[str]) -> None:
        """Raise an InputError that lists the fields of the file, unless it has those given."""
        for label, key in self._asdict().items():
            if key is not None and key not in known:
                raise InputError(
                    f"{path} has no field {key!r} (--{label}-key); it has "
                    f"{', '.join(sorted(known)) or 'none but the structures'}"
                )


class Raw(NamedTuple):
    """Arrays as a file has them, in its units; the atoms of all frames in one array."""

    n_atoms: Int[np.ndarray, "n_frames"]
    numbers: Num[np.ndarray, "total"]
    positions: Num[np.ndarray, "total 3"]
    cell: Float[np.ndarray, "n_frames 3 3"]
    """rows are lattice vectors"""
    pbc: Bool[np.ndarray, "n_frames 3"]
    energy: Num[np.ndarray, "n_frames"] | None
    """in the precision of the file; NaN for a missing label, None if the file has no energies"""
    forces: Num[np.ndarray, "total 3"] | None
    """as the file has them; with the opposite sign if `forces_key` names a gradient"""
    keys: Collection[str]
    """names of all fields of the file"""
    field: Callable[[str], np.ndarray]
    """from the name of a field to one row of numbers per frame; NaN where a frame lacks it"""
    units: Declared = Declared()
    """what the file states"""
    default: Declared = Declared()
    """the convention of the format, for units that neither the file nor the user states"""
    stress: StressLabel | None = None
    """how stress is written, if the reader knows; used only for files in eV and Å"""
    stress_unit: str | None = None
    """unit of stress that the file states, without saying how stress is written"""
    charge: Float[np.ndarray, "n_frames"] | None = None
    """total charge in e; NaN where it is not known"""
    spin: Float[np.ndarray, "n_frames"] | None = None
    """spin or multiplicity, as the file has it; NaN where it is not known"""
    isolated: Bool[np.ndarray, "n_frames"] | None = None
    """True for a frame that the file marks as an isolated atom"""
    converged: Bool[np.ndarray, "n_frames"] | None = None
    """False for a frame whose self-consistent field did not converge; None: not known"""
    forces_key: str | None = None
    """the field that they are from, unless its name is the usual one"""
    unused: tuple[str, ...] = ()
    """names of fields that are not read, for a notice"""
    notices: tuple[str, ...] = ()


def to_frames(
    path: Path,
    raw: Raw,
    user: Declared,
    stress: StressLabel | None = None,
    unconverged: bool = False,
) -> Frames:
    """Check the arrays of a file and convert them to eV and Å.

    Args:
        path: of the file, for messages.
        raw: what its reader found.
        user: units that the user states.
        stress: how stress is written; None leaves it unread unless the reader knows.
        unconverged: read the labels of frames that did not converge, too.

    Raises:
        InputError: units are not known or contradict each other, or a frame is wrong.
    """
    check(path, raw)
    has_energy, has_forces = raw.energy is not None, raw.forces is not None
    units, notice = settle(path, raw.units, user, raw.default, has_energy, has_forces)
    to_ev, to_ang, to_ev_ang = factors = units.factors()
    n_frames, total = raw.n_atoms.shape[0], raw.numbers.shape[0]
    energy = np.full(n_frames, np.nan) if raw.energy is None else raw.energy
    forces = np.full((total, 3), np.nan) if raw.forces is None else raw.forces
    gradient = raw.forces_key is not None and bool(GRADIENT.search(raw.forces_key))
    frames = Frames(
        n_atoms=raw.n_atoms,
        numbers=raw.numbers.astype(np.int64),
        positions=raw.positions.astype(np.float64) * to_ang,
        cell=raw.cell * raw.pbc[:, :, None] * to_ang + 0.0,  # no −0.0, which is another fingerprint
        pbc=raw.pbc,
        energy=energy.astype(np.float64) * to_ev,
        forces=forces.astype(np.float64) * (-to_ev_ang if gradient else to_ev_ang),
        stress=np.full((n_frames, 3, 3), np.nan),
        charge=np.full(n_frames, np.nan) if raw.charge is None else raw.charge,
        spin=np.full(n_frames, np.nan) if raw.spin is None else raw.spin,
        isolated=np.zeros(n_frames, bool) if raw.isolated is None else raw.isolated,
    )
    check_cells(path, frames)
    notices = [notice, *raw.notices]
    if gradient:
        notices.append(f"{raw.forces_key} is a gradient of the energy: forces are −1 times it")
    if energy.dtype == np.float32 and np.isfinite(energy).any():
        step = float(np.spacing(np.nanmax(np.abs(energy)))) * to_ev
        if step >= COARSE_STEP:
            text = f"energies are stored in single precision, in steps of {1000 * step:.2g} meV"
            notices.append(text)
    label = raw.stress if stress is None and factors == (1.0, 1.0, 1.0) else stress
    frames, named, notice = _with_stress(path, raw, frames, label)
    notices += notice
    if raw.converged is not None and not raw.converged.all():
        bad = np.flatnonzero(~raw.converged)
        frames = frames if unconverged else frames.without_labels(bad)
        what = "are read as asked" if unconverged else "are not read; --unconverged reads them"
        notices.append(f"not converged: {frame_names(bad)}; their labels {what}")
    if unused := sorted(set(raw.unused) - set(named)):
        notices.append(f"fields not used: {', '.join(unused)}")
    return frames._replace(notices=tuple(notices))


def _with_stress(
    path: Path, raw: Raw, frames: Frames, label: StressLabel | None
) -> tuple[Frames, list[str], list[str]]:
    """Frames with the stress that `label` describes, names of stress fields, and a notice.

    Raises:
        InputError: there is no such field, or its unit contradicts the file.
    """
    if label is None:
        named = sorted(key for key in raw.keys if re.search("stress|virial", key, re.IGNORECASE))
        if not named:
            return frames, [], []
        unread = (
            f"found stress fields but did not read them ({', '.join(named)}): to read one, add "
            f"--stress-key {named[0]} with --stress-unit, --stress-order and --stress-sign"
        )
        return frames, named, [unread]
    if label.key not in raw.keys:
        raise InputError(f"{path} has no stress {label.key!r}; it has {sorted(raw.keys)}")
    check_unit(path, label, raw.stress_unit)
    values = to_stress(path, raw.field(label.key), label, volume(frames.cell))
    notice = f"stress from {label.key} ({', '.join(label[1:])})"
    return frames._replace(stress=values), [label.key], [notice]


def frame_names(index: Int[np.ndarray, "n"]) -> str:
    """One frame by its index, or how many there are and the first of them, for a message."""
    if index.shape[0] == 1:
        return f"frame {index[0]}"
    first = ", ".join(map(str, index[:NAMED].tolist()))
    return f"{index.shape[0]} frames ({first}{' ...' if index.shape[0] > NAMED else ''})"


def check(path: Path, raw: Raw) -> None:
    """Raise an InputError that names the first frame whose atoms or labels are wrong."""
    n_frames, numbers = raw.n_atoms.shape[0], raw.numbers
    if n_frames == 0:
        raise InputError(f"{path} holds no structures")
    wrong = (numbers != np.floor(numbers)) | (numbers < 1) | (numbers > MAX_Z)
    found = numbers[wrong][0] if wrong.any() else ""
    missing = "; write NaN for a missing label, or leave it out"
    of_frame: dict[str, Any] = {
        "has no atoms; remove it": raw.n_atoms == 0,
        "has a cell that is not finite; remove the frame": ~np.isfinite(raw.cell).all((1, 2)),
    }
    of_atom: dict[str, Any] = {
        f"has an atom with atomic number {found}; expected a whole number, 1 to {MAX_Z}": wrong,
        "has positions that are not finite; remove the frame": ~np.isfinite(raw.positions).all(1),
    }
    if raw.energy is not None:
        of_frame[f"has an infinite energy{missing}"] = np.abs(raw.energy) > LARGEST_LABEL
    if raw.forces is not None:
        of_atom[f"has infinite forces{missing}"] = (np.abs(raw.forces) > LARGEST_LABEL).any(1)
    if raw.isolated is not None:
        what = "is marked as an isolated atom but has several; correct its config_type"
        of_frame[what] = raw.isolated & (raw.n_atoms > 1)
    frame = np.repeat(np.arange(n_frames), raw.n_atoms)
    for what, bad in of_atom.items():
        of_frame[what] = np.isin(np.arange(n_frames), frame[bad])
    _refuse(path, of_frame)


def check_cells(path: Path, frames: Frames) -> None:
    """Raise an InputError for cells without volume, and for lengths that cannot be meant."""
    with np.errstate(over="ignore"):
        length = np.linalg.norm(frames.cell, axis=2)
    short = frames.pbc & (length < SHORTEST_VECTOR)
    unit = frames.cell / np.where(frames.pbc & ~short, length, 1.0)[:, :, None]
    # zero rows of axes that are not periodic become unit vectors normal to the others
    gram = unit @ unit.transpose(0, 2, 1) + np.eye(3) * ~frames.pbc[:, None, :]
    flat = np.linalg.det(gram) < FLATTEST_CELL**2
    short_axis = "is periodic along an axis without a lattice vector"
    of = np.repeat(np.arange(frames.n_atoms.shape[0]), frames.n_atoms)
    far = np.bincount(of, (np.abs(frames.positions) > LARGEST_LENGTH).any(1)) > 0
    limit = f"beyond {LARGEST_LENGTH:,.0f} Å; state the unit, or remove the frame"
    problems = {
        f"has an atom {limit}": far,
        f"has a lattice vector {limit}": (length > LARGEST_LENGTH).any(1),
        short_axis: short.any(1),
        "has a cell without volume": flat,
    }
    _refuse(path, problems)


def _refuse(path: Path, problems: dict[str, Any]) -> None:
    """Raise an InputError for the first problem that any frame has."""
    for what, bad in problems.items():
        if bad.any():
            raise InputError(f"{path}: frame {bad.argmax()} {what}")
