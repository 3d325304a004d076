"""Velocities to begin with, and how many degrees of freedom carry them.

Without a thermostat, a molecule that neither drifts nor rotates keeps doing so: it has 3N − 6
degrees of freedom, and its temperature is 2 E_kin / (3N − 6) k. A thermostat that acts on every
atom warms all 3N.
"""

import numpy as np
from ase import Atoms, units
from jaxtyping import Float


def thermalize(atoms: Atoms, temperature_K: float, ensemble: str, rng: np.random.Generator) -> None:
    """Draw momenta at exactly this temperature; no drift and, for molecules, no rotation.

    ASE's `ZeroRotation` divides by zero for linear molecules, and its temperature counts the
    motions that were just taken away.
    """
    masses = atoms.get_masses()[:, None]
    momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(units.kB * temperature_K * masses)
    atoms.set_momenta(momenta, apply_constraint=True)
    if len(atoms) > 1 and not atoms.constraints:
        atoms.set_momenta(atoms.get_momenta() - _rigid_motion(atoms))
    kinetic = atoms.get_kinetic_energy()
    if kinetic > 0:
        target = 0.5 * degrees_of_freedom(atoms, ensemble) * units.kB * temperature_K
        atoms.set_momenta(atoms.get_momenta() * np.sqrt(target / kinetic))


def degrees_of_freedom(atoms: Atoms, ensemble: str) -> int:
    """How many ½kT of kinetic energy: 3N, less what is fixed and what NVE conserves at zero."""
    n_free = int(atoms.get_number_of_degrees_of_freedom())
    if ensemble != "nve" or len(atoms) == 1 or atoms.constraints:
        return n_free
    rigid = _rigid_motion(atoms)
    if (rigid**2).sum() > 1e-9 * (atoms.get_momenta() ** 2).sum():
        return n_free
    n_rotations = 0 if atoms.pbc.any() else int(np.linalg.matrix_rank(_inertia(atoms), tol=1e-6))
    return n_free - 3 - n_rotations


def _rigid_motion(atoms: Atoms) -> Float[np.ndarray, "n_atoms 3"]:
    """The momenta that belong to drift and, without periodic axes, to rotation as a whole."""
    masses, momenta = atoms.get_masses()[:, None], atoms.get_momenta()
    drift = momenta.sum(axis=0) / masses.sum()
    if atoms.pbc.any():
        return masses * drift
    arms = atoms.positions - atoms.get_center_of_mass()
    spin = np.linalg.pinv(_inertia(atoms), rcond=1e-9) @ np.cross(arms, momenta).sum(axis=0)
    return masses * (drift + np.cross(spin, arms))


def _inertia(atoms: Atoms) -> Float[np.ndarray, "3 3"]:
    arms = atoms.positions - atoms.get_center_of_mass()
    weighted = atoms.get_masses()[:, None] * arms
    return (weighted * arms).sum() * np.eye(3) - weighted.T @ arms
