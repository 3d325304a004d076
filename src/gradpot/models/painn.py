"""PaiNN: equivariant messages of scalars and vectors (Schütt et al., ICML 2021, arXiv 2102.03150).

Departure: the update block sees v·v of a vector feature instead of its norm √(v·v). Vector features
vanish by symmetry at the sites of diamond, fcc and rock salt and at the carbon of CH4. There the
norm has a cone, and so has the energy: force constants depend on the displacement from which they
are computed. `vector_norm="published"` keeps the cone, for comparison.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradpot.geometry import N_ELEMENTS
from gradpot.graph.graph import Graph
from gradpot.models.base import Model
from gradpot.nn.activations import Activation, gain
from gradpot.nn.activations import activation as activation_by_name
from gradpot.nn.initialize import MLP, branch_scale, linear, unit_moments
from gradpot.nn.radial import FILTERS, BesselBasis
from gradpot.nn.segment import sum_pairs

# rms of the filters at the start; for vectors, a component of a direction adds a factor of 1/√3
FILTER_SCALE = 0.5


def square_of(vector: Float[Tensor, "3 n_atoms width"]) -> Float[Tensor, "n_atoms width"]:
    """v·v, a polynomial: it has derivatives of every order."""
    return vector.square().sum(dim=0)


def norm_of(vector: Float[Tensor, "3 n_atoms width"]) -> Float[Tensor, "n_atoms width"]:
    """√(v·v), with a constant that only keeps the gradient finite at v = 0: a cone."""
    return (vector.square().sum(dim=0) + 1e-8).sqrt()


VECTOR_NORMS: dict[str, Callable[[Tensor], Tensor]] = {"smooth": square_of, "published": norm_of}


class PaiNN(Model):
    """Atom energies from scalar and vector features.

    Args:
        cutoff: in Å.
        width: scalar features of an atom, and as many vectors.
        n_layers: message and update blocks.
        n_radial: Bessel functions; published with 20. Fewer make smoother filters: with 950 frames
            of ethanol, force errors are a third smaller with 8 than with 20, which overfit.
        activation: see `nn.activations.activation`; published with `silu`.
        filter: "mlp" as published (one linear layer, equation 3), or "spline" for the same filter
            interpolated (`nn.radial`).
        vector_norm: "smooth" (v·v), or "published" (√(v·v), a cone at symmetric sites).
    """

    def __init__(
        self,
        cutoff: float = 5.0,
        width: int = 64,
        n_layers: int = 3,
        n_radial: int = 5,
        activation: str = "silu",
        filter: str = "spline",
        vector_norm: str = "smooth",
    ):
        super().__init__(cutoff)
        self.smooth = vector_norm == "smooth"
        phi = activation_by_name(activation)
        self.embedding = nn.Embedding(N_ELEMENTS, width)
        # vectors are zero before the first message, whose filter needs no part that multiplies them
        parts = [2] + [3] * (n_layers - 1)
        basis = BesselBasis(n_radial, cutoff)
        r = torch.linspace(0.0, cutoff, 64)
        networks = [
            unit_moments(linear(n_radial, n * width), basis(r), FILTER_SCALE) for n in parts
        ]
        self.filters = FILTERS[filter](basis, networks, width, cutoff)
        scale, norm = branch_scale(n_layers), VECTOR_NORMS[vector_norm]
        self.messages = nn.ModuleList(Message(width, n, phi, scale) for n in parts)
        self.updates = nn.ModuleList(Update(width, phi, scale, norm) for _ in parts)
        self.readout = MLP([width, width // 2, 1], phi)

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        r = graph.pair_vec.norm(dim=-1)  # [n_pairs]
        direction = graph.pair_vec / r[:, None]  # [n_pairs, 3]
        s = self.embedding(graph.numbers)  # [n_atoms, width]
        v = s.new_zeros((3, *s.shape))  # [3, n_atoms, width]
        for message, update, filters in zip(
            self.messages, self.updates, self.filters(r), strict=True
        ):
            s, v = message(s, v, filters, direction, graph.pair_index)
            s, v = update(s, v)
        return self.readout(s).squeeze(-1)


class Message(nn.Module):
    """Figure 2b, equations 7 and 8: what the neighbors add to scalars and vectors.

    The filters of a pair are the same in both directions; its unit vector changes sign.

    Args:
        n_parts: 3, or 2 for the first block, where the neighbors' vectors are zero.
        scale: of what it adds, at the start.
    """

    def __init__(self, width: int, n_parts: int, activation: Activation, scale: float):
        super().__init__()
        self.width = width
        self.phi = MLP([width, width, n_parts * width], activation, scale)

    def forward(
        self,
        s: Float[Tensor, "n_atoms width"],
        v: Float[Tensor, "3 n_atoms width"],
        filters: Sequence[Float[Tensor, "n_pairs width"]],
        direction: Float[Tensor, "n_pairs 3"],
        pair_index: Int[Tensor, "2 n_pairs"],
    ) -> tuple[Tensor, Tensor]:
        center, neighbor = pair_index
        phi = self.phi(s).split(self.width, dim=-1)
        # from the neighbor to the center, and back: n_parts of [n_pairs, width] each
        forth = [p.index_select(0, neighbor) * w for p, w in zip(phi, filters, strict=True)]
        back = [p.index_select(0, center) * w for p, w in zip(phi, filters, strict=True)]
        vectors = []
        for d, v_x in zip(direction.unsqueeze(-1).unbind(1), v.unbind(0), strict=True):
            to_center, to_neighbor = d * forth[1], -d * back[1]  # [n_pairs, width]
            if len(filters) == 3:
                to_center = to_center + v_x.index_select(0, neighbor) * forth[2]
                to_neighbor = to_neighbor + v_x.index_select(0, center) * back[2]
            vectors.append(sum_pairs(to_center, to_neighbor, pair_index, s.shape[0]))
        return s + sum_pairs(forth[0], back[0], pair_index, s.shape[0]), v + torch.stack(vectors)


class Update(nn.Module):
    """Figure 2c, equations 9 and 10: scalars and vectors of one atom mix.

    Args:
        scale: of what it adds, at the start.
        norm: one of `VECTOR_NORMS`.
    """

    def __init__(
        self,
        width: int,
        activation: Activation,
        scale: float,
        norm: Callable[[Tensor], Tensor] = square_of,
    ):
        super().__init__()
        self.width, self.norm = width, norm
        self.mix = linear(width, 2 * width, bias=False)
        self.first = linear(2 * width, width)
        self.second = linear(width, 3 * width, scale * gain(activation))
        self.activation = deepcopy(activation)

    def forward(
        self, s: Float[Tensor, "n_atoms width"], v: Float[Tensor, "3 n_atoms width"]
    ) -> tuple[Tensor, Tensor]:
        u_v, v_v = self.mix(v).split(self.width, dim=-1)  # [3, n_atoms, width] each
        norm = self.norm(v_v)  # [n_atoms, width]
        a = self.second(self.activation(self.first(torch.cat([s, norm], dim=-1))))
        a_ss, a_sv, a_vv = a.split(self.width, dim=-1)
        return s + a_ss + a_sv * (u_v * v_v).sum(dim=0), v + a_vv * u_v
