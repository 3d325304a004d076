"""All weights of a network end to end in one tensor, in an order that optimizers can use.

Clipping, averaging and Adam then need one pass over one tensor, which is faster than one over a
hundred. Matrices of one shape form a stack, which one batched matrix product can orthogonalize
(`optimizers.orthogonal`).
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
    matrix: tuple[int, ...]
    """rows and columns of a matrix; () for vectors"""


def layout(model: nn.Module) -> list[Slot]:
    """Where each parameter lies: first the vectors, then the matrices, grouped by shape.

    A matrix has at least two axes, and the last two are longer than 1. An embedding counts as a
    list of vectors.
    """
    lists = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    slots = []
    for name, p in model.named_parameters():
        is_matrix = p.dim() > 1 and min(p.shape[-2:]) > 1 and id(p) not in lists
        slots.append(Slot(name, p.shape, tuple(p.shape[-2:]) if is_matrix else ()))
    return sorted(slots, key=lambda slot: slot.matrix)


@torch.no_grad()
def flatten(model: nn.Module) -> Float[Tensor, "n_weights"]:
    """Join the parameters of a model in one tensor, in the order of `layout`.

    The parameters become views of it, so that whoever changes the tensor changes the model.
    """
    parameters, slots = dict(model.named_parameters()), layout(model)
    weights = torch.cat([parameters[slot.name].reshape(-1) for slot in slots])
    for name, view in by_name(weights, slots).items():
        parameters[name].data = view
    return weights


def by_name(flat: Float[Tensor, "n_weights"], slots: Sequence[Slot]) -> dict[str, Tensor]:
    """Views of all weights, or of their gradient: one for each parameter."""
    parts = flat.split([slot.shape.numel() for slot in slots])
    return {slot.name: part.view(slot.shape) for slot, part in zip(slots, parts, strict=True)}


def stacks(flat: Float[Tensor, "n_weights"], slots: Sequence[Slot]) -> tuple[Tensor, list[Tensor]]:
    """Views of the vectors, [n], and of the matrices of each shape, [n, n_rows, n_columns].

    Slots of one shape have to stand together, vectors first, as `layout` orders them.
    """
    sizes = {
        shape: sum(slot.shape.numel() for slot in group)
        for shape, group in groupby(slots, lambda slot: slot.matrix)
    }
    n_vectors = sizes.pop((), 0)
    vectors, *matrices = flat.split([n_vectors, *sizes.values()])
    return vectors, [part.view(-1, *shape) for part, shape in zip(matrices, sizes, strict=True)]
