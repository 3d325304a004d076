"""Structures of the checks: small, with corners that models get wrong."""

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule


def ethanol() -> Atoms:
    """A rattled molecule."""
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    return atoms


def crystal() -> Atoms:
    """A rattled triclinic cell of two elements, smaller than twice the cutoff."""
    atoms = bulk("NaCl", "rocksalt", a=4.2)
    atoms.set_cell(atoms.cell @ (np.eye(3) + 0.05 * np.arange(9).reshape(3, 3) / 9), True)
    atoms.rattle(0.1, seed=2)
    return atoms


def symmetric_sites() -> dict[str, tuple[Atoms, int]]:
    """Structures, and an atom in each on which symmetry allows no force."""
    return {
        "diamond": (bulk("C", "diamond", 3.57), 0),
        "fcc": (bulk("Al", "fcc", 4.05, cubic=True), 0),
        "rock salt": (bulk("NaCl", "rocksalt", 5.64), 0),
        "CH4": (molecule("CH4"), 0),
        "CO2": (molecule("CO2"), 0),
        "benzene": (molecule("C6H6"), 0),
    }
