"""Frames → graphs, once. A batch is then made by indexing tensors and adding offsets."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation
from torch import Tensor

from gradpot.data.frames import Frames
from gradpot.data.references import reference_energies
from gradpot.geometry import ALL_PAIRS_BELOW, edge_vectors
from gradpot.graph.graph import Graph, Properties, both_ways, opposite, with_triplets

# largest block of the all-pairs test; 1e6 vectors of doubles are 24 MB
PAIRS_AT_ONCE = 1_000_000


class Dataset(NamedTuple):
    """All graphs of a data set end to end, with labels; `batch` takes some of them."""

    numbers: Int[Tensor, "n_atoms"]
    pair_index: Int[Tensor, "2 n_pairs"]
    """int32, counted within each frame; each pair once"""
    pair_vec: Float[Tensor, "n_pairs 3"]
    cell: Float[Tensor, "n_frames 3 3"]
    first_atom: Int[Tensor, "n_frames_plus_1"]
    first_pair: Int[Tensor, "n_frames_plus_1"]
    energy: Float[Tensor, "n_frames"]
    """eV, float64, references subtracted"""
    forces: Float[Tensor, "n_atoms 3"]
    stress: Float[Tensor, "n_frames 3 3"]
    triplets: bool = False
    """whether `batch` finds triplets"""


class Batch(NamedTuple):
    """Some frames of a data set, and their labels."""

    graph: Graph
    labels: Properties


def dataset(
    frames: Frames,
    cutoff: float,
    references: dict[int, float] | None = None,
    dtype: torch.dtype = torch.float32,
    triplets: bool = False,
) -> Dataset:
    """Build all graphs; subtract the reference energies in float64.

    Args:
        cutoff: in Å.
        references: energies in eV by atomic number.
        triplets: whether `batch` finds triplets, for a model with `uses_triplets`.
    """
    owner, pair_index, shifts = pairs(frames, cutoff)
    first = frames.first
    vectors = edge_vectors(frames.positions, frames.cell, pair_index + first[owner], shifts, owner)
    first_pair = np.searchsorted(owner, np.arange(frames.n_atoms.shape[0] + 1))
    return Dataset(
        numbers=torch.from_numpy(frames.numbers).long(),
        pair_index=torch.from_numpy(pair_index).int(),
        pair_vec=torch.from_numpy(vectors).to(dtype),
        cell=torch.from_numpy(frames.cell * frames.pbc[:, :, None]).to(dtype),
        first_atom=torch.from_numpy(first),
        first_pair=torch.from_numpy(first_pair),
        energy=torch.from_numpy(frames.energy - reference_energies(frames, references or {})),
        forces=torch.from_numpy(frames.forces).to(dtype),
        stress=torch.from_numpy(frames.stress).to(dtype),
        triplets=triplets,
    )


def batch(
    data: Dataset, index: Int[Tensor, "n_graphs"], device: torch.device | str = "cpu"
) -> Batch:
    """The frames at `index` as one graph, in this order; energies have the dtype of the forces.

    The data set stays on the CPU. What goes to the `device` is put together there first.
    """
    atoms, n_atoms = _rows(data.first_atom, index)
    pair_rows, n_pairs = _rows(data.first_pair, index)
    start = n_atoms.cumsum(0) - n_atoms
    pair_index = data.pair_index[:, pair_rows] + start.repeat_interleave(n_pairs)
    graph = Graph(
        numbers=data.numbers[atoms].to(device),
        edge_index=both_ways(pair_index.to(device)),
        edge_vec=opposite(data.pair_vec[pair_rows].to(device)),
        batch=torch.arange(index.shape[0]).repeat_interleave(n_atoms).to(device),
        cell=data.cell[index].to(device),
    )
    graph = with_triplets(graph) if data.triplets else graph
    energy = data.energy[index].to(data.pair_vec.dtype)
    labels = energy, data.forces[atoms], data.stress[index]
    return Batch(graph, Properties(*(label.to(device) for label in labels)))


def rotated(some: Batch, rotations: Float[Tensor, "n_graphs 3 3"]) -> Batch:
    """A batch with each structure rotated by its matrix, cell and labels included.

    For models that are not invariant by construction.
    """
    graph, (energy, forces, stress) = some
    # one after the other: mps has no float64
    rotations = rotations.to(graph.edge_vec.dtype).to(graph.edge_vec.device)
    of_atom = rotations[graph.batch]
    of_pair = of_atom[graph.pair_index[0]]
    pair_vec = torch.einsum("pxy,py->px", of_pair, graph.pair_vec)
    return Batch(
        graph._replace(
            edge_vec=opposite(pair_vec), cell=torch.einsum("gxy,gay->gax", rotations, graph.cell)
        ),
        Properties(
            energy=energy,
            forces=torch.einsum("axy,ay->ax", of_atom, forces),
            stress=rotations @ stress @ rotations.transpose(1, 2),
        ),
    )


def random_rotations(n: int, seed: Sequence[int]) -> Float[Tensor, "n 3 3"]:
    """Uniformly distributed rotation matrices; the same seed gives the same ones.

    A quaternion of four normal numbers has a uniformly distributed direction (Shoemake, 1992).

    Args:
        n: number of matrices.
        seed: several numbers, such as that of the run, the epoch and the step.
    """
    four = np.random.default_rng(seed).normal(size=(n, 4))
    return torch.from_numpy(Rotation.from_quat(four).as_matrix())


def _rows(first: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the frames at `index`, one frame after the other, and how many each frame has."""
    begin = first[index]
    count = first[index + 1] - begin
    shift = (begin - count.cumsum(0) + count).repeat_interleave(count)
    return torch.arange(shift.shape[0]) + shift, count


