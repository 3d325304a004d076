"""What is in a data set, and what looks wrong with it, before anything is trained on it."""

from typing import Any, NamedTuple

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import cell_to_cellpar
from jaxtyping import Float

from gradpot.data.consistency import check_forces, check_stress, sample
from gradpot.data.files import half_labeled, n_missing
from gradpot.data.frames import Frames
from gradpot.data.overlap import TOO_CLOSE, overlaps
from gradpot.data.raw import frame_names
from gradpot.data.references import least_squares, reference_energies
from gradpot.geometry import edge_vectors, volume
from gradpot.units import GPA

# pairs of atoms compared for the shortest distance in a few seconds; larger sets are sampled
MAX_MOLECULE_PAIRS = 50_000_000
# periodic frames compared for the same; each needs a neighbor list
MAX_PERIODIC_FRAMES = 300
# Å; the next one is used if a cell has no pair within the one before
CUTOFFS = (1.5, 3.0, 6.0)
# frames; fewer do not make a trajectory
MIN_STEPS = 10
# frames in which training and `eval` look for suspicious labels: this many take about a second
INSPECTED = 5_000
# formulas that a summary names
LISTED = 5
# Å; files round the components of cells
SAME_CELL = 1e-4
# begins a notice of a reader that is a warning
WARNING = "warning: "
# stands for a charge that is not known
NO_STATE = 1e9


class Limits(NamedTuple):
    """Beyond these, `inspect` warns. "Public sets" are twelve correct ones."""

    rms_force: float = 10.0
    """eV/Å; the rms force of molecules at 500 K is about 1, at several thousand K about 3"""
    net_force_share: float = 0.02
    """of the rms force times √(3 n_atoms), the net force of random errors; public sets have 0.003
    or less, and one of water 0.021"""
    step_share: float = 0.2
    """`step_share` is 0.02 for a trajectory written at every step, 0.58 or more in public sets"""
    shortest: float = 0.5
    """Å; public sets have 0.55 or more, and H2 0.74; nm read as Å gives 0.1"""
    longest_bond: float = 1.6
    """shortest distance over the sum of the two smallest covalent radii; public sets have 0.56 to
    0.97; bohr read as Å makes 0.9 into 1.7"""


LIMITS = Limits()


def inspect(frames: Frames, random_split: bool = True) -> dict[str, Any]:
    """A summary that JSON can hold: sizes, ranges, missing labels, duplicates, warnings.

    `warnings` is a list of sentences, empty if nothing looks wrong; `consistency` says whether
    energies and forces belong together (see `data.consistency`). 100,000 frames take seconds.

    Args:
        random_split: also warn of what would spoil a random split, but no other split.
    """
    counts, periodic = frames.composition.sum(axis=0).tolist(), frames.pbc.all(1)
    formulas = frames.formulas
    energy = np.where(frames.isolated, np.nan, frames.energy)
    summary = {
        "frames": int(frames.n_atoms.shape[0]),
        "atoms": int(frames.n_atoms.sum()),
        "elements": dict(zip(frames.symbols, counts)),
        "n_atoms": {"min": int(frames.n_atoms.min()), "max": int(frames.n_atoms.max())},
        "compositions": len(formulas),
        "formulas": formulas if len(formulas) <= LISTED else [],
        "periodic_frames": int(frames.pbc.any(1).sum()),
        "energy_eV": _range(energy),
        "energy_per_atom_eV": _range(energy / frames.n_atoms),
        "energy_without_atoms_std_eV": spread_without_atoms(frames),
        "forces_eV_A": force_sizes(frames),
        "stress": stress_size(frames),
        "shortest_distance_A": shortest_distance(frames),
        "cell_A_deg": only_cell(frames),
        "cell_volume_A3": _range(volume(frames.cell[periodic])),
        "duplicates": n_duplicates(frames),
        "net_force_eV_A": largest_net_force(frames),
        "step_share": step_share(frames),
        "missing": n_missing(frames),
        "half_labeled": half_labeled(frames).tolist(),
        "overlaps": overlaps(frames).tolist(),
        "charge_states": n_states(frames),
        "isolated_atoms": int(frames.isolated.sum()),
        "consistency": check_forces(frames),
        "stress_consistency": check_stress(frames),
    }
    said = [text.removeprefix(WARNING) for text in frames.notices if text.startswith(WARNING)]
    summary["notices"] = [text for text in frames.notices if not text.startswith(WARNING)]
    return {**summary, "warnings": said + warnings(summary, random_split)}


def suspicions(frames: Frames, random_split: bool) -> list[str]:
    """Lines that warn of the first `INSPECTED` frames, besides what their notices say."""
    some = frames.take(np.arange(min(frames.n_atoms.shape[0], INSPECTED)))
    found = inspect(some._replace(notices=()), random_split)["warnings"]
    return [WARNING + text for text in found]


