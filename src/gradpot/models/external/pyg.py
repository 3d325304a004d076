"""SchNet and DimeNet++ of PyTorch Geometric; `Graph` to `Data` and back, for your own modules.

PyG's models search for neighbors themselves. That needs libraries that are not always available
(pyg-lib, torch_sparse), and ignores periodic cells. The adapters call the parts of the models in
the order of their `forward`, with the edges of a `Graph`. PyG's edges point from the neighbor to
the center: its `edge_index` is ours with the rows exchanged.
"""

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradpot.errors import InputError
from gradpot.graph.graph import Graph, both_ways, opposite, with_triplets
from gradpot.models.base import Model
from gradpot.nn.surgery import swap_activations

with warnings.catch_warnings():
    # PyG uses torch.jit.script, which torch deprecates
    warnings.simplefilter("ignore")
    from torch_geometric.data import Data
    from torch_geometric.nn.models import DimeNetPlusPlus as PygDimeNetPlusPlus
    from torch_geometric.nn.models import SchNet as PygSchNet


class SchNet(Model):
    """PyG's SchNet, without its sum over atoms; elements up to 99.

    Args:
        cutoff: in Å; PyG's default is 10.
        width: `hidden_channels` and `num_filters`.
        n_layers: `num_interactions`.
        n_radial: `num_gaussians`.
        activation: a name of `ACTIVATIONS`; published with `ssp`.
    """

    def __init__(
        self,
        cutoff: float = 5.0,
        width: int = 128,
        n_layers: int = 6,
        n_radial: int = 50,
        activation: str = "ssp",
    ):
        super().__init__(cutoff)
        self.network = PygSchNet(width, width, n_layers, n_radial, cutoff)
        swap_activations(self.network, activation)

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        net, r = self.network, graph.edge_vec.norm(dim=-1)
        edge_index, basis = graph.edge_index.flip(0), net.distance_expansion(r)
        x = net.embedding(graph.numbers)
        for interaction in net.interactions:
            x = x + interaction(x, edge_index, r, basis)
        return net.lin2(net.act(net.lin1(x))).squeeze(-1)


class DimeNetPlusPlus(Model):
    """PyG's DimeNet++, without its sum over atoms; elements up to 94.

    Args:
        cutoff: in Å.
        width: `hidden_channels`.
        n_layers: `num_blocks`.
        n_radial, n_spherical: `num_radial`, `num_spherical`.
        activation: a name of `ACTIVATIONS`; published with `silu`.
        output_activation: the same, of the output blocks.
        triplet_width: `int_emb_size`.
        basis_width: `basis_emb_size`.
        output_width: `out_emb_channels`.
    """

    uses_triplets = True
    # its bases are written out term by term, for every degree and root
    slow_to_compile = True
    adam_rate = 2e-3

    def __init__(
        self,
        cutoff: float = 5.0,
        width: int = 128,
        n_layers: int = 4,
        n_radial: int = 6,
        n_spherical: int = 7,
        activation: str = "silu",
        output_activation: str = "silu",
        triplet_width: int = 64,
        basis_width: int = 8,
        output_width: int = 256,
    ):
        super().__init__(cutoff)
        self.network = PygDimeNetPlusPlus(
            hidden_channels=width,
            out_channels=1,
            num_blocks=n_layers,
            int_emb_size=triplet_width,
            basis_emb_size=basis_width,
            out_emb_channels=output_width,
            num_spherical=n_spherical,
            num_radial=n_radial,
            cutoff=cutoff,
            # with its own default, zeros, only the last layers have gradients at first
            output_initializer="glorot_orthogonal",
        )
        swap_activations(self.network, activation, skip="output_blocks.*")
        swap_activations(self.network, output_activation, only="output_blocks.*")

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        net, (center, neighbor) = self.network, graph.edge_index
        kj, ji = passes(with_triplets(graph))
        r, angle = graph.edge_vec.norm(dim=-1), angles(graph.edge_vec, kj, ji)
        rbf, sbf = net.rbf(r), net.sbf(r, angle, kj)
        x = net.emb(graph.numbers, rbf, center, neighbor)
        n_atoms = graph.numbers.shape[0]
        energy = net.output_blocks[0](x, rbf, center, num_nodes=n_atoms)
        for interaction, output in zip(net.interaction_blocks, net.output_blocks[1:], strict=True):
            x = interaction(x, rbf, sbf, kj, ji)
            energy = energy + output(x, rbf, center, num_nodes=n_atoms)
        return energy.squeeze(-1)


