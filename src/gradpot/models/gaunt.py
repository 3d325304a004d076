"""Gaunt: features that are functions on the sphere, multiplied point by point.

In each channel, the feature of an atom is a function of direction, f(Ω) = s + Σ_lm x_lm Y_lm(Ω) for
1 ≤ l ≤ L. Functions are multiplied on a grid of directions and expanded again: the Gaunt tensor
product (Luo, Chen, Krishnapriyan, ICLR 2024, arXiv 2401.10216), all couplings of natural parity at
once. Products of two and three functions of one atom are three- and four-body terms, as in MACE
(Batatia et al., NeurIPS 2022, arXiv 2206.07697). The quadrature is exact for them, so the network
is equivariant to rounding.

Messages cost what those of PaiNN do (arXiv 2102.03150): nothing is coupled per edge. What is new is
that a message depends on the neighbor's function along the bond, which is the angle there.

Departures: there is no Clebsch-Gordan coupling, and no coupling of unnatural parity (such as a
cross product). The products are gated and update the features, where MACE reads energies off them.
"""

from collections.abc import Sequence
from copy import deepcopy
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradpot.geometry import N_ELEMENTS
from gradpot.graph.graph import Graph
from gradpot.models.base import Model
from gradpot.nn.activations import Activation, gain
from gradpot.nn.activations import activation as activation_by_name
from gradpot.nn.angular import SphereGrid, spherical_harmonics
from gradpot.nn.initialize import MLP, branch_scale, linear, unit_moments
from gradpot.nn.radial import FILTERS, BesselBasis
from gradpot.nn.segment import sum_pairs

# rms of the filters at the start
FILTER_SCALE = 0.5


