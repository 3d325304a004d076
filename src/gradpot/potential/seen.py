"""What the training frames were like, and how a structure differs from all of them.

A network answers for any structure, with numbers that mean nothing far from its training data.
What is compared here costs next to nothing: compositions, charges, periodic directions, and the
shortest distance of each pair of elements.
"""

import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import ase
import numpy as np
import torch
from ase.data import chemical_symbols
from ase.formula import Formula
from jaxtyping import Float, Int

from gradpot.data.formats.ase_files import scalar
from gradpot.data.frames import Frames
from gradpot.data.raw import CHARGE, SPIN
from gradpot.errors import InputError
from gradpot.geometry import N_ELEMENTS
from gradpot.graph.dataset import Dataset
from gradpot.potential.header import Seen

if TYPE_CHECKING:
    from ase import Atoms

# Times the shortest distance in the training frames. Of seven data sets (molecules at 300 to 650 K,
# water, silicon), other frames of the same kind have no distance below 0.94 of it.
NEARER = 0.9
# Times the shortest distance: here networks have deep minima that do not exist (two carbon atoms at
# 0.9 Å may be 8 keV below isolated ones), and an optimizer that gets there never comes back.
REFUSED = 0.7
# compositions that a header lists: a set with more has seen enough kinds that one more is nothing
# to mention
LISTED = 20
# of the atoms of a structure: the next members of a series, such as alkanes, differ by less
FRACTION = 0.05
# a warning names the line of the user, which is in neither of these packages
SKIPPED = tuple(
    f"{Path(folder).resolve()}/" for folder in (Path(__file__).parents[1], *ase.__path__)
)


class UnseenWarning(UserWarning):
    """A structure differs from all training frames, so that predictions for it may mean nothing."""


def seen_in(frames: Frames, data: Dataset, index: Int[np.ndarray, "n"]) -> Seen:
    """What the frames at `index` are like.

    Args:
        data: of all `frames`, with the cutoff of the model.
    """
    some = frames.take(index)
    formulas, counts = _formulas(some)
    fractions = counts / counts.sum(axis=1, keepdims=True)
    codes, squares, owner = _pairs(data)
    chosen = np.isin(owner, index)
    nearest = np.full(N_ELEMENTS**2, np.inf)
    np.minimum.at(nearest, codes[chosen], squares[chosen])
    return Seen(
        compositions=sorted(set(formulas)) if len(set(formulas)) <= LISTED else [],
        fractions={
            str(z): (low, high)
            for z, low, high in zip(
                np.unique(some.numbers).tolist(),
                fractions.min(axis=0).tolist(),
                fractions.max(axis=0).tolist(),
                strict=True,
            )
        },
        periodic_directions=np.unique(some.pbc.sum(axis=1)).tolist(),
        charge=_range(some.charge),
        spin=_range(some.spin),
        nearest={
            f"{code // N_ELEMENTS}-{code % N_ELEMENTS}": round(nearest[code] ** 0.5, 4)
            for code in np.nonzero(np.isfinite(nearest))[0].tolist()
        },
    )


def nearest_squared(seen: Seen) -> Float[np.ndarray, "n_elements n_elements"]:
    """Square of the shortest distance of each pair of elements in Å², infinite for pairs not seen.

    Both orders of a pair are filled.
    """
    table = np.full((N_ELEMENTS, N_ELEMENTS), np.inf)
    for pair, distance in seen.nearest.items():
        one, other = map(int, pair.split("-"))
        table[one, other] = table[other, one] = distance**2
    return table


