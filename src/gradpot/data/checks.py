"""What is in a data set, and what looks wrong with it, before anything is trained on it."""

from collections.abc import Iterable
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from gradpot import units
from gradpot.data.consistency import Fit, fit, near_pairs, strained_pairs
from gradpot.data.files import n_missing
from gradpot.data.frames import Frames
from gradpot.geometry import volume

MAX_MOLECULE_PAIRS = 50_000_000
"""pairs of atoms looked at for the shortest distance, a few seconds; beyond that a sample"""
MAX_PERIODIC_FRAMES = 300
STRONG_FORCE = 10.0
"""eV/Å; the rms force of molecules at 500 K is about 1, at several thousand K about 3"""
NET_FORCE_SHARE = 0.02
"""of the rms force times √n_atoms, above which the net force of a frame is worth a warning"""
MIN_PAIRS = 8
# of `step_share`: random frames have about 1
CONSECUTIVE = 0.2


def inspect(frames: Frames, random_split: bool = True) -> dict[str, Any]:
    """A summary that JSON can hold: sizes, ranges, missing labels, duplicates, warnings.

    `warnings` is a list of sentences, empty where nothing looks wrong; `consistency` says whether
    energies and forces belong together (see `data.consistency`). Seconds for 100,000 frames.

    Args:
        random_split: warn also of what would spoil a random split, and no other.
    """
    net = net_forces(frames)
    summary = {
        "frames": int(frames.n_atoms.shape[0]),
        "atoms": int(frames.n_atoms.sum()),
        "elements": elements(frames),
        "n_atoms": {"min": int(frames.n_atoms.min()), "max": int(frames.n_atoms.max())},
        "compositions": frames.n_compositions,
        "periodic_frames": int(frames.pbc.any(1).sum()),
        "energy_eV": _range(frames.energy),
        "energy_per_atom_eV": _range(frames.energy / frames.n_atoms),
        "forces_eV_A": _forces(frames),
        "shortest_distance_A": shortest_distance(frames),
        "cell_volume_A3": _range(volume(frames.cell[frames.pbc.all(1)])),
        "duplicates": n_duplicates(frames),
        "net_force_eV_A": _net(frames, net),
        "step_share": step_share(frames),
        "missing": n_missing(frames),
        "consistency": consistency(frames),
        "stress_consistency": stress_consistency(frames),
        "notices": list(frames.notices),
    }
    return {**summary, "warnings": warnings(summary, random_split)}


def elements(frames: Frames) -> dict[str, int]:
    """How many atoms of each element, by symbol."""
    from ase.data import chemical_symbols

    counts = np.bincount(frames.numbers)
    return {chemical_symbols[z]: int(counts[z]) for z in np.flatnonzero(counts)}


def net_forces(frames: Frames) -> Float[np.ndarray, "n_frames"]:
    """Length of the sum of the forces of each frame in eV/Å; zero for any isolated system."""
    return np.linalg.norm(np.add.reduceat(frames.forces, frames.first[:-1]), axis=1)


