"""The training loss: residuals in the units of the rescaling; labels that are NaN do not count."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradpot.graph.dataset import Batch
from gradpot.graph.graph import Properties
from gradpot.nn.segment import sum_by
from gradpot.potential.potential import volume

Penalty = Callable[[Tensor], Tensor]


class Weights(NamedTuple):
    """Weights of energy per atom, force components, and stress × volume per atom."""

    energy: float
    forces: float
    stress: float


# (residual, δ) -> penalty
PENALTIES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "l1": lambda x, delta: x.abs(),
    "l2": lambda x, delta: x.square(),
    # x²/2δ below δ, |x| − δ/2 above
    "huber": lambda x, delta: torch.where(
        x.abs() < delta, x.square() / (2 * delta), x.abs() - delta / 2
    ),
}


def penalty(name: str, delta: float) -> Penalty:
    """A function of `PENALTIES` with its δ, in the units of the residuals."""
    return lambda x: PENALTIES[name](x, delta)


def rescaled(batch: Batch, scale: float) -> Batch:
    """A batch whose labels are in units of `scale` eV, the network's unit of energy, and Å."""
    return batch._replace(labels=Properties(*(label / scale for label in batch.labels)))


def weighted(
    raw: Properties, batch: Batch, weights: Weights, length: float, penalty: Penalty
) -> Float[Tensor, ""]:
    """Weighted mean penalty of a batch.

    Args:
        raw: the network's predictions, in its own unit of energy and Å.
        batch: labels in these units (`rescaled`).
        length: Å; forces are compared in the unit of energy over this length.
    """
    labels, graph = batch.labels, batch.graph
    per_atom = 1.0 / sum_by(torch.ones_like(raw.forces[:, 0]), graph.batch, graph.cell.shape[0])
    energy = (raw.energy - labels.energy) * per_atom
    forces = (raw.forces - labels.forces) * length
    total = weights.energy * _mean(energy, labels.energy, penalty)
    total = total + weights.forces * _mean(forces, labels.forces, penalty)
    if weights.stress:
        volume_per_atom = (volume(graph.cell) * per_atom)[:, None, None]
        stress = (raw.stress - labels.stress) * volume_per_atom
        total = total + weights.stress * _mean(stress, labels.stress, penalty)
    return total


def _mean(residual: Tensor, label: Tensor, penalty: Penalty) -> Tensor:
    """Mean penalty of entries with a label; 0 if there are none. A prediction of NaN gives NaN."""
    known = ~label.isnan()
    cost = penalty(torch.where(known, residual, 0.0))
    return cost.sum() / known.sum().clamp(min=1)
