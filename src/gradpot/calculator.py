"""`Calculator`: a potential as an ASE calculator, for optimizers, dynamics, vibrations.

One call computes energy, forces and stress together; asking for them one after the other costs
nothing more, and any change of the atoms is noticed.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from jaxtyping import Bool, Float, Int

from gradpot import checkpoint, package
from gradpot.errors import InputError, unknown
from gradpot.graph import Graph, Properties, both_ways, opposite
from gradpot.neighbors import ALL_PAIRS_BELOW, neighbor_list
from gradpot.package import CompiledPotential
from gradpot.potential import Potential

# atoms
SMALL = 100


class VerletList:
    """Pairs within `cutoff`, found within `cutoff + skin` and kept while they cannot be wrong.

    A pair that was further apart than cutoff + skin is still beyond the cutoff if neither atom
    moved more than half the skin. An atom that is put back into the cell has moved by a lattice
    vector, so that case needs no care. Small molecules keep all their pairs forever.

    Args:
        cutoff: Å.
        skin: Å; changes how often pairs are searched for, never which are found.
    """

    def __init__(self, cutoff: float, skin: float):
        self.cutoff, self.skin = cutoff, skin
        self.n_builds = 0
        self._start: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def pairs(
        self,
        positions: Float[np.ndarray, "n_atoms 3"],
        cell: Float[np.ndarray, "3 3"],
        pbc: Bool[np.ndarray, "3"],
    ) -> tuple[Int[np.ndarray, "2 n_pairs"], Float[np.ndarray, "n_pairs 3"]]:
        """Both atoms of every pair closer than the cutoff, and the vector between them.

        While the pairs stay the same, their indices are the same array.
        """
        if self._outdated(positions, cell, pbc):
            self._build(positions, cell, pbc)
        center, neighbor = self._all
        vectors = positions.take(neighbor, axis=0) - positions.take(center, axis=0)
        if self._offset is not None:
            vectors += self._offset
        squares = _squares(vectors)
        if not squares.all():
            i, j = self._all[:, int(np.argmin(squares))]
            raise InputError(f"atoms {i} and {j} are at the same place; there is no force on them")
        close = squares < self.cutoff**2
        if not np.array_equal(close, self._close):
            self._close, self._near = close, self._all[:, close]
        return self._near, vectors[close]

    def _outdated(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> bool:
        if self._start is None:
            return True
        old_positions, old_cell, old_pbc = self._start
        if positions.shape != old_positions.shape or (pbc != old_pbc).any():
            return True
        if (cell != old_cell).any():
            return True
        if _all_pairs(positions, pbc):
            return False
        moved = _squares(positions - old_positions).max(initial=0.0)
        return bool(moved > (self.skin / 2) ** 2)

    def _build(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> None:
        reach = np.inf if _all_pairs(positions, pbc) else self.cutoff + self.skin
        edge_index, shifts = neighbor_list(positions, cell, pbc, reach)
        n_pairs = shifts.shape[0] // 2
        self._all = edge_index[:, :n_pairs]
        self._offset = shifts[:n_pairs] @ cell if pbc.any() else None
        self._close = None
        self._start = positions.copy(), cell.copy(), pbc.copy()
        self.n_builds += 1


class Calculator(AseCalculator):
    """Energy, free energy, forces and, for cells periodic in three directions, stress.

    Args:
        potential: a file written by gradpot, or a potential. It is copied: neither the caller's
            weights nor its mode change, and later training does not change the calculator.
        dtype: precision of the network; None keeps that of the potential. Distances and the
            total energy are float64 always.
        device: None keeps that of the potential; files are loaded on the CPU.
        skin: Å, see `VerletList`; 0 searches for neighbors at every move.
        threads: of torch, during a call; None is one thread below 100 atoms, where more threads
            mostly wait for one another, and torch's own number above.
        compile: True runs compiled machine code, and compiles it if that was not done before
            (once for the same weights; it takes a minute or two and a C++ compiler); "auto"
            takes what is compiled already, beside the file of the potential or in the cache.

    Raises:
        InputError: for options that do not go together, and see `package`; at a call, for
            elements that the potential does not know, for positions or cells that are not
            finite, for atoms at the same place, and for periodic cells without volume.
    """

    implemented_properties = ("energy", "free_energy", "forces", "stress")  # type: ignore[assignment]

    def __init__(
        self,
        potential: str | Path | Potential,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        skin: float = 0.5,
        threads: int | None = None,
        compile: Literal["auto"] | bool = "auto",
    ):
        super().__init__()
        if not 0.0 <= skin < np.inf:
            raise InputError(f"skin is {skin} Å but must be zero or positive")
        self.potential = _prepared(potential, dtype, device, compile)
        self.neighbors = VerletList(self.potential.cutoff, skin)
        self.threads = threads
        self._dtype, self._device = self.potential.dtype, self.potential.device
        self._numbers, self._pair_index = np.zeros(0, dtype=int), np.zeros((2, 0), dtype=int)
        self._graph = self._without_edges(self._numbers)

    @property
    def compiled(self) -> bool:
        """Whether the network runs as machine code."""
        return isinstance(self.potential, CompiledPotential)

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Names of what differs from the last call; momenta and charges do not count."""
        old = self.atoms
        if old is None:
            return list(all_changes)
        pairs = {
            "positions": (old.positions, atoms.positions),
            "numbers": (old.numbers, atoms.numbers),
            "cell": (old.cell.array, atoms.cell.array),
            "pbc": (old.pbc, atoms.pbc),
        }
        return [name for name, (one, other) in pairs.items() if not np.array_equal(one, other)]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: object = None,
        system_changes: object = None,
    ) -> None:
        """Compute everything, whatever is asked for: one gradient gives forces and stress."""
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise InputError("this calculator has seen no atoms; call calculate(atoms)")
        self.results = {}
        if self.check_state(atoms):
            self.atoms = atoms.copy()
        periodic = bool(atoms.pbc.all())
        with _threads(self.threads or (1 if len(atoms) < SMALL else None)):
            predicted = self.potential(self.graph(atoms), stress=periodic)
        self.results = _results(predicted, periodic)

    def graph(self, atoms: Atoms) -> Graph:
        """What the model sees of these atoms; equal to `graph.from_atoms` up to rounding."""
        positions, pbc = atoms.positions, atoms.pbc
        cell = np.where(pbc[:, None], atoms.cell.array, 0.0)
        _check_geometry(positions, cell, pbc)
        if not np.array_equal(atoms.numbers, self._numbers):
            self.potential.check_elements(atoms.numbers)
            self._numbers = atoms.numbers.copy()
            self._graph = self._without_edges(self._numbers)
        pair_index, pair_vec = self.neighbors.pairs(positions, cell, pbc)
        if pair_index is not self._pair_index:
            self._pair_index = pair_index
            self._graph = self._graph._replace(edge_index=both_ways(self._tensor(pair_index)))
        return self._graph._replace(
            edge_vec=opposite(self._tensor(pair_vec, self._dtype)),
            cell=self._tensor(cell[None], self._dtype),
        )

    def _without_edges(self, numbers: np.ndarray) -> Graph:
        """The parts that stay while the atoms move."""
        self._pair_index = np.zeros((2, 0), dtype=int)
        return Graph(
            numbers=self._tensor(numbers, torch.long),
            edge_index=self._tensor(self._pair_index),
            edge_vec=self._tensor(np.zeros((0, 3)), self._dtype),
            batch=self._tensor(np.zeros(len(numbers), dtype=int)),
            cell=self._tensor(np.zeros((1, 3, 3)), self._dtype),
        )

    def _tensor(self, array: np.ndarray, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device, dtype)

    def _get_name(self) -> str:
        return "gradpot"


