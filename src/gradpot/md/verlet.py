"""`VerletList`: pairs within a cutoff, searched for only when atoms have moved enough."""

import numpy as np
from jaxtyping import Bool, Float, Int

from gradpot.errors import InputError
from gradpot.geometry import ALL_PAIRS_BELOW, neighbor_list


class VerletList:
    """Pairs within `cutoff`, searched for within `cutoff + skin` and kept while they are complete.

    A pair that was farther apart than cutoff + skin is still beyond the cutoff if neither atom
    has moved by more than half the skin. An atom that is wrapped back into the cell has moved by
    a lattice vector, so the pairs are searched for again. Small molecules keep all their pairs.

    Args:
        cutoff: in Å.
        skin: in Å; changes how often pairs are searched for, never which are found.

    Raises:
        InputError: by `pairs`, if two atoms are at the same place.
    """

    def __init__(self, cutoff: float, skin: float):
        self.cutoff, self.skin = cutoff, skin
        self.n_builds = 0
        self._system: tuple | None = None

    def pairs(
        self,
        positions: Float[np.ndarray, "n_atoms 3"],
        cell: Float[np.ndarray, "3 3"],
        pbc: Bool[np.ndarray, "3"],
    ) -> tuple[Int[np.ndarray, "2 n_pairs"], Float[np.ndarray, "n_pairs 3"]]:
        """Both atoms of every pair closer than the cutoff, and the vector between them in Å.

        While the pairs stay the same, their indices are the same array.
        """
        system = positions.shape[0], cell.tobytes(), pbc.tobytes()
        keeps_all = positions.shape[0] < ALL_PAIRS_BELOW and not bool(pbc.any())
        complete = system == self._system and (
            keeps_all
            or _squared_norms(positions - self._start).max(initial=0.0) <= (self.skin / 2) ** 2
        )
        if not complete:
            self._build(positions, cell, pbc, np.inf if keeps_all else self.cutoff + self.skin)
            self._system = system
        center, neighbor = self._candidates
        vectors = positions.take(neighbor, axis=0) - positions.take(center, axis=0)
        if self._offset is not None:
            vectors += self._offset
        squares = _squared_norms(vectors)
        if not squares.all():
            i, j = self._candidates[:, int(np.argmin(squares))]
            raise InputError(f"atoms {i} and {j} are at the same place; move one of them")
        close = squares < self.cutoff**2
        if not np.array_equal(close, self._close):
            self._close, self._pairs = close, self._candidates.compress(close, axis=1)
        return self._pairs, vectors.compress(close, axis=0)

    def _build(
        self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, reach: float
    ) -> None:
        edge_index, shifts = neighbor_list(positions, cell, pbc, reach)
        n_pairs = shifts.shape[0] // 2  # the second half of the edges is the first reversed
        self._candidates = np.ascontiguousarray(edge_index[:, :n_pairs])
        self._offset = shifts[:n_pairs] @ cell if pbc.any() else None
        self._close, self._pairs = np.ones(n_pairs, dtype=bool), self._candidates
        self._start = positions.copy()
        self.n_builds += 1


def _squared_norms(vectors: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", vectors, vectors)
