"""Activations by name.

A network that is trained on its derivative is two networks: the forward pass with activation φ, and
the backward pass, which computes the forces, with φ′. IReLU is the φ whose φ′ is ReLU
(arXiv 2310.01649, section 3). It and its relatives are in `nn.irelu`.
"""

import warnings
from collections.abc import Callable
from math import log, pi, sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from gradpot import other_names
from gradpot.errors import InputError, shown, unknown
from gradpot.nn.irelu import IReLUSpline, capped_irelu, ielu, irelu, leaky_irelu, tent

Activation = Callable[[Tensor], Tensor]


def ssp(x: Tensor) -> Tensor:
    """Shifted softplus, ln(½eˣ + ½): softplus that vanishes at 0 (SchNet, arXiv 1706.08566)."""
    return F.softplus(x) - log(2.0)


def squared_relu(x: Tensor) -> Tensor:
    """max(0, x)²: twice IReLU (Primer, arXiv 2109.08668)."""
    return 2.0 * irelu(x)


def mish(x: Tensor) -> Tensor:
    """x·tanh(ln(1 + eˣ)) (arXiv 1908.08681)."""
    # the second derivative of PyTorch's own mish is NaN beyond x = 88 in float32
    return x * torch.tanh(F.softplus(x))


ACTIVATIONS: dict[str, Activation] = {
    "irelu": irelu,
    "ssp": ssp,
    "silu": F.silu,
    "softplus": F.softplus,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "mish": mish,
    "elu": F.elu,
    "squared_relu": squared_relu,
    "relu": torch.relu,
}
# of the number of an activation; its square and products with it must fit into float32
LARGEST = 1e6
# made with a number, as in "tent(3)", or without one; every call makes a new activation
FAMILIES: dict[str, Callable[..., Activation]] = {
    "leaky_irelu": leaky_irelu,
    "ielu": ielu,
    "capped_irelu": capped_irelu,
    "tent": tent,
    "irelu_spline": IReLUSpline,
}
# those that grow like x²
QUADRATIC = ("irelu", "squared_relu", "leaky_irelu", "ielu")


def activation(name: str) -> Activation:
    """Look up or make an activation, such as "silu" or "capped_irelu(2)".

    Some are modules with parameters. A network needs a copy for every place where it uses one:
    `copy.deepcopy`, which leaves functions as they are.

    Warns:
        UserWarning: forces would be discontinuous (ReLU).

    Raises:
        InputError: the name or the number in parentheses is wrong.
    """
    if name == "relu":
        warnings.warn(
            "activation 'relu': its derivative jumps, so forces are discontinuous; "
            "'irelu' is its integral",
            stacklevel=2,
        )
    return look_up(name)


def look_up(name: str) -> Activation:
    """`activation` without the warning."""
    if not isinstance(name, str):
        raise InputError(f"activation is {shown(name)}, expected a name such as 'irelu'")
    base, bracket, rest = name.partition("(")
    if base in FAMILIES:
        try:
            numbers = [float(rest[:-1])] if bracket and rest.endswith(")") else []
        except ValueError:
            numbers = []
        if len(numbers) != bool(bracket):
            raise InputError(f"activation {shown(name)} is not understood; write {base}(2)")
        if not all(abs(number) <= LARGEST for number in numbers):
            raise InputError(f"activation {name!r}: its number must be at most {LARGEST:g} in size")
        return FAMILIES[base](*numbers)
    if base not in ACTIVATIONS:
        names = (*ACTIVATIONS, *(f"{f}(number)" for f in FAMILIES))
        raise unknown("activation", name, names, other_names.ACTIVATIONS)
    if bracket:
        raise InputError(f"activation {name!r}: {base} has no number; write {base!r}")
    return ACTIVATIONS[base]


def gain(function: Activation) -> float:
    """1/√E[φ(x)²] for x ~ N(0, 1): the factor of weights after φ that keeps the second moment.

    It is √(8/3) for IReLU.
    """
    x = torch.linspace(-10.0, 10.0, 20001, dtype=torch.float64)
    # the trapezoidal rule is exact to rounding for smooth φ, and to 1e-7 for those with kinks
    density = torch.exp(-0.5 * x.square()) * (1e-3 / sqrt(2 * pi))
    with torch.no_grad():
        return float((density * function(x).square()).sum().rsqrt())
