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
        direction = graph.pair_vec / r[:, None]  # [n_pairs, 3]
        harmonics = [
            list(y.unsqueeze(-1).unbind(1))  # 2l + 1 of [n_pairs, 1]
            for y in spherical_harmonics(direction, self.degree)
        ]
        s = self.embedding(graph.numbers)  # [n_atoms, width]
        x = s.new_zeros(((self.degree + 1) ** 2 - 1, *s.shape))  # [n_harmonics − 1, n_atoms, width]
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
        x: Float[Tensor, "n_harmonics n_atoms width"],
        filters: Sequence[Float[Tensor, "n_pairs width"]],
        harmonics: Sequence[Sequence[Float[Tensor, "n_pairs 1"]]],
        pair_index: Int[Tensor, "2 n_pairs"],
    ) -> tuple[Tensor, Tensor]:
        phi = self.phi(s).split(self.width, dim=-1)
        to_center, to_neighbor = (
            self._one_way(phi, x, filters, harmonics, source, sign)
            for source, sign in ((pair_index[1], 1), (pair_index[0], -1))
        )
        n_atoms = s.shape[0]
        scalars, *functions = [
            sum_pairs(*messages, pair_index, n_atoms)
            for messages in zip(to_center, to_neighbor, strict=True)
        ]
        return s + scalars, x + torch.stack(functions)

    def _one_way(
        self,
        phi: Sequence[Tensor],
        x: Tensor,
        filters: Sequence[Tensor],
        harmonics: Sequence[Sequence[Tensor]],
        source: Int[Tensor, "n_pairs"],
        sign: int,
    ) -> list[Float[Tensor, "n_pairs width"]]:
        """Messages from `source`, for each harmonic; `sign` is −1 against the pairs' vectors."""
        degrees = range(self.degree + 1)
        w, p, v, u = _split(filters, self.degree)
        weights = [phi[l].index_select(0, source) * w[l] for l in degrees]
        carried: list[Tensor] = []
        if not self.first:
            functions = [part.index_select(0, source) for part in x.unbind(0)]
            seen = 0.0  # g_ij
            for l in degrees[1:]:
                parts = functions[l * l - 1 : (l + 1) ** 2 - 1]
                terms = [y * part for y, part in zip(harmonics[l], parts, strict=True)]
                seen = seen + (-sign) ** l * v[l - 1] * sum(terms[1:], terms[0])
                kept = phi[self.degree + l].index_select(0, source) * p[l - 1]
                carried += [kept * part for part in parts]
            weights = [weight + seen * u[l] for l, weight in enumerate(weights)]
        sent = [weights[0]]
        sent += [sign**l * y * weights[l] for l in degrees[1:] for y in harmonics[l]]
        return sent if self.first else [sent[0], *(a + b for a, b in zip(sent[1:], carried))]


class Update(nn.Module):
    """Products of an atom's functions, in `product_width` channels, and a gate for each degree.

    u, v and w are linear mixtures of the channels, one for each factor. u·v and u·v·w are expanded
    up to degree L. Their scalars enter the network that gives the gates.

    Args:
        scale: of what it adds, at the start.
        last: whether only the scalars are read afterwards; the functions stay as they are.
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
        self, s: Float[Tensor, "n_atoms width"], x: Float[Tensor, "n_harmonics n_atoms width"]
    ) -> tuple[Tensor, Tensor]:
        degrees = [x[l * l - 1 : (l + 1) ** 2 - 1] for l in range(1, self.grid.degree + 1)]
        mixed = [mix(f) for mix, f in zip(self.mix, [s[None], *degrees], strict=True)]
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
        if self.last:
            return s, x
        new = []
        for l, gate in enumerate(gates, start=1):
            change = self.back[l - 1](expanded[l * l : (l + 1) ** 2])
            new.append(degrees[l - 1] + gate * (change + self.keep[l - 1](degrees[l - 1])))
        return s, torch.cat(new)


def _split(filters: Sequence[Tensor], degree: int) -> list[Sequence[Tensor]]:
    """The filters W (degree + 1), P (degree), V (degree) and U (degree + 1) of a layer."""
    ends = (degree + 1, 2 * degree + 1, 3 * degree + 1, 4 * degree + 2)
    return [filters[start:end] for start, end in zip((0, *ends), ends, strict=False)]