def step_share(frames: Frames) -> float | None:
    """How far atoms move from frame to frame, as a share of how far they are between any two.

    Near 1 for frames in random order, small for the steps of a trajectory; medians over frames of
    the same atoms in the same order, None where there are fewer than ten in a row.
    """
    n_frames, size = frames.n_atoms.shape[0], int(frames.n_atoms[0])
    if n_frames < 10 or (frames.numbers.size != n_frames * size) or frames.n_compositions > 1:
        return None
    positions = frames.positions.reshape(n_frames, size, 3)
    positions = positions - positions.mean(axis=1, keepdims=True)

    def apart(lag: int) -> float:
        return float(np.median(np.square(positions[lag:] - positions[:-lag]).sum((1, 2))) ** 0.5)

    far = apart(n_frames // 2)
    return apart(1) / far if far > 0 else None


def n_duplicates(frames: Frames) -> int:
    """Frames that repeat an earlier one exactly: same atoms, positions and cell."""
    first = frames.first.tolist()
    positions, cells = frames.positions + 0.0, frames.cell + 0.0  # −0 and 0 are the same place
    seen = {
        hash((frames.numbers[a:b].tobytes(), positions[a:b].tobytes(), cell.tobytes()))
        for a, b, cell in zip(first, first[1:], cells)
    }
    return len(cells) - len(seen)


def shortest_distance(frames: Frames) -> float | None:
    """In Å, over periodic images too; None for atoms alone. Large sets are sampled."""
    found = [_shortest_in_molecules(frames, group) for group in _molecules_by_size(frames)]
    periodic = np.flatnonzero(frames.pbc.any(1))
    found += [_shortest_in_cell(frames, int(i)) for i in _sample(periodic, MAX_PERIODIC_FRAMES)]
    shortest = min(found, default=np.inf)
    return float(shortest) if np.isfinite(shortest) else None


def consistency(frames: Frames) -> dict[str, Any]:
    """Verdict on energies against forces, with the figures it rests on."""
    found = fit(near_pairs(frames))
    if found is None:
        text = "no two frames with energies and forces have the same atoms in order and one cell"
        return {"verdict": "cannot tell", "text": text}
    return _verdict(found, *judge(found))


def stress_consistency(frames: Frames) -> dict[str, Any] | None:
    """The same for stress, from frames whose cells differ; None where there is no stress."""
    if np.isnan(frames.stress).any((1, 2)).all():
        return None
    found = fit(strained_pairs(frames))
    if found is None:
        return {"verdict": "cannot tell", "text": "no two frames have cells that differ a little"}
    verdict, text = judge(found)
    texts = {
        "consistent": "energy differences agree with stress times strain",
        "sign error": "the stress has the wrong sign (--stress-sign)",
        "unit error": f"the stress is {_amount(found.slope)} for the energies (--stress-unit)",
    }
    return _verdict(found, verdict, texts.get(verdict, text))


def _verdict(found: Fit, verdict: str, text: str) -> dict[str, Any]:
    figures = {key: float(f"{value:.4g}") for key, value in found._asdict().items()}
    return {"verdict": verdict, "text": text, **figures, "n_pairs": found.n_pairs}


def judge(found: Fit) -> tuple[str, str]:
    """One of "consistent", "sign error", "unit error", "cannot tell", and a sentence."""
    size, doubt = abs(found.slope), found.spread / max(abs(found.slope), 1e-12)
    if found.n_pairs < MIN_PAIRS:
        return "cannot tell", f"only {found.n_pairs} pairs of frames are near each other"
    if abs(found.correlation) < 0.7 or doubt > 0.5 or size < 1e-6:
        return "cannot tell", "no frames are near enough to each other to compare their energies"
    if 0.8 < size < 1.25:
        if found.slope < 0:
            return "sign error", "forces have the wrong sign: they look like gradients, dE/dR"
        return "consistent", "energy differences agree with forces times displacements"
    if 0.6 < size < 1.6 or (0.4 < size < 2.5 and doubt > 0.15):
        return "cannot tell", f"the slope is {found.slope:.3g}, and frames are far from each other"
    sign = "; their sign is wrong as well" if found.slope < 0 else ""
    return "unit error", _mistake(size, doubt) + sign


def warnings(summary: dict[str, Any], random_split: bool) -> list[str]:
    """What a person should look at before training."""
    found = []
    for judged in (summary["consistency"], summary["stress_consistency"]):
        if judged and judged["verdict"] in ("sign error", "unit error"):
            found.append(f"{judged['verdict']}: {judged['text']}")
    rms = (summary["forces_eV_A"] or {}).get("rms", 0)
    if rms > STRONG_FORCE:
        found.append(
            f"the rms force is {rms:.3g} eV/Å, far beyond what atoms feel: are energies and forces "
            "in kcal/mol (--energy-unit kcal/mol)?"
        )
    found += _distance_warnings(summary["shortest_distance_A"], summary["elements"])
    net = summary["net_force_eV_A"]
    if net and net["share"] > NET_FORCE_SHARE:
        found.append(
            f"the forces of frame {net['frame']} do not add up to zero but to {net['max']:.3g} eV/Å"
        )
    return found + (_split_warnings(summary) if random_split else [])


def _split_warnings(summary: dict[str, Any]) -> list[str]:
    found, share = [], summary["step_share"]
    if share is not None and share < CONSECUTIVE:
        found.append(
            "these look like consecutive steps of a trajectory: a random split would test on "
            "near-copies of training frames; train with data.split=block"
        )
    if summary["duplicates"]:
        found.append(
            f"{summary['duplicates']} frames are copies of others; a random split would put some "
            "of them in the training and in the test set"
        )
    return found


def _distance_warnings(shortest: float | None, symbols: Iterable[str]) -> list[str]:
    from ase.data import atomic_numbers, covalent_radii

    if shortest is None:
        return []
    radii = sorted(float(covalent_radii[atomic_numbers[symbol]]) for symbol in symbols)
    bond = sum(radii[:2]) if len(radii) > 1 else 2 * radii[0]
    if shortest < 0.5:
        return [
            f"two atoms are {shortest:.3g} Å apart: are lengths in nm (--length-unit nm), "
            "or told in bohr while they are Ang?"
        ]
    if shortest > 1.6 * bond:
        return [
            f"no two atoms are closer than {shortest:.3g} Å, where {bond:.3g} Å is usual: "
            "are lengths in bohr (--length-unit bohr)?"
        ]
    return []


def _mistake(slope: float, doubt: float) -> str:
    """Which units were taken for which, as far as the slope can tell them apart."""
    off = {text: abs(np.log(slope / ratio)) for text, ratio in _mistakes().items()}
    likely = [
        text for text in sorted(off, key=lambda text: off[text]) if off[text] < 0.1 + doubt / 2
    ]
    return f"forces are {_amount(slope)} for the energies" + "".join(
        f"{': ' if i == 0 else ', or '}{text}" for i, text in enumerate(likely[:2])
    )


def _amount(slope: float) -> str:
    size = abs(slope)
    return (
        f"{size:.4g} times too small" if size > 1 else f"{1 / max(size, 1e-9):.4g} times too large"
    )


def _mistakes() -> dict[str, float]:
    """The slope that each common mistake gives."""
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


def _range(values: Float[np.ndarray, "n"]) -> dict[str, float] | None:
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    figures = {"min": known.min(), "max": known.max(), "mean": known.mean(), "std": known.std()}
    return {name: float(value) for name, value in figures.items()}


def _forces(frames: Frames) -> dict[str, float] | None:
    known = frames.forces[np.isfinite(frames.forces).all(1)]
    if not known.size:
        return None
    largest = np.sqrt((known**2).sum(1).max())
    return {"rms": float(np.sqrt((known**2).mean())), "max": float(largest)}


def _net(frames: Frames, net: np.ndarray) -> dict[str, float] | None:
    """The worst frame, and its net force as a share of what random errors would add up to."""
    forces = _forces(frames)
    if forces is None or np.isnan(net).all():
        return None
    share = net / (max(forces["rms"], 1e-12) * np.sqrt(3 * frames.n_atoms))
    worst = int(np.nanargmax(share))
    return {"max": float(net[worst]), "frame": worst, "share": float(share[worst])}


def _molecules_by_size(frames: Frames) -> list[Int[np.ndarray, "n_members"]]:
    """Frames without a cell by number of atoms; sampled where there would be too many pairs."""
    single = np.flatnonzero(~frames.pbc.any(1) & (frames.n_atoms > 1))
    sizes = frames.n_atoms[single]
    share = min(1.0, MAX_MOLECULE_PAIRS / max(1, (sizes**2 // 2).sum()))
    groups = [single[sizes == n] for n in np.unique(sizes)]
    return [_sample(group, max(1, int(share * group.size))) for group in groups]


def _shortest_in_molecules(frames: Frames, group: np.ndarray) -> float:
    n = int(frames.n_atoms[group[0]])
    atoms = frames.first[group][:, None] + np.arange(n)
    positions = frames.positions[atoms]
    steps = range(1, n // 2 + 1)  # each pair of atoms is some steps apart, going round
    squares = (((positions - np.roll(positions, s, axis=1)) ** 2).sum(-1).min() for s in steps)
    return float(np.sqrt(min(squares)))


def _shortest_in_cell(frames: Frames, i: int) -> float:
    from gradpot.geometry import neighbor_list

    part = slice(frames.first[i], frames.first[i + 1])
    positions = frames.positions[part]
    shortest, cutoff = np.inf, 1.5
    while shortest == np.inf and cutoff < 12:
        (a, b), shifts = neighbor_list(positions, frames.cell[i], frames.pbc[i], cutoff)
        if a.size:
            steps = positions[b] - positions[a] + shifts @ frames.cell[i]
            shortest = np.sqrt((steps**2).sum(1).min())
        cutoff *= 2
    return float(shortest)


def _sample(index: np.ndarray, n: int) -> Int[np.ndarray, "n_taken"]:
    return index[np.unique(np.linspace(0, index.size - 1, n).astype(int))] if index.size else index
