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
# from here on, numbers in messages have a power of ten: nobody reads 50 digits
LONG_NUMBER = 1e6


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
            f"the temperature is {_number(temperature_K, 0)} K, above the limit of "
            f"{_number(self.max_temperature_K, 0)} K; {_name(atoms, fastest)} alone has "
            f"{_number(kinetic[fastest], 1)} eV of kinetic energy"
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
                f"the bond between {i} and {j} is {_number(lengths[worst], 2)} Å long, more than "
                f"{self.max_stretch:g} times its {self.lengths[worst]:.2f} Å at the start "
                "(if bonds are meant to break: --max-stretch inf)"
            )
        change = atoms.cell.volume / self.volume if self.volume else 1.0
        if 1.0 / LARGEST_VOLUME_CHANGE < change < LARGEST_VOLUME_CHANGE:
            return None
        before, after = _number(self.volume, 0), _number(atoms.cell.volume, 0)
        return f"the cell volume changed from {before} to {after} Å³"


def too_close(atoms: Atoms) -> str | None:
    """The worst pair closer than half the sum of its covalent radii, in words, or None."""
    (i, j), distances, limits = _contacts(atoms, TOO_CLOSE)
    if not distances.size:
        return None
    worst = int(np.argmin(distances / limits))
    return (
        f"{_name(atoms, i[worst])} and {_name(atoms, j[worst])} are {distances[worst]:.2f} Å "
        f"apart, less than half the sum of their covalent radii ({limits[worst]:.2f} Å)"
    )


def bonds(atoms: Atoms) -> Int[np.ndarray, "n_bonds 2"]:
    """Pairs within 1.2 times the sum of covalent radii; none in periodic structures."""
    if atoms.pbc.any():
        return np.zeros((0, 2), dtype=np.int64)
    edge_index, *_ = _contacts(atoms, BONDED)
    return edge_index.T[edge_index[0] < edge_index[1]]


def _contacts(
    atoms: Atoms, factor: float
) -> tuple[
    Int[np.ndarray, "2 n_edges"], Float[np.ndarray, "n_edges"], Float[np.ndarray, "n_edges"]
]:
    """Both edges of each pair closer than `factor` times the sum of its covalent radii.

    Returns:
        The edges, their lengths and these limits of their lengths, in Å.
    """
    radii = covalent_radii[atoms.numbers]
    place = atoms.positions, atoms.cell.array
    reach = 2.0 * factor * radii.max(initial=0.1)
    edge_index, shifts = neighbor_list(*place, atoms.pbc, reach)
    distances = np.linalg.norm(edge_vectors(*place, edge_index, shifts), axis=1)
    limits = factor * radii[edge_index].sum(axis=0)
    close = distances < limits
    return edge_index[:, close], distances[close], limits[close]


def _lengths(atoms: Atoms, pairs: np.ndarray) -> Float[np.ndarray, "n_bonds"]:
    return np.linalg.norm(atoms.positions[pairs[:, 0]] - atoms.positions[pairs[:, 1]], axis=1)


def _name(atoms: Atoms, index: int | np.integer) -> str:
    """An atom as "H7": its symbol and its index, counted from 0."""
    return f"{atoms.symbols[index]}{index}"


def _number(value: float, decimals: int) -> str:
    """A number for a message: "10402", or "1.9e52" for what has exploded."""
    long = abs(value) >= LONG_NUMBER
    return f"{value:.1e}".replace("e+", "e") if long else f"{value:.{decimals}f}"
