"""`Graph`, the input of a model, and `Properties`, predictions and labels.

A graph holds one structure or many: a single structure is a batch of one. It has no labels, so a
model cannot see what it must predict. It has no positions, so models are invariant to translation.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradpot.geometry import edge_vectors, neighbor_list

if TYPE_CHECKING:
    from ase import Atoms


class Graph(NamedTuple):
    """Structures as atoms and the edges between them.

    Every pair of atoms within the cutoff is two edges. Edges come in two halves, and the second
    half is the first one reversed: edge `n_pairs + p` is edge `p` from its other end.
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
    """rows are lattice vectors in Å; zero rows for axes that are not periodic"""
    triplets: Int[Tensor, "2 n_triplets"] | None = None
    """pairs of edges that share a center, as rows of `edge_vec`, each once; only for models that
    use angles (`with_triplets`)"""

    @property
    def pair_index(self) -> Int[Tensor, "2 n_pairs"]:
        """`edge_index`, each pair once."""
        return self.edge_index[:, : self.edge_index.shape[1] // 2]

    @property
    def pair_vec(self) -> Float[Tensor, "n_pairs 3"]:
        """`edge_vec` in Å, each pair once."""
        return self.edge_vec[: self.edge_vec.shape[0] // 2]


class Properties(NamedTuple):
    """Predictions or labels; NaN where there is no label."""

    energy: Float[Tensor, "n_graphs"]
    """eV; the total energy, never per atom"""
    forces: Float[Tensor, "n_atoms 3"]
    """eV/Å; −dE/dR"""
    stress: Float[Tensor, "n_graphs 3 3"]
    """eV/Å³; (dE/dε)/|V|, positive under tension (ASE's sign); NaN without a cell"""


def from_atoms(atoms: "Atoms", cutoff: float, dtype: torch.dtype = torch.float32) -> Graph:
    """The graph of one ASE structure, with all pairs closer than `cutoff` Å."""
    cell = np.asarray(atoms.cell) * atoms.pbc[:, None]
    edge_index, shifts = neighbor_list(atoms.positions, cell, atoms.pbc, cutoff)
    vectors = edge_vectors(atoms.positions, cell, edge_index, shifts)
    return Graph(
        numbers=torch.from_numpy(atoms.numbers).long(),
        edge_index=torch.from_numpy(edge_index),
        edge_vec=torch.from_numpy(vectors).to(dtype),
        batch=torch.zeros(len(atoms), dtype=torch.long),
        cell=torch.from_numpy(cell)[None].to(dtype),
    )


def join(graphs: Sequence[Graph]) -> Graph:
    """Many graphs as one, in this order, without triplets."""
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
    """The same graph with its triplets, which are found unless the graph has them.

    Models that use angles call this first, so that graphs without triplets work too; data sets and
    the calculator find triplets once and reuse them.
    """
    if graph.triplets is not None:
        return graph
    return graph._replace(triplets=find_triplets(graph.edge_index[0], graph.numbers.shape[0]))


def find_triplets(center: Int[Tensor, "n_edges"], n_atoms: int) -> Int[Tensor, "2 n_triplets"]:
    """All pairs of edges that share a center, as rows of `edge_vec`, each pair once.

    An atom and two images of another atom, or of itself, are a triplet like any other: the edges
    are different.
    """
    order = center.argsort(stable=True)
    degree = center.bincount(minlength=n_atoms)
    first = (degree.cumsum(0) - degree)[center[order]]
    # sorted by center, each edge forms triplets with the edges before it
    n_before = torch.arange(center.shape[0], device=center.device) - first
    later = torch.arange(center.shape[0], device=center.device).repeat_interleave(n_before)
    start = (n_before.cumsum(0) - n_before - first)[later]
    earlier = torch.arange(later.shape[0], device=center.device) - start
    return torch.stack([order[earlier], order[later]])


def both_ways(pair_index: Int[Tensor, "2 n_pairs"]) -> Int[Tensor, "2 n_edges"]:
    """`edge_index` of pairs: each pair, then each reversed."""
    return torch.cat([pair_index, pair_index.flip(0)], dim=1)


def opposite(pair_vec: Float[Tensor, "n_pairs 3"]) -> Float[Tensor, "n_edges 3"]:
    """`edge_vec` of pairs: each vector, then each reversed."""
    return torch.cat([pair_vec, -pair_vec])