def pairs(
    frames: Frames, cutoff: float
) -> tuple[Int[np.ndarray, "n_pairs"], Int[np.ndarray, "2 n_pairs"], Int[np.ndarray, "n_pairs 3"]]:
    """Frame, indices within the frame, and `shifts` of each pair, frame by frame."""
    small = ~frames.pbc.any(axis=1) & (frames.n_atoms < ALL_PAIRS_BELOW)
    parts = [
        part
        for size in np.unique(frames.n_atoms[small])
        for part in _molecule_pairs(frames, np.nonzero(small & (frames.n_atoms == size))[0], cutoff)
    ]
    parts += [_cell_pairs(frames, i, cutoff) for i in np.nonzero(~small)[0].tolist()]
    owner = np.concatenate([part[0] for part in parts])
    order = np.argsort(owner, kind="stable")
    pair_index = np.concatenate([part[1] for part in parts], axis=1)
    shifts = np.concatenate([part[2] for part in parts])
    return owner[order], pair_index[:, order], shifts[order]


def _molecule_pairs(frames: Frames, index: np.ndarray, cutoff: float):
    """Pairs of molecules of one size, many molecules at once, by testing all pairs."""
    size = int(frames.n_atoms[index[0]])
    for block in np.array_split(index, 1 + index.shape[0] * size**2 // PAIRS_AT_ONCE):
        atoms = frames.first[:-1][block][:, None] + np.arange(size)
        positions = frames.positions[atoms]
        center, neighbor = np.triu_indices(size, k=1)
        difference = positions[:, neighbor] - positions[:, center]
        frame, pair = np.nonzero(np.einsum("fpx,fpx->fp", difference, difference) < cutoff**2)
        shifts = np.zeros((frame.shape[0], 3), dtype=np.int64)
        yield block[frame], np.stack([center[pair], neighbor[pair]]), shifts


def _cell_pairs(frames: Frames, i: int, cutoff: float):
    """Pairs of one frame, periodic or large, by a cell list."""
    edge_index, shifts = frames.neighbors(i, cutoff)
    n_pairs = shifts.shape[0] // 2
    return np.full(n_pairs, i), edge_index[:, :n_pairs], shifts[:n_pairs]