def spread_without_atoms(frames: Frames) -> float | None:
    """Standard deviation in eV of the energies minus energies of atoms that fit them best.

    Isolated atoms are left out; None if all frames have one composition, or no energies.
    """
    some = frames.take(np.flatnonzero(~frames.isolated & np.isfinite(frames.energy)))
    if some.n_atoms.size < 2 or some.n_compositions < 2:
        return None
    return float((some.energy - reference_energies(some, least_squares(some))).std())


def stress_size(frames: Frames) -> dict[str, float] | None:
    """Root mean square of the components in meV/Å³ and in GPa; None if there are none."""
    known = frames.stress[np.isfinite(frames.stress)]
    if not known.size:
        return None
    rms = float(np.sqrt((known**2).mean()))
    return {"rms_meV_A3": 1e3 * rms, "rms_GPa": rms / GPA}


def force_sizes(frames: Frames) -> dict[str, float] | None:
    """Root mean square of the components and length of the longest vector, in eV/Å."""
    known = frames.forces[np.isfinite(frames.forces).all(1)]
    if not known.size:
        return None
    largest = np.sqrt((known**2).sum(1).max())
    return {"rms": float(np.sqrt((known**2).mean())), "max": float(largest)}


def largest_net_force(frames: Frames) -> dict[str, float] | None:
    """The worst frame, its net force in eV/Å, and its share of what random errors would give.

    The net force of any isolated system is zero.
    """
    net = np.linalg.norm(np.add.reduceat(frames.forces, frames.first[:-1]), axis=1)
    forces = force_sizes(frames)
    if forces is None or np.isnan(net).all():
        return None
    share = net / (max(forces["rms"], 1e-12) * np.sqrt(3 * frames.n_atoms))
    worst = int(np.nanargmax(share))
    return {"max": float(net[worst]), "frame": worst, "share": float(share[worst])}


