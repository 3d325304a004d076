"""Do energies and forces belong together? ΔE against −½(F_i + F_j)·ΔR on near pairs of frames.

Between two frames that are close, the trapezoid rule gives the energy difference up to third
order in the step. So the slope of one against the other is 1 if sign and units are right, −1 if
the sign is wrong, and a ratio of units if those are wrong. Both frames of a pair have the same
atoms in the same order. Molecules are superimposed by the best rotation (Kabsch, Acta Cryst. A
32, 922 (1976)), periodic frames of the same cell by the nearest image.
"""

from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gradpot import units
from gradpot.data.frames import Frames
from gradpot.geometry import full_cell, minimum_image, volume

MAX_FRAMES = 1000
"""per group of equal composition; beyond that a sample, evenly spaced: one second"""
MAX_GROUPS = 100
"""the largest ones, which hold most of the pairs"""
MAX_CELLS = 300
"""per group; every pair of cells is compared"""
DESCRIPTOR_SIZE = 300
"""distances between atoms that tell which frames are near each other"""
MIN_STRAIN, MAX_STRAIN = 1e-3, 0.1
"""below, energies differ by rounding; above, the trapezoid rule is wrong"""
BOND = 2.5
"""Å; how far strain moves neighbors: strain times this, to weigh it against displacements"""
MIN_STEP = 1e-6
"""Å; nearer frames are copies, which say nothing about forces"""


class Limits(NamedTuple):
    """Where a verdict changes. "Public sets" are twelve correct ones, molecules and crystals."""

    pairs: int = 8
    """fewer give no reliable median"""
    correlation: float = 0.7
    """public sets have 0.91 or more, random labels under 0.1"""
    doubt: float = 0.5
    """spread over slope: public sets have 0.26 or less, random labels above 10"""
    smallest: float = 1e-6
    """a smaller slope is no mistake in units: the widest ratio is 5e4, hartree/bohr for meV/Å"""
    consistent: tuple[float, float] = (0.8, 1.25)
    """public sets have 0.87 to 1.10"""
    unclear: tuple[float, float] = (0.6, 1.6)
    """outside of `consistent`, but the nearest mistake, bohr for Å, gives 0.53 or 1.89"""
    unclear_if_doubtful: tuple[float, float] = (0.4, 2.5)
    """around the nearest mistakes, bohr for Å and rydberg for hartree (0.5 or 2)"""
    doubtful: float = 0.15
    """a larger doubt may bend a slope of 1 as far as that"""
    named: float = 0.1
    """a mistake is named if it explains the slope within 10 % and half of the doubt"""


LIMITS = Limits()


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


def check_forces(frames: Frames) -> dict[str, Any]:
    """Verdict on energies against forces, with the figures it rests on."""
    found = fit(near_pairs(frames))
    if found is None:
        text = "no two labeled frames have the same atoms in the same order and the same cell"
        return {"verdict": "cannot tell", "text": text}
    return _report(found, *judge(found))


def check_stress(frames: Frames) -> dict[str, Any] | None:
    """The same for stress, from frames whose cells differ; None if no frame has stress."""
    if np.isnan(frames.stress).any((1, 2)).all():
        return None
    found = fit(strained_pairs(frames))
    if found is None:
        text = (
            f"no two labeled frames have cells that differ by {MIN_STRAIN:.1%} to {MAX_STRAIN:.0%}"
        )
        return {"verdict": "cannot tell", "text": text}
    verdict, text = judge(found)
    texts = {
        "consistent": "energy differences agree with stress times strain",
        "sign error": "the stress has the wrong sign (--stress-sign)",
        "unit error": f"the stress is {_amount(found.slope)} for the energies (--stress-unit)",
    }
    return _report(found, verdict, texts.get(verdict, text))


def judge(found: Fit) -> tuple[str, str]:
    """One of "consistent", "sign error", "unit error", "cannot tell", and a sentence."""
    size, doubt = abs(found.slope), found.spread / max(abs(found.slope), 1e-12)
    if found.n_pairs < LIMITS.pairs:
        return "cannot tell", f"only {found.n_pairs} pairs of frames are near each other"
    weak = abs(found.correlation) < LIMITS.correlation or doubt > LIMITS.doubt
    if weak or size < LIMITS.smallest:
        return "cannot tell", "no frames are near enough to each other to compare their energies"

    def within(limits: tuple[float, float]) -> bool:
        return limits[0] < size < limits[1]

    if within(LIMITS.consistent):
        if found.slope < 0:
            return "sign error", "forces have the wrong sign: they look like gradients, dE/dR"
        return "consistent", "energy differences agree with forces times displacements"
    doubtful = doubt > LIMITS.doubtful and within(LIMITS.unclear_if_doubtful)
    if doubtful or within(LIMITS.unclear):
        text = f"the slope is {found.slope:.3g}, but the frames are too far apart to explain it"
        return "cannot tell", text
    sign = "; their sign is wrong as well" if found.slope < 0 else ""
    off = {text: abs(np.log(size / ratio)) for text, ratio in mistakes().items()}
    likely = [
        text for text in sorted(off, key=off.__getitem__) if off[text] < LIMITS.named + doubt / 2
    ]
    names = f": {', or '.join(likely[:2])}" if likely else ""
    return "unit error", f"forces are {_amount(size)} for the energies{names}{sign}"


