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
    """Of energy per atom, force component, and stress × volume per atom."""

    energy: float
    forces: float
    stress: float


def penalty(name: str, delta: float) -> Penalty:
    """l1, l2 or huber (quadratic below `delta`, linear above, slope 1)."""
    if name == "l1":
        return torch.abs
    if name == "l2":
        return torch.square
    return lambda x: torch.where(x.abs() < delta, x.square() / (2 * delta), x.abs() - delta / 2)


def rescaled(batch: Batch, scale: float) -> Batch:
    """A batch whose labels are in units of `scale` eV, the network's unit of energy, and Å."""
    return batch._replace(labels=Properties(*(label / scale for label in batch.labels)))


def weighted(
    raw: Properties, batch: Batch, weights: Weights, length: float, penalty: Penalty
) -> Float[Tensor, ""]:
    """Weighted mean penalty of a batch.

    Args:
        raw: what the network says, in its own unit of energy and Å.
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
        size = (volume(graph.cell) * per_atom)[:, None, None]
        stress = (raw.stress - labels.stress) * size
        total = total + weights.stress * _mean(stress, labels.stress, penalty)
    return total


def _mean(residual: Tensor, label: Tensor, penalty: Penalty) -> Tensor:
    """Over the entries that have a label; 0 where none has. A wild prediction is not hidden."""
    known = ~label.isnan()
    cost = penalty(torch.where(known, residual, 0.0))
    return cost.sum() / known.sum().clamp(min=1)
