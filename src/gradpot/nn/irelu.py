"""IReLU and its relatives: activations that are built from their derivative.

The backward pass of a network is a network with activation φ′ (arXiv 2310.01649, section 3). Here a
continuous φ′ is chosen, and φ is its exact integral. PyTorch has one kernel for most of these φ′
and one for its derivative, so backward and double backward need only those and a product. All can
be differentiated any number of times, and traced.
"""

from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from gradpot.errors import InputError


class Primitive(NamedTuple):
    """x → φ(x) and x → φ′(x). Autograd differentiates φ′ and never sees φ."""

    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


class Integral(torch.autograd.Function):
    """φ(x), with a · φ′(x) as its backward pass, for which it stores x only."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, phi: Primitive) -> Tensor:
        ctx.save_for_backward(x)
        ctx.phi = phi  # type: ignore[attr-defined]
        return phi.value(x)

    @staticmethod
    def backward(ctx: FunctionCtx, a: Tensor):  # type: ignore[override]
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return a * ctx.phi.derivative(x), None  # type: ignore[attr-defined]


def half_square(x: Tensor) -> Tensor:
    """½x² in one pass."""
    return torch.addcmul(x.new_zeros(()), x, x, value=0.5)


IRELU = Primitive(lambda x: half_square(torch.relu(x)), torch.relu)


def irelu(x: Tensor) -> Tensor:
    """Integrated ReLU, φ(x) = ½·max(0, x)² (arXiv 2310.01649, section 3).

    φ′ = ReLU and φ″ is a step: forces are continuous with kinks, and force constants jump where
    an input crosses 0. φ‴ vanishes everywhere else.
    """
    return Integral.apply(x, IRELU)  # type: ignore[return-value]


def leaky_irelu(gamma: float = 0.1) -> Callable[[Tensor], Tensor]:
    """φ(x) = ½x² for x > 0, ½γx² below; φ′ = leaky ReLU (arXiv 2310.01649).

    φ″ jumps from γ to 1 at 0, less than IReLU's, and no unit is dead.

    Raises:
        InputError: γ is not in 0 ≤ γ < 1; at γ = 1, φ would be a parabola.
    """
    _require(0 <= gamma < 1, "gamma", gamma, "at least 0 and less than 1")
    derivative = partial(F.leaky_relu, negative_slope=gamma)
    return _activation(Primitive(lambda x: 0.5 * x * derivative(x), derivative))


def ielu(alpha: float = 1.0) -> Callable[[Tensor], Tensor]:
    """φ(x) = ½x² for x > 0, α(eˣ − 1 − x) below; φ′ = ELU (arXiv 2310.01649).

    Raises:
        InputError: α is not positive.
    """
    _require(alpha > 0, "alpha", alpha, "positive")
    derivative = partial(F.elu, alpha=alpha)

    def value(x: Tensor) -> Tensor:
        return torch.where(x > 0, 0.5 * x * x, derivative(x) - alpha * x)

    return _activation(Primitive(value, derivative))


def capped_irelu(c: float = 2.0) -> Callable[[Tensor], Tensor]:
    """φ′ = clip(x, 0, c): IReLU up to c, and beyond it a straight line of slope c.

    Raises:
        InputError: c is not positive.
    """
    _require(c > 0, "c", c, "positive")
    derivative = partial(F.hardtanh, min_val=0.0, max_val=c)

    def value(x: Tensor) -> Tensor:
        d = derivative(x)
        return d * torch.sub(x, d, alpha=0.5)

    return _activation(Primitive(value, derivative))


def tent(c: float = 2.0) -> Callable[[Tensor], Tensor]:
    """φ″ = max(0, 1 − |x|/c)/c: ReLU with its corner rounded from −c to c, C².

    φ″ has area 1, so φ is 0 below −c and x above c. φ″ is largest at 0, where the inputs of
    an initialized network are. At c = 2, φ″(0) = ½ as for SiLU.

    Raises:
        InputError: c is not positive.
    """
    _require(c > 0, "c", c, "positive")

    def value(x: Tensor) -> Tensor:
        rest = (1.0 - x.abs() / c).relu()
        return x.relu() + (c / 6.0) * rest * rest * rest

    def derivative(x: Tensor) -> Tensor:
        u = (x / c).clamp(-1.0, 1.0)
        return 0.5 + u - 0.5 * u * u.abs()

    return _activation(Primitive(value, derivative))


class IReLUSpline(nn.Module):
    """A trainable quadratic spline with straight ends, C¹: a sum of shifted IReLUs.

    φ(x) = offset + s₀x + Σ_k (s_{k+1} − s_k)/h · [irelu(x − t_k) − irelu(x − t_k − h)]; the
    parameters s are φ′ at `n_pieces` + 1 knots t from −4 to 4, which are h apart. Between knots
    φ′ is linear, and beyond them constant; every such spline has this form. It starts as a
    least-squares fit to SiLU from −6 to 6.

    Raises:
        InputError: `n_pieces` is not a whole number from 1 to 64.
    """

    END = 4.0

    def __init__(self, n_pieces: int | float = 8):
        super().__init__()
        whole = 1 <= n_pieces <= 64 and n_pieces == int(n_pieces)
        _require(whole, "n_pieces", n_pieces, "a whole number from 1 to 64")
        self.n_pieces = int(n_pieces)
        self.spacing = 2 * self.END / self.n_pieces
        self.piece = capped_irelu(self.spacing)
        x = torch.linspace(-6.0, 6.0, 1201, dtype=torch.float64)
        columns = torch.stack([torch.ones_like(x), x, *self.pieces(x)], dim=1)
        offset, first, *rises = torch.linalg.lstsq(columns, F.silu(x)).solution
        slopes = torch.stack([first, *(self.spacing * rise for rise in rises)]).cumsum(0)
        self.offset = nn.Parameter(offset.to(torch.get_default_dtype()))
        self.slopes = nn.Parameter(slopes.to(torch.get_default_dtype()))

    def pieces(self, x: Tensor) -> list[Tensor]:
        """The term of each interval: the integral of clip(x − t_k, 0, h)."""
        return [self.piece(x + (self.END - k * self.spacing)) for k in range(self.n_pieces)]

    def forward(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        rises = self.slopes.diff() / self.spacing
        y = torch.addcmul(self.offset, self.slopes[0], x)
        for rise, piece in zip(rises.unbind(0), self.pieces(x), strict=True):
            y = torch.addcmul(y, rise, piece)
        return y


def _activation(phi: Primitive) -> Callable[[Tensor], Tensor]:
    def activation(x: Tensor) -> Tensor:
        return Integral.apply(x, phi)  # type: ignore[return-value]

    return activation


def _require(true: bool, name: str, value: int | float, expected: str) -> None:
    if not (true and isfinite(value)):
        raise InputError(f"{name} is {value:g} but must be {expected}")