def mistakes() -> dict[str, float]:
    """The slope that each common mistake in units gives."""
    bohr, ev = units.length_factor("bohr"), units.energy_factor
    found = {
        "positions look like bohr while forces are eV/Ang": bohr,
        "positions look like nm while forces are eV/Ang": units.length_factor("nm"),
        "forces look like eV/bohr while positions are Ang": 1 / bohr,
        "forces look like hartree/bohr while energies are eV": ev("hartree") / bohr,
        "forces look like kcal/mol/bohr while energies are eV": ev("kcal/mol") / bohr,
    }
    for unit in ("kcal/mol", "kJ/mol", "hartree", "meV"):
        found[f"forces look like {unit}/Ang while energies are eV"] = ev(unit)
        found[f"energies look like {unit} while forces are eV/Ang"] = 1 / ev(unit)
    for forces, energies in permutations(("kcal/mol", "kJ/mol", "hartree"), 2):
        text = f"forces look like {forces}/Ang while energies are {energies}"
        found[text] = ev(forces) / ev(energies)
    return found


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


def fit(pairs: Pairs) -> Fit | None:
    """Least absolute deviations through the origin, which outliers do not move; None if no pairs.

    The error of the trapezoid grows with the third power of the distance. So beyond the nearest
    tenth of the pairs, weights fall with the inverse square of that error.
    """
    if pairs.change.size < 2 or not np.abs(pairs.work).any():
        return None
    near = np.quantile(pairs.distance, 0.1)
    change, work, distance = (column[pairs.work != 0] for column in pairs)
    weight = 1 / (1 + (distance / near) ** 3) ** 2
    # relative to the step; no pair counts more than a thousand of the near ones
    weight *= 1 / np.maximum(distance, 1e-3 * near)
    slopes = _weighted_quantiles(change / work, weight * np.abs(work), (0.25, 0.5, 0.75))
    root = np.sqrt(weight)
    norm = np.linalg.norm(root * change) * np.linalg.norm(root * work)
    return Fit(
        slope=slopes[1],
        correlation=float((weight * change * work).sum() / norm) if norm > 0 else 0.0,
        spread=(slopes[2] - slopes[0]) / 2,
        n_pairs=change.size,
        distance=_weighted_quantiles(distance, weight, (0.5,))[0],
    )


def sample(index: Int[np.ndarray, "n"], size: int) -> Int[np.ndarray, "n_taken"]:
    """At most `size` entries, evenly spaced."""
    return (
        index[np.unique(np.linspace(0, index.size - 1, size).astype(int))] if index.size else index
    )


def _report(found: Fit, verdict: str, text: str) -> dict[str, Any]:
    figures = {key: float(f"{value:.4g}") for key, value in found._asdict().items()}
    return {"verdict": verdict, "text": text, **figures, "n_pairs": found.n_pairs}


def _amount(slope: float) -> str:
    size = abs(slope)
    return (
        f"{size:.4g} times too small" if size > 1 else f"{1 / max(size, 1e-9):.4g} times too large"
    )


