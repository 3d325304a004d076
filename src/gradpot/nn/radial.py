"""Functions of a distance: bases, cutoffs, and the filters W(r) of continuous convolutions.

A filter is a network with one input that is evaluated for every pair and differentiated twice. The
spline form evaluates it only at the control points of a uniform cubic B-spline, and every pair
interpolates between four of them. The result is C², compact and needs no exponential per pair.
Energy and forces stay consistent to rounding, because the spline *is* the model.
"""

from collections.abc import Sequence
from math import pi

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

# exp(−27) = 2e-12: far smaller values would be denormal numbers, which are slow on many CPUs
LOWEST_EXPONENT = -27.0
# coefficients of 1, u, u², u³ in the four B-splines that overlap an interval, 0 ≤ u < 1
CUBIC = [
    [1 / 6, 4 / 6, 1 / 6, 0.0],
    [-3 / 6, 0.0, 3 / 6, 0.0],
    [3 / 6, -6 / 6, 3 / 6, 0.0],
    [-1 / 6, 3 / 6, -3 / 6, 1 / 6],
]


class GaussianBasis(nn.Module):
    """exp(−½(r − μ_k)²/Δ²) with `n_radial` centers from 0 to the cutoff, Δ apart.

    SchNet, arXiv 1706.08566, section 4.2. Beyond 7.3 Δ they are exactly 0, without a jump.
    """

    centers: Tensor

    def __init__(self, n_radial: int, cutoff: float):
        super().__init__()
        self.register_buffer("centers", torch.linspace(0.0, cutoff, n_radial), persistent=False)
        self.spacing = cutoff / (n_radial - 1)

    def forward(self, r: Float[Tensor, "n"]) -> Float[Tensor, "n n_radial"]:
        exponent = -0.5 * ((r[:, None] - self.centers) / self.spacing).square()
        lowest = torch.exp(exponent.new_tensor(LOWEST_EXPONENT))
        return torch.exp(exponent.clamp(min=LOWEST_EXPONENT)) - lowest


class BesselBasis(nn.Module):
    """sin(nπr/r_c)/r for n = 1 … `n_radial` (DimeNet, arXiv 2003.03123, eq. 7, not normalized).

    Finite at r = 0, where its value is nπ/r_c.
    """

    wave: Tensor

    def __init__(self, n_radial: int, cutoff: float):
        super().__init__()
        wave = torch.arange(1, n_radial + 1) * (1.0 / cutoff)
        self.register_buffer("wave", wave, persistent=False)

    def forward(self, r: Float[Tensor, "n"]) -> Float[Tensor, "n n_radial"]:
        return torch.sinc(r[:, None] * self.wave) * (pi * self.wave)


def cosine_cutoff(r: Float[Tensor, "n"], cutoff: float) -> Float[Tensor, "n"]:
    """½(1 + cos(πr/r_c)): from 1 at r = 0 to 0 at the cutoff; 0 beyond.

    Its first derivative vanishes at the cutoff and its second jumps there. An energy that it
    multiplies is only C¹ where a pair crosses the cutoff, unless the other factor vanishes too, as
    Bessel functions do.

    Args:
        r: in Å.
        cutoff: in Å.
    """
    return 0.5 * (torch.cos(r.clamp(max=cutoff) * (pi / cutoff)) + 1.0)


def envelope(r: Float[Tensor, "n"], cutoff: float) -> Float[Tensor, "n 1"]:
    """1 − 10x³ + 15x⁴ − 6x⁵ with x = r/cutoff, from 1 to 0; 0 beyond the cutoff.

    Its first two derivatives vanish at both ends, so energies that it multiplies stay C².

    `polynomial_cutoff` with p = 3, as a matrix product, because many columns share the factor of
    a pair: see `bspline`.
    """
    x = (r / cutoff).clamp(max=1.0)
    powers = torch.stack([torch.ones_like(x), x**3, x**4, x**5], dim=1)
    return powers @ x.new_tensor([[1.0], [-10.0], [15.0], [-6.0]])


def polynomial_cutoff(x: Float[Tensor, "n"], p: int) -> Float[Tensor, "n"]:
    """1 − ½(p+1)(p+2)xᵖ + p(p+2)xᵖ⁺¹ − ½p(p+1)xᵖ⁺², from 1 at x = 0 to 0 at x = 1.

    DimeNet, arXiv 2003.03123, equation 8. The value and two derivatives vanish at 1. It is
    computed as a product, whose factors do not cancel.
    """
    rest = torch.zeros_like(x)
    for k in reversed(range(p)):
        rest = rest * x + 0.5 * (k + 1) * (k + 2)
    return (1.0 - x) ** 3 * rest


