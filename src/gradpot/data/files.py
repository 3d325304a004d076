"""Read labeled structures from a file, in eV and Å whatever the file is written in.

The file states its units, or the user does; gradpot never guesses them. If both do and differ,
that is an error. Labels that are not in the file are NaN.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from jaxtyping import Int

from gradpot.data.declared import Declared, agree
from gradpot.data.formats.ase_files import Loaded, load, load_database, read_ase, read_database
from gradpot.data.formats.aselmdb import load_aselmdb, read_aselmdb
from gradpot.data.formats.deepmd import SYSTEMS, read_deepmd
from gradpot.data.formats.foreign import refuse, refuse_folder
from gradpot.data.formats.hdf5 import read_hdf5
from gradpot.data.formats.mptrj import is_mptrj, read_mptrj
from gradpot.data.formats.npz import read_npz
from gradpot.data.frames import Frames
from gradpot.data.raw import Keys, Raw, to_frames
from gradpot.data.stress import StressLabel, check, stress_label
from gradpot.errors import InputError
from gradpot.units import length_factor

__all__ = ["StressLabel", "read", "read_structures", "require", "stress_label"]

Reader = Callable[[Path, Keys], Raw]
# by the suffix of the name of a file or folder; ASE reads all other files
READERS: dict[str, Reader] = {
    ".npz": read_npz,
    ".db": read_database,
    ".aselmdb": read_aselmdb,
    ".lmdb": read_aselmdb,
    ".mdb": read_aselmdb,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".json": read_mptrj,
}
# what the readers of ASE's formats start from, for those who need structures without labels
LOADERS: dict[Reader, Callable[[Path], Loaded]] = {
    read_ase: load,
    read_database: load_database,
    read_aselmdb: load_aselmdb,
}
# readers of folders, by the pattern of a file or folder that is in them
FOLDERS: dict[str, Reader] = {
    **dict.fromkeys((*SYSTEMS, "set.*", "*/set.*"), read_deepmd),
    "*.aselmdb": read_aselmdb,
    "data.mdb": read_aselmdb,
}


def read(
    path: str | Path,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    force_unit: str | None = None,
    stress: StressLabel | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    unconverged: bool = False,
) -> Frames:
    """Read any of the formats of `READERS` and `FOLDERS`, or whatever else ASE reads.

    Args:
        path: the file or folder; its name and content tell the format.
        energy_unit: of the file ("kcal/mol", "hartree", ...); needed if the file does not say.
        length_unit: of the file ("Ang", "bohr", "nm").
        force_unit: of the file; energy unit over length unit unless given.
        stress: how stress is written. Without it, stress is read only from trajectories and
            outputs that ASE itself converts.
        energy_key: field with the energies, if its name is not one of the usual.
        forces_key: field with the forces.
        unconverged: read the labels of frames whose calculation did not converge, too.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: units are not known, the file is damaged, or its arrays do not fit together.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if stress is not None:
        check(stress)
    keys = Keys(energy_key, forces_key)
    units = Declared(energy_unit, length_unit, force_unit)
    return to_frames(path, reader(path)(path, keys), units, stress, unconverged)


def reader(path: Path) -> Reader:
    """What reads a file or folder, by its suffix or by what is in it.

    Raises:
        InputError: it is something that nothing reads.
    """
    if path.is_dir():
        known = (read for has, read in FOLDERS.items() if any(path.glob(has)))
        return next(known, None) or refuse_folder(path)
    known = READERS.get(path.suffix.lower())
    if known in (None, read_mptrj) and not (known and is_mptrj(path)):
        refuse(path)
        known = read_database if known else read_ase  # ASE has databases in JSON, too
    return known


