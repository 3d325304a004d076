"""GemNet-dT: directed messages that see angles (Gasteiger et al., NeurIPS 2021, arXiv 2106.08903).

The message of edge (a, c) goes from its neighbor c to its center a. A triplet is two edges of one
center: m_ca depends on every m_ba, through a basis of the distance of c and the angle between the
edges. Nothing has a bias and activations vanish at 0, so an edge at the cutoff adds nothing.

Departures: the radial basis enters each place through a linear map of its own, where the paper
shares 16 numbers between places, more than there are radial functions here. Sums over neighbors
are scaled by `SUM_SCALE`, where the paper fits factors to the data.
"""

from copy import deepcopy
from math import pi, sqrt
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradpot.geometry import N_ELEMENTS
from gradpot.graph.graph import Graph, with_triplets
from gradpot.models.base import Model
from gradpot.nn.activations import Activation, gain
from gradpot.nn.activations import activation as activation_by_name
from gradpot.nn.angular import zonal_harmonics
from gradpot.nn.initialize import linear
from gradpot.nn.radial import BesselBasis, polynomial_cutoff
from gradpot.nn.segment import sum_by

# the sum of two signals of unit second moment, times this, has unit second moment
HALF = sqrt(0.5)
# about 1/√(number of neighbors near enough to matter)
SUM_SCALE = sqrt(1 / 8)
# filters of the distance for each angular function, as published
CIRCULAR = 16
# p of equation 8 of DimeNet
ENVELOPE = 5


class GemNetDT(Model):
    """Atom energies from messages on directed edges and the angles between them.

    Args:
        cutoff: in Å.
        width: features of an atom and of an edge; published with 128.
        n_layers: interaction blocks; published with 4.
        n_radial: Bessel functions; published with 6.
        n_spherical: Legendre polynomials of the angle; published with 7.
        triplet_width: features that pass from edge to edge; published with 64.
        activation: see `nn.activations.activation`, scaled to unit second moment; published with
            `silu`.
        output_activation: of the output blocks.
        forces: "gradient" of the energy, or "direct" as published: summed over edges, not the
            gradient of any energy.
    """

    uses_triplets = True

    def __init__(
        self,
        cutoff: float = 5.0,
        width: int = 64,
        n_layers: int = 3,
        n_radial: int = 6,
        n_spherical: int = 5,
        triplet_width: int = 32,
        activation: str = "silu",
        output_activation: str = "silu",
        forces: str = "gradient",
    ):
        super().__init__(cutoff)
        phi, phi_out = activation_by_name(activation), activation_by_name(output_activation)
        self.direct = forces == "direct"
        self.radial, self.n_spherical = BesselBasis(n_radial, cutoff), n_spherical
        self.embedding = nn.Embedding(N_ELEMENTS, width)
        self.embed_edge = Dense(2 * width + n_radial, width, phi)
        self.circular = linear(n_radial, CIRCULAR * n_spherical, bias=False)
        self.interactions = nn.ModuleList(
            Interaction(width, triplet_width, n_radial, n_spherical, phi) for _ in range(n_layers)
        )
        self.outputs = nn.ModuleList(
            Output(width, n_radial, phi_out, self.direct) for _ in range(n_layers + 1)
        )

    def forward(self, graph: Graph) -> Tensor | tuple[Tensor, Tensor]:
        """Atom energies [n_atoms]; with direct forces, also the forces [n_atoms, 3]."""
        graph = with_triplets(graph)
        center, neighbor = graph.edge_index
        r = graph.pair_vec.norm(dim=-1)  # [n_pairs]
        direction = graph.edge_vec / torch.cat([r, r])[:, None]  # [n_edges, 3]
        # times r_c/π, Bessel functions are of the order of one
        envelope = polynomial_cutoff((r / self.cutoff).clamp(max=1.0), ENVELOPE)
        rbf = self.radial(r) * (envelope * (self.cutoff / pi))[:, None]  # [n_pairs, n_radial]
        triplets = self.triplets(rbf, direction, graph.triplets)
        rbf = torch.cat([rbf, rbf])
        h = self.embedding(graph.numbers)  # [n_atoms, width]
        ends = h.index_select(0, neighbor), h.index_select(0, center)
        m = self.embed_edge(torch.cat([*ends, rbf], dim=-1))  # [n_edges, width]
        parts = [self.outputs[0](m, rbf, center, h.shape[0])]
        for interaction, output in zip(self.interactions, self.outputs[1:], strict=True):
            h, m = interaction(h, m, rbf, triplets, graph.edge_index)
            parts.append(output(m, rbf, center, h.shape[0]))
        energy = torch.stack([energy for energy, _ in parts]).sum(0)
        if not self.direct:
            return energy
        along = torch.stack([force for _, force in parts if force is not None]).sum(0)
        return energy, sum_by(along[:, None] * direction, center, h.shape[0])

    def triplets(self, rbf: Tensor, direction: Tensor, index: Tensor | None) -> "Triplets":
        """The circular basis in two factors; each edge of a triplet receives from the other."""
        assert index is not None
        one, other = index
        u, w = (direction.index_select(0, edge) for edge in index)
        angular = sqrt(4 * pi) * zonal_harmonics((u * w).sum(-1), self.n_spherical)
        radial = self.circular(rbf).view(-1, CIRCULAR, self.n_spherical)
        return Triplets(
            radial=torch.cat([radial, radial]),
            angular=torch.cat([angular, angular]),
            target=torch.cat([one, other]),
            source=torch.cat([other, one]),
        )


