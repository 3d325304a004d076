"""Do energies and forces belong together? ΔE against −½(F_i + F_j)·ΔR on near pairs of frames.

Between two frames that are close, the trapezoid rule gives the energy difference up to third
order in the step, so the slope of one against the other is 1 where sign and units are right, −1
where the sign is wrong, and a ratio of units where those are. Pairs have the same atoms in the
same order; molecules are laid on each other by the best rotation (Kabsch, Acta Cryst. A 32, 922
(1976)), periodic frames of the same cell by the nearest image.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gradpot.data.frames import Frames

MAX_FRAMES = 1000
"""per group of equal composition; beyond that a sample, evenly spaced"""
MAX_GROUPS = 100
DESCRIPTOR_SIZE = 300
MAX_CELLS = 300
MIN_STRAIN, MAX_STRAIN = 1e-3, 0.1
BOND = 2.5
"""Å; what strain means for neighbors, to weigh it against displacements"""


class Pairs(NamedTuple):
    """Near pairs: what the energies say, what the forces say, and how far apart they are."""

    change: Float[np.ndarray, "n_pairs"]
    """E_j − E_i in eV"""
    work: Float[np.ndarray, "n_pairs"]
    """−½(F_i + F_j)·ΔR in eV"""
    distance: Float[np.ndarray, "n_pairs"]
    """|ΔR| over all atoms, in Å"""


class Fit(NamedTuple):
    """Slope of change against work, in favor of the nearest pairs."""

    slope: float
    correlation: float
    spread: float
    """half the range that holds the middle half of the slopes of single pairs"""
    n_pairs: int
    distance: float
    """median over the pairs that count, in Å"""


def near_pairs(frames: Frames) -> Pairs:
    """Consecutive frames and nearest neighbors, from a sample that takes seconds at most."""
    labeled = np.flatnonzero(np.isfinite(frames.energy))
    return _join([_pairs_of_group(frames, group) for group in _groups(frames, labeled, True)])


def strained_pairs(frames: Frames) -> Pairs:
    """Pairs whose cells differ a little: energy beyond −F·ΔR, against V·σ:ε.

    Positions are compared relative to the cells, so that a pure strain moves no atom.
    """
    labeled = np.flatnonzero(np.isfinite(frames.energy) & np.isfinite(frames.stress).all((1, 2)))
    groups = _groups(frames, labeled, same_cell=False)
    return _join([_strained_pairs_of_group(frames, group) for group in groups])


def _join(found: list[Pairs]) -> Pairs:
    if not found:
        return Pairs(np.zeros(0), np.zeros(0), np.zeros(0))
    joined = Pairs(*(np.concatenate(column) for column in zip(*found)))
    # copies of a frame say nothing about its forces
    moved = (joined.distance > 1e-6) & np.isfinite(joined.change) & np.isfinite(joined.work)
    return Pairs(*(column[moved] for column in joined))


def fit(pairs: Pairs) -> Fit | None:
    """Least absolute deviations through the origin, which outliers do not move.

    The error of the trapezoid grows with the third power of the distance, so a pair weighs as its
    inverse square. None where there are no pairs.
    """
    if pairs.change.size < 2 or not np.abs(pairs.work).any():
        return None
    near = np.quantile(pairs.distance, 0.1)
    weight = 1 / (1 + (pairs.distance / near) ** 3) ** 2
    weight *= 1 / np.maximum(pairs.distance, 1e-3 * near)
    return _fit(pairs, weight)


def _fit(pairs: Pairs, weight: np.ndarray) -> Fit:
    kept = pairs.work != 0
    change, work, weight = pairs.change[kept], pairs.work[kept], weight[kept]
    lean = weight * np.abs(work)
    low, slope, high = _weighted_quantiles(change / work, lean, (0.25, 0.5, 0.75))
    root = np.sqrt(weight)
    norm = np.linalg.norm(root * change) * np.linalg.norm(root * work)
    correlation = float((weight * change * work).sum() / norm) if norm > 0 else 0.0
    distance = _weighted_quantiles(pairs.distance[kept], weight, (0.5,))[0]
    return Fit(slope, correlation, (high - low) / 2, int(kept.sum()), distance)


def _weighted_quantiles(
    values: np.ndarray, weight: np.ndarray, at: tuple[float, ...]
) -> list[float]:
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    places = np.searchsorted(total, np.array(at) * total[-1])
    return [float(values[order][min(i, values.size - 1)]) for i in places]


def _groups(
    frames: Frames, labeled: np.ndarray, same_cell: bool
) -> list[Int[np.ndarray, "n_members"]]:
    """Frames with the same atoms in the same order, the largest groups first."""
    first = frames.first
    members: dict[tuple, list[int]] = {}
    cells = np.round(frames.cell, 4) + 0.0 if same_cell else frames.pbc
    for i in labeled.tolist():
        key = frames.numbers[first[i] : first[i + 1]].tobytes(), cells[i].tobytes()
        members.setdefault(key, []).append(i)
    groups = sorted((np.array(group) for group in members.values()), key=lambda g: -g.size)
    return [group for group in groups[:MAX_GROUPS] if group.size > 1]


def _pairs_of_group(frames: Frames, group: np.ndarray) -> Pairs:
    # half of the sample are frames that follow one another, for trajectories
    spread = group[np.unique(np.linspace(0, group.size - 1, MAX_FRAMES // 2).astype(int))]
    after = group[np.minimum(np.searchsorted(group, spread) + 1, group.size - 1)]
    chosen = np.unique(np.concatenate([spread, after]))
    part = frames.take(chosen)
    n = int(part.n_atoms[0])
    positions = part.positions.reshape(-1, n, 3)
    forces = part.forces.reshape(-1, n, 3)
    pbc, cell = part.pbc[0], part.cell[0]
    descriptor = _wrapped(positions, cell, pbc) if pbc.any() else _distances(positions)
    i, j = _nearest(descriptor)
    after = np.arange(len(chosen) - 1)
    i, j = np.concatenate([i, after]), np.concatenate([j, after + 1])
    step, turn = _nearest_image(part, i, j) if pbc.any() else _rotated(positions, i, j)
    mean = 0.5 * (forces[i] + forces[j] @ turn)
    work, distance = -(mean * step).sum((1, 2)), np.sqrt((step**2).sum((1, 2)))
    return Pairs(part.energy[j] - part.energy[i], work, distance)


def _strained_pairs_of_group(frames: Frames, group: np.ndarray) -> Pairs:
    """Each frame and the nearest one whose cell differs by MIN_STRAIN to MAX_STRAIN."""
    chosen = group[np.unique(np.linspace(0, group.size - 1, MAX_CELLS).astype(int))]
    part = frames.take(chosen)
    n = int(part.n_atoms[0])
    place = part.positions.reshape(-1, n, 3) @ np.linalg.inv(part.cell)
    strain = np.linalg.solve(part.cell[:, None], part.cell[None, :]) - np.eye(3)
    size = np.linalg.norm(strain, axis=(2, 3))
    circles = _wrapped(place @ part.cell.mean(0), part.cell.mean(0), part.pbc[0])
    apart = _apart(circles) + n * (BOND * size) ** 2
    apart[(size < MIN_STRAIN) | (size > MAX_STRAIN)] = np.inf
    i, j = np.arange(len(chosen)), apart.argmin(1)
    i, j = i[np.isfinite(apart[i, j])], j[np.isfinite(apart[i, j])]
    step = place[j] - place[i]
    step = (step - np.round(step)) @ (0.5 * (part.cell[i] + part.cell[j]))
    step -= step.mean(1, keepdims=True)
    forces = part.forces.reshape(-1, n, 3)
    moving = -0.5 * ((forces[i] + forces[j]) * step).sum((1, 2))
    virial = part.stress * np.abs(np.linalg.det(part.cell))[:, None, None]
    work = 0.5 * ((virial[i] + virial[j]) * strain[i, j]).sum((1, 2))
    distance = np.sqrt((step**2).sum((1, 2)) + n * (BOND * size[i, j]) ** 2)
    return Pairs(part.energy[j] - part.energy[i] - moving, work, distance)


def _nearest(descriptor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each frame and the frame nearest to it; pairs found from both ends count once."""
    apart = _apart(descriptor)
    np.fill_diagonal(apart, np.inf)
    i, j = np.arange(len(apart)), apart.argmin(1)
    pairs = np.unique(np.sort(np.stack([i, j]), axis=0), axis=1)
    return pairs[0], pairs[1]