def read_structures(
    path: str | Path, length_unit: str | None = None, index: str = ":"
) -> list[Atoms]:
    """Read structures from npz or any file that ASE reads; labels and their units do not matter.

    Args:
        path: the file.
        length_unit: of the file; an npz must state it unless it is given, other files are in Å.
        index: which structures, as ASE writes it: ":", "::10", "0:500" ...

    Raises:
        InputError: this is not a file of structures, or the index is bad.
    """
    from ase.io.formats import string2index

    path = Path(path)
    if not path.exists():
        raise InputError(f"no such file: {path}")
    known = reader(path)
    loaded = LOADERS[known](path) if known in LOADERS else None
    raw = known(path, Keys()) if loaded is None else loaded.raw
    stated = agree(path, "length", raw.units.length, length_unit) or raw.default.length
    bare = raw._replace(energy=None, forces=None, stress=None, units=Declared(length=stated))
    frames = to_frames(path, bare, Declared())
    if loaded is None:
        found = [frames.atoms(i) for i in range(frames.n_atoms.shape[0])]
    else:  # with constraints, velocities and masses
        found, factor = loaded.structures, length_factor(stated or "Ang")
        for atoms in found:
            atoms.set_cell(atoms.cell.array * factor)
            atoms.positions *= factor
    try:
        chosen = string2index(index)
        if not isinstance(chosen, slice):
            chosen = slice(int(chosen), int(chosen) + 1 or None)
    except ValueError as error:
        raise InputError(f"bad index {index!r}; write it as in Python: ':', '::10', '3'") from error
    if not found[chosen]:
        raise InputError(f"{path} has no structures at index {index!r}")
    return found[chosen]


def require(
    frames: Frames, energy: bool = True, forces: bool = True, stress: bool = False, kind: str = ""
) -> tuple[str, ...]:
    """Check that the labels asked for exist; return a line for each that some frames lack.

    Args:
        kind: "training " if these are the training frames, for the message.

    Raises:
        InputError: no frame has a label that is asked for.
    """
    asked = {"energy": energy, "forces": forces, "stress": stress}
    lacking = {name: count for name, count in n_missing(frames).items() if asked[name]}
    n_frames = frames.n_atoms.shape[0]
    absent = [name for name, count in lacking.items() if count == n_frames]
    if absent:
        starts = tuple(f"found {label}" for label in absent)
        hints = " ".join(f"({notice})" for notice in frames.notices if notice.startswith(starts))
        others = [re.search("^(?:.*: )?no .*; the file has (.*)", text) for text in frames.notices]
        fields = next((found[1] for found in others if found and found[1] != "no other fields"), "")
        options = " ".join(f"--{label}-key NAME" for label in absent if label != "stress")
        how = f": if it is under another name, add {options} (the file has {fields})"
        remedy = "leave it out of the loss (weight 0), or use a file that has it"
        if not frames.labeled.any():
            remedy = "add labels with gradpot label, or use a file that has them"
        raise InputError(
            f"no {kind}frame has a label for {', '.join(absent)}"
            f"{how if fields and options else ''}; {remedy} {hints}".strip()
        )
    half = half_labeled(frames).size > 0
    return tuple(
        f"{count} of {n_frames} frames have no {name}"
        + (", wholly or in part" if half and name != "energy" else "")
        + f"; the loss of {name} leaves them out"
        for name, count in lacking.items()
        if count
    )


def half_labeled(frames: Frames) -> Int[np.ndarray, "n"]:
    """Indices of frames with forces or stress of which some components are missing."""
    known = np.isfinite(frames.forces).all(1), np.isfinite(frames.forces).any(1)
    every = np.logical_and.reduceat(known[0], frames.first[:-1])
    some = np.logical_or.reduceat(known[1], frames.first[:-1])
    stress = np.isfinite(frames.stress)
    return np.flatnonzero((some & ~every) | (stress.any((1, 2)) & ~stress.all((1, 2))))


def n_missing(frames: Frames) -> dict[str, int]:
    """Number of frames that lack each label, wholly or in part."""
    part = np.add.reduceat(np.isnan(frames.forces).any(1).astype(int), frames.first[:-1])
    return {
        "energy": int(np.isnan(frames.energy).sum()),
        "forces": int((part > 0).sum()),
        "stress": int(np.isnan(frames.stress).any((1, 2)).sum()),
    }
