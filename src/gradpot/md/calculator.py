"""`Calculator`: a potential as an ASE calculator, for optimizers, dynamics and vibrations.

One call computes energy, forces and stress together. Asking for them one after the other costs
nothing more, and the calculator notices any change of the atoms.
"""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import all_changes
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress
from jaxtyping import Float

from gradpot.compile import cache, package
from gradpot.compile.package import CompiledPotential
from gradpot.errors import InputError, unknown
from gradpot.geometry import check_lengths
from gradpot.graph.graph import Graph, Properties, both_ways, find_triplets, opposite
from gradpot.md.verlet import VerletList
from gradpot.potential import checkpoint
from gradpot.potential.potential import Potential
from gradpot.potential.seen import Novelty
from gradpot.process import keep_memory

# with fewer atoms, threads of torch mostly wait for one another
ONE_THREAD_BELOW = 100
# Å⁶, Å⁴ or Å²: squared volume, area or length of the periodic vectors of a flat cell
FLAT = 1e-12


class Calculator(AseCalculator):
    """Energy, free energy, forces and, for cells periodic in three directions, stress.

    The process keeps freed memory for the next call (`process.keep_memory`). A potential with
    direct forces (`Potential.direct`) has no stress.

    Args:
        potential: a file written by gradpot, or a potential. The calculator copies it: the
            caller's weights and mode stay, and later training does not change the calculator.
        dtype: precision of the network, also by name ("float64"); None keeps that of the
            potential. Distances and the total energy are always float64.
        device: None keeps that of the potential; files are loaded on the CPU.
        skin: in Å, see `VerletList`; 0 searches for neighbors whenever atoms move.
        threads: of torch, during a call; None is one thread below 100 atoms, where more threads
            mostly wait for one another, and torch's own number above.
        compile: True runs compiled machine code; compiling, once for the same weights, needs a
            C++ compiler and a minute or two. "auto" uses what is already compiled in the user's
            cache, if the potential is a file. False uses none.

    Raises:
        InputError: contradictory options, and see `export`; at a call, elements unknown to the
            potential, lengths that are not finite or beyond a tenth of a millimeter, atoms at the
            same place or far nearer than in any training frame, periodic cells without volume, and
            structures for which energy or forces are not finite.

    Warns:
        UnseenWarning: once, of a composition, charge or kind of cell that no training frame has;
            and once, of two atoms much nearer than any such two there (`potential.seen`).
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
        self.potential = _own_potential(potential, package.read_dtype(dtype), device, compile)
        self.neighbors = VerletList(self.potential.cutoff, skin)
        repels = self.potential.repulsion is not None
        self.novelty = Novelty(self.potential.seen, self.potential.cutoff, repels)
        self.threads = threads
        if self.potential.direct:
            self.implemented_properties = ("energy", "free_energy", "forces")  # type: ignore[assignment]
        self._dtype, self._device = self.potential.dtype, self.potential.device
        # constant while atoms move, see `_set_system`
        self._seen: Atoms | None = None
        self._pair_index = np.zeros((2, 0), dtype=int)
        self._triplets: torch.Tensor | None = None

    def __repr__(self) -> str:
        name = type(getattr(self.potential, "model", self.potential)).__name__
        elements = ", ".join(chemical_symbols[z] for z in sorted(self.potential.references))
        return (
            f"gradpot Calculator: {name} for {elements}, cutoff {self.potential.cutoff:g} Å, "
            f"{package.dtype_name(self._dtype)}, {'compiled' if self.compiled else 'not compiled'}"
        )

    @property
    def compiled(self) -> bool:
        """Whether the network runs as machine code."""
        return isinstance(self.potential, CompiledPotential)

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Names of what differs from the last call, except momenta and charges."""
        return list(all_changes) if self.atoms is None else _changes(self.atoms, atoms)

    def calculate(
        self, atoms: Atoms | None = None, properties: object = None, system_changes: object = None
    ) -> None:
        """Compute all properties, whatever is requested: one gradient gives forces and stress."""
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise InputError("this calculator has no atoms yet; call calculate(atoms)")
        self.results = {}
        if self._seen is not None and set(_changes(self._seen, atoms)) <= {"positions"}:
            self.atoms = self._seen  # moving the last copy is faster than a new one
            self.atoms.positions[:] = atoms.positions
        else:
            self.atoms = atoms.copy()
        stress = bool(atoms.pbc.all()) and not self.potential.direct
        with _threads(self.threads or (1 if len(atoms) < ONE_THREAD_BELOW else None)):
            predicted = self._predict(atoms, stress)
        energy = predicted.energy[0].item()
        forces = predicted.forces.double().cpu().numpy()
        _check_results(energy, forces, atoms)
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}
        if stress:
            matrix = predicted.stress[0].double().cpu().numpy()
            self.results["stress"] = full_3x3_to_voigt_6_stress(matrix)

    def _predict(self, atoms: Atoms, stress: bool) -> Properties:
        check_lengths(atoms.positions, atoms.cell.array, atoms.pbc)
        if self.atoms is not self._seen:
            self._set_system(atoms)
        pair_index, pair_vec = self.neighbors.pairs(atoms.positions, self._cell, atoms.pbc)
        if pair_index is not self._pair_index:
            self._pair_index, pairs = pair_index, self._tensor(pair_index)
            self._edge_index = pairs if self.compiled else both_ways(pairs)
            if self.potential.uses_triplets:
                centers = pairs.flatten()  # of both halves of the edges
                self._triplets = find_triplets(centers, self._numbers.shape[0])
        self.novelty.check_distances(atoms.numbers, pair_index, pair_vec)
        vectors = self._tensor(pair_vec, self._dtype)
        if isinstance(self.potential, CompiledPotential):
            constant = self._batch, self._cells, self._triplets
            return self.potential.run(self._numbers, self._edge_index, vectors, *constant)
        constant = self._batch, self._cells[:1], self._triplets
        graph = Graph(self._numbers, self._edge_index, opposite(vectors), *constant)
        return self.potential(graph, stress=stress)

    def _set_system(self, atoms: Atoms) -> None:
        """Check and keep what is constant while atoms move."""
        self._seen = None
        cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
        vectors = cell[atoms.pbc]
        if atoms.pbc.any() and not np.linalg.det(vectors @ vectors.T) > FLAT:
            raise InputError(
                f"the cell is {cell.tolist()}, flat along a periodic direction; give it a volume, "
                "or set pbc to False along the directions that are not periodic"
            )
        self.potential.check_elements(atoms.numbers)
        self.novelty.check_system(atoms)
        self._cell = cell
        # one structure, and the empty one that compiled potentials need
        self._cells = self._tensor(np.stack([cell, np.zeros((3, 3))]), self._dtype)
        self._numbers = self._tensor(atoms.numbers, torch.long)
        self._batch = torch.zeros_like(self._numbers)
        self._seen = self.atoms

    def _tensor(self, array: np.ndarray, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device, dtype)

    def _get_name(self) -> str:
        return "gradpot"