def unlike(
    seen: Seen, numbers: np.ndarray, pbc: np.ndarray, charge: float, spin: float
) -> list[str]:
    """How composition, periodic directions, charge and spin differ from all training frames.

    Each is a clause of a sentence.

    Args:
        charge, spin: NaN if they are not known.
    """
    found, periodic = [], bool(np.any(pbc))
    elements, counts = np.unique(numbers, return_counts=True)
    if (
        seen.compositions
        and (name := _formula(elements, counts, periodic)) not in seen.compositions
    ):
        few = len(seen.compositions) < len(seen.fractions)
        reduced = "; formulas of cells are reduced" if any(seen.periodic_directions) else ""
        found.append(
            f"no training frame has the composition {name} "
            f"(training: {', '.join(seen.compositions)}{reduced})"
            + (", whose total energy cannot be compared with theirs" if few else "")
        )
    elif not seen.compositions:
        for z, share in zip(elements.tolist(), counts / numbers.shape[0], strict=True):
            low, high = seen.fractions.get(str(z), (0.0, 0.0))
            if not low - FRACTION <= share <= high + FRACTION:
                found.append(
                    f"no training frame has {share:.0%} {chemical_symbols[z]} atoms "
                    f"(training: {low:.0%} to {high:.0%})"
                )
    if periodic not in {n > 0 for n in seen.periodic_directions}:
        others = "no training frame is" if periodic else "all training frames are"
        found.append(f"{others} periodic, and this structure is{'' if periodic else ' not'}")
    for name, value, known in (("charge", charge, seen.charge), ("spin", spin, seen.spin)):
        if known and np.isfinite(value) and not known[0] <= value <= known[1]:
            found.append(
                f"no training frame has a {name} of {value:g} "
                f"(training: {known[0]:g} to {known[1]:g})"
            )
    return found


class Novelty:
    """Warns once if a calculator's structures, and once if their distances, are unlike any seen.

    Atoms that are nearer still are refused, unless they repel.

    Args:
        seen: None if the potential does not know: then nothing is checked.
        cutoff: of the potential, in Å.
        repels: whether the potential has a repulsion at short range.
    """

    def __init__(self, seen: Seen | None, cutoff: float, repels: bool):
        self.seen, self.cutoff, self.repels = seen, cutoff, repels
        self._check_systems = self._check_pairs = seen is not None
        self._nearest = None if seen is None else nearest_squared(seen)
        # of any two elements, for pairs of elements that were never seen; 0 if no pair was
        self._shortest = min(seen.nearest.values(), default=0.0) ** 2 if seen else 0.0
        self._pair_index: np.ndarray | None = None
        self._of_pairs = self._refused = np.zeros(0)

    def check_system(self, atoms: "Atoms") -> None:
        """Warn, with `UnseenWarning`, of a composition, charge or kind of cell."""
        if self._check_systems and self.seen is not None and len(atoms):
            stated = scalar(atoms.info, CHARGE), scalar(atoms.info, SPIN)
            found = unlike(self.seen, atoms.numbers, atoms.pbc, *stated)
            if found:
                self._check_systems = False
                _warn("; ".join(found))

    def check_distances(
        self,
        numbers: Int[np.ndarray, "n_atoms"],
        pair_index: Int[np.ndarray, "2 n_pairs"],
        pair_vec: Float[np.ndarray, "n_pairs 3"],
    ) -> None:
        """Warn, with `UnseenWarning`, of two atoms nearer than any such two of the training frames.

        Args:
            pair_index: the same array as before while the pairs and atoms are the same.

        Raises:
            InputError: they are nearer than `REFUSED` times the shortest distance there; for two
                elements never seen together, times the shortest of any two. Never for a potential
                that repels.
        """
        if self._nearest is None:
            return
        if pair_index is not self._pair_index:
            self._pair_index = pair_index
            self._of_pairs = self._nearest[numbers[pair_index[0]], numbers[pair_index[1]]]
            known = np.where(np.isfinite(self._of_pairs), self._of_pairs, self._shortest)
            self._refused = REFUSED**2 * known
        squares = np.einsum("ij,ij->i", pair_vec, pair_vec)
        near = np.nonzero(squares < NEARER**2 * self._of_pairs)[0]
        if not near.size:
            return
        refused = near[(squares[near] < self._refused[near]) & (not self.repels)]
        some = refused if refused.size else near
        worst = some[(squares[some] / self._of_pairs[some]).argmin()]  # 0 for pairs never seen
        atoms = pair_index[:, worst].tolist()
        text = self._words(atoms, numbers, squares[worst].item(), self._of_pairs[worst].item())
        if refused.size:
            raise InputError(
                f"{text}; the potential means nothing there: move them apart, or train on frames "
                "with such distances"
            )
        if self._check_pairs:
            self._check_pairs = False
            _warn(text)

    def _words(self, atoms: list[int], numbers: np.ndarray, squared: float, limit: float) -> str:
        i, j = atoms
        near = " are too near" if np.isfinite(limit) else ""
        text = _apart(int(numbers[i]), int(numbers[j]), squared, limit, self.cutoff)
        return f"atoms {i} and {j}{near}: {text}"


