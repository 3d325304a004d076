"""Labels, predictions and errors of every frame and atom, as a file: extended XYZ or npz."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float

from gradpot.data.frames import Frames
from gradpot.errors import InputError
from gradpot.graph.graph import Properties
from gradpot.process import write_bytes

SUFFIXES = (".extxyz", ".xyz", ".npz")
UNITS = {"energy_unit": "eV", "length_unit": "Ang", "force_unit": "eV/Ang"}


def check_out(path: Path) -> None:
    """Refuse a file that exists, has another suffix, or has no folder."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"cannot write {path}; its name must end in {', '.join(SUFFIXES)}")
    if path.exists():
        raise InputError(f"--out {path} exists already; delete it, or choose another name")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}; create it first")


def write_predictions(
    path: Path, frames: Frames, predicted: Properties, worst_first: bool = False
) -> None:
    """Write reference labels, predictions and their differences, in eV and Å, all or nothing.

    Labels have their usual names, so that readers find them. Predictions are `gradpot_energy`,
    `gradpot_forces` and `gradpot_stress`; errors (prediction − label) are `energy_error`,
    `forces_error` and `stress_error`. `frame` is the index in the file that was read.

    Args:
        predicted: for all frames, in their order.
        worst_first: sort by the largest error of a force component; then come frames without
            forces, by the error of their energy per atom, then those without labels.
    """
    of_frames: dict[str, np.ndarray] = {
        "frame": np.arange(frames.n_atoms.shape[0]),
        "gradpot_energy": predicted.energy.double().cpu().numpy(),
    }
    of_atoms = {"gradpot_forces": predicted.forces.double().cpu().numpy()}
    of_frames["energy_error"] = of_frames["gradpot_energy"] - frames.energy
    of_atoms["forces_error"] = of_atoms["gradpot_forces"] - frames.forces
    stress = predicted.stress.double().cpu().numpy()
    if np.isfinite(stress).any():
        of_frames |= {"gradpot_stress": stress, "stress_error": stress - frames.stress}
    order = of_frames["frame"]
    if worst_first:
        largest = _or_last(of_atoms["forces_error"]).max(axis=1)
        force = np.maximum.reduceat(largest, frames.first[:-1])
        order = np.lexsort((-_or_last(of_frames["energy_error"] / frames.n_atoms), -force))
    make = _npz if path.suffix == ".npz" else _extxyz
    write_bytes(path, make(frames, of_frames, of_atoms, order))


def _or_last(errors: Float[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
    """Sizes of errors; −1, smaller than any, where there is no label."""
    return np.nan_to_num(np.abs(errors), nan=-1.0, posinf=np.inf)


def _extxyz(frames: Frames, of_frames: dict, of_atoms: dict, order: np.ndarray) -> bytes:
    """One frame after the other, with what is known of each; ASE writes its labels."""
    import ase.io

    def atoms_of(i: int) -> Atoms:
        atoms = frames.atoms(i)
        atoms.info |= UNITS
        for name, values in of_frames.items():
            if np.isfinite(values[i]).all():
                atoms.info[name] = values[i]
        for name, values in of_atoms.items():
            part = values[slice(*frames.first[i : i + 2])]
            if np.isfinite(part).all():
                atoms.set_array(name, part)
        return atoms

    text = io.StringIO()
    ase.io.write(text, [atoms_of(i) for i in order.tolist()], format="extxyz")
    return text.getvalue().encode()


def _npz(frames: Frames, of_frames: dict, of_atoms: dict, order: np.ndarray) -> bytes:
    """The form of PhysNet, which pads frames with zeros; unknown labels are NaN."""
    n_frames, largest = frames.n_atoms.shape[0], int(frames.n_atoms.max())
    row = np.repeat(np.arange(n_frames), frames.n_atoms)
    column = np.arange(row.shape[0]) - frames.first[:-1][row]

    def padded(values: np.ndarray) -> np.ndarray:
        rows = np.zeros((n_frames, largest, *values.shape[1:]), values.dtype)
        rows[row, column] = values
        return rows[order]

    arrays: dict[str, Any] = {
        "R": padded(frames.positions),
        "Z": padded(frames.numbers),
        "N": frames.n_atoms[order],
        "E": frames.energy[order],
        "F": padded(frames.forces),
        **{"cell": frames.cell[order], "pbc": frames.pbc[order]},
        **{name: values[order] for name, values in of_frames.items()},
        **{name: padded(values) for name, values in of_atoms.items()},
        **{"e_unit": "eV", "r_unit": "Ang", "f_unit": "eV/Ang"},
    }
    for name, values in (("charge", frames.charge), ("spin", frames.spin)):
        if np.isfinite(values).any():
            arrays[name] = values[order]
    if np.isfinite(frames.stress).any():
        arrays["stress"] = frames.stress[order]
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()
