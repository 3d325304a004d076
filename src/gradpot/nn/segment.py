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
    to_center: Shaped[Tensor, "n_pairs *rest"],
    to_neighbor: Shaped[Tensor, "n_pairs *rest"],
    pair_index: Int[Tensor, "2 n_pairs"],
    n_atoms: int | torch.SymInt,
) -> Shaped[Tensor, "n_atoms *rest"]:
    """Sum, at each atom, of the messages of its pairs.

    Args:
        to_center: message of each pair from its neighbor to its center.
        to_neighbor: message of each pair in the other direction.
        pair_index: row 0 centers, row 1 neighbors.
    """
    center, neighbor = pair_index
    return sum_by(to_center, center, n_atoms).index_add(0, neighbor, to_neighbor)
