"""Files that ASE reads: extxyz, trajectories, outputs of programs, and ASE databases.

ASE documents eV and Å for all of them. gradpot assumes them, and says so, unless options or the
metadata of SchNetPack in a database say otherwise. The text of an extxyz file is whatever its
author wrote, so a stress in it needs a `StressLabel`; everywhere else ASE has converted it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from jaxtyping import Float

from gradpot.data.declared import Declared
from gradpot.data.formats.boundary import CONVERT, reading
from gradpot.data.formats.extxyz import (
    MASK,
    check_counts,
    check_fields,
    comment_line,
    is_unit,
    stated_units,
    unnamed_columns,
)
from gradpot.data.formats.labels import LABELS, choose
from gradpot.data.formats.outputs import examine
from gradpot.data.raw import CHARGE, ISOLATED_ATOM, MARK, SPIN, Keys, Raw
from gradpot.data.stress import StressLabel
from gradpot.errors import InputError, reason

if TYPE_CHECKING:
    from ase.db.row import AtomsRow

ASE_UNITS = Declared("eV", "Ang")
# ASE's names of formats that hold structures and no labels
STRUCTURES = {
    *("vasp", "vasp-xdatcar", "cif", "proteindatabank", "sdf", "mol", "gromacs", "gromos"),
    *("lammps-data", "espresso-in", "aims", "gaussian-in", "nwchem-in", "turbomole", "gen"),
}
# u; isotopes of hydrogen that have a symbol of their own
ISOTOPES = {"D": 2.014, "T": 3.016}
# stand for D and T while ASE reads; no file has them as atomic numbers
STAND_INS = {"D": -2_014_000, "T": -3_016_000}
# names of a column of masses; the first is ASE's
MASSES = ("masses", "mass", "Masses", "Mass")
# fields that are read, or that only keep house
NO_NOTICE = {*MASSES, *LABELS, MARK, "tags", "free_energy", "unique_id"}
# eV; a smaller difference is rounding
FREE_ENERGY_GAP = 1e-6
# of a sum of initial charges, in e: more are rounding errors
DECIMALS = 6


class Loaded(NamedTuple):
    """What ASE makes of a file."""

    structures: list[Atoms]
    fields: list[dict[str, Any]]
    """everything that each structure carries besides its geometry"""
    units: dict[str, str]
    """by the name of a field, as SchNetPack states them"""
    raw: Raw
    """geometry, without labels"""


def read_ase(path: Path, wanted: Keys) -> Raw:
    """What a file that ASE reads holds, in ASE's units unless an extxyz file states others.

    Raises:
        InputError: ASE cannot read the file, or a label has a wrong shape.
    """
    from ase.io.formats import filetype

    raw = with_labels(path, load(path), wanted)
    kind = filetype(str(path), guess=False)
    if raw.energy is None and raw.forces is None and kind in STRUCTURES:
        said = [text for text in raw.notices if not text.startswith(("no energies", "no forces"))]
        return raw._replace(notices=(*said, f"no labels: files of the format {kind} have none"))
    return raw


def read_database(path: Path, wanted: Keys) -> Raw:
    """What an ASE database holds, in SchNetPack's units if its metadata has them, else in ASE's.

    Raises:
        InputError: ASE cannot read the file, or a label has a wrong shape.
    """
    return with_labels(path, load_database(path), wanted)


def load(path: Path) -> Loaded:
    """All structures of any file that `ase.io.read` accepts.

    Raises:
        InputError: ASE does not know the format, or cannot read the file; or an extxyz file has a
            cell or pbc under a name that ASE ignores, which would make molecules of crystals.
    """
    from ase.io import read
    from ase.io.formats import filetype

    kind, options = None, {}
    try:
        kind = filetype(str(path), guess=False)
        if kind == "extxyz":
            check_counts(path)
            options["properties_parser"] = comment_line
        with isotopes():
            found = read(path, ":", kind, do_not_split_by_at_sign=True, **options)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # every format raises its own
        what = f"as {kind}" if kind else "because it does not know the format"
        why = f"{type(error).__name__}: {reason(error)}"
        raise InputError(f"ASE cannot read {path} {what} ({why}); {CONVERT}") from error
    found = found if isinstance(found, list) else [found]
    if not found or None in found:  # of an output that is cut short
        raise InputError(f"{path} holds no structures that ASE finds as {kind}; {CONVERT}")
    structures, converged, notices = examine(path, kind, [with_masses(atoms) for atoms in found])
    fields = [_fields(atoms) for atoms in structures]
    raw = _geometry(path, structures, fields)
    raw = raw._replace(default=ASE_UNITS, converged=converged, notices=notices)
    if kind == "extxyz":
        for i, (atoms, frame) in enumerate(zip(structures, fields)):
            check_fields(path, i, frame, atoms.numbers)
        units, of_stress = stated_units(path, fields)
        notices = (*notices, *unnamed_columns(path))
        raw = raw._replace(units=units, stress_unit=of_stress, notices=notices)
    return Loaded(structures, fields, {}, raw)


def load_database(path: Path) -> Loaded:
    """All structures of an ASE database, with the key-value pairs and the data of their rows.

    Raises:
        InputError: ASE cannot read the file.
    """
    from ase.db import connect

    with reading(path, "an ASE database"):
        database = connect(path, use_lock_file=False)
        metadata: dict[str, Any] = {str(key): value for key, value in database.metadata.items()}
        rows: list[AtomsRow] = list(database.select())
    return of_rows(path, rows, metadata)


def of_rows(path: Path, rows: Sequence["AtomsRow"], metadata: dict[str, Any]) -> Loaded:
    """What the rows of an ASE database hold, of whatever kind the database is.

    SchNetPack's metadata have the units of the data of a row. A row may also have results of a
    calculator, in eV, which are not read then; without metadata they come before the data.

    Raises:
        InputError: a row is damaged.
    """
    schnetpack = bool(metadata.keys() & {"_property_unit_dict", "_distance_unit"})
    with reading(path, "an ASE database"):
        with isotopes():
            structures = [with_masses(row.toatoms()) for row in rows]
        fields = [{**row.key_value_pairs, **row.data} for row in rows]
        if not schnetpack:
            fields = [{**own, **_fields(a)} for own, a in zip(fields, structures)]
        raw = _geometry(path, structures, fields)
    if not schnetpack:
        return Loaded(structures, fields, {}, raw._replace(default=ASE_UNITS))
    units = Declared(length=metadata.get("_distance_unit") or None)
    names = metadata.get("_property_unit_dict", {})
    return Loaded(structures, fields, names, raw._replace(units=units))


@contextmanager
def isotopes() -> Iterator[None]:
    """Let ASE read D and T, which it does not know as symbols, as the numbers of `STAND_INS`."""
    new = {symbol: z for symbol, z in STAND_INS.items() if symbol not in atomic_numbers}
    atomic_numbers.update(new)
    try:
        yield
    finally:
        for symbol in new:
            del atomic_numbers[symbol]


def with_masses(atoms: Atoms) -> Atoms:
    """The structure with hydrogen for D and T, and with masses that its file has under any name."""
    heavy = {symbol: atoms.numbers == z for symbol, z in STAND_INS.items()}
    named = next((name for name in MASSES if name in atoms.arrays), None)
    for of_isotope in heavy.values():
        atoms.numbers[of_isotope] = 1
    if named is not None:
        atoms.set_array("masses", atoms.arrays[named].astype(float), float, ())
    elif any(of_isotope.any() for of_isotope in heavy.values()):
        masses = atoms.get_masses()
        for symbol, of_isotope in heavy.items():
            masses[of_isotope] = ISOTOPES[symbol]
        atoms.set_array("masses", masses, float, ())
    return atoms


def _fields(atoms: Atoms) -> dict[str, Any]:
    """Everything an ASE structure carries besides its geometry."""
    results = getattr(atoms.calc, "results", {})
    arrays = {key: a for key, a in atoms.arrays.items() if key not in ("numbers", "positions")}
    info = {key.removeprefix(MASK): value for key, value in atoms.info.items()}
    return {**info, **arrays, **results}


def _geometry(path: Path, structures: Sequence[Atoms], fields: Sequence[dict]) -> Raw:
    """Atoms, cells, charges and marks.

    Raises:
        InputError: there are no structures.
    """
    if not structures:
        raise InputError(f"{path} holds no structures")
    charge = np.array([scalar(frame, CHARGE) for frame in fields])
    # where no charge is stated, calculators of ASE take the sum of the initial charges
    summed = np.array(
        [
            a.get_initial_charges().sum().round(DECIMALS) if a.has("initial_charges") else np.nan
            for a in structures
        ]
    )
    marks = [str(frame.get(MARK, "")).lower() in ISOLATED_ATOM for frame in fields]
    return Raw(
        n_atoms=np.array([len(atoms) for atoms in structures]),
        numbers=np.concatenate([np.zeros(0, int), *(atoms.numbers for atoms in structures)]),
        positions=np.concatenate([np.zeros((0, 3)), *(atoms.positions for atoms in structures)]),
        cell=np.array([atoms.cell.array for atoms in structures]),
        pbc=np.array([atoms.pbc for atoms in structures]),
        energy=None,
        forces=None,
        keys=(),
        field=lambda key: np.zeros(0),
        charge=np.where(np.isnan(charge), summed, charge),
        spin=np.array([scalar(frame, SPIN) for frame in fields]),
        isolated=np.array(marks, dtype=bool),
    )


def scalar(frame: dict[str, Any], names: Sequence[str]) -> float:
    """The first field of these names, whatever its case, that is a number; else NaN."""
    values = {key.lower(): value for key, value in frame.items()}
    found = (values[name] for name in names if name in values)
    numbers = (v for v in found if isinstance(v, int | float | np.number) and v is not True)
    return float(next(numbers, np.nan))


def with_labels(path: Path, loaded: Loaded, wanted: Keys) -> Raw:
    """The geometry of a file with its labels: energies, forces, and how stress is written."""
    structures, all_fields, names, raw = loaded
    # ASE turns a word of a comment line that has no value into True
    fields = [
        {k: v for k, v in frame.items() if not (v is None or isinstance(v, bool | np.bool_))}
        for frame in all_fields
    ]
    keys = [k for k in sorted(set().union(*fields)) if not (k.startswith(MASK) or is_unit(k))]
    wanted.check(path, keys)
    words = {k for all, some in zip(all_fields, fields) for k in all.keys() - some.keys()}
    unread = ", ".join(sorted(words & {*LABELS, *wanted}))
    chosen, notices = choose(fields, wanted)
    if unread:
        notices.insert(0, f"not read: {unread} has no value; write NAME=VALUE")
    energy = _label(path, fields, [key.energy for key in chosen], repeat(()))
    shapes = [(len(atoms), 3) for atoms in structures]
    forces = _label(path, fields, [key.forces for key in chosen], shapes)
    free = _label(path, fields, repeat("free_energy"), repeat(()))
    gap = np.nan_to_num(np.abs(np.array(free) - np.array(energy))).max(initial=0.0)
    if gap > FREE_ENERGY_GAP:
        notices.append(
            f"free_energy differs from energy by up to {gap:.3g} and is not used; the forces of "
            "many programs belong to it: --energy-key free_energy reads it"
        )
    # ASE has converted the results of its calculators, and nothing that authors added
    computed = [getattr(atoms.calc, "results", {}) for atoms in structures]
    added = any("stress" in frame.keys() - own.keys() for frame, own in zip(fields, computed))
    converted = "stress" in keys and not added and raw.default == ASE_UNITS
    order = "matrix" if converted and _size(fields, "stress") == 9 else "voigt"
    used = {key for pair in chosen for key in pair}
    return raw._replace(
        energy=np.array(energy) if any(pair.energy for pair in chosen) else None,
        forces=np.concatenate(forces) if any(pair.forces for pair in chosen) else None,
        keys=keys,
        field=lambda key: _stress(path, fields, key),
        forces_key=wanted.forces,
        units=_units(path, raw.units, names, chosen),
        stress=StressLabel("stress", "eV/Ang^3", order, "tension") if converted else None,
        unused=tuple(k for k in keys if k not in used and k not in NO_NOTICE),
        notices=(*raw.notices, *notices),
    )


def _units(path: Path, own: Declared, names: dict[str, str], chosen: Sequence[Keys]) -> Declared:
    """The units of a file, with those of the fields that were chosen.

    Raises:
        InputError: frames have labels in different units.
    """
    if not names:
        return own
    found: dict[str, str | None] = {"length": own.length}
    for what, keys in (
        ("energy", [k.energy for k in chosen]),
        ("force", [k.forces for k in chosen]),
    ):
        units = {names.get(key) or None for key in keys if key}
        if len(units) > 1:
            raise InputError(
                f"{path} has {what} in {' and '.join(map(str, units))}; choose one with "
                "--energy-key and --forces-key"
            )
        found[what] = units.pop() if units else None
    return Declared(**found)


def _stress(path: Path, fields: Sequence[dict], key: str) -> np.ndarray:
    """A field with six or nine numbers in each frame."""
    return np.array(_label(path, fields, repeat(key), repeat((_size(fields, key),))))


def _size(fields: Sequence[dict], key: str) -> int:
    """How many numbers a stress has: nine if it has nine in the first frame with one, else six."""
    values = (frame[key] for frame in fields if frame.get(key) is not None)
    return 9 if np.size(next(values)) == 9 else 6


def _label(
    path: Path,
    fields: Sequence[dict],
    keys: Iterable[str | None],
    shapes: Iterable[tuple[int, ...]],
) -> list[Float[np.ndarray, "..."]]:
    """The label under each frame's key, in these shapes; NaN where a frame lacks it.

    Raises:
        InputError: a frame has it in another shape, or not as numbers.
    """
    found = []
    for i, (frame, key, shape) in enumerate(zip(fields, keys, shapes)):
        value = frame.get(key)
        value = np.full(shape, np.nan) if value is None else value
        try:  # SchNetPack adds an axis of length one
            found.append(np.asarray(value, dtype=np.float64).reshape(shape))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}: {key} of frame {i} is {str(value)[:40]!r}; expected "
                f"{f'numbers in shape {list(shape)}' if shape else 'one number'}"
            ) from error
    return found