def step_share(frames: Frames) -> float | None:
    """How far atoms move from frame to frame, over how far apart any two frames are.

    Near 1 for frames in random order, small for the steps of a trajectory. Medians over frames of
    the same atoms in the same order; None for other sets, and for fewer than ten frames.
    """
    n_frames, size = frames.n_atoms.shape[0], int(frames.n_atoms[0])
    one_size = frames.numbers.size == n_frames * size
    if n_frames < MIN_STEPS or not one_size or frames.n_compositions > 1:
        return None
    positions = frames.positions.reshape(n_frames, size, 3)
    positions = positions - positions.mean(axis=1, keepdims=True)
    near, far = (
        float(np.median(np.square(positions[lag:] - positions[:-lag]).sum((1, 2))) ** 0.5)
        for lag in (1, n_frames // 2)
    )
    return near / far if far > 0 else None


def only_cell(frames: Frames) -> list[float] | None:
    """Lengths in Å and angles in degrees of the cell; None if cells differ or there are none."""
    cells = frames.cell[frames.pbc.any(1)]
    if not cells.size or np.ptp(cells, axis=0).max() > SAME_CELL:
        return None
    return cell_to_cellpar(cells[0]).tolist()


def n_duplicates(frames: Frames) -> int:
    """How many frames repeat an earlier one exactly: same atoms, positions, cell, charge, spin."""
    return len(frames.n_atoms) - len(set(structure_hashes(frames)))


def structure_hashes(frames: Frames) -> list[int]:
    """A number for each frame, equal for copies, whatever their labels."""
    first = frames.first.tolist()
    positions, cells = frames.positions + 0.0, frames.cell + 0.0  # −0 and 0 are the same place
    states = np.column_stack([frames.charge, frames.spin]) + 0.0
    return [
        hash((frames.numbers[a:b].tobytes(), positions[a:b].tobytes(), c.tobytes(), s.tobytes()))
        for a, b, c, s in zip(first, first[1:], cells, states)
    ]


def n_states(frames: Frames) -> int:
    """The largest number of different charges and spins that one composition has."""
    states = np.column_stack([frames.charge, frames.spin])
    if np.isnan(states).all():
        return 1
    rows = np.column_stack([frames.composition, np.nan_to_num(states, nan=NO_STATE)])
    distinct = np.unique(rows, axis=0)
    return int(np.unique(distinct[:, :-2], axis=0, return_counts=True)[1].max())


def shortest_distance(frames: Frames) -> float | None:
    """In Å, periodic images included; None if no two atoms are in reach. Large sets are sampled."""
    periodic = frames.pbc.any(1)
    molecules = np.flatnonzero(~periodic & (frames.n_atoms > 1))
    sizes = frames.n_atoms[molecules]
    share = min(1.0, MAX_MOLECULE_PAIRS / max(1, (sizes**2 // 2).sum()))
    found = []
    for n in np.unique(sizes).tolist():  # all molecules of one size at once
        group = molecules[sizes == n]
        part = sample(group, max(1, int(share * group.size)))
        positions = frames.positions[frames.first[part][:, None] + np.arange(n)]
        # going around, each pair is some steps apart
        pairs = (positions - np.roll(positions, step, axis=1) for step in range(1, n // 2 + 1))
        found.append(np.sqrt(min((vectors**2).sum(-1).min() for vectors in pairs)))
    cells = sample(np.flatnonzero(periodic), MAX_PERIODIC_FRAMES)
    found += [_shortest_in_cell(frames, i) for i in cells.tolist()]
    shortest = min(found, default=np.inf)
    return float(shortest) if np.isfinite(shortest) else None


def warnings(summary: dict[str, Any], random_split: bool) -> list[str]:
    """What a person should look at before training."""
    found = []
    if summary["energy_eV"] is None and summary["forces_eV_A"] is None:
        found.append(
            "there are neither energies nor forces: if they are under other names, add "
            "--energy-key NAME --forces-key NAME; if there are none, gradpot label adds them"
        )
    for judged in (summary["consistency"], summary["stress_consistency"]):
        if judged and judged["verdict"] in ("sign error", "unit error"):
            found.append(f"{judged['verdict']}: {judged['text']}")
    rms = (summary["forces_eV_A"] or {}).get("rms", 0)
    if rms > LIMITS.rms_force:
        found.append(
            f"the rms force is {rms:.3g} eV/Å, far beyond what atoms feel: are energies and forces "
            "in kcal/mol (--energy-unit kcal/mol)?"
        )
    radii = sorted(float(covalent_radii[atomic_numbers[z]]) for z in summary["elements"])
    bond = sum(radii[:2]) if len(radii) > 1 else 2 * radii[0]
    shortest = summary["shortest_distance_A"]
    if summary["overlaps"]:
        i, one, other = summary["overlaps"][0]
        count = len({pair[0] for pair in summary["overlaps"]})
        found.append(
            f"atoms {one} and {other} of frame {i} are less than {TOO_CLOSE} Å apart"
            + (f", and so are atoms of {count - 1} other frames" if count > 1 else "")
            + "; such frames are left out of training and tests"
        )
    elif shortest is not None and shortest < LIMITS.shortest:
        found.append(
            f"two atoms are {shortest:.3g} Å apart: are lengths in nm (--length-unit nm), "
            "or declared as bohr but actually in Å?"
        )
    elif shortest is not None and shortest > LIMITS.longest_bond * bond:
        found.append(
            f"no two atoms are closer than {shortest:.3g} Å, where {bond:.3g} Å is usual: "
            "are lengths in bohr (--length-unit bohr)?"
        )
    if half := summary["half_labeled"]:
        found.append(
            f"forces or stress of {frame_names(np.array(half))} are missing for some atoms or "
            "components only; training uses the others"
        )
    if summary["charge_states"] > 1:
        found.append(
            f"frames of one composition have {summary['charge_states']} different charges or "
            "spins, which networks do not see: train on one of them"
        )
    net = summary["net_force_eV_A"]
    if net and net["share"] > LIMITS.net_force_share:
        found.append(
            f"the forces of frame {net['frame']} do not add up to zero but to {net['max']:.3g} eV/Å"
        )
    share = summary["step_share"]
    if random_split and share is not None and share < LIMITS.step_share:
        found.append(
            "these look like consecutive steps of a trajectory: a random split would test on "
            "near-copies of training frames; train with data.split=block"
        )
    if random_split and summary["duplicates"]:
        found.append(
            f"{summary['duplicates']} frames are copies of others; a random split would put some "
            "of them in the training set and the test set"
        )
    return found


def _range(values: Float[np.ndarray, "n"]) -> dict[str, float] | None:
    """Smallest, largest, mean and standard deviation of the labels that exist; None if none do."""
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    return {name: float(getattr(known, name)()) for name in ("min", "max", "mean", "std")}


def _shortest_in_cell(frames: Frames, i: int) -> float:
    """In Å, with periodic images; infinite if no pair is within the last of `CUTOFFS`."""
    positions, cell = frames.positions[slice(*frames.first[i : i + 2])], frames.cell[i]
    for cutoff in CUTOFFS:
        edge_index, shifts = frames.neighbors(i, cutoff)
        if shifts.size:
            vectors = edge_vectors(positions, cell, edge_index, shifts)
            return float(np.sqrt((vectors**2).sum(1).min()))
    return np.inf
