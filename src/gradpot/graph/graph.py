"""`Graph`, what a model sees, and `Properties`, what is predicted and what is known.

A graph holds one structure or many: a single structure is a batch of one. It has no positions
and no labels: a model cannot see what it must predict, and translation invariance is by
construction.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradpot.geometry import neighbor_list

if TYPE_CHECKING:
    from ase import Atoms


class Graph(NamedTuple):
    """Structures as atoms and the edges between them.

    Every pair of atoms within the cutoff is two edges. Edges come in two halves, of which the
    second is the first reversed: edge `n_pairs + p` leads back along edge `p`.
    """

    numbers: Int[Tensor, "n_atoms"]
    """atomic numbers"""
    edge_index: Int[Tensor, "2 n_edges"]
    """row 0 the center i (receives), row 1 the neighbor j (sends)"""
    edge_vec: Float[Tensor, "n_edges 3"]
    """r_j + shift @ cell − r_i in Å"""
    batch: Int[Tensor, "n_atoms"]
    """which structure each atom belongs to"""
    cell: Float[Tensor, "n_graphs 3 3"]
    """rows are lattice vectors in Å; zeros where a structure is not periodic"""
    triplets: Int[Tensor, "2 n_triplets"] | None = None
    """rows of `edge_vec`: two different edges of one center, each two once; only for models that
    look at angles (`with_triplets`)"""

    @property
    def pair_index(self) -> Int[Tensor, "2 n_pairs"]:
        """`edge_index` of each pair once."""
        return self.edge_index[:, : self.edge_index.shape[1] // 2]

    @property
    def pair_vec(self) -> Float[Tensor, "n_pairs 3"]:
        """`edge_vec` of each pair once, in Å."""
        return self.edge_vec[: self.edge_vec.shape[0] // 2]


class Properties(NamedTuple):
    """Labels or predictions; NaN where there is no label."""

    energy: Float[Tensor, "n_graphs"]
    """total energy in eV, never per atom"""
    forces: Float[Tensor, "n_atoms 3"]
    """−dE/dR in eV/Å"""
    stress: Float[Tensor, "n_graphs 3 3"]
    """(dE/dε)/|V| in eV/Å³, positive under tension (ASE's sign); NaN without a cell"""


def edge_vectors(
    positions: Float[Tensor, "n_atoms 3"],
    cell: Float[Tensor, "3 3"],
    edge_index: Int[Tensor, "2 n_edges"],
    shifts: Int[Tensor, "n_edges 3"],
) -> Float[Tensor, "n_edges 3"]:
    """From center to neighbor, in Å, for one structure."""
    center, neighbor = edge_index
    return positions[neighbor] - positions[center] + shifts.to(cell.dtype) @ cell


def from_atoms(atoms: "Atoms", cutoff: float, dtype: torch.dtype = torch.float32) -> Graph:
    """The graph of one ASE structure, with all pairs closer than `cutoff` Å."""
    cell = np.asarray(atoms.cell) * atoms.pbc[:, None]
    edge_index, shifts = neighbor_list(atoms.positions, cell, atoms.pbc, cutoff)
    edge_index, shifts = torch.from_numpy(edge_index), torch.from_numpy(shifts)
    cell = torch.from_numpy(cell)
    vectors = edge_vectors(torch.from_numpy(atoms.positions), cell, edge_index, shifts)
    return Graph(
        numbers=torch.from_numpy(atoms.numbers).long(),
        edge_index=edge_index,
        edge_vec=vectors.to(dtype),
        batch=torch.zeros(len(atoms), dtype=torch.long),
        cell=cell[None].to(dtype),
    )


def join(graphs: Sequence[Graph]) -> Graph:
    """Many graphs as one, in order."""
    atoms = np.cumsum([0] + [graph.numbers.shape[0] for graph in graphs]).tolist()
    structures = np.cumsum([0] + [graph.cell.shape[0] for graph in graphs]).tolist()
    return Graph(
        numbers=torch.cat([graph.numbers for graph in graphs]),
        edge_index=both_ways(torch.cat([g.pair_index + n for g, n in zip(graphs, atoms)], dim=1)),
        edge_vec=opposite(torch.cat([graph.pair_vec for graph in graphs])),
        batch=torch.cat([g.batch + n for g, n in zip(graphs, structures)]),
        cell=torch.cat([graph.cell for graph in graphs]),
    )


def with_triplets(graph: Graph) -> Graph:
    """The same graph with its triplets, found unless they are there."""
    if graph.triplets is not None:
        return graph
    return graph._replace(triplets=find_triplets(graph.edge_index[0], graph.numbers.shape[0]))


def find_triplets(center: Int[Tensor, "n_edges"], n_atoms: int) -> Int[Tensor, "2 n_triplets"]:
    """Every two edges that share a center, as rows of `edge_vec`, each two once.

    An atom and two images of another, or of itself, are triplets like all others: they are
    different edges.
    """
    order = center.argsort(stable=True)
    degree = center.bincount(minlength=n_atoms)
    first = (degree.cumsum(0) - degree)[center[order]]
    # in the order of centers, each edge meets those before it
    n_before = torch.arange(center.shape[0], device=center.device) - first
    later = torch.arange(center.shape[0], device=center.device).repeat_interleave(n_before)
    start = (n_before.cumsum(0) - n_before - first)[later]
    earlier = torch.arange(later.shape[0], device=center.device) - start
    return torch.stack([order[earlier], order[later]])


def both_ways(pair_index: Int[Tensor, "2 n_pairs"]) -> Int[Tensor, "2 n_edges"]:
    """`edge_index` of pairs: each of them, then each reversed."""
    return torch.cat([pair_index, pair_index.flip(0)], dim=1)


def opposite(pair_vec: Float[Tensor, "n_pairs 3"]) -> Float[Tensor, "n_edges 3"]:
    """`edge_vec` of pairs."""
    return torch.cat([pair_vec, -pair_vec])
