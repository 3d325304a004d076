"""Activations, by name.

A network that is trained on its derivative is two networks: the forward pass with activation φ
and the backward pass, which computes the forces, with φ′. IReLU is the φ whose φ′ is ReLU
(arXiv 2310.01649, section 3).
"""

import warnings
from collections.abc import Callable
from functools import partial
from math import log, pi, sqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gradpot.errors import unknown

Activation = Callable[[Tensor], Tensor]


def irelu(x: Tensor) -> Tensor:
    """Integrated ReLU, φ(x) = ½·max(0, x)²; φ′ = ReLU, φ″ = step (arXiv 2310.01649)."""
    return 0.5 * torch.relu(x).square()


def ssp(x: Tensor) -> Tensor:
    """Shifted softplus, ln(½eˣ + ½): softplus that vanishes at 0 (SchNet, arXiv 1706.08566)."""
    return F.softplus(x) - log(2.0)


ACTIVATIONS: dict[str, Activation] = {
    "irelu": irelu,
    "ssp": ssp,
    "silu": F.silu,
    "softplus": F.softplus,
    "gelu": partial(F.gelu, approximate="none"),
    "tanh": torch.tanh,
    "relu": torch.relu,
}


def activation(name: str) -> Activation:
    """Look up an activation; warn of those that make bad forces.

    Raises:
        InputError: the name is not known.
    """
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    if name == "relu":
        warnings.warn(
            "activation 'relu': its derivative jumps, so forces are discontinuous; "
            "'irelu' is its integral",
            stacklevel=2,
        )
    return ACTIVATIONS[name]


def gain(function: Activation) -> float:
    """1/√E[φ(x)²] for x ~ N(0, 1): what weights after φ need to keep the second moment.

    √(8/3) for IReLU. By Gauss–Hermite quadrature, to about four digits for kinked functions.
    """
    x, weight = np.polynomial.hermite.hermgauss(120)
    value = function(torch.from_numpy(x * sqrt(2.0))).numpy()
    return float(1.0 / sqrt((weight * value**2).sum() / sqrt(pi)))
