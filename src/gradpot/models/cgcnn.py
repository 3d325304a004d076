"""CGCNN: gated convolutions (Xie and Grossman, PRL 120, 145301, 2018; arXiv 1710.10324).

Departures: the energies of atoms are added, where the paper averages the features of atoms. All
neighbors within the cutoff count, where the paper uses the twelve nearest. A message goes to zero
at the cutoff; in the paper it jumps, and energy and forces with it.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradpot.geometry import N_ELEMENTS
from gradpot.graph.graph import Graph
from gradpot.models.base import Model
from gradpot.nn.activations import Activation
from gradpot.nn.activations import activation as activation_by_name
from gradpot.nn.initialize import MLP, linear
from gradpot.nn.norm import NORMS
from gradpot.nn.radial import FILTERS, GaussianBasis, envelope
from gradpot.nn.segment import sum_pairs

# start of the gates' bias b_f: σ(−2) = 0.12. Open gates let sums over neighbors grow with depth
CLOSED_GATE = -2.0


class CGCNN(Model):
    """Atom energies from atom features and distances.

    Args:
        cutoff: in Å.
        width: features of an atom.
        n_layers: convolutions.
        n_radial: Gaussians from 0 to the cutoff, the bond features u_ij; published with 41 from 0
            to 8 Å. The gates are linear in them, so they need many: after 18,000 steps on 950
            frames of ethanol the force error is 34 meV/Å with 20, and 24 with 40.
        activation: see `nn.activations.activation`; published with `softplus`.
        norm: "none", or "batch" as published, for the gates' inputs and the sum of messages.
        filter: "mlp" evaluates the part of the gates that is linear in u_ij for every pair;
            "spline" interpolates it (`nn.radial`).
    """

    def __init__(
        self,
        cutoff: float = 5.0,
        width: int = 64,
        n_layers: int = 3,
        n_radial: int = 40,
        activation: str = "softplus",
        norm: str = "none",
        filter: str = "spline",
    ):
        super().__init__(cutoff)
        phi = activation_by_name(activation)
        self.embedding = nn.Embedding(N_ELEMENTS, width)
        networks = [linear(n_radial, 2 * width, bias=False) for _ in range(n_layers)]
        self.filters = FILTERS[filter](GaussianBasis(n_radial, cutoff), networks, width, cutoff)
        self.convolutions = nn.ModuleList(Convolution(width, phi, norm) for _ in range(n_layers))
        self.readout = MLP([width, width, 1], phi)

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        r = graph.pair_vec.norm(dim=-1)  # [n_pairs]
        cutoff = envelope(r, self.cutoff)  # [n_pairs, 1]
        v = self.embedding(graph.numbers)  # [n_atoms, width]
        for convolution, bond in zip(self.convolutions, self.filters(r), strict=True):
            v = convolution(v, bond, cutoff, graph.pair_index)
        return self.readout(v).squeeze(-1)


class Convolution(nn.Module):
    """Equation 5: v_i + Σ_j σ(z_ij W_f + b_f) ⊙ g(z_ij W_s + b_s), z_ij = v_i ⊕ v_j ⊕ u_ij.

    z_ij W is a sum of three parts. Those of v_i and v_j are matrix products per atom, and that of
    u_ij is a filter of the distance, so edges only add.
    """

    def __init__(self, width: int, activation: Activation, norm: str):
        super().__init__()
        self.width = width
        self.own = linear(width, 2 * width)
        self.other = linear(width, 2 * width, bias=False)
        nn.init.constant_(self.own.bias[:width], CLOSED_GATE)
        self.gate_norm, self.core_norm = NORMS[norm](width), NORMS[norm](width)
        self.sum_norm = NORMS[norm](width)
        self.activation = deepcopy(activation)

    def forward(
        self,
        v: Float[Tensor, "n_atoms width"],
        bond: Sequence[Float[Tensor, "n_pairs width"]],
        cutoff: Float[Tensor, "n_pairs 1"],
        pair_index: Int[Tensor, "2 n_pairs"],
    ) -> Float[Tensor, "n_atoms width"]:
        center, neighbor = pair_index
        # parts for the gate and for the core, [n_atoms, width] each
        own, other = (layer(v).split(self.width, dim=-1) for layer in (self.own, self.other))
        # each seen from the center and from the neighbor, [n_pairs, width]
        gates, cores = (
            norm(
                own[k].index_select(0, center) + other[k].index_select(0, neighbor) + bond[k],
                own[k].index_select(0, neighbor) + other[k].index_select(0, center) + bond[k],
            )
            for k, norm in enumerate((self.gate_norm, self.core_norm))
        )
        to_center, to_neighbor = (
            torch.sigmoid(gate) * self.activation(core) * cutoff
            for gate, core in zip(gates, cores, strict=True)
        )
        total = sum_pairs(to_center, to_neighbor, pair_index, v.shape[0])
        return v + self.sum_norm(total)[0]
