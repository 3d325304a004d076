"""Structures and labels, edges, and the random walk of the atoms between calls."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms

FILES = {
    "ethanol": "rmd17_ethanol/rmd17_ethanol_train1000.npz",
    "aspirin": "rmd17_aspirin/rmd17_aspirin_train1200.npz",
    "water": "water_periodic/water192_400.npz",
}
# Å, about what hydrogen moves in a femtosecond at 300 K; number of steps before the way back
WALK_STEP, WALK_LENGTH = 0.015, 32


class Frames(NamedTuple):
    """Structures of the same atoms, in eV and Å; the mean of the energies is subtracted."""

    numbers: np.ndarray
    """[n_atoms]"""
    positions: np.ndarray
    """[n_frames, n_atoms, 3]"""
    cell: np.ndarray
    """[3, 3], rows are lattice vectors; zero where not periodic"""
    energy: np.ndarray
    """[n_frames]"""
    forces: np.ndarray
    """[n_frames, n_atoms, 3]"""

    @property
    def periodic(self) -> bool:
        return bool(self.cell.any())

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occur, in ascending order."""
        return sorted(set(self.numbers.tolist()))

    @property
    def batch(self) -> np.ndarray:
        """Frame of each atom when all frames are one batch, [n_frames * n_atoms]."""
        return np.repeat(np.arange(len(self.positions)), len(self.numbers))

    def atoms(self, i: int = 0) -> Atoms:
        """Frame `i` as ASE Atoms."""
        return Atoms(self.numbers, self.positions[i], cell=self.cell, pbc=self.periodic)


def read(data: Path, system: str, n_frames: int) -> Frames:
    """Read the first frames of a system; "water*8" is 8 copies of the cell of water.

    Args:
        data: folder with the data sets.
        system: a name in `FILES`; with "*N", N a power of 2, a repeated cell without labels.
    """
    name, _, copies = system.partition("*")
    with np.load(data / FILES[name]) as file:
        labels = {key: file[key][:n_frames].astype(float) for key in "REF"}
        cell = file["cell"][0].astype(float) if "cell" in file else np.zeros((3, 3))
        numbers = file["z"].astype(np.int64)
    energy = labels["E"].ravel() - labels["E"].mean()
    frames = Frames(numbers, labels["R"], cell, energy, labels["F"])
    return repeated(frames, int(copies)) if copies else frames


def repeated(frames: Frames, n: int) -> Frames:
    """The first frame, its cell doubled along one axis after another until there are n copies."""
    doublings = n.bit_length() - 1
    if n != 2**doublings:
        raise ValueError(f"{n} copies of a cell, but the number must be a power of 2")
    times = [2 ** ((doublings + 2 - axis) // 3) for axis in range(3)]
    atoms = frames.atoms().repeat(times)
    return Frames(
        atoms.numbers.astype(np.int64),
        atoms.positions[None],
        atoms.cell.array,
        np.zeros(1),
        np.zeros((1, len(atoms), 3)),
    )


def edges(frames: Frames, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs within the cutoff, for all frames as one batch.

    Returns:
        `edge_index` [2, n_edges], sorted by its row 0, the center; `offset` [n_edges, 3] in Å, to
        add to the neighbor's position.
    """
    from vesin import NeighborList

    search = NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    pairs, offsets = [], []
    for i, positions in enumerate(frames.positions):
        center, neighbor, shift = search.compute(
            positions, frames.cell, periodic=frames.periodic, quantities="ijS"
        )
        first = i * len(frames.numbers)
        pairs.append(np.stack([center, neighbor]).astype(np.int64) + first)
        offsets.append(shift @ frames.cell)
    return np.concatenate(pairs, axis=1), np.concatenate(offsets)


def walk(positions: np.ndarray) -> list[np.ndarray]:
    """Positions of successive calls: a random walk and the way back, the same for all peers."""
    steps = np.random.default_rng(0).normal(0.0, WALK_STEP, (WALK_LENGTH, *positions.shape))
    out = [positions, *(positions + steps.cumsum(axis=0))]
    return out + out[-2:0:-1]
