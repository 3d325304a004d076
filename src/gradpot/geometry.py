"""Which atoms see which: pairs within a cutoff, with periodic images.

`shifts` counts cells: atom j of an edge sits at `positions[j] + shift @ cell`. A pair is two
edges, and edges come in two halves: the second half is the first one reversed. What is the same
both ways need be computed for the first half only.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

# below this, testing every pair is faster than building a cell list
ALL_PAIRS_BELOW = 60


def neighbor_list(
    positions: Float[np.ndarray, "n_atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    cutoff: float,
) -> tuple[Int[np.ndarray, "2 n_edges"], Int[np.ndarray, "n_edges 3"]]:
    """Both edges of all pairs closer than `cutoff` Å, and the image of each neighbor.

    Args:
        positions: in Å; atoms need not lie inside the cell.
        cell: rows are lattice vectors; anything where no axis is periodic.
        pbc: which axes are periodic.

    Returns:
        `edge_index` (row 0 the center i, row 1 the neighbor j) and `shifts`. The first half is
        sorted by center and holds each pair once; the second half is its reverse. An atom is a
        neighbor of its own images, never of itself.
    """
    if not pbc.any() and positions.shape[0] < ALL_PAIRS_BELOW:
        pairs, shifts = _all_pairs(positions, cutoff)
    else:
        pairs, shifts = _cell_list(positions, _full_cell(cell, pbc), pbc, cutoff)
    return np.concatenate([pairs, pairs[::-1]], axis=1), np.concatenate([shifts, -shifts])


def _all_pairs(positions: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    difference = positions[None, :, :] - positions[:, None, :]
    close = np.triu((difference**2).sum(-1) < cutoff**2, k=1)
    pairs = np.stack(np.nonzero(close))
    return pairs, np.zeros((pairs.shape[1], 3), dtype=np.int64)


def _cell_list(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float):
    from vesin import NeighborList

    i, j, shifts = NeighborList(cutoff=cutoff, full_list=False, sorted=True).compute(
        points=positions, box=cell, periodic=pbc, quantities="ijS"
    )
    return np.stack([i, j]).astype(np.int64), shifts.astype(np.int64)


def _full_cell(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Give the axes that are not periodic a direction of their own (ASE leaves them zero)."""
    from ase.geometry import complete_cell

    return complete_cell(np.where(pbc[:, None], cell, 0.0)) if not pbc.all() else cell
