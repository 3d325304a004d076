"""Do energies and forces belong together? ΔE against −½(F_i + F_j)·ΔR on near pairs of frames.

Between two frames that are close, the trapezoid rule gives the energy difference with an error of
third order in the step. So the slope of one against the other is 1 if sign and units are right, −1
if the sign is wrong, and a ratio of units if the units are wrong. Both frames of a pair have the
same atoms in the same order. Molecules are superimposed by the best rotation (Kabsch, Acta Cryst.
A 32, 922 (1976)), periodic frames of the same cell by the nearest image.
"""

from collections.abc import Callable
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from gradpot import units
from gradpot.data.frames import Frames
from gradpot.geometry import full_cell, minimum_image, volume

# per group of frames with the same atoms; larger groups are sampled evenly: one second
MAX_FRAMES = 1000
# the largest ones, which hold most of the pairs
MAX_GROUPS = 100
# per group; every pair of cells is compared
MAX_CELLS = 300
# distances between atoms that tell which frames are near each other
DESCRIPTOR_SIZE = 300
# below, energies differ only by rounding; above, the trapezoid rule fails
MIN_STRAIN, MAX_STRAIN = 1e-3, 0.1
# Å; strain times this is how far neighbors move, which is compared with displacements
BOND = 2.5
# Å; closer frames are copies, which say nothing about forces
MIN_STEP = 1e-6


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
    """with a larger doubt, a slope of 1 may appear anywhere in that range"""
    named: float = 0.1
    """a mistake is named if it explains the slope to within 10 % plus half of the doubt"""


LIMITS = Limits()


class Pairs(NamedTuple):
    """Near pairs of frames: what energies say, what forces say, and how far apart they are."""

    change: Float[np.ndarray, "n_pairs"]
    """E_j − E_i in eV"""
    work: Float[np.ndarray, "n_pairs"]
    """−½(F_i + F_j)·ΔR in eV"""
    distance: Float[np.ndarray, "n_pairs"]
    """|ΔR| over all atoms, in Å"""


class Fit(NamedTuple):
    """Slope of change against work; the nearest pairs weigh most."""

    slope: float
    correlation: float
    spread: float
    """half the range that holds the middle half of the slopes of single pairs"""
    n_pairs: int
    distance: float
    """weighted median over the pairs, in Å"""

    @property
    def amount(self) -> str:
        """By what factor the labels are too small or too large, in words.

        A slope above 1 means that energies change by more than the forces or stresses explain.
        """
        size = abs(self.slope)
        if size > 1:
            return f"{size:.4g} times too small"
        return f"{1 / max(size, 1e-9):.4g} times too large"


def check_forces(frames: Frames) -> dict[str, Any]:
    """Verdict on energies against forces, with the figures it rests on.

    Returns:
        "verdict" and "text" as `judge` gives them, and the fields of `Fit` rounded to four digits;
        the fields are absent if there are too few pairs for a fit.
    """
    nothing = "no two labeled frames have the same atoms in the same order and the same cell"
    if np.isnan(frames.energy).all() or np.isnan(frames.forces).all():
        nothing = "there are no energies and forces to compare"
    return _report(near_pairs(frames), nothing, {}, {})


def check_stress(frames: Frames) -> dict[str, Any] | None:
    """The same for stress, from frames whose cells differ; None if no frame has stress."""
    has_stress = np.isfinite(frames.stress).all((1, 2))
    if not has_stress.any():
        return None
    labeled = has_stress & np.isfinite(frames.energy)
    texts = {
        "consistent": "energy differences agree with stress times strain",
        "sign error": "the stress has the wrong sign (--stress-sign)",
        "unit error": "the stress is {amount} for the energies{likely} (--stress-unit)",
    }
    nothing = f"no two cells of labeled frames differ by {MIN_STRAIN:.1%} to {MAX_STRAIN:.0%}"
    pairs = _pairs(frames, labeled, frames.pbc, _strained_pairs_of_group)
    return _report(pairs, nothing, texts, stress_mistakes())


def judge(found: Fit) -> tuple[str, str]:
    """One of "consistent", "sign error", "unit error", "cannot tell", and a sentence."""
    size, doubt = abs(found.slope), found.spread / max(abs(found.slope), 1e-12)
    if found.n_pairs < LIMITS.pairs:
        return "cannot tell", f"only {found.n_pairs} pairs of frames are near each other"
    weak = abs(found.correlation) < LIMITS.correlation or doubt > LIMITS.doubt
    if weak or size < LIMITS.smallest:
        return "cannot tell", "no frames are near enough to each other to compare their energies"
    low, high = LIMITS.consistent
    if low < size < high:
        if found.slope < 0:
            return "sign error", "forces have the wrong sign: they look like gradients, dE/dR"
        return "consistent", "energy differences agree with forces times displacements"
    low, high = LIMITS.unclear_if_doubtful if doubt > LIMITS.doubtful else LIMITS.unclear
    if low < size < high:
        text = f"the slope is {found.slope:.3g}, but the frames are too far apart to explain it"
        return "cannot tell", text
    sign = "; their sign is wrong too" if found.slope < 0 else ""
    names = _likely(found, mistakes())
    return "unit error", f"forces are {found.amount} for the energies{names}{sign}"


def _likely(found: Fit, ratios: dict[str, float]) -> str:
    """The one or two mistakes that explain a slope best, for the end of a sentence."""
    size = abs(found.slope)
    off = sorted((abs(np.log(size / ratio)), text) for text, ratio in ratios.items())
    near = [text for error, text in off if error < LIMITS.named + found.spread / size / 2]
    return f": {', or '.join(near[:2])}" if near else ""


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


