"""Reference energies and scale: what labels are shifted and divided by before training.

All is in float64: at −17,600 eV, the energy of aspirin, float32 numbers are 2 meV apart.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from jaxtyping import Float

from gradpot.data.frames import Frames
from gradpot.errors import InputError, unknown
from gradpot.geometry import N_ELEMENTS

# Å; images of an isolated atom are further away, neighbors in crystals are closer
ISOLATED = 8.0
# eV; the same calculation repeated differs by less
SAME_ENERGY = 1e-4


class Rescaling(NamedTuple):
    """E = Σ reference(Z) + scale · Σ ε, and the units in which residuals are measured."""

    mode: str
    references: dict[int, float]
    """eV, for every element of the data"""
    scale: float
    """eV; the unit of the network's energy, and of the energy residual"""
    length: float
    """Å; scale/length is the unit of the force residual"""

    def __str__(self) -> str:
        atoms = ", ".join(f"{chemical_symbols[z]} {e:.4f}" for z, e in self.references.items())
        return (
            f"rescaling {self.mode}: scale {self.scale:.5g} eV, length {self.length:.4g} Å, "
            f"atoms (eV) {atoms}"
        )


def rescaling(
    frames: Frames, mode: str, references: dict[int, float], constant: float | None = None
) -> Rescaling:
    """Compute scale and length of one of `MODES` from training frames.

    Args:
        mode: see `MODES`.
        references: energies in eV by atomic number, which are subtracted first.
        constant: the energy in eV, for mode `constant`.

    Raises:
        InputError: the mode is unknown, or needs a constant or labels that are missing.
    """
    if mode not in MODES:
        raise unknown("rescale.mode", mode, MODES)
    return Rescaling(mode, references, *MODES[mode](frames, references, constant))


def divide_by_constant(
    frames: Frames, references: dict[int, float], constant: float | None
) -> tuple[float, float]:
    """A given energy, by which energies and forces are divided (arXiv 2310.01649).

    Raises:
        InputError: it is missing or not positive.
    """
    if not (constant and constant > 0):
        raise InputError("rescale.mode=constant needs rescale.constant, a positive energy in eV")
    return float(constant), 1.0


def unit_variance(frames: Frames, references: dict[int, float], *_: object) -> tuple[float, float]:
    """σ_E and σ_E/σ_F, so that energy and force residuals both have unit variance.

    References and mean are subtracted from the energies first.

    Raises:
        InputError: no frame has energies, or none has forces.
    """
    rest = frames.energy - reference_energies(frames, references)
    known = rest[np.isfinite(rest)]
    scale = _rms(known - known.mean() if known.size else known, "energies")
    return scale, scale / _rms(frames.forces, "forces")


# scale in eV and length in Å, by `rescale.mode`; none and offset differ in their references
MODES: dict[str, Callable[[Frames, dict[int, float], float | None], tuple[float, float]]] = {
    "none": lambda *_: (1.0, 1.0),
    "offset": lambda *_: (1.0, 1.0),
    "constant": divide_by_constant,
    "forces": lambda frames, *_: (_rms(frames.forces, "forces"), 1.0),
    "natural": unit_variance,
}


def _rms(values: np.ndarray, what: str) -> float:
    """Root mean square of the labels that exist; 1 if all are 0, since it is a divisor.

    Raises:
        InputError: there are none.
    """
    known = values[np.isfinite(values)]
    if known.size == 0:
        raise InputError(f"this rescale.mode needs {what}, and the file has none; use offset")
    return float(np.sqrt(np.mean(known**2))) or 1.0


def least_squares(frames: Frames) -> dict[int, float]:
    """Reference energies (eV) that fit the labels best; the smallest ones, if many do.

    A set of one composition fixes only their sum. They are then not atom energies in the chemist's
    sense, but they remove the offset all the same. Without energies, all of them are 0.
    """
    elements = np.unique(frames.numbers)
    known = np.isfinite(frames.energy)
    counts = frames.composition[known].astype(float)
    solution = np.linalg.lstsq(counts, frames.energy[known], rcond=1e-10)[0]
    return dict(zip(elements.tolist(), solution.tolist(), strict=True))


def isolated(frames: Frames, elements: np.ndarray) -> dict[int, float]:
    """Energies (eV) of the frames that are a single atom, in a box that keeps its images away.

    A crystal with one atom per cell is not an isolated atom, unless the file marks it as one.

    Raises:
        InputError: an element has no such frame, or frames with different energies.
    """
    found: dict[int, float] = {}
    first = frames.first
    for i in np.flatnonzero((frames.n_atoms == 1) & np.isfinite(frames.energy)).tolist():
        if not frames.isolated[i] and frames.neighbors(i, ISOLATED)[1].size:
            continue
        z, energy = int(frames.numbers[first[i]]), float(frames.energy[i])
        if abs(found.setdefault(z, energy) - energy) > SAME_ENERGY:
            raise InputError(
                f"single atoms of number {z} have the energies {found[z]:.6g} and {energy:.6g} eV "
                f"(frame {i}); keep one of them"
            )
    return _complete(found, elements, "no frame of a single atom with an energy")


def given(energies: dict[str, float], elements: np.ndarray) -> dict[int, float]:
    """Reference energies (eV) given by chemical symbol, for the elements of the data.

    Raises:
        InputError: a symbol is not an element, or an element is missing.
    """
    for symbol in energies:
        if symbol not in atomic_numbers:
            raise InputError(f"rescale.references has {symbol!r}, which is not an element")
    numbers = {atomic_numbers[symbol]: float(e) for symbol, e in energies.items()}
    return _complete(numbers, elements, "not in rescale.references")


def _complete(found: dict[int, float], elements: np.ndarray, why: str) -> dict[int, float]:
    """The energies found, only for the elements of the data and in their order.

    Raises:
        InputError: an element has none; `why` says where it was looked for.
    """
    missing = [chemical_symbols[z] for z in elements.tolist() if z not in found]
    if missing:
        raise InputError(f"no reference energy for {', '.join(missing)}: {why}")
    return {z: found[z] for z in elements.tolist()}


def reference_energies(
    frames: Frames, references: dict[int, float]
) -> Float[np.ndarray, "n_frames"]:
    """Σ reference(Z) of each frame in eV; elements without a reference count as 0."""
    table = np.zeros(N_ELEMENTS)
    table[list(references)] = list(references.values())
    return np.add.reduceat(table[frames.numbers], frames.first[:-1])
