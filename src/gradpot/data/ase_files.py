"""Files that ASE reads: extxyz, trajectories, outputs of programs, and ASE databases.

ASE documents eV and Å for all of them, so that is taken (and said), unless options or the
metadata of SchNetPack in a database say otherwise. The text of an extxyz file is whatever its
author wrote, so a stress in it needs a `StressLabel`; everywhere else ASE has converted it.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gradpot.data.declared import Declared, settle
from gradpot.data.frames import Frames
from gradpot.data.stress import StressLabel, left_out, looks_like_stress, to_stress, volumes
from gradpot.errors import InputError
from gradpot.units import Units

if TYPE_CHECKING:
    from ase import Atoms

# in order of preference; `free_energy` is another quantity and is not here
ENERGY_KEYS = ("energy", "Energy", "REF_energy", "ref_energy", "dft_energy", "DFT_energy")
ENERGY_KEYS += ("total_energy", "TotEnergy", "energy_U0", "E")
FORCE_KEYS = ("forces", "force", "Forces", "REF_forces", "ref_forces", "dft_forces", "DFT_forces")
FORCE_KEYS += ("dft_force", "REF_force", "F")
ASE_STRESS = StressLabel("stress", "eV/Ang^3", "voigt", "tension")


# put before names that ASE would treat in its own way
MASK = "_as_written_"


class Source(NamedTuple):
    """What a file holds before anything is converted."""

    structures: Sequence["Atoms"]
    fields: Sequence[dict[str, Any]]
    """everything else that is known of each structure, by name"""
    says: Callable[[str | None, str | None], Declared | None]
    """units of the labels with these names; None where ASE's convention holds"""
    converted: bool
    """whether ASE has brought the stress to its own convention"""


def read(path: Path, user: Declared, stress: StressLabel | None) -> Frames:
    """Frames of any file that `ase.io.read` takes; see `gradpot.data.files.read`."""
    from ase.io import read as ase_read
    from ase.io.formats import filetype

    kind, options = None, {}
    try:
        kind = filetype(str(path), guess=False)
        if kind == "extxyz":
            options["properties_parser"] = _comment_line
        structures = ase_read(path, ":", kind, do_not_split_by_at_sign=True, **options)
    except Exception as error:
        what = f"as {kind}" if kind else "because it does not know the format"
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"ASE cannot read {path} {what} ({reason})") from None
    structures = structures if isinstance(structures, list) else [structures]
    fields = [_fields(atoms) for atoms in structures]
    source = Source(structures, fields, lambda *_: None, converted=kind != "extxyz")
    return _frames(path, source, user, stress)


def _comment_line(line: str) -> dict[str, Any]:
    """Fields of the second line of an extxyz frame, with stress left as its author wrote it.

    ASE makes six numbers of nine under these keys, takes the sign for its own, and refuses a file
    with six.
    """
    from ase.io.extxyz import key_val_str_to_dict

    return key_val_str_to_dict(re.sub(r"\b(stress|virial)(?=\s*=)", MASK + r"\1", line))


def read_database(path: Path, user: Declared, stress: StressLabel | None) -> Frames:
    """Frames of an ASE database, with SchNetPack's units where its metadata has them."""
    from ase.db import connect

    try:
        database = connect(path, use_lock_file=False)
        metadata = dict(database.metadata)
        rows = list(database.select())
        structures = [row.toatoms() for row in rows]
        fields = [{**_fields(a), **r.key_value_pairs, **r.data} for a, r in zip(structures, rows)]
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"ASE cannot read {path} as a database ({reason})") from None
    schnetpack = "_property_unit_dict" in metadata or "_distance_unit" in metadata
    names = metadata.get("_property_unit_dict", {})

    def says(energy: str | None, forces: str | None) -> Declared | None:
        found = (names.get(energy), metadata.get("_distance_unit"), names.get(forces))
        return Declared(*(u if isinstance(u, str) and u else None for u in found))

    source = Source(
        structures, fields, says if schnetpack else lambda *_: None, converted=not schnetpack
    )
    return _frames(path, source, user, stress)


def _fields(atoms: "Atoms") -> dict[str, Any]:
    """Everything an ASE structure carries besides its geometry."""
    results = {} if atoms.calc is None else getattr(atoms.calc, "results", {})
    arrays = {key: a for key, a in atoms.arrays.items() if key not in ("numbers", "positions")}
    info = {key.removeprefix(MASK): value for key, value in atoms.info.items()}
    return {**info, **arrays, **results}


def _frames(path: Path, source: Source, user: Declared, stress: StressLabel | None) -> Frames:
    structures, fields = source.structures, source.fields
    _check(path, structures)
    n_atoms = np.array([len(atoms) for atoms in structures])
    energy_key, energy_notices = _choose(fields, ENERGY_KEYS, "energies")
    force_key, force_notices = _choose(fields, FORCE_KEYS, "forces")
    units, notice = _units(path, source.says(energy_key, force_key), user, energy_key, force_key)
    to_ev, to_ang, to_ev_ang = units.factors()
    pbc = np.array([atoms.pbc for atoms in structures])
    cell = np.array([np.asarray(atoms.cell) for atoms in structures]) * pbc[:, :, None] * to_ang
    converted = source.converted and units.factors() == (1.0, 1.0, 1.0)
    stresses, stress_notices = _stress(path, fields, stress, cell, converted)
    energy = _gather(path, fields, energy_key, [()] * len(n_atoms))
    return Frames(
        n_atoms=n_atoms,
        numbers=np.concatenate([atoms.numbers for atoms in structures]).astype(np.int64),
        positions=np.concatenate([atoms.positions for atoms in structures]) * to_ang,
        cell=cell,
        pbc=pbc,
        energy=np.array(energy, dtype=np.float64) * to_ev,
        forces=np.concatenate(_gather(path, fields, force_key, [(n, 3) for n in n_atoms.tolist()]))
        * to_ev_ang,
        stress=stresses,
        notices=(notice, *energy_notices, *force_notices, *stress_notices, *_free(fields, energy)),
    )


