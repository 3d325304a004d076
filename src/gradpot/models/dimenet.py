"""DimeNet++: directional messages (Gasteiger et al., arXiv 2003.03123 and 2011.14115).

An edge from center i to neighbor j carries the message j → i. The messages k → j change it, by a
filter of the distance of k and j and of the angle by which k → j → i bends.

The parameters "turns" and "turn" keep these names because saved models have them.
"""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from math import pi

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradpot.geometry import N_ELEMENTS
from gradpot.graph.graph import Graph, opposite, with_triplets
from gradpot.models.base import Model
from gradpot.nn.activations import Activation, gain
from gradpot.nn.activations import activation as activation_by_name
from gradpot.nn.angular import SphericalBessel, zonal_harmonics
from gradpot.nn.initialize import Stack, linear
from gradpot.nn.radial import polynomial_cutoff
from gradpot.nn.segment import sum_by, sum_pairs


class DimeNetPlusPlus(Model):
    """Atom energies from messages along edges, and the angles between two of them.

    Args:
        cutoff: in Å.
        width: features of a message; published with 128.
        n_layers: interaction blocks.
        n_radial: Bessel functions of each degree.
        n_spherical: degrees.
        activation: see `nn.activations.activation`.
        output_activation: of the output blocks, the only place where arXiv 2310.01649 puts IReLU;
            published with `silu` everywhere.
        triplet_width: features that pass from one message to another.
        basis_width: functions that each basis is reduced to.
        output_width: features of an atom in the output blocks.
        envelope: p of equation 8, at least 1. A larger p falls later and more steeply.
        n_before_skip, n_after_skip: residual layers before and after the old message is added.
        n_output_layers: hidden layers of an output block.
    """

    uses_triplets = True
    # at 5e-3 all forces become zero after 4,000 steps
    adam_rate = 2e-3
    spread: Tensor

    def __init__(
        self,
        cutoff: float = 5.0,
        width: int = 64,
        n_layers: int = 3,
        n_radial: int = 6,
        n_spherical: int = 7,
        activation: str = "silu",
        output_activation: str = "silu",
        triplet_width: int = 32,
        basis_width: int = 8,
        output_width: int = 64,
        envelope: int = 6,
        n_before_skip: int = 1,
        n_after_skip: int = 2,
        n_output_layers: int = 3,
    ):
        super().__init__(cutoff)
        phi = activation_by_name(activation)
        self.envelope = envelope
        self.frequencies = nn.Parameter(pi * torch.arange(1.0, n_radial + 1))
        self.bessel = SphericalBessel(n_spherical, n_radial)
        spread = torch.eye(n_spherical).repeat_interleave(n_radial, dim=1)
        self.register_buffer("spread", spread, persistent=False)
        self.embedding = nn.Embedding(N_ELEMENTS, width)
        self.filters = Filters(n_radial, basis_width, width, n_layers)
        self.turns = linear(n_spherical * n_radial, n_layers * basis_width, bias=False)
        self.first = FirstMessage(width, phi)
        sizes = (width, triplet_width, basis_width, n_before_skip, n_after_skip)
        self.interactions = nn.ModuleList(Interaction(*sizes, phi) for _ in range(n_layers))
        hidden = [output_width] * (n_output_layers + 1)
        output_phi = activation_by_name(output_activation)
        self.outputs = Outputs(n_layers + 1, [width, *hidden], output_phi)

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        graph = with_triplets(graph)
        r = graph.pair_vec.norm(dim=-1)  # [n_pairs]
        x = (r / self.cutoff).clamp(max=1.0)
        u = polynomial_cutoff(x, self.envelope) / x
        # [n_radial, n_pairs] -> [n_pairs, width] for the first message, each interaction and output
        first, inner, outer = self.filters(u * torch.sin(self.frequencies[:, None] * x))
        source, target = passes(graph)  # [n_passes] each
        basis = angular_basis(self.bessel(x, u), self.spread, graph.pair_vec / r[:, None], graph)
        bases = (self.turns.weight @ basis.T).chunk(len(inner))  # [basis_width, n_passes] each

        m = self.first(self.embedding(graph.numbers), first, graph.edge_index)  # [n_edges, width]
        sums = [sum_messages(m, outer[0], graph)]
        for interaction, radial, angular, out in zip(
            self.interactions, inner, bases, outer[1:], strict=True
        ):
            m = interaction(m, radial, angular, source, target)
            sums.append(sum_messages(m, out, graph))
        return self.outputs(torch.stack(sums))


