"""Atoms on top of each other: frames that have them are damaged, and no network can learn them."""

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from gradpot.data.frames import Frames
from gradpot.geometry import full_cell

# Å; nuclei this close repel each other with more than 100 eV, even two of hydrogen
TOO_CLOSE = 0.1
# atoms that are searched at once, in about two seconds and 200 MB
AT_ONCE = 1_000_000


def overlaps(frames: Frames) -> Int[np.ndarray, "n 3"]:
    """Frame and two of its atoms, for atoms closer than `TOO_CLOSE`, periodic images included.

    Every frame with such atoms is there, but not every pair of one that has many.
    """
    blocks = np.flatnonzero(np.diff(frames.first[:-1] // AT_ONCE)) + 1
    found = [np.zeros((0, 3), int)]
    for part in np.split(np.arange(frames.n_atoms.shape[0]), blocks):
        some = frames.take(part)
        frame = np.repeat(np.arange(part.shape[0]), some.n_atoms)
        positions, atom = _with_images(some, frame)
        # all atoms become points of one tree; a fourth coordinate keeps the frames apart
        points = np.column_stack([positions, frame[atom] * (2 * TOO_CLOSE)])
        _, nearest = KDTree(points).query(points, k=2, distance_upper_bound=TOO_CLOSE)
        # of atoms in one place, a point may find two others and not itself
        first = np.repeat(np.arange(points.shape[0]), 2)
        pair = np.column_stack([first, nearest.reshape(-1)])
        pair = atom[pair[pair[:, 1] < points.shape[0]]]
        pair = np.sort(pair[pair[:, 0] != pair[:, 1]], axis=1)
        within = pair - some.first[frame[pair]]
        found.append(np.column_stack([part[frame[pair[:, 0]]], within]))
    return np.unique(np.concatenate(found), axis=0)


def _with_images(
    frames: Frames, frame: Int[np.ndarray, "total"]
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "n"]]:
    """Positions within the cells and of images just outside of them, and the atom of each."""
    atom = np.arange(frame.shape[0])
    if not frames.pbc.any():
        return frames.positions, atom
    cells = np.array([full_cell(*pair) for pair in zip(frames.cell, frames.pbc)])
    inverse = np.linalg.inv(cells)
    pbc = frames.pbc[frame]
    fraction = np.einsum("ax,axk->ak", frames.positions, inverse[frame])
    fraction -= np.floor(fraction) * pbc
    # of a slab as thick as `TOO_CLOSE`, along each axis of each cell
    thin = TOO_CLOSE * np.linalg.norm(inverse, axis=1)
    for axis in range(3):
        near = pbc[atom, axis] & (fraction[:, axis] < thin[frame[atom], axis])
        fraction = np.concatenate([fraction, fraction[near] + np.eye(3)[axis]])
        atom = np.concatenate([atom, atom[near]])
    return np.einsum("ak,akx->ax", fraction, cells[frame[atom]]), atom
