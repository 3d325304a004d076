"""Sums over groups: of messages at each atom, of atom energies in each structure."""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


def sum_by(
    values: Shaped[Tensor, "n *rest"], index: Int[Tensor, "n"], n_groups: int | torch.SymInt
) -> Shaped[Tensor, "n_groups *rest"]:
    """Sum of the rows of `values` that share an `index`; 0 for a group without rows.

    Args:
        values: one row for each member; further axes are kept.
        index: the group of each member, from 0 to `n_groups` − 1, in any order.
        n_groups: may be a symbol while a step is traced.
    """
    return values.new_zeros((n_groups, *values.shape[1:])).index_add(0, index, values)


def sum_pairs(
    to_center: Shaped[Tensor, "*pairs"],
    to_neighbor: Shaped[Tensor, "*pairs"],
    pair_index: Int[Tensor, "2 n_pairs"],
    n_atoms: int | torch.SymInt,
    dim: int = 0,
) -> Shaped[Tensor, "*atoms"]:
    """Sum, at each atom, of the messages of its pairs.

    Args:
        to_center: message of each pair from its neighbor to its center.
        to_neighbor: message of each pair in the other direction.
        pair_index: row 0 centers, row 1 neighbors.
        dim: the axis of the pairs, which becomes that of the atoms.
    """
    center, neighbor = pair_index
    before, after = to_center.shape[:dim], to_center.shape[dim + 1 :]
    total = to_center.new_zeros((*before, n_atoms, *after))
    return total.index_add(dim, center, to_center).index_add(dim, neighbor, to_neighbor)