def _join(found: list[Pairs]) -> Pairs:
    if not found:
        return Pairs(np.zeros(0), np.zeros(0), np.zeros(0))
    joined = Pairs(*(np.concatenate(column) for column in zip(*found)))
    moved = (joined.distance > MIN_STEP) & np.isfinite(joined.change) & np.isfinite(joined.work)
    return Pairs(*(column[moved] for column in joined))


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
    """Each frame with the frame nearest to it, and with the next one of the sample."""
    # half of the sample are frames that follow one another, for trajectories
    spread = sample(group, MAX_FRAMES // 2)
    after = group[np.minimum(np.searchsorted(group, spread) + 1, group.size - 1)]
    part = frames.take(np.unique(np.concatenate([spread, after])))
    n_frames, n_atoms = part.n_atoms.shape[0], int(part.n_atoms[0])
    positions = part.positions.reshape(n_frames, n_atoms, 3)
    forces = part.forces.reshape(n_frames, n_atoms, 3)
    pbc, cell = part.pbc[0], part.cell[0]
    apart = _apart(_on_circles(positions, cell, pbc) if pbc.any() else _distances(positions))
    np.fill_diagonal(apart, np.inf)
    nearest = np.sort([np.arange(n_frames), apart.argmin(1)], axis=0)
    # pairs found from both ends count once
    i, j = np.unique(nearest, axis=1)
    i = np.concatenate([i, np.arange(n_frames - 1)])
    j = np.concatenate([j, np.arange(1, n_frames)])
    if pbc.any():
        step, rotation = minimum_image(positions[j] - positions[i], cell, pbc), np.eye(3)
        step -= step.mean(1, keepdims=True)
    else:
        step, rotation = _superimposed(positions, i, j)
    mean = 0.5 * (forces[i] + forces[j] @ rotation)
    work, distance = -(mean * step).sum((1, 2)), np.sqrt((step**2).sum((1, 2)))
    return Pairs(part.energy[j] - part.energy[i], work, distance)


def _strained_pairs_of_group(frames: Frames, group: np.ndarray) -> Pairs:
    """Each frame and the nearest one whose cell differs by MIN_STRAIN to MAX_STRAIN."""
    part = frames.take(sample(group, MAX_CELLS))
    n_frames, n_atoms = part.n_atoms.shape[0], int(part.n_atoms[0])
    fractions = part.positions.reshape(n_frames, n_atoms, 3) @ np.linalg.inv(part.cell)
    strain = np.linalg.solve(part.cell[:, None], part.cell[None, :]) - np.eye(3)
    size = np.linalg.norm(strain, axis=(2, 3))
    mean_cell = part.cell.mean(0)
    apart = _apart(_on_circles(fractions @ mean_cell, mean_cell, part.pbc[0]))
    apart += n_atoms * (BOND * size) ** 2
    apart[(size < MIN_STRAIN) | (size > MAX_STRAIN)] = np.inf
    i, j = np.arange(n_frames), apart.argmin(1)
    i, j = i[np.isfinite(apart[i, j])], j[np.isfinite(apart[i, j])]
    step = fractions[j] - fractions[i]
    step = (step - np.round(step)) @ (0.5 * (part.cell[i] + part.cell[j]))
    step -= step.mean(1, keepdims=True)
    forces = part.forces.reshape(n_frames, n_atoms, 3)
    work_of_forces = -0.5 * ((forces[i] + forces[j]) * step).sum((1, 2))
    virial = part.stress * volume(part.cell)[:, None, None]
    work = 0.5 * ((virial[i] + virial[j]) * strain[i, j]).sum((1, 2))
    distance = np.sqrt((step**2).sum((1, 2)) + n_atoms * (BOND * size[i, j]) ** 2)
    return Pairs(part.energy[j] - part.energy[i] - work_of_forces, work, distance)


def _apart(descriptor: np.ndarray) -> np.ndarray:
    """Squared distances between all rows."""
    centered = descriptor - descriptor.mean(0)
    square = (centered**2).sum(1)
    return square[:, None] + square[None, :] - 2 * centered @ centered.T


def _distances(positions: np.ndarray) -> np.ndarray:
    """Distances between atoms, which rotations do not change; some of them in large molecules."""
    a, b = np.triu_indices(positions.shape[1], 1)
    if a.size > DESCRIPTOR_SIZE:
        some = sample(np.arange(a.size), DESCRIPTOR_SIZE)
        a, b = a[some], b[some]
    return np.linalg.norm(positions[:, a] - positions[:, b], axis=-1)


def _on_circles(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Atoms as points on a circle for each periodic axis, so that periodic images coincide."""
    full = full_cell(cell, pbc)
    fractions = positions @ np.linalg.inv(full)
    radius = np.linalg.norm(full, axis=1)[pbc] / (2 * np.pi)
    angle = 2 * np.pi * fractions[..., pbc]
    parts = [np.cos(angle) * radius, np.sin(angle) * radius, fractions[..., ~pbc]]
    return np.concatenate(parts, axis=-1).reshape(len(positions), -1)


def _superimposed(
    positions: np.ndarray, i: np.ndarray, j: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Steps from i to j after j is rotated onto i, and the rotations, applied from the right."""
    centered = positions - positions.mean(1, keepdims=True)
    u, _, vt = np.linalg.svd(centered[j].transpose(0, 2, 1) @ centered[i])
    # no reflection: a molecule and its mirror image are not the same frame
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    rotation = u @ vt
    return centered[j] @ rotation - centered[i], rotation
