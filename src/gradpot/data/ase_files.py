"""Files that ASE reads: extxyz, trajectories, outputs of programs, and ASE databases.

ASE documents eV and Å for all of them. gradpot assumes them, and says so, unless options or the
metadata of SchNetPack in a database say otherwise. The text of an extxyz file is whatever its
author wrote, so a stress in it needs a `StressLabel`; everywhere else ASE has converted it.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from gradpot.data.declared import Declared
from gradpot.data.raw import Keys, Raw
from gradpot.data.stress import StressLabel
from gradpot.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

# names of energies and of forces, families and names in order of preference. Energies and forces
# are taken from one family: a model's energy beside reference forces is no label. `free_energy` is
# another quantity
FAMILIES = {
    "plain": (
        ("energy", "Energy", "total_energy", "TotEnergy", "energy_U0", "E"),
        ("forces", "force", "Forces", "F"),
    ),
    "REF": (("REF_energy", "ref_energy"), ("REF_forces", "ref_forces", "REF_force")),
    "DFT": (("dft_energy", "DFT_energy"), ("dft_forces", "DFT_forces", "dft_force")),
}
LABELS = [name for family in FAMILIES.values() for names in family for name in names]
ASE_UNITS = Declared("eV", "Ang")
# what ASE calls the fields of an extxyz file that people spell in other ways
SPELLING = {"lattice": "Lattice", "cell": "Lattice", "pbc": "pbc", "periodic": "pbc"}
# prefix of names that ASE would otherwise treat in its own way
MASK = "_as_written_"
# eV; a smaller difference is rounding
FREE_ENERGY_GAP = 1e-6


def load(path: Path, stress_as_written: bool = False) -> tuple[list["Atoms"], str]:
    """All structures of a file, as ASE reads them, and ASE's name of the format.

    Args:
        path: any file that `ase.io.read` accepts.
        stress_as_written: keep ASE from changing the stress in an extxyz file: it reduces
            nine numbers to six, assumes its own sign, and refuses a file with six.

    Raises:
        InputError: ASE does not know the format, or cannot read the file; or an extxyz file has a
            cell or pbc under a name that ASE ignores, which would make molecules of crystals.
    """
    from ase.io import read
    from ase.io.extxyz import key_val_str_to_dict
    from ase.io.formats import filetype

    def comment_line(line: str) -> dict[str, Any]:
        return key_val_str_to_dict(re.sub(r"\b(stress|virial)(?=\s*=)", MASK + r"\1", line))

    kind, options = None, {}
    try:
        kind = filetype(str(path), guess=False)
        if kind == "extxyz" and stress_as_written:
            options["properties_parser"] = comment_line
        found = read(path, ":", kind, do_not_split_by_at_sign=True, **options)
    except Exception as error:  # every format raises its own
        what = f"as {kind}" if kind else "because it does not know the format"
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"ASE cannot read {path} {what} ({reason})") from None
    structures = found if isinstance(found, list) else [found]
    for i, atoms in enumerate(structures if kind == "extxyz" else ()):
        for key in atoms.info:
            if key.lower() in SPELLING:
                raise InputError(
                    f"{path}: frame {i} has a field {key!r}, which ASE does not read as a cell; "
                    f"write it as {SPELLING[key.lower()]}"
                )
    return structures, kind


def read_ase(path: Path, wanted: Keys) -> Raw:
    """What a file that ASE reads holds, in ASE's units.

    Raises:
        InputError: ASE cannot read the file, or a label has a wrong shape.
    """
    structures, kind = load(path, stress_as_written=True)
    fields = [_fields(atoms) for atoms in structures]
    raw = _raw(path, structures, fields, {}, wanted)._replace(default=ASE_UNITS)
    if kind != "extxyz":
        return raw
    return raw._replace(stress=None, units=stated_units(path, fields))


def stated_units(path: Path, fields: Sequence[dict]) -> Declared:
    """Units that the comment lines of an extxyz file state, such as `energy-unit=hartree`.

    Raises:
        InputError: frames state different units.
    """
    found: dict[str, str] = {}
    for i, frame in enumerate(fields):
        for key, value in frame.items():
            name = re.fullmatch(r"(energy|length|force)s?[-_ ]?units?", key.lower())
            if name and str(value) != found.setdefault(name[1], str(value)):
                raise InputError(
                    f"{path}: frame {i} has {key}={value}, and frames before it have "
                    f"{found[name[1]]}; convert them to one unit"
                )
    return Declared(**found)


def read_database(path: Path, wanted: Keys) -> Raw:
    """What an ASE database holds, in SchNetPack's units if its metadata has them, else in ASE's.

    Raises:
        InputError: ASE cannot read the file, or a label has a wrong shape.
    """
    from ase.db import connect

    try:
        database = connect(path, use_lock_file=False)
        metadata = dict(database.metadata)
        rows = list(database.select())
        structures = [row.toatoms() for row in rows]
        # results of a calculator come before what authors added
        fields = [{**r.key_value_pairs, **r.data, **_fields(a)} for a, r in zip(structures, rows)]
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"ASE cannot read {path} as a database ({reason})") from None
    names = {**metadata.get("_property_unit_dict", {}), "": metadata.get("_distance_unit")}
    raw = _raw(path, structures, fields, names, wanted)
    if metadata.keys() & {"_property_unit_dict", "_distance_unit"}:
        return raw._replace(stress=None)
    return raw._replace(default=ASE_UNITS)


def _fields(atoms: "Atoms") -> dict[str, Any]:
    """Everything an ASE structure carries besides its geometry."""
    results = getattr(atoms.calc, "results", {})
    arrays = {key: a for key, a in atoms.arrays.items() if key not in ("numbers", "positions")}
    info = {key.removeprefix(MASK): value for key, value in atoms.info.items()}
    return {**info, **arrays, **results}


def _raw(
    path: Path,
    structures: Sequence["Atoms"],
    fields: Sequence[dict],
    units: dict[str, Any],
    wanted: Keys,
) -> Raw:
    """Geometries, and labels from the fields of each structure; `units` by field, length as ""."""
    n_atoms = np.array([len(atoms) for atoms in structures])
    # ASE turns a word of a comment line that has no value into True
    words = {k for frame in fields for k, v in frame.items() if isinstance(v, bool | np.bool_)}
    fields = [{k: v for k, v in frame.items() if k not in words} for frame in fields]
    keys = sorted({key for frame in fields for key in frame if frame[key] is not None})
    unread = ", ".join(sorted(words & {*LABELS}))
    notices = [f"not read: {unread} has no value; write NAME=VALUE"] if unread else []
    wanted.check(path, keys)
    energy_key, force_key = choose_labels(keys)
    energy_key, force_key = chosen = wanted.energy or energy_key, wanted.forces or force_key
    unused = [key for key in LABELS if key in keys and key not in chosen]
    for name, key in (("energies", energy_key), ("forces", force_key)):
        if key is None:
            has = ", ".join(keys) or "no other fields"
            notices.append(f"no {name}: looked for {', '.join(LABELS)}; the file has {has}")
        elif key not in ("energy", "forces") or unused:
            notices.append(f"{name} from {key}")
    if unused:
        notices.append(f"labels not used: {', '.join(unused)}")
    vectors = [(n, 3) for n in n_atoms.tolist()]
    energy = np.array(_label(path, fields, energy_key, repeat(()))) if energy_key else None
    forces = np.concatenate(_label(path, fields, force_key, vectors)) if force_key else None
    if energy is not None and "free_energy" in keys:
        free = np.array(_label(path, fields, "free_energy", repeat(())))
        gap = np.nan_to_num(np.abs(free - energy)).max()
        if gap > FREE_ENERGY_GAP:
            notices.append(
                f"free_energy differs from energy by up to {gap:.3g} and is not used; the forces "
                "of many programs belong to the free energy"
            )
    # ASE has converted the results of its calculators, and nothing that authors added
    computed = [getattr(atoms.calc, "results", {}) for atoms in structures]
    added = any("stress" in frame.keys() - own.keys() for frame, own in zip(fields, computed))
    converted = "stress" in keys and not added
    order = "matrix" if converted and _size(fields, "stress") == 9 else "voigt"
    said = (None if key is None else units.get(key) for key in (energy_key, "", force_key))
    return Raw(
        n_atoms=n_atoms,
        numbers=np.concatenate([np.zeros(0, int), *(atoms.numbers for atoms in structures)]),
        positions=np.concatenate([np.zeros((0, 3)), *(atoms.positions for atoms in structures)]),
        cell=np.array([atoms.cell.array for atoms in structures]),
        pbc=np.array([atoms.pbc for atoms in structures]),
        energy=energy,
        forces=forces,
        keys=keys,
        field=lambda key: np.array(_label(path, fields, key, repeat((_size(fields, key),)))),
        units=Declared(*(unit if isinstance(unit, str) and unit else None for unit in said)),
        stress=StressLabel("stress", "eV/Ang^3", order, "tension") if converted else None,
        notices=tuple(notices),
    )


def choose_labels(keys: Sequence[str]) -> tuple[str | None, str | None]:
    """Names of the energies and of the forces to read, from one family of `FAMILIES`.

    A family with both comes first, then one with forces. None if the family has none.
    """

    def first(names: Sequence[str]) -> str | None:
        return next((name for name in names if name in keys), None)

    found = [(first(energies), first(forces)) for energies, forces in FAMILIES.values()]
    return max(found, key=lambda f: (None not in f, f[1] is not None, f[0] is not None))


def _size(fields: Sequence[dict], key: str) -> int:
    """How many numbers a stress has: nine if it has nine in the first frame with one, else six."""
    values = (frame[key] for frame in fields if frame.get(key) is not None)
    return 9 if np.size(next(values)) == 9 else 6


def _label(
    path: Path, fields: Sequence[dict], key: str, shapes: Iterable[tuple[int, ...]]
) -> list[Float[np.ndarray, "..."]]:
    """One label of all frames, in these shapes; NaN where a frame lacks it.

    Raises:
        InputError: a frame has it in another shape, or not as numbers.
    """
    found = []
    for i, (frame, shape) in enumerate(zip(fields, shapes)):
        value = np.full(shape, np.nan) if frame.get(key) is None else frame[key]
        try:  # SchNetPack adds an axis of length one
            found.append(np.asarray(value, dtype=np.float64).reshape(shape))
        except (TypeError, ValueError):
            raise InputError(
                f"{path}: {key} of frame {i} is {str(value)[:40]!r}; expected "
                f"{f'numbers in shape {list(shape)}' if shape else 'one number'}"
            ) from None
    return found