def bspline_grid(n_control: int, cutoff: float) -> Float[Tensor, "n_control"]:
    """Positions of control points in Å: one below 0, and the last two intervals below r_c."""
    return torch.arange(-1, n_control - 1) * (cutoff / n_control)


def bspline(
    r: Float[Tensor, "n"], n_control: int, cutoff: float
) -> tuple[Float[Tensor, "n 4"], Int[Tensor, "n"]]:
    """Uniform cubic B-splines on [0, cutoff]: the four nonzero ones at r, and the first's row.

    Their weights add up to 1. With zeros for the control points after the last (see `tables`), the
    value and two derivatives of the sum vanish at the cutoff. Beyond it the sum is 0.
    """
    t = (r * (n_control / cutoff)).clamp(max=float(n_control))
    row = t.detach().floor()
    u = t - row
    # a matrix product, because the compiler keeps its result; it recomputes anything else about a
    # pair for each of the network's columns
    powers = torch.stack([torch.ones_like(u), u, u * u, u * u * u], dim=1)
    return powers @ u.new_tensor(CUBIC), row.long()


def interpolate(
    weights: Float[Tensor, "n 4"], row: Int[Tensor, "n"], table: Float[Tensor, "n_rows n_out"]
) -> Float[Tensor, "n n_out"]:
    """Cubic splines with a table of control points: each value uses four of its rows.

    Args:
        weights: of these four rows, from `bspline`.
        row: the first of them.
        table: control points, one column for each function.
    """
    terms = [weights[:, a, None] * table.index_select(0, row + a) for a in range(4)]
    return terms[0] + terms[1] + terms[2] + terms[3]


class MLPFilters(nn.Module):
    """W_l(r) = network_l(basis(r)) · cutoff(r), as published: every network for every pair.

    Args:
        networks: one for each layer, from the basis to one or more filters of `width`.
        cutoff: in Å.
    """

    def __init__(self, basis: nn.Module, networks: Sequence[nn.Module], width: int, cutoff: float):
        super().__init__()
        self.basis, self.networks = basis, nn.ModuleList(networks)
        self.width, self.cutoff = width, cutoff

    def forward(self, r: Float[Tensor, "n_pairs"]) -> list[Sequence[Tensor]]:
        """For each layer, its filters [n_pairs, width]."""
        basis, envelope = self.basis(r), cosine_cutoff(r, self.cutoff)[:, None]
        outputs = [network(basis) * envelope for network in self.networks]
        return [output.split(self.width, dim=-1) for output in outputs]


class SplineFilters(MLPFilters):
    """`MLPFilters`, interpolated: the networks are evaluated only at the control points."""

    grid: Tensor

    def __init__(
        self,
        basis: nn.Module,
        networks: Sequence[nn.Module],
        width: int,
        cutoff: float,
        n_control: int = 64,
    ):
        super().__init__(basis, networks, width, cutoff)
        self.register_buffer("grid", bspline_grid(n_control, cutoff), persistent=False)

    def forward(self, r: Float[Tensor, "n_pairs"]) -> list[Sequence[Tensor]]:
        weights, row = bspline(r, self.grid.shape[0], self.cutoff)
        return [[interpolate(weights, row, table) for table in tables] for tables in self.tables()]

    def tables(self) -> list[Sequence[Tensor]]:
        """Control points of every filter, followed by four rows of zeros.

        Returns:
            For each layer its filters, [n_control + 4, width]. The zeros take the splines and two
            of their derivatives to 0 at the cutoff.
        """
        outputs = [
            network(self.basis(self.grid)) * cosine_cutoff(self.grid.abs(), self.cutoff)[:, None]
            for network in self.networks
        ]
        return [F.pad(output, (0, 0, 0, 4)).split(self.width, dim=-1) for output in outputs]


class Tabulated(nn.Module):
    """`SplineFilters` with fixed weights: control points and nothing else."""

    def __init__(self, filters: SplineFilters):
        super().__init__()
        self.n_control, self.cutoff = filters.grid.shape[0], filters.cutoff
        tables = filters.tables()
        self.n_parts = [len(pieces) for pieces in tables]
        self.points = nn.ParameterList(
            nn.Parameter(piece.detach().clone(), requires_grad=False)
            for pieces in tables
            for piece in pieces
        )

    def forward(self, r: Float[Tensor, "n_pairs"]) -> list[Sequence[Tensor]]:
        weights, row = bspline(r, self.n_control, self.cutoff)
        points = iter(self.points)
        return [[interpolate(weights, row, next(points)) for _ in range(n)] for n in self.n_parts]


def tabulate(model: nn.Module) -> nn.Module:
    """Replace the spline filters of a trained model by their tables, in place.

    The model's output stays the same to the bit; the filters can no longer be trained.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, SplineFilters):
                setattr(module, name, Tabulated(child))
    return model


FILTERS = {"spline": SplineFilters, "mlp": MLPFilters}