def _own_potential(
    source: str | Path | Potential,
    dtype: torch.dtype | None,
    device: str | torch.device | None,
    compile: Literal["auto"] | bool,
) -> Potential:
    """A potential of the calculator's own, compiled or not as `compile` says."""
    if compile not in ("auto", True, False):
        raise unknown("compile", compile, ["auto", True, False])
    if not isinstance(source, Potential) and Path(source).suffix == package.SUFFIX:
        source = CompiledPotential(source)
    if isinstance(source, CompiledPotential):
        # options must not differ from those that the machine code was made for
        if compile is False:
            raise InputError(
                "compile is False, but the potential is compiled; give its safetensors"
            )
        if dtype is not None and dtype != source.dtype:
            made, asked = package.dtype_name(source.dtype), package.dtype_name(dtype)
            raise InputError(f"this compiled potential computes in {made}, not {asked}")
        if torch.device(device or "cpu").type != "cpu":
            raise InputError(f"a compiled potential runs on the CPU, not on {device}")
        return source
    if isinstance(source, Potential):
        potential, beside = copy.deepcopy(source), None
    else:
        potential, beside = checkpoint.load(source), Path(source).with_suffix(package.SUFFIX)
    dtype, device = dtype or potential.dtype, torch.device(device or potential.device)
    if compile is True:
        if device.type != "cpu":
            raise InputError(f"compile=True is for the CPU; leave it out on device {device}")
        return cache.compiled_potential(potential, dtype)
    if compile == "auto" and beside is not None and device.type == "cpu":
        ready = cache.find_compiled(potential, dtype)
        if ready is not None:
            return ready
        if beside.exists():
            warnings.warn(
                f"found {beside} beside it, which is not used: a .pt2 file holds machine code, so "
                "give it by its name if you trust it",
                stacklevel=3,
            )
    return potential.to(device=device, dtype=dtype).eval().requires_grad_(False)


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Let torch use `n` threads in the block; None changes nothing."""
    before = torch.get_num_threads()
    if n is None or n == before:
        yield
        return
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_results(energy: float, forces: Float[np.ndarray, "n_atoms 3"], atoms: Atoms) -> None:
    """Refuse predictions that are not finite.

    Raises:
        InputError: names the first atom.
    """
    # one sum of squares is faster than a test of each number; large ones can overflow it
    if np.isfinite(energy) and np.isfinite(np.vdot(forces, forces)):
        return
    bad = np.nonzero(~np.isfinite(forces).all(axis=1))[0]
    if np.isfinite(energy) and not bad.size:
        return
    force = f", the force on {atoms.symbols[bad[0]]}{bad[0]} is not finite" if bad.size else ""
    raise InputError(
        f"the predicted energy is {energy:g} eV{force}: the potential means nothing for this "
        "structure, which is far from its training data"
    )


def _changes(old: Atoms, new: Atoms) -> list[str]:
    """Names of what differs between two structures, except momenta and charges."""
    pairs = {
        "positions": (old.positions, new.positions),
        "numbers": (old.numbers, new.numbers),
        "cell": (old.cell.array, new.cell.array),
        "pbc": (old.pbc, new.pbc),
    }
    # bytes: several times faster than comparing small arrays
    return [name for name, (a, b) in pairs.items() if a.tobytes() != b.tobytes()]
