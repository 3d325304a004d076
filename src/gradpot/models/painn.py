"""PaiNN: equivariant messages of scalars and vectors (Schütt et al., ICML 2021, arXiv 2102.03150).

Vectors are kept as [3, n_atoms, width]. They are zero before the first message, so its filter
has no part that multiplies them.
"""

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradpot.graph.graph import Graph
from gradpot.nn.activations import Activation, gain
from gradpot.nn.activations import activation as activation_by_name
from gradpot.nn.initialize import MLP, branch_scale, linear, unit_moments
from gradpot.nn.radial import FILTERS, BesselBasis
from gradpot.nn.segment import sum_pairs

N_ELEMENTS = 119
# of filters at the start: for vectors, a component of a direction brings another 1/√3
FILTER_SCALE = 0.5


class PaiNN(nn.Module):
    """Atom energies from scalar and vector features.

    Args:
        cutoff: in Å.
        width: features of an atom (as many scalars as vectors).
        n_layers: message and update blocks.
        n_radial: Bessel functions; published with 20. Fewer make smoother filters: with 950 frames
            of ethanol, 8 leave a third less force error than 20, which learn the frames by heart.
        activation: see `nn.activations.activation`; published with `silu`.
        filter: "mlp" as published (one linear layer, equation 3), "spline" for the same filter
            interpolated (`nn.radial`).
    """

    def __init__(
        self,
        cutoff: float = 5.0,
        width: int = 64,
        n_layers: int = 3,
        n_radial: int = 5,
        activation: str = "silu",
        filter: str = "spline",
    ):
        super().__init__()
        phi = activation_by_name(activation)
        self.cutoff = cutoff
        self.embedding = nn.Embedding(N_ELEMENTS, width)
        parts = [2] + [3] * (n_layers - 1)
        basis = BesselBasis(n_radial, cutoff)
        r = torch.linspace(0.0, cutoff, 64)
        networks = [
            unit_moments(linear(n_radial, n * width), basis(r), FILTER_SCALE) for n in parts
        ]
        self.filters = FILTERS[filter](basis, networks, width, cutoff)
        scale = branch_scale(n_layers)
        self.messages = nn.ModuleList(Message(width, n, phi, scale) for n in parts)
        self.updates = nn.ModuleList(Update(width, phi, scale) for _ in parts)
        self.readout = MLP([width, width // 2, 1], phi)

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        r = graph.pair_vec.norm(dim=-1)
        direction = graph.pair_vec / r[:, None]
        s = self.embedding(graph.numbers)
        v = s.new_zeros((3, *s.shape))
        for message, update, weights in zip(
            self.messages, self.updates, self.filters(r), strict=True
        ):
            s, v = message(s, v, weights, direction, graph.pair_index)
            s, v = update(s, v)
        return self.readout(s).squeeze(-1)


class Message(nn.Module):
    """Figure 2b, equations 7 and 8: what the neighbors add to scalars and vectors.

    A pair's filters are the same both ways, its direction changes sign.

    Args:
        n_parts: 3, or 2 for the first block, where the neighbors' vectors are zero.
        scale: of what it adds, at the start.
    """

    def __init__(self, width: int, n_parts: int, activation: Activation, scale: float):
        super().__init__()
        self.width = width
        self.phi = MLP([width, width, n_parts * width], activation, scale)

    def forward(self, s, v, weights, direction, pair_index) -> tuple[Tensor, Tensor]:
        center, neighbor = pair_index
        phi = self.phi(s).split(self.width, dim=-1)
        # what comes from the neighbor and goes to the center, and what goes back
        there = [p.index_select(0, neighbor) * w for p, w in zip(phi, weights, strict=True)]
        back = [p.index_select(0, center) * w for p, w in zip(phi, weights, strict=True)]
        vectors = []
        for d, v_x in zip(direction.unsqueeze(-1).unbind(1), v.unbind(0), strict=True):
            to_center, to_neighbor = d * there[1], -d * back[1]
            if len(weights) == 3:
                to_center = to_center + v_x.index_select(0, neighbor) * there[2]
                to_neighbor = to_neighbor + v_x.index_select(0, center) * back[2]
            vectors.append(sum_pairs(to_center, to_neighbor, pair_index, s.shape[0]))
        return s + sum_pairs(there[0], back[0], pair_index, s.shape[0]), v + torch.stack(vectors)


class Update(nn.Module):
    """Figure 2c, equations 9 and 10: scalars and vectors of one atom mix.

    Args:
        scale: of what it adds, at the start.
    """

    def __init__(self, width: int, activation: Activation, scale: float):
        super().__init__()
        self.width = width
        self.mix = linear(width, 2 * width, bias=False)
        self.first = linear(2 * width, width)
        self.second = linear(width, 3 * width, scale * gain(activation))
        self.activation = deepcopy(activation)

    def forward(self, s, v) -> tuple[Tensor, Tensor]:
        u_v, v_v = self.mix(v).split(self.width, dim=-1)
        # the small constant keeps the gradient of the norm finite where a vector is zero
        norm = (v_v.square().sum(dim=0) + 1e-8).sqrt()
        a = self.second(self.activation(self.first(torch.cat([s, norm], dim=-1))))
        a_ss, a_sv, a_vv = a.split(self.width, dim=-1)
        return s + a_ss + a_sv * (u_v * v_v).sum(dim=0), v + a_vv * u_v
