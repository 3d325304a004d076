"""Limits that a run of dynamics may not exceed.

A potential outside the region of its training data can pull atoms together or tear them apart
without any error, and every number after that is worthless. The limits are wide on purpose: a
healthy run never meets them.
"""

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Float, Int

from gradpot.geometry import edge_vectors, neighbor_list

# Times the sum of covalent radii. In the molecules of the G2 set, bonds are at 0.77 to 1.19 (F2 at
# 1.25) and other pairs above 1.37; at half the sum, repulsion is far above thermal energies.
BONDED, TOO_CLOSE = 1.2, 0.5
# no solid or liquid changes its volume threefold unless it collapses or evaporates
LARGEST_VOLUME_CHANGE = 3.0


class Limits:
    """What the start looked like, and how far from it a run may go.

    Args:
        atoms: the start.
        max_temperature_K: at any one step.
        max_stretch: longest bond, as a multiple of its length at the start. Bonds are followed
            only in structures that are not periodic: in a crystal or a liquid, atoms may leave
            their neighbors.
    """

    def __init__(self, atoms: Atoms, max_temperature_K: float, max_stretch: float):
        self.max_temperature_K, self.max_stretch = max_temperature_K, max_stretch
        self.bonds = bonds(atoms)
        self.lengths = _lengths(atoms, self.bonds)
        self.volume = atoms.cell.volume

    def check_step(self, atoms: Atoms, energy: float, temperature_K: float) -> str | None:
        """What is wrong with forces, energy or temperature, or None; cheap, for every step."""
        bad = np.nonzero(~np.isfinite(atoms.get_forces(apply_constraint=False)).all(axis=1))[0]
        if bad.size:
            return f"the force on {_name(atoms, bad[0])} is not finite"
        if not np.isfinite(energy):
            return f"the potential energy is {energy} eV"
        if temperature_K <= self.max_temperature_K:
            return None
        kinetic = 0.5 * (atoms.get_momenta() ** 2).sum(axis=1) / atoms.get_masses()
        fastest = int(np.argmax(kinetic))
        return (
            f"the temperature is {temperature_K:.0f} K, above the limit of "
            f"{self.max_temperature_K:.0f} K; {_name(atoms, fastest)} alone has "
            f"{kinetic[fastest]:.1f} eV of kinetic energy"
        )

    def check_geometry(self, atoms: Atoms) -> str | None:
        """What is wrong with distances or volume, or None."""
        if problem := too_close(atoms):
            return problem
        lengths = _lengths(atoms, self.bonds)
        if (lengths > self.max_stretch * self.lengths).any():
            worst = int(np.argmax(lengths / self.lengths))
            i, j = (_name(atoms, atom) for atom in self.bonds[worst])
            return (
                f"the bond between {i} and {j} is {lengths[worst]:.2f} Å long, more than "
                f"{self.max_stretch:g} times its {self.lengths[worst]:.2f} Å at the start "
                "(if bonds are meant to break: --max-stretch inf)"
            )
        change = atoms.cell.volume / self.volume if self.volume else 1.0
        if 1.0 / LARGEST_VOLUME_CHANGE < change < LARGEST_VOLUME_CHANGE:
            return None
        return f"the cell volume changed from {self.volume:.0f} to {atoms.cell.volume:.0f} Å³"


def too_close(atoms: Atoms) -> str | None:
    """The closest pair nearer than half the sum of its covalent radii, or None."""
    radii = covalent_radii[atoms.numbers]
    (i, j), distances = _distances(atoms, 2.0 * TOO_CLOSE * radii.max(initial=0.1))
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
    (i, j), distances = _distances(atoms, 2.0 * BONDED * radii.max(initial=0.1))
    bonded = distances < BONDED * (radii[i] + radii[j])
    return np.stack([i, j], axis=1)[bonded & (i < j)]


def _distances(
    atoms: Atoms, reach: float
) -> tuple[Int[np.ndarray, "2 n_edges"], Float[np.ndarray, "n_edges"]]:
    """Both edges of all pairs closer than `reach`, and their lengths, in Å."""
    edge_index, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, reach)
    vectors = edge_vectors(atoms.positions, atoms.cell.array, edge_index, shifts)
    return edge_index, np.linalg.norm(vectors, axis=1)


def _lengths(atoms: Atoms, pairs: np.ndarray) -> Float[np.ndarray, "n_bonds"]:
    return np.linalg.norm(atoms.positions[pairs[:, 0]] - atoms.positions[pairs[:, 1]], axis=1)


def _name(atoms: Atoms, index: int | np.integer) -> str:
    """An atom as "H7": its symbol and its position in the file, from 0."""
    return f"{atoms.symbols[index]}{index}"