def novel_frames(seen: Seen, frames: Frames, data: Dataset, cutoff: float) -> list[str]:
    """A line for each way in which frames differ from all training frames, with their number.

    Args:
        data: of all `frames`, with the `cutoff` of the model, in Å.
    """
    count: dict[str, int] = {}
    n_frames = frames.n_atoms.shape[0]
    for i in range(n_frames):
        numbers = frames.numbers[slice(*frames.first[i : i + 2])]
        for text in unlike(seen, numbers, frames.pbc[i], frames.charge[i], frames.spin[i]):
            count[text] = count.get(text, 0) + 1
    codes, squares, owner = _pairs(data)
    of_pairs = nearest_squared(seen).reshape(-1)[codes]
    known = np.isfinite(of_pairs)
    for chosen, what in (
        (known & (squares < NEARER**2 * of_pairs), "two atoms are too near"),
        (~known, "two elements were never seen so near"),
    ):
        if chosen.any():
            worst = int(np.argmin(np.where(chosen, squares / np.where(known, of_pairs, 1), np.inf)))
            pair = divmod(int(codes[worst]), N_ELEMENTS)
            text = _apart(*pair, squares[worst], of_pairs[worst], cutoff)
            text = f"{what}: in frame {owner[worst]}, {text}"
            count[text] = np.unique(owner[chosen]).shape[0]
    return [f"{n} of {n_frames} frames: {text}" for text, n in count.items()]


def _apart(one: int, other: int, squared: float, seen_squared: float, cutoff: float) -> str:
    """A pair of elements that is nearer than any seen, in words; lengths in Å, some squared."""
    names = f"{chemical_symbols[one]} and {chemical_symbols[other]} are {squared**0.5:.2f} Å apart"
    if not np.isfinite(seen_squared):
        return f"{names}, and no training frame has them within {cutoff:g} Å"
    nearest = f"the shortest distance in the training frames is {seen_squared**0.5:.2f} Å"
    return f"{names}, and {nearest}"


def _formulas(frames: Frames) -> tuple[list[str], Int[np.ndarray, "n_kinds n_elements"]]:
    """The formula of each kind of frame, and its atoms of each of `np.unique(numbers)`."""
    periodic = frames.pbc.any(axis=1)
    kinds = np.unique(np.column_stack([periodic, frames.composition]), axis=0)
    elements = np.unique(frames.numbers)
    return [_formula(elements, kind[1:], bool(kind[0])) for kind in kinds], kinds[:, 1:]


def _formula(elements: np.ndarray, counts: np.ndarray, periodic: bool) -> str:
    """In Hill order: C2H6O; that of a cell has no common factor, so that a supercell has the same.

    Args:
        elements: atomic numbers, one for each of `counts`.
    """
    factor = int(np.gcd.reduce(counts)) if periodic else 1
    count = {
        chemical_symbols[z]: n // factor
        for z, n in zip(elements.tolist(), counts.tolist(), strict=True)
        if n
    }
    return Formula.from_dict(count).format("hill")


def _pairs(
    data: Dataset,
) -> tuple[Int[np.ndarray, "n_pairs"], Float[np.ndarray, "n_pairs"], Int[np.ndarray, "n_pairs"]]:
    """Elements of each pair as one number (N_ELEMENTS·Z + Z', Z ≤ Z'), squared length, frame."""
    n_pairs = data.first_pair.diff()
    owner = torch.arange(n_pairs.shape[0]).repeat_interleave(n_pairs)
    elements = data.numbers[data.pair_index + data.first_atom[owner]].sort(dim=0).values
    squares = data.pair_vec.double().square().sum(dim=1)
    return (elements[0] * N_ELEMENTS + elements[1]).numpy(), squares.numpy(), owner.numpy()


def _range(values: Float[np.ndarray, "n"]) -> tuple[float, float] | None:
    """Smallest and largest value that is known; None if none is."""
    known = values[np.isfinite(values)]
    return (known.min().item(), known.max().item()) if known.size else None


def _warn(text: str) -> None:
    # as `skip_file_prefixes` of Python 3.12
    stack = [frame.f_code.co_filename for frame, _ in traceback.walk_stack(sys._getframe())]
    level = next((i for i, name in enumerate(stack, 1) if not name.startswith(SKIPPED)), 1)
    text = f"{text}: do not trust the potential here"
    warnings.warn(text, UnseenWarning, stacklevel=level)
