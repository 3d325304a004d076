"""Structures as arrays: pairs within a cutoff with their periodic images, edge vectors, volumes.

`shifts` counts cells: atom j of an edge sits at `positions[j] + shift @ cell`. A pair is two
edges, and edges come in two halves: the second half is the first one reversed. Whatever is the
same both ways is computed for the first half only.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

# the largest atomic number, oganesson
MAX_Z = 118
# rows of a table indexed by atomic number; row 0 belongs to no element
N_ELEMENTS = MAX_Z + 1
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
        cell: rows are lattice vectors in Å; ignored if no axis is periodic.
        pbc: which axes are periodic.

    Returns:
        `edge_index` (row 0 the center i, row 1 the neighbor j) and `shifts`. The first half is
        sorted by center and holds each pair once; the second half is its reverse. An atom is a
        neighbor of its own images, never of itself.
    """
    if not pbc.any() and positions.shape[0] < ALL_PAIRS_BELOW:
        difference = positions[None, :, :] - positions[:, None, :]
        pairs = np.stack(np.nonzero(np.triu((difference**2).sum(-1) < cutoff**2, k=1)))
        shifts = np.zeros((pairs.shape[1], 3), dtype=np.int64)
    else:
        from vesin import NeighborList

        i, j, shifts = NeighborList(cutoff=cutoff, full_list=False, sorted=True).compute(
            points=positions, box=full_cell(cell, pbc), periodic=pbc, quantities="ijS"
        )
        pairs, shifts = np.stack([i, j]).astype(np.int64), shifts.astype(np.int64)
    return np.concatenate([pairs, pairs[::-1]], axis=1), np.concatenate([shifts, -shifts])


def edge_vectors(
    positions: Float[np.ndarray, "n_atoms 3"],
    cell: Float[np.ndarray, "*n_frames 3 3"],
    edge_index: Int[np.ndarray, "2 n_edges"],
    shifts: Int[np.ndarray, "n_edges 3"],
    frame: Int[np.ndarray, "n_edges"] | None = None,
) -> Float[np.ndarray, "n_edges 3"]:
    """Vector from the center i to the neighbor j of each edge, in Å: r_j + shift @ cell − r_i.

    Args:
        positions: in Å, of one frame or of many, one after the other.
        cell: of the one frame, or of each frame; rows are lattice vectors in Å.
        edge_index: rows of `positions`.
        shifts: as `neighbor_list` gives them.
        frame: which frame each edge belongs to, if there are many.
    """
    center, neighbor = edge_index
    vectors = positions[neighbor] - positions[center]
    if not shifts.any():
        return vectors  # molecules have many edges: spare them a cell for each
    images = shifts @ cell if frame is None else np.einsum("ec,ecx->ex", shifts, cell[frame])
    return vectors + images


def minimum_image(
    vectors: Float[np.ndarray, "*n 3"], cell: Float[np.ndarray, "3 3"], pbc: Bool[np.ndarray, "3"]
) -> Float[np.ndarray, "*n 3"]:
    """Shift vectors by whole cells until each fraction of a lattice vector is at most one half.

    The result is the shortest image if that is shorter than half the width of the cell.
    """
    full = full_cell(cell, pbc)
    fractions = vectors @ np.linalg.inv(full)
    return (fractions - np.round(fractions) * pbc) @ full


def volume(cell: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n"]:
    """Volume of each cell in Å³; 0 if one of its axes has no lattice vector."""
    return np.asarray(np.abs(np.linalg.det(cell)))


def full_cell(
    cell: Float[np.ndarray, "3 3"], pbc: Bool[np.ndarray, "3"]
) -> Float[np.ndarray, "3 3"]:
    """Give axes that are not periodic a unit vector normal to the others (ASE leaves them zero)."""
    from ase.geometry import complete_cell

    return cell if pbc.all() else complete_cell(np.where(pbc[:, None], cell, 0.0))