def _check(path: Path, structures: Sequence["Atoms"]) -> None:
    if not structures:
        raise InputError(f"{path} holds no structures")
    for i, atoms in enumerate(structures):
        if len(atoms) == 0:
            raise InputError(f"{path}: frame {i} has no atoms; remove it")
        if not np.isfinite(atoms.positions).all():
            raise InputError(f"{path}: positions are not finite in frame {i}; remove that frame")
        if (atoms.numbers < 1).any() or (atoms.numbers > 118).any():
            bad = atoms.numbers[(atoms.numbers < 1) | (atoms.numbers > 118)][0]
            raise InputError(f"{path}: frame {i} has an atom of number {bad}; expected 1 to 118")
        if (atoms.pbc & ~np.asarray(atoms.cell).any(1)).any():
            raise InputError(f"{path}: frame {i} is periodic along an axis without a cell vector")


def _choose(
    fields: Sequence[dict], keys: tuple[str, ...], name: str
) -> tuple[str | None, tuple[str, ...]]:
    """The label to take, and a line where that is not obvious."""
    present = [key for key in keys if any(key in frame for frame in fields)]
    if not present:
        return None, (f"no {name}: looked for {', '.join(keys)}",)
    if len(present) > 1:
        return present[0], (f"{name} from {present[0]}; not used: {', '.join(present[1:])}",)
    return present[0], (f"{name} from {present[0]}",) if present[0] != keys[0] else ()


def _units(
    path: Path, said: Declared | None, user: Declared, energy: str | None, forces: str | None
) -> tuple[Units, str]:
    if said is not None:
        return settle(path, said, user, energy is not None, forces is not None)
    filled = Declared(user.energy or "eV", user.length or "Ang", user.force)
    units, _ = settle(path, Declared(), filled)
    whose = "as ASE documents them" + (", but for what the options say" if any(user) else "")
    return units, f"units: {', '.join(units)} ({whose})"


def _gather(
    path: Path, fields: Sequence[dict], key: str | None, shapes: Sequence[tuple[int, ...]]
) -> list[np.ndarray]:
    """One label of all frames; NaN where a frame lacks it."""
    values = [frame.get(key) if key else None for frame in fields]
    return [
        np.full(shape, np.nan) if value is None else _number(path, i, key, value, shape)
        for i, (value, shape) in enumerate(zip(values, shapes))
    ]


def _number(
    path: Path, i: int, key: str | None, value: Any, shape: tuple[int, ...]
) -> Float[np.ndarray, "..."]:
    """A label as an array of this shape; SchNetPack adds an axis of length one."""
    try:
        array = np.asarray(value, dtype=np.float64).reshape(shape)
    except (TypeError, ValueError):
        raise InputError(
            f"{path}: {key} of frame {i} is {str(value)[:40]!r}; expected "
            f"{f'numbers in shape {list(shape)}' if shape else 'one number'}"
        ) from None
    if np.isinf(array).any():
        raise InputError(f"{path}: {key} is infinite in frame {i}; leave it out there")
    return array


def _stress(
    path: Path,
    fields: Sequence[dict],
    label: StressLabel | None,
    cell: Float[np.ndarray, "n_frames 3 3"],
    converted: bool,
) -> tuple[Float[np.ndarray, "n_frames 3 3"], tuple[str, ...]]:
    keys = sorted({key for frame in fields for key in frame})
    none = np.full(cell.shape, np.nan)
    if label is None and converted and "stress" in keys:
        label = ASE_STRESS
    if label is None:
        return none, left_out([key for key in keys if looks_like_stress(key)])
    if label.key not in keys:
        raise InputError(f"{path} has no stress {label.key!r}; it has {', '.join(keys)}")
    has = np.array([label.key in frame for frame in fields])
    values = [np.asarray(frame[label.key]).reshape(-1) for frame in fields if label.key in frame]
    if len({value.shape for value in values}) > 1:
        raise InputError(f"{path}: stress {label.key!r} has not one shape in all frames")
    if label is ASE_STRESS and values[0].size == 9:
        label = label._replace(order="matrix")
    none[has] = to_stress(path, np.array(values, dtype=np.float64), label, volumes(cell)[has])
    return none, (f"stress from {label.key} ({', '.join(label[1:])})",)


def _free(fields: Sequence[dict], energy: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Say so where forces may belong to another energy than the one taken."""
    gap = [
        abs(float(frame["free_energy"]) - float(value))
        for frame, value in zip(fields, energy)
        if frame.get("free_energy") is not None and np.isfinite(value)
    ]
    if not gap or max(gap) < 1e-6:
        return ()
    return (
        f"free_energy differs from energy by up to {max(gap):.3g}; energy is taken, but the forces "
        "of many programs belong to the free energy",
    )
