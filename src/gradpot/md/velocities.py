"""Initial velocities, and the number of degrees of freedom that carry them.

Without a thermostat, a molecule that neither drifts nor rotates never begins to. It has 3N − 6
degrees of freedom, and its temperature is 2 E_kin / ((3N − 6) k). A thermostat that acts on every
atom heats all 3N.
"""

import numpy as np
from ase import Atoms, units
from jaxtyping import Float

# a share of Σp² in drift and rotation that counts as none: far above rounding, 1e-30
AT_REST = 1e-9
# moments of inertia that count as zero, as for the axis of a linear molecule: in u Å² for the
# rank, and relative to the largest for the inverse
NO_INERTIA, NO_INERTIA_RELATIVE = 1e-6, 1e-9


def thermalize(atoms: Atoms, temperature_K: float, ensemble: str, rng: np.random.Generator) -> None:
    """Draw momenta at exactly this temperature, without drift or, for molecules, rotation.

    ASE's `ZeroRotation` divides by zero for linear molecules, and its temperature counts the
    motions that were removed.
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
    """3N, minus constraints and the drift and rotation that NVE keeps at zero."""
    n_free = int(atoms.get_number_of_degrees_of_freedom())
    if ensemble != "nve" or len(atoms) == 1 or atoms.constraints:
        return n_free
    if (_rigid_motion(atoms) ** 2).sum() > AT_REST * (atoms.get_momenta() ** 2).sum():
        return n_free
    if atoms.pbc.any():
        return n_free - 3
    return n_free - 3 - int(np.linalg.matrix_rank(_inertia(atoms), tol=NO_INERTIA))


def _rigid_motion(atoms: Atoms) -> Float[np.ndarray, "n_atoms 3"]:
    """Momenta of the drift and, without periodic axes, of the rotation of the whole."""
    masses, momenta = atoms.get_masses()[:, None], atoms.get_momenta()
    drift = momenta.sum(axis=0) / masses.sum()
    if atoms.pbc.any():
        return masses * drift
    arms = atoms.positions - atoms.get_center_of_mass()
    inverse = np.linalg.pinv(_inertia(atoms), rcond=NO_INERTIA_RELATIVE)
    angular_velocity = inverse @ np.cross(arms, momenta).sum(axis=0)
    return masses * (drift + np.cross(angular_velocity, arms))


def _inertia(atoms: Atoms) -> Float[np.ndarray, "3 3"]:
    """Tensor of inertia about the center of mass, in u Å²."""
    arms = atoms.positions - atoms.get_center_of_mass()
    weighted = atoms.get_masses()[:, None] * arms
    return (weighted * arms).sum() * np.eye(3) - weighted.T @ arms