def passes(graph: Graph) -> tuple[Int[Tensor, "n_passes"], Int[Tensor, "n_passes"]]:
    """Edges k → j and j → i of every path k → j → i with k ≠ i, as rows of `edge_vec`.

    In a periodic cell k may be another image of i, which PyG's own `triplets` leaves out.
    """
    # both edges of a triplet have center j; j → i is the reverse of the one from j to i
    one, other = graph.triplets  # type: ignore[misc]
    n_edges = graph.edge_vec.shape[0]
    reverse = n_edges // 2
    kj, back = torch.cat([one, other]), torch.cat([other, one])
    return kj, torch.where(back < reverse, back + reverse, back - reverse)


def angles(
    edge_vec: Float[Tensor, "n_edges 3"], kj: Int[Tensor, "n_passes"], ji: Int[Tensor, "n_passes"]
) -> Float[Tensor, "n_passes"]:
    """Angle between r_j − r_k and r_i − r_j, 0 for a straight path.

    PyG's basis uses its cosine only, so the energy is smooth where three atoms are in line.
    """
    a, b = edge_vec.index_select(0, kj), edge_vec.index_select(0, ji)
    # the small constant keeps the second derivative finite where three atoms are in line
    sine = (torch.linalg.cross(a, b).square().sum(-1) + 1e-12).sqrt()
    return torch.atan2(sine, (a * b).sum(-1))


def to_pyg(graph: Graph) -> Data:
    """A `Data` with `z`, `edge_index` (from neighbor to center), `edge_vec`, `batch` and `cell`.

    `edge_vec` is that of `Graph`: r_source − r_target, with periodic images. Forces and stress are
    derivatives with respect to it, so there are no positions.
    """
    return Data(
        z=graph.numbers,
        edge_index=graph.edge_index.flip(0),
        edge_vec=graph.edge_vec,
        batch=graph.batch,
        cell=graph.cell,
        num_nodes=graph.numbers.shape[0],
    )


def from_pyg(data: Data) -> Graph:
    """The graph of a `Data` with `z`, `edge_index`, and `edge_vec` or, for molecules, `pos`.

    Edges may have any order, but each needs its reverse. Without `batch` all atoms are one
    structure; without `cell` nothing is periodic.

    Raises:
        InputError: a field is missing, or an edge has no reverse.
    """
    for wanted in (("z",), ("edge_index",), ("edge_vec", "pos")):
        if not any(name in data for name in wanted):
            found = ", ".join(data.keys())
            raise InputError(f"this Data has no {' or '.join(wanted)}; it has {found}")
    edge_index: Tensor = data["edge_index"].flip(0)
    center, neighbor = edge_index
    vectors = (
        data["edge_vec"] if "edge_vec" in data else data["pos"][neighbor] - data["pos"][center]
    )
    batch = data["batch"] if "batch" in data else torch.zeros_like(data["z"])
    n_graphs = int(batch.max()) + 1 if batch.numel() else 0
    cell = data["cell"] if "cell" in data else vectors.new_zeros(n_graphs, 3, 3)
    pairs = _pairs(edge_index, vectors)
    edges = both_ways(edge_index[:, pairs]), opposite(vectors[pairs])
    return Graph(data["z"], *edges, batch, cell.view(-1, 3, 3))


def _pairs(edge_index: Tensor, edge_vec: Tensor) -> Tensor:
    """Rows of one edge of each pair: the first half, if the second half is its reverse."""
    half = edge_index.shape[1] // 2
    first, second = edge_index[:, :half], edge_index[:, half:]
    if torch.equal(first.flip(0), second) and torch.equal(edge_vec[:half], -edge_vec[half:]):
        return torch.arange(half)
    # an atom and its own image: by the sign of the first component that is not zero
    x, y, z = edge_vec.detach().unbind(1)
    sign = torch.where(x != 0, x, torch.where(y != 0, y, z))
    center, neighbor = edge_index
    forth = (center < neighbor) | ((center == neighbor) & (sign > 0))
    there = _sorted(edge_index[:, forth], edge_vec[forth])
    if there != _sorted(edge_index[:, ~forth].flip(0), -edge_vec[~forth]):
        raise InputError("an edge has no reverse; gradpot needs each pair in both directions")
    return forth.nonzero().squeeze(-1)


def _sorted(edge_index: Tensor, edge_vec: Tensor) -> list[tuple]:
    return sorted(zip(*edge_index.tolist(), *edge_vec.detach().t().tolist(), strict=True))
