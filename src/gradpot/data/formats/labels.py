"""Which fields of a file are its labels.

Energies and forces come from one family of names, chosen in each frame: a model's energy beside
reference forces is no label.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from gradpot.data.raw import Keys, frame_names

# names of energies and of forces, families and names in order of preference. `free_energy` is
# another quantity
FAMILIES = {
    "plain": (
        ("energy", "Energy", "total_energy", "TotEnergy", "energy_U0", "E"),
        ("forces", "force", "Forces", "F"),
    ),
    "REF": (("REF_energy", "ref_energy"), ("REF_forces", "ref_forces", "REF_force")),
    "DFT": (("dft_energy", "DFT_energy"), ("dft_forces", "DFT_forces", "dft_force")),
}
ENERGIES = [name for energies, _ in FAMILIES.values() for name in energies]
FORCES = [name for _, forces in FAMILIES.values() for name in forces]
LABELS = [*ENERGIES, *FORCES]
# how names of an energy and of its forces differ: old_energies and old_forces
PAIRS = (("energy", "forces"), ("energy", "force"), ("Energy", "Forces"), ("energies", "forces"))


def choose(frames: Sequence[Collection[str]], wanted: Keys) -> tuple[list[Keys], list[str]]:
    """Names of the energy and of the forces to read in each frame, and what to say about them.

    A family with both comes first, then one with forces, then one with an energy; if several are
    equal in this, the one that labels most frames.

    Args:
        frames: names of all fields of each frame.
        wanted: names that the user gives.
    """
    kinds = Counter(frozenset(frame) for frame in frames)
    offers = {
        kind: [Keys(_first(e, kind), _first(f, kind)) for e, f in FAMILIES.values()]
        for kind in kinds
    }
    count = [
        np.sum([n * np.array(_worth(offers[kind][i])) for kind, n in kinds.items()], axis=0)
        for i in range(len(FAMILIES))
    ]
    order = sorted(range(len(FAMILIES)), key=lambda i: tuple(count[i]), reverse=True)
    usual = {kind: max((offers[kind][i] for i in order), key=_worth) for kind in kinds}
    pairs = {kind: complete(wanted, usual[kind], kind) for kind in kinds}
    notices = describe([pairs[frozenset(frame)] for frame in frames], sorted(set().union(*kinds)))
    torn = {note for kind in kinds for note in torn_apart(wanted, usual[kind], pairs[kind])}
    return [pairs[frozenset(frame)] for frame in frames], [*notices, *sorted(torn)]


def complete(wanted: Keys, usual: Keys, known: Collection[str]) -> Keys:
    """The names that the user gives, and the usual ones for what is not given; None if not known.

    If only one of the two is given, the other is of its family, or its name differs as in `PAIRS`;
    only if there is no such field, the usual name is taken.
    """
    energy, forces = wanted
    if energy and not forces:
        families = [names[1] for names in FAMILIES.values() if energy in names[0]]
        spelled = [energy.replace(e, f) for e, f in PAIRS if e in energy]
        forces = _first([*families[0]] if families else [*spelled, usual.forces], known)
    elif forces and not energy:
        families = [names[0] for names in FAMILIES.values() if forces in names[1]]
        spelled = [forces.replace(f, e) for e, f in PAIRS if f in forces]
        energy = _first([*families[0]] if families else [*spelled, usual.energy], known)
    elif not energy and not forces:
        return usual
    return Keys(_first([energy], known), _first([forces], known))


def torn_apart(wanted: Keys, usual: Keys, keys: Keys) -> list[str]:
    """A warning if one of a usual pair is read with another label, and the user named only one."""
    kept = [key is not None and key == other for key, other in zip(keys, usual)]
    if None in usual or None in keys or None not in wanted or kept[0] == kept[1]:
        return []
    return [
        f"warning: energies from {keys.energy} with forces from {keys.forces}, though the file has "
        f"{usual.energy} and {usual.forces}: give both --energy-key and --forces-key"
    ]


def describe(chosen: Sequence[Keys], known: Collection[str]) -> list[str]:
    """Notices: names that are not the plain ones, several sources, labels that are not used."""
    used = {key for keys in chosen for key in keys if key}
    unused = [key for key in LABELS if key in known and key not in used]
    notices, sources = [], []
    for what, usual, names in (
        ("energies", ENERGIES, [keys.energy for keys in chosen]),
        ("forces", FORCES, [keys.forces for keys in chosen]),
    ):
        found = {
            key: np.flatnonzero([n == key for n in names]) for key in dict.fromkeys(names) if key
        }
        if not found:
            has = ", ".join(known) or "no other fields"
            notices.append(f"no {what}: looked for {', '.join(usual)}; the file has {has}")
        elif len(found) > 1:
            sources += [f"{what} from {key} ({frame_names(i)})" for key, i in found.items()]
        elif usual[0] not in found or unused:
            notices.append(f"{what} from {next(iter(found))}")
    if sources:
        notices.append(
            f"warning: labels have several names: {', '.join(sources)}; if these are not one "
            "method, choose one with --energy-key and --forces-key"
        )
    if unused:
        notices.append(f"labels not used: {', '.join(unused)}")
    return notices


def _first(names: Sequence[str | None], known: Collection[str]) -> str | None:
    return next((name for name in names if name and name in known), None)


def _worth(keys: Keys) -> tuple[bool, bool, bool]:
    """Whether a family has both labels, forces, energies."""
    return None not in keys, keys.forces is not None, keys.energy is not None
