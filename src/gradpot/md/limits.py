"""When dynamics are no longer dynamics: what a run may reach before it is stopped.

A potential that leaves the region of its training data can pull atoms together or tear them
apart without any error; every number after that is worthless. The limits are wide on purpose:
a healthy run never meets them.
"""

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Float, Int

from gradpot.geometry import neighbor_list

# times the sum of covalent radii
BONDED, TOO_CLOSE = 1.2, 0.5
LARGEST_VOLUME_CHANGE = 3.0


class Health:
    """What a structure looked like at the start, and how far from it a run may go.

    Args:
        atoms: the start.
        max_temperature_K: of one instant.
        max_stretch: times the starting length of a bond. Bonds are followed in structures that
            are not periodic: in a crystal or a liquid, atoms may leave their neighbors.
    """

    def __init__(self, atoms: Atoms, max_temperature_K: float, max_stretch: float):
        self.max_temperature_K, self.max_stretch = max_temperature_K, max_stretch
        self.bonds = bonds(atoms)
        self.lengths = _lengths(atoms, self.bonds)
        self.volume = atoms.cell.volume

    def of_motion(self, atoms: Atoms, energy: float, temperature_K: float) -> str | None:
        """What is wrong with energy, forces or temperature, or None; cheap, for every step."""
        bad = np.nonzero(~np.isfinite(atoms.get_forces(apply_constraint=False)).all(axis=1))[0]
        if bad.size:
            return f"the force on {_name(atoms, bad[0])} is not finite"
        if not np.isfinite(energy):
            return f"the potential energy is {energy} eV"
        if not temperature_K <= self.max_temperature_K:
            return (
                f"the temperature is {temperature_K:.0f} K, above the limit of "
                f"{self.max_temperature_K:.0f} K; {_fastest(atoms)}"
            )
        return None

    def of_geometry(self, atoms: Atoms) -> str | None:
        """What is wrong with distances or volume, or None."""
        return too_close(atoms) or self._torn(atoms) or self._out_of_volume(atoms)

    def _torn(self, atoms: Atoms) -> str | None:
        lengths = _lengths(atoms, self.bonds)
        if not (lengths > self.max_stretch * self.lengths).any():
            return None
        worst = int(np.argmax(lengths / self.lengths))
        i, j = self.bonds[worst]
        return (
            f"the bond between {_name(atoms, i)} and {_name(atoms, j)} is {lengths[worst]:.2f} Å "
            f"long, more than {self.max_stretch:g} times its {self.lengths[worst]:.2f} Å "
            "at the start (if bonds are meant to break: --max-stretch inf)"
        )

    def _out_of_volume(self, atoms: Atoms) -> str | None:
        ratio = atoms.cell.volume / self.volume if self.volume else 1.0
        if 1.0 / LARGEST_VOLUME_CHANGE < ratio < LARGEST_VOLUME_CHANGE:
            return None
        return f"the volume of the cell went from {self.volume:.0f} to {atoms.cell.volume:.0f} Å³"


def too_close(atoms: Atoms) -> str | None:
    """The closest of the pairs nearer than half the sum of their covalent radii, or None."""
    radii = covalent_radii[atoms.numbers]
    reach = 2.0 * TOO_CLOSE * radii.max(initial=0.1)
    (i, j), vectors = _pairs(atoms, reach)
    distances = np.linalg.norm(vectors, axis=1)
    ratio = distances / (TOO_CLOSE * (radii[i] + radii[j]))
    if ratio.min(initial=1.0) >= 1.0:
        return None
    worst = int(np.argmin(ratio))
    return (
        f"{_name(atoms, i[worst])} and {_name(atoms, j[worst])} are {distances[worst]:.2f} Å "
        f"apart, less than half the sum of their covalent radii "
        f"({distances[worst] / ratio[worst]:.2f} Å)"
    )


def bonds(atoms: Atoms) -> Int[np.ndarray, "n_bonds 2"]:
    """Pairs within 1.2 times the sum of covalent radii; none in periodic structures."""
    if atoms.pbc.any():
        return np.zeros((0, 2), dtype=np.int64)
    radii = covalent_radii[atoms.numbers]
    (i, j), vectors = _pairs(atoms, 2.0 * BONDED * radii.max(initial=0.1))
    bonded = np.linalg.norm(vectors, axis=1) < BONDED * (radii[i] + radii[j])
    return np.stack([i, j], axis=1)[bonded & (i < j)]


def _pairs(atoms: Atoms, reach: float) -> tuple[np.ndarray, Float[np.ndarray, "n_pairs 3"]]:
    edge_index, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, reach)
    i, j = edge_index
    return edge_index, atoms.positions[j] - atoms.positions[i] + shifts @ atoms.cell.array


def _lengths(atoms: Atoms, pairs: np.ndarray) -> Float[np.ndarray, "n_bonds"]:
    return np.linalg.norm(atoms.positions[pairs[:, 0]] - atoms.positions[pairs[:, 1]], axis=1)


def _fastest(atoms: Atoms) -> str:
    energies = 0.5 * (atoms.get_momenta() ** 2).sum(axis=1) / atoms.get_masses()
    worst = int(np.argmax(energies))
    return f"{_name(atoms, worst)} alone has {energies[worst]:.1f} eV of kinetic energy"


def _name(atoms: Atoms, index: int | np.integer) -> str:
    """As "H7": the symbol and the position in the file, from 0."""
    return f"{atoms.symbols[index]}{index}"
