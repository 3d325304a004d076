"""Activations: value, first and second derivative against closed forms, at and around joints."""

import numpy as np
import pytest
import torch
from scipy.special import erf, expit

from gradpot.errors import InputError
from gradpot.nn.activations import ACTIVATIONS, activation, gain

X = torch.tensor([-30.0, -2.0, -0.5, -1e-9, 0.0, 1e-9, 0.5, 2.0, 30.0], dtype=torch.float64)


def normal(x):
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def phi(x):
    return (1 + erf(x / np.sqrt(2))) / 2


CLOSED_FORMS = {
    "irelu": (lambda x: np.where(x > 0, x**2 / 2, 0), lambda x: np.maximum(x, 0), lambda x: x > 0),
    "ssp": (
        lambda x: np.logaddexp(0, x) - np.log(2),
        expit,
        lambda x: expit(x) * expit(-x),
    ),
    "softplus": (lambda x: np.logaddexp(0, x), expit, lambda x: expit(x) * expit(-x)),
    "silu": (
        lambda x: x * expit(x),
        lambda x: expit(x) * (1 + x * expit(-x)),
        lambda x: expit(x) * expit(-x) * (2 + x * (expit(-x) - expit(x))),
    ),
    "gelu": (
        lambda x: x * phi(x),
        lambda x: phi(x) + x * normal(x),
        lambda x: (2 - x**2) * normal(x),
    ),
    "tanh": (
        np.tanh,
        lambda x: 1 - np.tanh(x) ** 2,
        lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
    ),
    "relu": (lambda x: np.maximum(x, 0), lambda x: x > 0, lambda x: 0 * x),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_two_derivatives(name):
    x = X.clone().requires_grad_()
    value = ACTIVATIONS[name](x)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    second = torch.zeros_like(x)
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), x)
    for order, computed in enumerate((value, first, second)):
        expected = np.asarray(CLOSED_FORMS[name][order](X.numpy()), dtype=float)
        np.testing.assert_allclose(computed.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_irelu_is_the_integral_of_relu():
    x = torch.linspace(-3, 3, 60001, dtype=torch.float64)
    integral = torch.cumulative_trapezoid(torch.relu(x), x)
    torch.testing.assert_close(ACTIVATIONS["irelu"](x)[1:], integral, rtol=0, atol=1e-7)


def test_gain_of_irelu():
    assert gain(ACTIVATIONS["irelu"]) == pytest.approx((8 / 3) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gain_keeps_the_second_moment(name):
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moment = (gain(ACTIVATIONS[name]) * ACTIVATIONS[name](x)).square().mean()
    assert moment.item() == pytest.approx(1.0, rel=0.03)


def test_relu_warns_of_its_forces():
    with pytest.warns(UserWarning, match="forces are discontinuous"):
        activation("relu")


def test_unknown_activation_is_named():
    with pytest.raises(InputError, match="unknown activation 'swish'; known: irelu, ssp"):
        activation("swish")