class Gaunt(Model):
    """Atom energies from functions on the sphere.

    Args:
        cutoff: in Å.
        width: channels of an atom.
        n_layers: message and update blocks.
        degree: L, the largest degree of the functions: 1, 2 or 3.
        order: factors of the largest product: 2 (three-body terms) or 3 (four-body).
        product_width: channels in which functions are multiplied.
        n_radial: Bessel functions.
        activation: see `nn.activations.activation`.
        filter: "spline" or "mlp", see `nn.radial`.
    """

    sizes = MappingProxyType(
        {
            "small": {"width": 32, "product_width": 16},
            "medium": {},
            "large": {"width": 128, "product_width": 48},
        }
    )

    def __init__(
        self,
        cutoff: float = 5.0,
        width: int = 64,
        n_layers: int = 2,
        degree: int = 2,
        order: int = 3,
        product_width: int = 32,
        n_radial: int = 5,
        activation: str = "silu",
        filter: str = "spline",
    ):
        super().__init__(cutoff)
        self.degree = degree
        phi = activation_by_name(activation)
        self.embedding = nn.Embedding(N_ELEMENTS, width)
        # before the first message, functions are constant: only their scalars are sent
        parts = [degree + 1] + [4 * degree + 2] * (n_layers - 1)
        basis = BesselBasis(n_radial, cutoff)
        r = torch.linspace(0.0, cutoff, 64)
        networks = [
            unit_moments(linear(n_radial, n * width), basis(r), FILTER_SCALE) for n in parts
        ]
        self.filters = FILTERS[filter](basis, networks, width, cutoff)
        scale, grid = branch_scale(n_layers), SphereGrid(degree, (order + 1) * degree)
        self.messages = nn.ModuleList(
            Message(width, degree, phi, scale, first=i == 0) for i in range(n_layers)
        )
        self.updates = nn.ModuleList(
            Update(width, product_width, order, grid, phi, scale, last=i == n_layers - 1)
            for i in range(n_layers)
        )
        self.readout = MLP([width, width // 2, 1], phi)

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        r = graph.pair_vec.norm(dim=-1)  # [n_pairs]
        harmonics = [
            y.T.unsqueeze(-1)  # [2l + 1, n_pairs, 1]
            for y in spherical_harmonics(graph.pair_vec / r[:, None], self.degree)
        ]
        s = self.embedding(graph.numbers)  # [n_atoms, width]
        x = [s.new_zeros((2 * l + 1, *s.shape)) for l in range(1, self.degree + 1)]
        for message, update, filters in zip(
            self.messages, self.updates, self.filters(r), strict=True
        ):
            s, x = message(s, x, filters, harmonics, graph.pair_index)
            s, x = update(s, x)
        return self.readout(s).squeeze(-1)


class Message(nn.Module):
    """What the neighbors add to the function of an atom.

    With the harmonics Y of the direction r̂ from atom i to its neighbor j, networks φ of the
    neighbor's scalars, and filters W, P, V, U of the distance:

        x_i,lm += Σ_j [φ_l(s_j) W_l + g_ij U_l] Y_lm(r̂) + Σ_j ψ_l(s_j) P_l x_j,lm
        g_ij = Σ_l≥1 V_l Σ_m x_j,lm Y_lm(−r̂)

    Scalars are l = 0, which P and ψ lack. g is the neighbor's function in the direction of the
    atom. The filters of a pair are the same both ways; harmonics of odd degree change sign.

    Args:
        first: whether the functions are still constant, so that only φ W Y is there.
        scale: of what it adds, at the start.
    """

    def __init__(self, width: int, degree: int, activation: Activation, scale: float, first: bool):
        super().__init__()
        self.width, self.degree, self.first = width, degree, first
        n_parts = degree + 1 if first else 2 * degree + 1
        self.phi = MLP([width, width, n_parts * width], activation, scale)

    def forward(
        self,
        s: Float[Tensor, "n_atoms width"],
        x: Sequence[Float[Tensor, "_ n_atoms width"]],
        filters: Sequence[Float[Tensor, "n_pairs width"]],
        harmonics: Sequence[Float[Tensor, "_ n_pairs 1"]],
        pair_index: Int[Tensor, "2 n_pairs"],
    ) -> tuple[Tensor, list[Tensor]]:
        phi = self.phi(s).split(self.width, dim=-1)
        both = [
            self._one_way(phi, x, filters, harmonics, source, sign)
            for source, sign in ((pair_index[1], 1), (pair_index[0], -1))
        ]
        n_atoms, dims = s.shape[0], (0, *[1] * self.degree)
        scalars, *functions = [
            sum_pairs(forth, back, pair_index, n_atoms, dim)
            for forth, back, dim in zip(*both, dims, strict=True)
        ]
        return s + scalars, [f + more for f, more in zip(x, functions, strict=True)]

    def _one_way(
        self,
        phi: Sequence[Tensor],
        x: Sequence[Tensor],
        filters: Sequence[Tensor],
        harmonics: Sequence[Tensor],
        source: Int[Tensor, "n_pairs"],
        sign: int,
    ) -> list[Tensor]:
        """Messages from `source`, for each degree; `sign` is −1 against the pairs' vectors."""
        degrees = range(1, self.degree + 1)
        w, p, v, u = _split(filters, self.degree)
        weights = [phi[l].index_select(0, source) * w[l] for l in (0, *degrees)]
        if self.first:
            return [weights[0], *(sign**l * harmonics[l] * weights[l] for l in degrees)]
        functions = [f.index_select(1, source) for f in x]
        along = [
            (-sign) ** l * v[l - 1] * (harmonics[l] * functions[l - 1]).sum(dim=0) for l in degrees
        ]
        seen = sum(along[1:], along[0])  # g_ij, [n_pairs, width]
        weights = [weight + seen * u[l] for l, weight in enumerate(weights)]
        messages = [weights[0]]
        for l in degrees:
            kept = phi[self.degree + l].index_select(0, source) * p[l - 1]
            messages.append(sign**l * harmonics[l] * weights[l] + kept * functions[l - 1])
        return messages


class Update(nn.Module):
    """Products of an atom's functions, in `product_width` channels, and a gate for each degree.

    u, v and w are linear mixtures of the channels, one for each factor. u·v and u·v·w are expanded
    up to degree L. Their scalars enter the network that gives the gates.

    Args:
        scale: of what it adds, at the start.
        last: whether only the scalars are read afterwards; then no functions are returned.
    """

    def __init__(
        self,
        width: int,
        product_width: int,
        order: int,
        grid: SphereGrid,
        activation: Activation,
        scale: float,
        last: bool,
    ):
        super().__init__()
        self.width, self.product_width, self.grid, self.last = width, product_width, grid, last
        n_products = (order - 1) * product_width
        degrees = range(1, grid.degree + 1)
        self.mix = nn.ModuleList(
            linear(width, order * product_width, bias=False) for _ in (0, *degrees)
        )
        n_gates = 0 if last else grid.degree
        self.back = nn.ModuleList(
            linear(n_products, width, scale, bias=False) for _ in range(n_gates)
        )
        self.keep = nn.ModuleList(linear(width, width, scale, bias=False) for _ in range(n_gates))
        self.scalars = linear(n_products, width, scale)
        # one layer of [s, products], as two: torch 2.13 compiles the concatenation wrongly
        self.own, self.near = linear(width, width), linear(n_products, width, bias=False)
        self.gates = linear(width, (1 + n_gates) * width, scale * gain(activation))
        self.activation = deepcopy(activation)

    def forward(
        self, s: Float[Tensor, "n_atoms width"], x: Sequence[Float[Tensor, "_ n_atoms width"]]
    ) -> tuple[Tensor, list[Tensor]]:
        mixed = [mix(f) for mix, f in zip(self.mix, [s[None], *x], strict=True)]
        factors = self.grid.values(torch.cat(mixed)).split(self.product_width, dim=-1)
        products = [factors[0] * factors[1]]  # [n_points, n_atoms, product_width] each
        for factor in factors[2:]:
            products.append(products[-1] * factor)
        product = torch.cat(products, dim=-1)
        expanded = self.grid.mean(product)[None] if self.last else self.grid.expand(product)
        invariant = expanded[0]  # [n_atoms, n_products]
        hidden = self.activation(self.own(s) + self.near(invariant))
        added, *gates = self.gates(hidden).split(self.width, dim=-1)
        s = s + added + self.scalars(invariant)
        new = []  # stays empty in the last layer
        for l, gate in enumerate(gates, start=1):
            change = self.back[l - 1](expanded[l * l : (l + 1) ** 2])
            new.append(x[l - 1] + gate * (change + self.keep[l - 1](x[l - 1])))
        return s, new


def _split(filters: Sequence[Tensor], degree: int) -> list[Sequence[Tensor]]:
    """The filters W (degree + 1), P (degree), V (degree) and U (degree + 1) of a layer."""
    ends = (degree + 1, 2 * degree + 1, 3 * degree + 1, 4 * degree + 2)
    return [filters[start:end] for start, end in zip((0, *ends), ends, strict=False)]
