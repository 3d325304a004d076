"""All weights of a network end to end in one tensor, in an order that optimizers can use.

A pass over one tensor costs less than one over a hundred: clipping, averaging, Adam. Matrices of
one shape are a stack, which one batched product of matrices turns (`optimizers.orthogonal`).
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Slot(NamedTuple):
    """A parameter's place: slots follow each other without gaps."""

    name: str
    shape: torch.Size
    is_matrix: bool


def layout(model: nn.Module) -> list[Slot]:
    """Where each parameter lies: those that are no matrices first, matrices of one shape together.

    A matrix is what has two axes or more, the last two of them longer than 1; an embedding is a
    list of vectors and none.
    """
    lists = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    slots = [
        Slot(name, p.shape, p.dim() > 1 and min(p.shape[-2:]) > 1 and id(p) not in lists)
        for name, p in model.named_parameters()
    ]
    return sorted(slots, key=lambda slot: (slot.is_matrix, _kind(slot)))


@torch.no_grad()
def flatten(model: nn.Module) -> Float[Tensor, "n_weights"]:
    """Lay the parameters of a model end to end in one tensor, of which they become views."""
    parameters, slots = dict(model.named_parameters()), layout(model)
    weights = torch.cat([parameters[slot.name].reshape(-1) for slot in slots])
    for name, piece in by_name(weights, slots).items():
        parameters[name].data = piece
    return weights


def by_name(flat: Float[Tensor, "n_weights"], slots: Sequence[Slot]) -> dict[str, Tensor]:
    """Views of all weights, or of their gradient: each parameter."""
    parts = flat.split([slot.shape.numel() for slot in slots])
    return {slot.name: part.view(slot.shape) for slot, part in zip(slots, parts, strict=True)}


def stacks(flat: Float[Tensor, "n_weights"], slots: Sequence[Slot]) -> tuple[Tensor, list[Tensor]]:
    """Views too: all that is no matrix, [n]; the matrices of each shape, [n, n_rows, n_columns]."""
    sizes = {kind: sum(s.shape.numel() for s in group) for kind, group in groupby(slots, _kind)}
    n_others = sizes.pop((), 0)
    others, *matrices = flat.split([n_others, *sizes.values()])
    return others, [part.view(-1, *kind) for part, kind in zip(matrices, sizes, strict=True)]


def _kind(slot: Slot) -> tuple[int, ...]:
    return tuple(slot.shape[-2:]) if slot.is_matrix else ()
