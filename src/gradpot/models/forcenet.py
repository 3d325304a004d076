"""ForceNet: messages that see directions (Hu et al., 2021, arXiv 2103.01436).

The network has no built-in symmetry: it learns what a rotation does from structures that are
rotated at random. As published it predicts forces directly; here they are the gradient of its
energy unless `forces="direct"`.

Departures: the radial functions of an edge are Bessel functions, where the paper uses sines of the
distance and of the distance minus the radii of the atoms. Each element has a trained embedding,
where the paper maps nine of its properties. A message goes to zero at the cutoff with two
derivatives; in the paper it jumps. An atom without neighbors has no force.
"""

from copy import deepcopy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradpot.geometry import N_ELEMENTS
from gradpot.graph.graph import Graph
from gradpot.models.base import Model
from gradpot.nn.activations import Activation, gain
from gradpot.nn.activations import activation as activation_by_name
from gradpot.nn.angular import spherical_harmonics
from gradpot.nn.initialize import MLP, linear
from gradpot.nn.norm import NORMS
from gradpot.nn.radial import BesselBasis, envelope
from gradpot.nn.segment import sum_pairs

# spherical harmonics of degrees 0 and 2, and of degree 1
N_EVEN, N_ODD = 6, 3
# gain of the last layer of an update: messages are products of two features, summed over
# neighbors, and would grow with depth
UPDATE_GAIN = 0.2
# gain of the layers that read the functions of an edge, which are small
EDGE_GAIN = 3.0


class ForceNet(Model):
    """Atom energies, and with `forces="direct"` also forces, from features and edge vectors.

    Args:
        cutoff: in Å.
        width: features of an atom, and of a filter; published with 512.
        n_layers: interaction blocks; published with 5.
        n_radial: Bessel functions, each times the nine spherical harmonics of degree 0, 1 and 2.
        activation: see `nn.activations.activation`; published with swish, `silu`.
        norm: "none", or "batch" as published, in the networks that update atoms and give forces.
        forces: "gradient" of the energy, or "direct" as published: not the gradient of any energy.
    """

    invariant = False

    def __init__(
        self,
        cutoff: float = 5.0,
        width: int = 64,
        n_layers: int = 3,
        n_radial: int = 8,
        activation: str = "silu",
        norm: str = "none",
        forces: str = "gradient",
    ):
        super().__init__(cutoff)
        phi = activation_by_name(activation)
        self.width, self.direct = width, forces == "direct"
        self.embedding = nn.Embedding(N_ELEMENTS, width)
        self.basis = BesselBasis(n_radial, cutoff)
        self.even = linear(N_EVEN * n_radial, n_layers * width, EDGE_GAIN, bias=False)
        self.odd = linear(N_ODD * n_radial, n_layers * width, EDGE_GAIN, bias=False)
        self.interactions = nn.ModuleList(Interaction(width, phi, norm) for _ in range(n_layers))
        self.last = linear(width, width)
        self.activation = deepcopy(phi)
        self.energy = linear(width, 1, gain(phi))
        if self.direct:
            self.forces = Update(width, 3, phi, norm)

    def forward(self, graph: Graph) -> Tensor | tuple[Tensor, Tensor]:
        """Atom energies [n_atoms]; with direct forces, also the forces [n_atoms, 3]."""
        r = graph.pair_vec.norm(dim=-1)  # [n_pairs]
        cutoff = envelope(r, self.cutoff)  # [n_pairs, 1]
        h = self.embedding(graph.numbers)  # [n_atoms, width]
        for interaction, edges in zip(self.interactions, self.edges(graph, r), strict=True):
            h = h + interaction(h, edges, cutoff, graph.pair_index)
        h = self.activation(self.last(h))
        atom_energy = self.energy(h).squeeze(-1)
        if not self.direct:
            return atom_energy
        n_near = sum_pairs(cutoff, cutoff, graph.pair_index, h.shape[0])  # [n_atoms, 1]
        return atom_energy, self.forces(h) * (n_near / (1.0 + n_near))

    def edges(self, graph: Graph, r: Float[Tensor, "n_pairs"]) -> list[tuple[Tensor, Tensor]]:
        """Inputs of each layer's filter, [n_pairs, width], seen from the center and the neighbor.

        The basis "sphall" of the paper: harmonics of the direction times functions of the
        distance. Seen from the other end, harmonics of odd degree change sign.
        """
        radial = self.basis(r)[:, None, :]  # [n_pairs, 1, n_radial]
        zeroth, first, second = spherical_harmonics(graph.pair_vec / r[:, None], 2)
        even, odd = (
            layer((angular[:, :, None] * radial).flatten(1)).split(self.width, dim=-1)
            for layer, angular in (
                (self.even, torch.cat([zeroth, second], dim=1)),
                (self.odd, first),
            )
        )
        return [(e + o, e - o) for e, o in zip(even, odd, strict=True)]


class Interaction(nn.Module):
    """Conditional filter convolution: m_t = μ ⊙ f(h_t) + Σ_s F(e_st, h_s, h_t) ⊙ f(h_s), updated.

    The first layer of the filter network F is linear in the edge and in both atoms. The products
    with atoms are computed per atom.
    """

    def __init__(self, width: int, activation: Activation, norm: str):
        super().__init__()
        self.own = linear(width, width)
        self.other = linear(width, width, bias=False)
        self.filter = MLP([width, width, width], activation)
        self.before = linear(width, width)
        self.center = nn.Parameter(torch.empty(width).uniform_(-1.0, 1.0))
        self.update = Update(width, width, activation, norm)
        self.activation = deepcopy(activation)

    def forward(
        self,
        h: Float[Tensor, "n_atoms width"],
        edges: tuple[Float[Tensor, "n_pairs width"], Float[Tensor, "n_pairs width"]],
        cutoff: Float[Tensor, "n_pairs 1"],
        pair_index: Int[Tensor, "2 n_pairs"],
    ) -> Float[Tensor, "n_atoms width"]:
        center, neighbor = pair_index
        own, other, before = self.own(h), self.other(h), self.before(h)  # [n_atoms, width] each
        forth = own.index_select(0, center) + other.index_select(0, neighbor) + edges[0]
        back = own.index_select(0, neighbor) + other.index_select(0, center) + edges[1]
        weights = self.filter(self.activation(torch.cat([forth, back])))  # [2 n_pairs, width]
        to_center, to_neighbor = weights.unflatten(0, (2, cutoff.shape[0])) * cutoff
        total = sum_pairs(
            before.index_select(0, neighbor) * to_center,
            before.index_select(0, center) * to_neighbor,
            pair_index,
            h.shape[0],
        )
        return self.update(total + self.center * before)


class Update(nn.Module):
    """Linear, norm, activation, linear: for an atom's message, and to decode forces."""

    def __init__(self, width: int, n_out: int, activation: Activation, norm: str):
        super().__init__()
        self.first, self.norm = linear(width, width), NORMS[norm](width)
        self.second = linear(width, n_out, UPDATE_GAIN * gain(activation))
        self.activation = deepcopy(activation)

    def forward(self, x: Float[Tensor, "n_atoms width"]) -> Float[Tensor, "n_atoms n_out"]:
        return self.second(self.activation(self.norm(self.first(x))[0]))