def passes(graph: Graph) -> tuple[Int[Tensor, "n_passes"], Int[Tensor, "n_passes"]]:
    """Edges of the messages k → j and j → i of every triplet, in one direction and the other.

    Returns:
        The edge of the first message, which changes the second, and the edge of the second. Both
        edges of a triplet have center j, so j → i is the reverse of one of them.
    """
    a, b = graph.triplets.unbind(0)  # type: ignore[union-attr]
    n_pairs = graph.pair_vec.shape[0]
    onward = torch.cat([a, b])
    # the reverse edge; a remainder would be recomputed for every column
    return torch.cat([b, a]), torch.where(onward < n_pairs, onward + n_pairs, onward - n_pairs)


def angular_basis(
    radial: Float[Tensor, "n_pairs n_basis"],
    spread: Float[Tensor, "n_spherical n_basis"],
    direction: Float[Tensor, "n_pairs 3"],
    graph: Graph,
) -> Float[Tensor, "n_passes n_basis"]:
    """j_l(z_ln r/r_c) Y_l0(α) of every pass k → j → i, arXiv 2003.03123, equation 6.

    r is the length of the first edge. α is the angle by which the path bends, 0 for a straight
    path, as in the published code; the paper has π − α. Both directions of a triplet share α.

    Args:
        radial: with the envelope.
        spread: ones where a column of the basis belongs to degree l. It is applied as a matrix
            product, because the compiler keeps the result of a product.
    """
    a, b = graph.triplets.unbind(0)  # type: ignore[union-attr]
    n_pairs = direction.shape[0]
    edge = opposite(direction)
    cosine = -(edge.index_select(0, a) * edge.index_select(0, b)).sum(-1)
    angular = zonal_harmonics(cosine, spread.shape[0]) @ spread
    source = torch.cat([b, a])
    pair = torch.where(source < n_pairs, source, source - n_pairs)
    return (radial.index_select(0, pair).unflatten(0, (2, a.shape[0])) * angular).flatten(0, 1)


def sum_messages(
    m: Float[Tensor, "n_edges width"], radial: Float[Tensor, "n_pairs width"], graph: Graph
) -> Float[Tensor, "n_atoms width"]:
    """Sum of the filtered messages that arrive at each atom.

    Args:
        m: message of each edge, from its neighbor to its center.
        radial: filter of each pair, the same in both directions.
    """
    forth, back = (m.unflatten(0, (2, radial.shape[0])) * radial).unbind(0)
    return sum_pairs(forth, back, graph.pair_index, graph.numbers.shape[0])


class Filters(nn.Module):
    """All linear maps of the radial basis as one product, once per pair."""

    def __init__(self, n_radial: int, basis_width: int, width: int, n_layers: int):
        super().__init__()
        self.first = weights(n_radial, width)
        self.bias = nn.Parameter(torch.zeros(width))
        self.reduce = weights(n_radial, n_layers * basis_width)
        self.expand = nn.ParameterList(weights(basis_width, width) for _ in range(n_layers))
        self.outer = weights(n_radial, (n_layers + 1) * width)

    def forward(
        self, basis: Float[Tensor, "n_radial n_pairs"]
    ) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
        """For the first message, for each interaction, for each output: [n_pairs, width]."""
        n_layers = len(self.expand)
        reduce = self.reduce.chunk(n_layers, dim=-1)
        inner = [r @ e for r, e in zip(reduce, self.expand, strict=True)]
        product = basis.T @ torch.cat([self.first, *inner, self.outer], dim=-1)
        first, *others = product.chunk(2 * n_layers + 2, dim=-1)
        return first + self.bias, others[:n_layers], others[n_layers:]


class FirstMessage(nn.Module):
    """From two elements and a distance; arXiv 2003.03123, section 5, embedding block.

    The linear maps of an atom are computed per atom, those of a distance per pair.
    """

    def __init__(self, width: int, activation: Activation):
        super().__init__()
        self.atoms = linear(width, 2 * width, bias=False)
        self.pairs = linear(width, width)
        self.activation = deepcopy(activation)

    def forward(
        self,
        x: Float[Tensor, "n_atoms width"],
        radial: Float[Tensor, "n_pairs width"],
        edge_index: Int[Tensor, "2 n_edges"],
    ) -> Float[Tensor, "n_edges width"]:
        at_center, at_neighbor = self.atoms(x).chunk(2, dim=-1)
        center, neighbor = edge_index
        pair = self.pairs(self.activation(radial))
        ends = at_center.index_select(0, center) + at_neighbor.index_select(0, neighbor)
        return self.activation(ends.unflatten(0, (2, pair.shape[0])) + pair).flatten(0, 1)