class Triplets(NamedTuple):
    """Which edge receives from which, with the basis e(c)_il(r_ca) Y_l(∠cab) (equation 17)."""

    radial: Float[Tensor, "n_edges circular n_spherical"]
    angular: Float[Tensor, "n_passes n_spherical"]
    target: Int[Tensor, "n_passes"]
    """edge ca"""
    source: Int[Tensor, "n_passes"]
    """edge ba"""


class Dense(nn.Module):
    """A linear map without bias, then φ, shifted and scaled to keep zero and unit moment."""

    def __init__(self, n_in: int, n_out: int, activation: Activation):
        super().__init__()
        self.linear = linear(n_in, n_out, bias=False)
        self.activation, self.scale = deepcopy(activation), gain(activation)

    def forward(self, x: Float[Tensor, "n n_in"]) -> Float[Tensor, "n n_out"]:
        zero = self.activation(x.new_zeros(()))
        return self.scale * (self.activation(self.linear(x)) - zero)


class Residual(nn.Module):
    """Figure 2, right: two dense layers with a skip connection."""

    def __init__(self, width: int, activation: Activation):
        super().__init__()
        self.layers = nn.Sequential(*(Dense(width, width, activation) for _ in range(2)))

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        return HALF * (x + self.layers(x))


class TripletInteraction(nn.Module):
    """Figure 2, "T-MP": m_ba, filtered by distance and angle, changes m_ca and m_ac."""

    def __init__(self, width: int, inner: int, n_radial: int, n_spherical: int, phi: Activation):
        super().__init__()
        self.n_spherical = n_spherical
        self.before = Dense(width, width, phi)
        self.filter = linear(n_radial, width, bias=False)
        self.down = Dense(width, inner, phi)
        self.bilinear = linear(CIRCULAR * inner, inner, bias=False)
        self.up_there = Dense(inner, width, phi)
        self.up_back = Dense(inner, width, phi)

    def forward(self, m: Tensor, rbf: Tensor, triplets: Triplets) -> Tensor:
        x = self.down(self.before(m) * self.filter(rbf))
        # Σ_b Y_l(∠cab) x_ba: sum over neighbors first, then apply distances and weights
        received = x.index_select(0, triplets.source)  # [n_passes, inner]
        terms = (
            triplets.angular[:, :, None] * received[:, None, :]
        )  # [n_passes, n_spherical, inner]
        total = SUM_SCALE * sum_by(terms, triplets.target, m.shape[0])
        # a sum of a few terms: a batch of such small matrix products is several times slower
        filtered = (triplets.radial[:, :, :, None] * total[:, None, :, :]).sum(2)
        x = self.bilinear(filtered.flatten(1))
        return HALF * (self.up_there(x) + reverse(self.up_back(x)))


class Interaction(nn.Module):
    """Figure 2, middle: edges exchange messages, update atoms, and are updated by them."""

    def __init__(self, width: int, inner: int, n_radial: int, n_spherical: int, phi: Activation):
        super().__init__()
        self.skip = Dense(width, width, phi)
        self.triplet = TripletInteraction(width, inner, n_radial, n_spherical, phi)
        self.before_skip, self.after_skip = Residual(width, phi), Residual(width, phi)
        self.to_atoms = AtomUpdate(width, n_radial, phi)
        self.concatenate = Dense(3 * width, width, phi)
        self.residual = Residual(width, phi)

    def forward(
        self, h: Tensor, m: Tensor, rbf: Tensor, triplets: Triplets, edge_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        center, neighbor = edge_index
        x = HALF * (self.skip(m) + self.triplet(m, rbf, triplets))
        m = self.after_skip(HALF * (m + self.before_skip(x)))
        h = HALF * (h + self.to_atoms(m, rbf, center, h.shape[0]))
        ends = h.index_select(0, neighbor), h.index_select(0, center)
        return h, HALF * (m + self.residual(self.concatenate(torch.cat([*ends, m], dim=-1))))


class AtomUpdate(nn.Module):
    """Messages, filtered by distance, are summed over neighbors; a small network follows."""

    def __init__(self, width: int, n_radial: int, phi: Activation, n_residual: int = 1):
        super().__init__()
        self.filter = linear(n_radial, width, bias=False)
        residuals = (Residual(width, phi) for _ in range(n_residual))
        self.network = nn.Sequential(Dense(width, width, phi), *residuals)

    def forward(self, m: Tensor, rbf: Tensor, center: Tensor, n_atoms: int | torch.SymInt):
        return self.network(SUM_SCALE * sum_by(m * self.filter(rbf), center, n_atoms))


class Output(nn.Module):
    """Figure 2, left: one block's part of the energy, and of the force along each edge."""

    def __init__(self, width: int, n_radial: int, phi: Activation, direct: bool):
        super().__init__()
        self.atoms, self.energy = AtomUpdate(width, n_radial, phi), linear(width, 1, bias=False)
        self.direct = direct
        if direct:
            self.filter = linear(n_radial, width, bias=False)
            self.edges, self.force = Residual(width, phi), linear(width, 1, bias=False)

    def forward(
        self, m: Tensor, rbf: Tensor, center: Tensor, n_atoms: int | torch.SymInt
    ) -> tuple[Tensor, Tensor | None]:
        energy = self.energy(self.atoms(m, rbf, center, n_atoms)).squeeze(-1)
        if not self.direct:
            return energy, None
        return energy, self.force(self.edges(m * self.filter(rbf))).squeeze(-1)


def reverse(x: Float[Tensor, "n_edges width"]) -> Float[Tensor, "n_edges width"]:
    """The rows of the reversed edges."""
    n_pairs = x.shape[0] // 2
    return torch.cat([x[n_pairs:], x[:n_pairs]])
