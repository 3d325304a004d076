"""PyTorch Geometric: SchNet and DimeNet++.

Its own neighbor search needs a library that is not always available, so the models are given their
edges. It has no ASE calculator; `PygCalculator` adds one, with vesin's neighbor list at every call.
DimeNet++ needs torch_sparse for its triplets; `triplets` does the same in plain torch.
"""

from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes
from torch import Tensor
from torch_geometric.nn.models import DimeNetPlusPlus, SchNet, dimenet

from peers import CUTOFF, LEARNING_RATE
from peers.systems import Frames, edges

VERSION = version("torch-geometric")
MODELS = {"schnet-128x6": SchNet, "dimenet++": DimeNetPlusPlus}
MODES = {"train": ("eager",), "call": ("eager", "compiled")}


def training(model: str, frames: Frames, mode: str) -> tuple[Callable[[], Tensor], int]:
    """See `peers`."""
    network, graph_edges = build(model)
    graph_edges.take(*edges(frames, CUTOFF))
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    n_frames, n_atoms = frames.energy.shape[0], frames.numbers.shape[0]
    numbers = torch.from_numpy(np.tile(frames.numbers, n_frames))
    positions = torch.from_numpy(frames.positions).float().reshape(-1, 3).requires_grad_()
    batch = torch.from_numpy(frames.batch)
    energy = torch.from_numpy(frames.energy).float()
    forces = torch.from_numpy(frames.forces).float().reshape(-1, 3)

    def step() -> Tensor:
        optimizer.zero_grad()
        predicted = network(numbers, positions, batch).squeeze(-1)
        (gradient,) = torch.autograd.grad(predicted.sum(), positions, create_graph=True)
        loss = ((predicted - energy) / n_atoms).square().mean()
        loss = loss + (gradient + forces).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, sum(p.numel() for p in network.parameters())


def calculator(model: str, frames: Frames, mode: str) -> tuple[Calculator, int]:
    """See `peers`."""
    network, graph_edges = build(model)
    network.eval().requires_grad_(False)
    n_parameters = sum(p.numel() for p in network.parameters())
    return PygCalculator(network, graph_edges, mode == "compiled"), n_parameters


class Edges:
    """The edges that a model is given, and their lengths."""

    def take(self, edge_index: np.ndarray, offset: np.ndarray) -> None:
        """Store the edges of `systems.edges`; PyG writes j → i, the neighbor first."""
        self.index = torch.from_numpy(edge_index[::-1].copy())
        self.offset = torch.from_numpy(offset).float()

    def __call__(self, positions: Tensor, batch: Tensor | None = None) -> tuple[Tensor, Tensor]:
        neighbor, center = self.index
        return self.index, (positions[neighbor] + self.offset - positions[center]).norm(dim=-1)


class PygCalculator(Calculator):
    """Energy and forces; neighbors from vesin at every call."""

    implemented_properties = ("energy", "forces")

    def __init__(self, network: torch.nn.Module, graph_edges: Edges, compiled: bool):
        super().__init__()
        self.graph_edges = graph_edges

        def energy(numbers, positions, index, offset):
            graph_edges.index, graph_edges.offset = index, offset
            return network(numbers, positions, torch.zeros_like(numbers)).sum()

        self.energy = torch.compile(energy, dynamic=True) if compiled else energy

    def calculate(self, atoms=None, properties=None, system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        frames = Frames(
            self.atoms.numbers,
            self.atoms.positions[None],
            self.atoms.cell.array,
            *[np.zeros(0)] * 2,
        )
        self.graph_edges.take(*edges(frames, CUTOFF))
        numbers = torch.from_numpy(frames.numbers)
        positions = torch.from_numpy(frames.positions[0]).float().requires_grad_()
        energy = self.energy(numbers, positions, self.graph_edges.index, self.graph_edges.offset)
        (gradient,) = torch.autograd.grad(energy, positions)
        self.results = {"energy": energy.item(), "forces": -gradient.numpy()}


def build(model: str) -> tuple[torch.nn.Module, Edges]:
    """A network, and the object that holds its edges."""
    graph_edges = Edges()
    if model == "schnet-128x6":
        sizes = {"hidden_channels": 128, "num_filters": 128, "num_interactions": 6}
        sizes |= {"num_gaussians": 50, "cutoff": CUTOFF}
        return SchNet(**sizes, interaction_graph=graph_edges), graph_edges
    dimenet.radius_graph = lambda *_, **__: graph_edges.index
    dimenet.triplets = triplets
    # sizes of the published model
    return DimeNetPlusPlus(
        hidden_channels=128,
        out_channels=1,
        num_blocks=4,
        int_emb_size=64,
        basis_emb_size=8,
        out_emb_channels=256,
        num_spherical=7,
        num_radial=6,
        cutoff=CUTOFF,
        output_initializer="glorot_orthogonal",
    ), graph_edges


def triplets(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, ...]:
    """Pairs of edges k → j → i with k ≠ i, as `dimenet.triplets` gives them.

    Returns:
        Centers and neighbors of the edges; then of the triplets: i, j, k, edge k → j, edge j → i.
    """
    j, i = edge_index
    order = torch.argsort(i, stable=True)
    into = torch.bincount(i, minlength=num_nodes)
    first = into.cumsum(0) - into
    count = into[j]
    edge_ji = torch.arange(i.shape[0]).repeat_interleave(count)
    within = torch.arange(edge_ji.shape[0]) - (count.cumsum(0) - count).repeat_interleave(count)
    edge_kj = order[first[j[edge_ji]] + within]
    other = j[edge_kj] != i[edge_ji]
    edge_kj, edge_ji = edge_kj[other], edge_ji[other]
    return i, j, i[edge_ji], j[edge_ji], j[edge_kj], edge_kj, edge_ji