def _prepared(
    source: str | Path | Potential,
    dtype: torch.dtype | None,
    device: str | torch.device | None,
    compile: Literal["auto"] | bool,
) -> Potential:
    """A potential that nobody else can change, compiled where that is wanted."""
    if compile not in ("auto", True, False):
        raise unknown("compile", compile, ["auto", True, False])
    if not isinstance(source, Potential) and Path(source).suffix == package.SUFFIX:
        source = CompiledPotential(source)
    if isinstance(source, CompiledPotential):
        _check_compiled(source, dtype, device, compile)
        return source
    on_file = not isinstance(source, Potential)
    potential = checkpoint.load(source) if on_file else copy.deepcopy(source)
    dtype, device = dtype or potential.dtype, torch.device(device or potential.device)
    if compile is True and device.type != "cpu":
        raise InputError(f"compile=True is for the CPU; leave it out with device {device}")
    if compile is True:
        return package.compiled(potential, dtype)
    beside = package.beside(source) if on_file else None
    if compile == "auto" and beside is not None and device.type == "cpu":
        ready = package.ready(potential, dtype, beside)
        if ready is not None:
            return ready
    return potential.to(device=device, dtype=dtype).eval().requires_grad_(False)


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Let torch use `n` threads for a while; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _results(predicted: Properties, periodic: bool) -> dict:
    """As ASE wants them: numbers and float64 arrays, stress in Voigt's order, or none."""
    energy = predicted.energy.item()
    forces = predicted.forces.double().cpu().numpy()
    results = {"energy": energy, "free_energy": energy, "forces": forces}
    if periodic:
        stress = predicted.stress[0].double().cpu().numpy()
        results["stress"] = full_3x3_to_voigt_6_stress(stress)
    return results


def _check_geometry(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> None:
    if not np.isfinite(positions).all():
        atom = int(np.nonzero(~np.isfinite(positions).all(axis=1))[0][0])
        raise InputError(
            f"the position of atom {atom} is {positions[atom].tolist()} but must be finite; "
            "the dynamics or the optimization that moved it went wrong before this"
        )
    if not pbc.any():
        return
    if not np.isfinite(cell).all():
        raise InputError(f"the cell is {cell.tolist()} but must be finite")
    # volume, area or length spanned by the periodic vectors
    vectors = cell[pbc]
    if not np.linalg.det(vectors @ vectors.T) > 1e-12:
        raise InputError(
            f"the cell is {cell.tolist()}, flat along a periodic direction; "
            "give it a volume, or set pbc to False where the structure is not periodic"
        )


def _all_pairs(positions: np.ndarray, pbc: np.ndarray) -> bool:
    return positions.shape[0] < ALL_PAIRS_BELOW and not bool(pbc.any())


def _squares(vectors: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", vectors, vectors)