class Residual(nn.Module):
    """x + φ(W₂ φ(W₁ x))."""

    def __init__(self, width: int, activation: Activation):
        super().__init__()
        self.first = linear(width, width)
        self.second = linear(width, width)
        self.activation = deepcopy(activation)

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        return x + self.activation(self.second(self.activation(self.first(x))))


class Interaction(nn.Module):
    """Messages k → j change the message j → i; arXiv 2011.14115, figure 1."""

    def __init__(
        self,
        width: int,
        triplet_width: int,
        basis_width: int,
        n_before_skip: int,
        n_after_skip: int,
        activation: Activation,
    ):
        super().__init__()
        # for the edge itself, and for the edges that follow
        self.split = linear(width, 2 * width)
        self.down = linear(width, triplet_width, bias=False)
        self.turn = weights(basis_width, triplet_width)
        self.up = linear(triplet_width, width, bias=False)
        self.before = nn.Sequential(*(Residual(width, activation) for _ in range(n_before_skip)))
        self.skip = linear(width, width)
        self.after = nn.Sequential(*(Residual(width, activation) for _ in range(n_after_skip)))
        self.activation = deepcopy(activation)

    def forward(
        self,
        m: Float[Tensor, "n_edges width"],
        radial: Float[Tensor, "n_pairs width"],
        angular: Float[Tensor, "basis_width n_passes"],
        source: Int[Tensor, "n_passes"],
        target: Int[Tensor, "n_passes"],
    ) -> Float[Tensor, "n_edges width"]:
        own, sent = self.activation(self.split(m)).chunk(2, dim=-1)
        sent = (sent.unflatten(0, (2, radial.shape[0])) * radial).flatten(0, 1)
        sent = self.activation(self.down(sent)).index_select(0, source) * (angular.T @ self.turn)
        h = own + self.activation(self.up(sum_by(sent, target, m.shape[0])))
        return self.after(m + self.activation(self.skip(self.before(h))))


class Outputs(Stack):
    """All output blocks at once: they have equal sizes, so each layer is one batched product.

    Args:
        n_blocks: number of output blocks.
        sizes: widths of the input, of the up-projection, and of each hidden layer.
    """

    def __init__(self, n_blocks: int, sizes: Sequence[int], activation: Activation):
        super().__init__()
        n_in, n_up, *hidden = sizes
        self.up = stacked(n_blocks, n_in, n_up)
        self.hidden = nn.ParameterList(stacked(n_blocks, *pair) for pair in pairwise(sizes[1:]))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n_blocks, 1, n)) for n in hidden)
        # the published zeros give no forces at first; these give forces of the size of the labels
        self.last = stacked(n_blocks, sizes[-1], 1, 0.1 * gain(activation))
        self.activation = deepcopy(activation)

    def forward(self, sums: Float[Tensor, "n_blocks n_atoms width"]) -> Float[Tensor, "n_atoms"]:
        x = sums @ self.up
        for weight, bias in zip(self.hidden, self.biases, strict=True):
            x = self.activation(torch.baddbmm(bias, x, weight))
        return (x @ self.last).sum(0).squeeze(-1)

    def bound_moments(self, x: Float[Tensor, "n_blocks n_atoms width"], limit: float) -> None:
        """Treat each block by itself; the biases must still be zero."""
        for weight in (self.up, *self.hidden):
            x = x @ weight
            size = (x.square().mean((1, 2), keepdim=True).sqrt() / limit).clamp(min=1.0)
            weight.div_(size)
            x = x / size if weight is self.up else self.activation(x / size)


def weights(n_in: int, n_out: int, gain: float = 1.0) -> nn.Parameter:
    """Weights [n_in, n_out], drawn as `linear` draws them, for x.T @ weights with x [n_in, n].

    Where one size is very small, products and their derivatives are several times faster if the
    last axis of the result is long.
    """
    return nn.Parameter(linear(n_in, n_out, gain, bias=False).weight.detach().T.contiguous())


def stacked(n_blocks: int, n_in: int, n_out: int, gain: float = 1.0) -> nn.Parameter:
    """Weights [n_blocks, n_in, n_out]."""
    return nn.Parameter(torch.stack([weights(n_in, n_out, gain) for _ in range(n_blocks)]).detach())