def _apart(descriptor: np.ndarray) -> np.ndarray:
    """Squared distances between all rows."""
    centered = descriptor - descriptor.mean(0)
    square = (centered**2).sum(1)
    return square[:, None] + square[None, :] - 2 * centered @ centered.T


def _distances(positions: np.ndarray) -> np.ndarray:
    """Distances between atoms, which rotations do not change; some of them in large molecules."""
    a, b = np.triu_indices(positions.shape[1], 1)
    if a.size > DESCRIPTOR_SIZE:
        some = np.linspace(0, a.size - 1, DESCRIPTOR_SIZE).astype(int)
        a, b = a[some], b[some]
    return np.linalg.norm(positions[:, a] - positions[:, b], axis=-1)


def _wrapped(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Places of atoms on a circle for each periodic axis, so that images coincide."""
    from ase.geometry import complete_cell

    full = complete_cell(cell)
    place = positions @ np.linalg.inv(full)
    length = np.linalg.norm(full, axis=1) / (2 * np.pi)
    turn = 2 * np.pi * place[..., pbc]
    parts = [np.cos(turn) * length[pbc], np.sin(turn) * length[pbc], place[..., ~pbc]]
    return np.concatenate(parts, axis=-1).reshape(len(positions), -1)


def _nearest_image(part: Frames, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps from i to j to the nearest image of each atom, and no turn."""
    from ase.geometry import complete_cell

    positions = part.positions.reshape(-1, int(part.n_atoms[0]), 3)
    full = complete_cell(part.cell[0])
    place = (positions[j] - positions[i]) @ np.linalg.inv(full)
    place -= np.round(place) * part.pbc[0]
    step = place @ full
    return step - step.mean(1, keepdims=True), np.eye(3)


def _rotated(positions: np.ndarray, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps from i to j after j was turned onto i, and the turns, to be applied from the right."""
    centered = positions - positions.mean(1, keepdims=True)
    u, _, vt = np.linalg.svd(centered[j].transpose(0, 2, 1) @ centered[i])
    # no reflection: a molecule and its mirror image are not the same frame
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    turn = u @ vt
    return centered[j] @ turn - centered[i], turn
