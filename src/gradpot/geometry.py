"""Structures as arrays: pairs within a cutoff with their periodic images, edge vectors, volumes.

`shifts` counts cells: atom j of an edge sits at `positions[j] + shift @ cell`. A pair is two
edges, and edges come in two halves: the second half is the first one reversed. Whatever is the
same both ways is computed for the first half only.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from gradpot.errors import InputError

# the largest atomic number, oganesson
MAX_Z = 118
# rows of a table indexed by atomic number; row 0 belongs to no element
N_ELEMENTS = MAX_Z + 1
# below this, testing every pair is faster than building a cell list
ALL_PAIRS_BELOW = 60
# Å, a tenth of a millimeter: a coordinate then has ten digits behind the point in float64
LARGEST_LENGTH = 1e6
# atoms in the boxes around an atom, on average. Carbon at 20 Å has 40,000, which is the most that
# makes sense; a million are gigabytes for a hundred atoms
MOST_IN_REACH = 1e6
# times the cutoff: no pair reaches over a gap as wide as this, with room for rounding
EMPTY_GAP = 2.0
# vesin sorts atoms into at most this many boxes. If there would be more, it merges them, but in
# flat or long structures it then has fewer than one along an axis, and divides by zero
VESIN_BOXES, VESIN_FEWEST = 1e5, 3


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

    Raises:
        InputError: see `check_lengths`; or the cell is flat, or so small for this cutoff that the
            pairs would fill the memory.
    """
    check_lengths(positions, cell, pbc)
    if not positions.size or (not pbc.any() and positions.shape[0] < ALL_PAIRS_BELOW):
        difference = positions[None, :, :] - positions[:, None, :]
        pairs = np.stack(np.nonzero(np.triu((difference**2).sum(-1) < cutoff**2, k=1)))
        shifts = np.zeros((pairs.shape[1], 3), dtype=np.int64)
    else:
        pairs, shifts = _pairs_in_cell(positions, cell, pbc, cutoff)
    return np.concatenate([pairs, pairs[::-1]], axis=1), np.concatenate([shifts, -shifts])


def check_lengths(
    positions: Float[np.ndarray, "n_atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
) -> None:
    """Raise an InputError for the first atom or lattice vector that is not within 0.1 mm.

    Lengths like that come from dynamics that blew up or from a wrong unit. They leave no digits
    for distances, and have ended the process inside the search for neighbors.
    """
    must = f"but must be finite and at most {LARGEST_LENGTH:,.0f} Å"
    # the sum of squares is the cheapest test, and almost always enough
    if not np.vdot(positions, positions) <= LARGEST_LENGTH**2:
        far = ~(np.abs(positions) <= LARGEST_LENGTH).all(axis=1)
        if far.any():
            raise InputError(
                f"the position of atom {far.argmax()} is {positions[far.argmax()].tolist()} "
                f"{must}; in dynamics or an optimization, an earlier step went wrong"
            )
    long = pbc & ~(np.abs(cell) <= LARGEST_LENGTH).all(axis=1)
    if long.any():
        raise InputError(f"lattice vector {long.argmax()} is {cell[long.argmax()].tolist()} {must}")


def _pairs_in_cell(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[Int[np.ndarray, "2 n_pairs"], Int[np.ndarray, "n_pairs 3"]]:
    """Pairs by vesin's cell list, in a box without wide gaps that is periodic along all axes."""
    from vesin import NeighborList

    with np.errstate(all="ignore"):  # flat cells divide by zero, and are refused
        full = full_cell(cell, pbc)
        heights = volume(full) / np.linalg.norm(np.cross(full[[1, 2, 0]], full[[2, 0, 1]]), axis=1)
    if not (cell[pbc].any(axis=1).all() and (heights * MOST_IN_REACH > cutoff).all()):
        raise InputError(f"the cell is {cell.tolist()}, flat along an axis; check it")
    # heights: the distances between opposite faces
    points, cells, kept = _compact(positions, full, heights, pbc, EMPTY_GAP * cutoff)
    box, heights = full * kept[:, None], heights * kept
    n_boxes = np.maximum(np.floor(heights / cutoff), 1.0)
    around = np.prod((2.0 * np.ceil(cutoff / heights) + 1.0) / n_boxes)
    if positions.shape[0] * around > MOST_IN_REACH:
        raise InputError(
            f"the cell is {cell.tolist()}, so small or so skewed that each atom has about "
            f"{positions.shape[0] * around:.0e} images near the cutoff of {cutoff:g} Å; check the "
            "cell and its unit"
        )
    reach = cutoff
    if n_boxes.min() * np.cbrt(VESIN_BOXES / n_boxes.prod()) < VESIN_FEWEST:
        while np.maximum(np.floor(heights / reach), 1.0).prod() > VESIN_BOXES:
            reach *= 1.1
    search = NeighborList(cutoff=reach, full_list=False, sorted=True)
    i, j, shifts, distances = search.compute(
        points=points, box=box, periodic=True, quantities="ijSd"
    )
    if reach > cutoff:
        i, j, shifts = (found[distances < cutoff] for found in (i, j, shifts))
    pairs = np.stack([i, j]).astype(np.int64)
    return pairs, shifts + cells[pairs[0]] - cells[pairs[1]]


def _compact(
    positions: np.ndarray, cell: np.ndarray, heights: np.ndarray, pbc: np.ndarray, gap: float
) -> tuple[Float[np.ndarray, "n_atoms 3"], Int[np.ndarray, "n_atoms 3"], Float[np.ndarray, "3"]]:
    """Wrap atoms into a cell in which no plane of empty space is wider than `gap`.

    Without this, the time of a search grows with the empty space, and can be minutes. Axes that
    are not periodic get a gap behind the last atom, so that pairs never reach across.

    Returns:
        New positions, how many cells each atom was moved by, and the new length of each lattice
        vector, as a multiple of the old one.
    """
    fractions = positions @ np.linalg.inv(cell)
    cells = np.floor(fractions) * pbc
    wrapped, gap_fraction = fractions - cells, gap / heights
    order = np.argsort(wrapped, axis=0)
    ordered = np.take_along_axis(wrapped, order, axis=0)
    length = np.where(pbc, 1.0, ordered[-1] - ordered[0] + gap_fraction)
    gaps = np.diff(ordered, axis=0, append=ordered[:1] + length)
    excess = np.maximum(gaps - gap_fraction, 0.0)
    removed = np.empty_like(wrapped)
    np.put_along_axis(removed, order, np.cumsum(excess, axis=0) - excess, axis=0)
    return positions - (cells + removed) @ cell, cells.astype(np.int64), length - excess.sum(axis=0)


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
