"""Sums over groups: of messages at each atom, of atoms in each structure."""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


def sum_by(
    values: Shaped[Tensor, "n *rest"], index: Int[Tensor, "n"], n_groups: int | torch.SymInt
) -> Shaped[Tensor, "n_groups *rest"]:
    """Sum of the rows of `values` that share an `index`; 0 for a group without rows."""
    return values.new_zeros((n_groups, *values.shape[1:])).index_add(0, index, values)


def sum_pairs(
    to_center: Shaped[Tensor, "n_pairs *rest"],
    to_neighbor: Shaped[Tensor, "n_pairs *rest"],
    pair_index: Int[Tensor, "2 n_pairs"],
    n_atoms: int | torch.SymInt,
) -> Shaped[Tensor, "n_atoms *rest"]:
    """Sum, at each atom, of what its pairs send to their center and to their neighbor."""
    center, neighbor = pair_index
    return sum_by(to_center, center, n_atoms).index_add(0, neighbor, to_neighbor)
