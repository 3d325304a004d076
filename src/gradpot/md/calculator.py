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

from gradpot.compile import export, package
from gradpot.compile.package import CompiledPotential
from gradpot.errors import InputError, unknown
from gradpot.graph.graph import Graph, Properties, both_ways, find_triplets, opposite
from gradpot.md.verlet import VerletList
from gradpot.potential import checkpoint
from gradpot.potential.potential import Potential
from gradpot.process import keep_memory

# atoms
SMALL = 100


class Calculator(AseCalculator):
    """Energy, free energy, forces and, for cells periodic in three directions, stress.

    Memory that is freed stays with the process, for the next call (`process.keep_memory`).
    A potential whose forces are direct (`Potential.direct`) has no stress.

    Args:
        potential: a file written by gradpot, or a potential. It is copied: neither the caller's
            weights nor its mode change, and later training does not change the calculator.
        dtype: precision of the network, also by name ("float64"); None keeps that of the
            potential. Distances and the total energy are float64 always.
        device: None keeps that of the potential; files are loaded on the CPU.
        skin: Å, see `VerletList`; 0 searches for neighbors at every move.
        threads: of torch, during a call; None is one thread below 100 atoms, where more threads
            mostly wait for one another, and torch's own number above.
        compile: True runs compiled machine code, and compiles it if that was not done before
            (once for the same weights; it takes a minute or two and a C++ compiler); "auto"
            takes what is compiled already, beside the file of the potential or in the cache.

    Raises:
        InputError: for options that do not go together, and see `export`; at a call, for
            elements that the potential does not know, for positions or cells that are not
            finite, for atoms at the same place, and for periodic cells without volume.
    """

    implemented_properties = ("energy", "free_energy", "forces", "stress")  # type: ignore[assignment]

    def __init__(
        self,
        potential: str | Path | Potential,
        dtype: torch.dtype | str | None = None,
        device: str | torch.device | None = None,
        skin: float = 0.5,
        threads: int | None = None,
        compile: Literal["auto"] | bool = "auto",
    ):
        super().__init__()
        if not 0.0 <= skin < np.inf:
            raise InputError(f"skin is {skin} Å but must be zero or positive")
        keep_memory()
        precision = package.read_dtype(dtype) if isinstance(dtype, str) else dtype
        self.potential = _prepared(potential, precision, device, compile)
        self.neighbors = VerletList(self.potential.cutoff, skin)
        self.threads = threads
        if self.potential.direct:
            self.implemented_properties = ("energy", "free_energy", "forces")  # type: ignore[assignment]
        self._dtype, self._device = self.potential.dtype, self.potential.device
        # what stays while atoms move: made anew by `_renew`
        self._seen: Atoms | None = None
        self._pair_index = np.zeros((2, 0), dtype=int)
        self._triplets: torch.Tensor | None = None

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
        # bytes: several times faster than comparing small arrays
        return [name for name, (a, b) in pairs.items() if a.tobytes() != b.tobytes()]

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
        self.atoms = self._remembered(atoms)
        stress = bool(atoms.pbc.all()) and not self.potential.direct
        with _threads(self.threads or (1 if len(atoms) < SMALL else None)):
            predicted = self._predict(atoms, stress)
        self.results = _results(predicted, stress)

    def _remembered(self, atoms: Atoms) -> Atoms:
        """A copy; for atoms that only moved it is the last one, with the new positions."""
        seen = self._seen
        if seen is None or _kind(seen) != _kind(atoms):
            return atoms.copy()
        seen.positions[:] = atoms.positions
        return seen

    def _predict(self, atoms: Atoms, stress: bool) -> Properties:
        _check_positions(atoms.positions)
        if self.atoms is not self._seen:
            self._renew(atoms)
        pair_index, pair_vec = self.neighbors.pairs(atoms.positions, self._cell, atoms.pbc)
        if pair_index is not self._pair_index:
            self._pair_index, pairs = pair_index, self._tensor(pair_index)
            self._edge_index = pairs if self.compiled else both_ways(pairs)
            if self.potential.uses_triplets:
                centers = pairs.flatten()  # of the first half of the edges, and of the second
                self._triplets = find_triplets(centers, self._numbers.shape[0])
        vectors = self._tensor(pair_vec, self._dtype)
        if isinstance(self.potential, CompiledPotential):
            still = self._batch, self._cells, self._triplets
            return self.potential.run(self._numbers, self._edge_index, vectors, *still)
        still = self._batch, self._cells[:1], self._triplets
        graph = Graph(self._numbers, self._edge_index, opposite(vectors), *still)
        return self.potential(graph, stress=stress)

    def _renew(self, atoms: Atoms) -> None:
        """Check and keep what stays while atoms move."""
        self._seen = None
        cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
        _check_cell(cell, atoms.pbc)
        self.potential.check_elements(atoms.numbers)
        self._cell = cell
        # one structure, and an empty one for compiled potentials
        self._cells = self._tensor(np.stack([cell, np.zeros((3, 3))]), self._dtype)
        self._numbers = self._tensor(atoms.numbers, torch.long)
        self._batch = torch.zeros_like(self._numbers)
        self._seen = self.atoms

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
        return export.compiled(potential, dtype)
    beside = package.beside(source) if on_file else None
    if compile == "auto" and beside is not None and device.type == "cpu":
        ready = export.ready(potential, dtype, beside)
        if ready is not None:
            return ready
    return potential.to(device=device, dtype=dtype).eval().requires_grad_(False)


def _check_compiled(
    potential: CompiledPotential,
    dtype: torch.dtype | None,
    device: str | torch.device | None,
    compile: Literal["auto"] | bool,
) -> None:
    """Refuse to ask machine code for something else than what it was made for."""
    if compile is False:
        raise InputError("compile is False, but the potential is compiled; give its safetensors")
    if dtype is not None and dtype != potential.dtype:
        made, asked = package.dtype_name(potential.dtype), package.dtype_name(dtype)
        raise InputError(f"this compiled potential computes in {made}, not {asked}")
    if torch.device(device or "cpu").type != "cpu":
        raise InputError(f"a compiled potential runs on the CPU, not on {device}")


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Let torch use `n` threads for a while; None changes nothing."""
    before = torch.get_num_threads()
    if n is None or n == before:
        yield
        return
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _results(predicted: Properties, with_stress: bool) -> dict:
    """Of the first structure, as ASE wants them: floats, float64, stress in Voigt's order."""
    energy = predicted.energy[0].item()
    forces = predicted.forces.double().cpu().numpy()
    results = {"energy": energy, "free_energy": energy, "forces": forces}
    if with_stress:
        stress = predicted.stress[0].double().cpu().numpy()
        results["stress"] = full_3x3_to_voigt_6_stress(stress)
    return results


def _check_positions(positions: np.ndarray) -> None:
    # one sum of squares instead of a test of each number; huge ones make it infinite as well
    if np.isfinite(np.vdot(positions, positions)) or np.isfinite(positions).all():
        return
    atom = int(np.nonzero(~np.isfinite(positions).all(axis=1))[0][0])
    raise InputError(
        f"the position of atom {atom} is {positions[atom].tolist()} but must be finite; "
        "the dynamics or the optimization that moved it went wrong before this"
    )


def _check_cell(cell: np.ndarray, pbc: np.ndarray) -> None:
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


def _kind(atoms: Atoms) -> tuple[bytes, bytes, bytes]:
    """What is the same of two structures that differ in their positions only."""
    return atoms.numbers.tobytes(), atoms.cell.array.tobytes(), atoms.pbc.tobytes()
