"""Errors of predictions: functions of (`Properties`, `Properties`), in meV and meV/Å."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradpot.graph import Properties


def errors(
    predicted: Properties, labels: Properties, n_atoms: Int[Tensor, "n_frames"]
) -> dict[str, float | int | None]:
    """Mean absolute and root mean square errors; None where there is no label.

    Energies in meV (of the whole structure, and per atom), forces per component in meV/Å,
    stress per component in meV/Å³.
    """
    energy = _residual(predicted.energy, labels.energy)
    per_atom = _residual(predicted.energy / n_atoms, labels.energy / n_atoms)
    forces = _residual(predicted.forces, labels.forces)
    stress = _residual(predicted.stress, labels.stress)
    result: dict[str, float | int | None] = {
        "energy_mae_meV": _mae(energy),
        "energy_rmse_meV": _rmse(energy),
        "energy_mae_meV_per_atom": _mae(per_atom),
        "forces_mae_meV_A": _mae(forces),
        "forces_rmse_meV_A": _rmse(forces),
        "n_frames": n_atoms.shape[0],
    }
    if stress.numel():
        result["stress_mae_meV_A3"] = _mae(stress)
        result["stress_rmse_meV_A3"] = _rmse(stress)
    return result


def _residual(predicted: Tensor, label: Tensor) -> Float[Tensor, "n_known"]:
    """In units of a thousandth, where there is a label. A prediction that is NaN stays."""
    known = torch.isfinite(label)
    return 1e3 * (predicted.double()[known] - label.double()[known])


def _mae(residual: Tensor) -> float | None:
    return float(residual.abs().mean()) if residual.numel() else None


def _rmse(residual: Tensor) -> float | None:
    return float(residual.square().mean().sqrt()) if residual.numel() else None
