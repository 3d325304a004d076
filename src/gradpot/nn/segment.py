"""Sums over the members of a group: messages into atoms, atoms into structures."""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


def sum_by(
    values: Shaped[Tensor, "n *rest"], index: Int[Tensor, "n"], n_groups: int | torch.SymInt
) -> Shaped[Tensor, "n_groups *rest"]:
    """Add up the rows of `values` that share an `index`; a group without rows is zero."""
    return values.new_zeros((n_groups, *values.shape[1:])).index_add(0, index, values)
