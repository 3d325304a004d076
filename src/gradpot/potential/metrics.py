"""Errors of predictions against labels, in meV and meV/Å.

EFwT (energy and forces within threshold) is the share of frames in which the energy and every force
component are right to within thresholds (OC20, arXiv 2010.09990).
"""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from gradpot.graph.graph import Properties


class Within(NamedTuple):
    """Thresholds of EFwT; the defaults are those of arXiv 2010.09990 and 2310.01649."""

    energy_eV: float = 0.02
    """of the whole structure"""
    forces_eV_A: float = 0.03
    """of every force component of a frame"""


WITHIN = Within()
# share of the energy MAE that is left without one constant: labels of another method leave less,
# the errors of a potential more
LEFT = 0.1
# frames; a constant explains fewer in any case
MIN_FRAMES = 5


def errors(
    predicted: Properties,
    labels: Properties,
    n_atoms: Int[Tensor, "n_frames"],
    within: Within = WITHIN,
) -> dict[str, float | int | None]:
    """Mean absolute and root mean square errors, and EFwT; None without labels.

    Energies in meV (of the whole structure, and per atom), forces per component in meV/Å,
    stress per component in meV/Å³, EFwT between 0 and 1.
    """
    energy_mae, energy_rmse = _mae_and_rmse(predicted.energy, labels.energy)
    per_atom_mae, _ = _mae_and_rmse(predicted.energy / n_atoms, labels.energy / n_atoms)
    forces_mae, forces_rmse = _mae_and_rmse(predicted.forces, labels.forces)
    stress_mae, stress_rmse = _mae_and_rmse(predicted.stress, labels.stress)
    result: dict[str, float | int | None] = {
        "energy_mae_meV": energy_mae,
        "energy_rmse_meV": energy_rmse,
        "energy_mae_meV_per_atom": per_atom_mae,
        "forces_mae_meV_A": forces_mae,
        "forces_rmse_meV_A": forces_rmse,
        "efwt": efwt(predicted, labels, n_atoms, within),
        "efwt_energy_eV": within.energy_eV,
        "efwt_forces_eV_A": within.forces_eV_A,
        "n_frames": n_atoms.shape[0],
    }
    if stress_mae is not None:
        result |= {"stress_mae_meV_A3": stress_mae, "stress_rmse_meV_A3": stress_rmse}
    return result


def energy_offset(
    predicted: Properties, labels: Properties, n_atoms: Int[Tensor, "n_frames"]
) -> str | None:
    """One line if nearly all of the energy error is one constant per structure or per atom."""
    known = torch.isfinite(labels.energy)
    if known.sum() < MIN_FRAMES:
        return None
    error, n = (labels.energy - predicted.energy).double()[known], n_atoms[known].double()
    left = {}
    for what, size in (("structure", torch.ones_like(n)), ("atom", n)):
        constant = (error * size).sum() / (size * size).sum()
        left[what] = float((error - constant * size).abs().mean()), float(constant)
    what, (rest, constant) = min(left.items(), key=lambda item: item[1][0])
    if not rest < LEFT * float(error.abs().mean()):
        return None
    return (
        f"nearly all of the energy error is one constant: the labels are {constant:+.6g} eV per "
        f"{what} from the predictions, as with another method, unit, composition or reference "
        f"energies; without it the energy MAE is {1e3 * rest:.3g} meV"
    )


def efwt(
    predicted: Properties,
    labels: Properties,
    n_atoms: Int[Tensor, "n_frames"],
    within: Within = WITHIN,
) -> float | None:
    """Share of frames in which |ΔE| and every |ΔF| component are at most the thresholds.

    A frame counts if it has its energy label and all its force labels; None if no frame does. A
    prediction of NaN exceeds any threshold.
    """
    n_frames = n_atoms.shape[0]
    frame = torch.arange(n_frames, device=n_atoms.device).repeat_interleave(n_atoms)

    def each(of_atoms: Tensor) -> Tensor:
        """Whether a condition, [n_atoms, 3], holds in all of each frame."""
        false = (~of_atoms.all(dim=-1)).long()
        return frame.bincount(weights=false, minlength=n_frames) == 0

    known = torch.isfinite(labels.energy) & each(torch.isfinite(labels.forces))
    if not known.any():
        return None
    energy = (predicted.energy.double() - labels.energy.double()).abs() <= within.energy_eV
    forces = (predicted.forces.double() - labels.forces.double()).abs() <= within.forces_eV_A
    return float((energy & each(forces))[known].double().mean())


def _mae_and_rmse(predicted: Tensor, label: Tensor) -> tuple[float | None, float | None]:
    """Mean absolute and root mean square error of the entries with a label, times 1000.

    None if no entry has a label. A prediction of NaN gives NaN.
    """
    known = torch.isfinite(label)
    if not known.any():
        return None, None
    residual = 1e3 * (predicted.double()[known] - label.double()[known])
    return float(residual.abs().mean()), float(residual.square().mean().sqrt())
