"""Functions of a distance: bases, cutoffs, and the filters W(r) of continuous convolutions.

A filter is a network of one number, evaluated on every edge and through two derivatives. The
spline form asks the network only for the control points of a uniform cubic B-spline and lets
every edge interpolate between them: C², compact, no exponential per edge, and energy and forces
stay consistent to rounding, because the spline *is* the model.
"""

from collections.abc import Sequence
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

# exp(-27) = 2e-12: smaller values would become denormal numbers, on which CPUs crawl
LOWEST_EXPONENT = -27.0


class GaussianBasis(nn.Module):
    """exp(−½(r − μ_k)²/Δ²) with `n_radial` centers from 0 to the cutoff, Δ apart.

    SchNet, arXiv 1706.08566, section 4.2. Cut to exact zero, without a jump, beyond 7.3 Δ.
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
    """sin(nπr/r_c)/r for n = 1 … `n_radial` (DimeNet, arXiv 2003.03123, equation 7, unnormed).

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
    """Fall from 1 at r = 0 to 0, with zero slope, at the cutoff; 0 beyond."""
    return 0.5 * (torch.cos(r.clamp(max=cutoff) * (pi / cutoff)) + 1.0)


def bspline(r: Float[Tensor, "n"], n_control: int, cutoff: float) -> Float[Tensor, "n n_control"]:
    """Uniform cubic B-splines on [0, cutoff]: four of a row's `n_control` values are not zero.

    They add up to 1 except within the last three intervals, where the sum falls to 0: value,
    slope and curvature vanish at the cutoff. The centers are `bspline_grid`.
    """
    centers = torch.arange(-1, n_control - 1, dtype=r.dtype, device=r.device)
    offset = r[:, None] * (n_control / cutoff) - centers
    t = offset.abs()
    # the square is of `offset`: the derivative of |x| at 0 would spoil the second one there
    inner = (2.0 / 3.0) - offset.square() * (1.0 - 0.5 * t)
    outer = torch.relu(2.0 - t).pow(3) / 6.0
    return torch.where(t < 1.0, inner, outer)


def bspline_grid(n_control: int, cutoff: float) -> Float[Tensor, "n_control"]:
    """Where the B-splines of `bspline` are centered, in Å: one below 0, the last two below r_c."""
    return torch.arange(-1, n_control - 1) * (cutoff / n_control)


class MLPFilters(nn.Module):
    """W_l(r) = network_l(basis(r)) · cutoff(r), as published: every network on every edge."""

    def __init__(self, basis: nn.Module, networks: Sequence[nn.Module], cutoff: float):
        super().__init__()
        self.basis, self.networks, self.cutoff = basis, nn.ModuleList(networks), cutoff

    def forward(self, r: Float[Tensor, "n_edges"]) -> list[Tensor]:
        """One tensor [n_edges, n_out] for each network."""
        basis, envelope = self.basis(r), cosine_cutoff(r, self.cutoff)[:, None]
        return [network(basis) * envelope for network in self.networks]


class SplineFilters(nn.Module):
    """W_l(r) = B(r) · [network_l(basis(grid)) · cutoff(grid)]: networks on the grid only."""

    grid: Tensor

    def __init__(
        self, basis: nn.Module, networks: Sequence[nn.Module], cutoff: float, n_control: int = 64
    ):
        super().__init__()
        self.basis, self.networks, self.cutoff = basis, nn.ModuleList(networks), cutoff
        self.register_buffer("grid", bspline_grid(n_control, cutoff), persistent=False)

    def forward(self, r: Float[Tensor, "n_edges"]) -> list[Tensor]:
        """One tensor [n_edges, n_out] for each network."""
        spline = bspline(r, self.grid.shape[0], self.cutoff)
        basis, envelope = self.basis(self.grid), cosine_cutoff(self.grid.abs(), self.cutoff)
        return [spline @ (network(basis) * envelope[:, None]) for network in self.networks]


FILTERS = {"spline": SplineFilters, "mlp": MLPFilters}