def stress_mistakes() -> dict[str, float]:
    """The same for stress that was read in a wrong unit."""
    names = ("eV/Ang^3", "GPa", "kbar", "hartree/bohr^3")
    return {
        f"it looks like {unit}, but was read as {read}": units.stress_factor(unit)
        / units.stress_factor(read)
        for unit, read in permutations(names, 2)
    }


def near_pairs(frames: Frames) -> Pairs:
    """Consecutive frames and nearest neighbors, from a sample that takes seconds at most."""
    labeled, cells = np.isfinite(frames.energy), np.round(frames.cell, 4) + 0.0
    return _pairs(frames, labeled, cells, _pairs_of_group)


def fit(pairs: Pairs) -> Fit | None:
    """Least absolute deviations through the origin, which outliers do not move; None if no pairs.

    The error of the trapezoid rule grows as the third power of the distance. So beyond the nearest
    tenth of the pairs, weights fall as the inverse square of that error.
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


def sample(index: Int[np.ndarray, "n *axes"], size: int) -> Int[np.ndarray, "n_taken *axes"]:
    """At most `size` entries along the first axis, evenly spaced."""
    return index[np.linspace(0, len(index) - 1, min(size, len(index))).astype(int)]


def _report(
    pairs: Pairs, nothing: str, texts: dict[str, str], ratios: dict[str, float]
) -> dict[str, Any]:
    """What `judge` says about these pairs, with the figures it rests on, for JSON.

    Args:
        pairs: those of forces or those of stress.
        nothing: the text if there are too few pairs for a fit.
        texts: by verdict, instead of those on forces; `{amount}` stands for `Fit.amount`,
            `{likely}` for the mistakes that explain it.
        ratios: of these mistakes, as `mistakes` gives them.
    """
    found = fit(pairs)
    if found is None:
        return {"verdict": "cannot tell", "text": nothing}
    verdict, text = judge(found)
    if verdict in texts:
        text = texts[verdict].format(amount=found.amount, likely=_likely(found, ratios))
    figures = {key: float(f"{value:.4g}") for key, value in found._asdict().items()}
    return {"verdict": verdict, "text": text, **figures, "n_pairs": found.n_pairs}


def _weighted_quantiles(
    values: np.ndarray, weight: np.ndarray, at: tuple[float, ...]
) -> list[float]:
    """The smallest values below which the shares `at` of the total weight lie.

    As `np.quantile(method="inverted_cdf", weights=...)`, which needs numpy 2.
    """
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    places = np.searchsorted(total, np.array(at) * total[-1])
    return [float(values[order][min(i, values.size - 1)]) for i in places]


def _pairs(
    frames: Frames,
    labeled: Bool[np.ndarray, "n_frames"],
    cells: np.ndarray,
    of_group: Callable[[Frames, np.ndarray], Pairs],
) -> Pairs:
    """Pairs from the largest groups of frames with the same atoms in the same order.

    Args:
        frames: the whole data set.
        labeled: which of its frames to use.
        cells: one row for each frame; the frames of a group have equal rows.
        of_group: finds the pairs of one group from the indices of its frames.
    """
    first = frames.first
    members: dict[tuple, list[int]] = {}
    for i in np.flatnonzero(labeled).tolist():
        key = frames.numbers[first[i] : first[i + 1]].tobytes(), cells[i].tobytes()
        members.setdefault(key, []).append(i)
    groups = sorted(members.values(), key=len, reverse=True)[:MAX_GROUPS]
    found = [of_group(frames, np.array(group)) for group in groups if len(group) > 1]
    joined = Pairs(*map(np.concatenate, zip(Pairs(*np.zeros((3, 0))), *found)))
    moved = (joined.distance > MIN_STEP) & np.isfinite(joined.change) & np.isfinite(joined.work)
    return Pairs(*(column[moved] for column in joined))


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
    if pbc.any():
        descriptor = _on_circles(positions, cell, pbc)
    else:  # distances between atoms, which rotations do not change; not all in large molecules
        a, b = sample(np.transpose(np.triu_indices(n_atoms, 1)), DESCRIPTOR_SIZE).T
        descriptor = np.linalg.norm(positions[:, a] - positions[:, b], axis=-1)
    apart = _apart(descriptor)
    np.fill_diagonal(apart, np.inf)
    nearest = np.sort([np.arange(n_frames), apart.argmin(1)], axis=0)
    following = [np.arange(n_frames - 1), np.arange(1, n_frames)]
    # pairs found from both ends count once
    i, j = np.concatenate([np.unique(nearest, axis=1), following], axis=1)
    if pbc.any():
        step, rotation = minimum_image(positions[j] - positions[i], cell, pbc), np.eye(3)
        step -= step.mean(1, keepdims=True)
    else:
        step, rotation = _superimposed(positions, i, j)
    mean = 0.5 * (forces[i] + forces[j] @ rotation)
    work, distance = -(mean * step).sum((1, 2)), np.sqrt((step**2).sum((1, 2)))
    return Pairs(part.energy[j] - part.energy[i], work, distance)


def _strained_pairs_of_group(frames: Frames, group: np.ndarray) -> Pairs:
    """Each frame and the nearest one whose cell differs by MIN_STRAIN to MAX_STRAIN.

    The energy beyond −F·ΔR is compared with V·σ:ε. Positions are relative to the cells, so that a
    pure strain moves no atom.
    """
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
