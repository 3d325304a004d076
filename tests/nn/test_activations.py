"""Activations: value, first and second derivative against closed forms, also near joints."""

import numpy as np
import pytest
import torch
from scipy.interpolate import make_interp_spline
from scipy.special import erf, expit
from torch.fx.experimental.proxy_tensor import make_fx

from gradpot.errors import InputError
from gradpot.nn.activations import (
    ACTIVATIONS,
    FAMILIES,
    QUADRATIC,
    activation,
    gain,
    look_up,
)

# zero, the joints of the activations in NAMES, and points on both sides of each
JOINTS = np.array([-1.5, 0.0, 1.5, 2.0])
X = np.concatenate([JOINTS, JOINTS - 1e-9, JOINTS + 1e-9, [-30.0, -2.2, -0.5, 0.5, 1.7, 30.0]])
NAMES = [*ACTIVATIONS, "leaky_irelu(0.2)", "ielu(0.7)", "capped_irelu(2)", "tent(1.5)"]
SMOOTH = ["ssp", "silu", "softplus", "gelu", "tanh", "mish", "tent(1.5)", "ielu"]


def normal(x):
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def phi(x):
    return (1 + erf(x / np.sqrt(2))) / 2


def softplus(x):
    return np.logaddexp(0, x)


def logistic_density(x):
    return expit(x) * expit(-x)


def sech2(x):
    return 1 - np.tanh(x) ** 2


def mish_second(x):
    t, s = np.tanh(softplus(x)), expit(x)
    return (1 - t**2) * (2 * s + x * logistic_density(x) - 2 * x * t * s**2)


def ramp(x):
    return np.maximum(x, 0)


CLOSED_FORMS = {
    "irelu": (lambda x: ramp(x) ** 2 / 2, ramp, lambda x: x > 0),
    "leaky_irelu(0.2)": (
        lambda x: np.where(x > 0, 0.5, 0.1) * x**2,
        lambda x: np.where(x > 0, x, 0.2 * x),
        lambda x: np.where(x > 0, 1, 0.2),
    ),
    "ielu(0.7)": (
        lambda x: np.where(x > 0, x**2 / 2, 0.7 * (np.expm1(np.minimum(x, 0)) - x)),
        lambda x: np.where(x > 0, x, 0.7 * np.expm1(np.minimum(x, 0))),
        lambda x: np.where(x > 0, 1, 0.7 * np.exp(np.minimum(x, 0))),
    ),
    "capped_irelu(2)": (
        lambda x: np.where(x < 2, ramp(x) ** 2 / 2, 2 * x - 2),
        lambda x: np.clip(x, 0, 2),
        lambda x: (x > 0) & (x < 2),
    ),
    # the third difference of |x|³: convolution of ReLU with a triangle
    "tent(1.5)": (
        lambda x: (ramp(x + 1.5) ** 3 - 2 * ramp(x) ** 3 + ramp(x - 1.5) ** 3) / (6 * 1.5**2),
        lambda x: (ramp(x + 1.5) ** 2 - 2 * ramp(x) ** 2 + ramp(x - 1.5) ** 2) / (2 * 1.5**2),
        lambda x: ramp(1 - np.abs(x) / 1.5) / 1.5,
    ),
    "ssp": (lambda x: softplus(x) - np.log(2), expit, logistic_density),
    "softplus": (softplus, expit, logistic_density),
    "silu": (
        lambda x: x * expit(x),
        lambda x: expit(x) * (1 + x * expit(-x)),
        lambda x: logistic_density(x) * (2 + x * (expit(-x) - expit(x))),
    ),
    "gelu": (
        lambda x: x * phi(x),
        lambda x: phi(x) + x * normal(x),
        lambda x: (2 - x**2) * normal(x),
    ),
    "tanh": (np.tanh, sech2, lambda x: -2 * np.tanh(x) * sech2(x)),
    "mish": (
        lambda x: x * np.tanh(softplus(x)),
        lambda x: np.tanh(softplus(x)) + x * sech2(softplus(x)) * expit(x),
        mish_second,
    ),
    "elu": (
        lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        lambda x: np.exp(np.minimum(x, 0)),
        lambda x: np.where(x < 0, np.exp(np.minimum(x, 0)), 0),
    ),
    "squared_relu": (lambda x: ramp(x) ** 2, lambda x: 2 * ramp(x), lambda x: 2 * (x > 0)),
    "relu": (ramp, lambda x: x > 0, lambda x: 0 * x),
}


def derivatives(function, x: torch.Tensor) -> list[torch.Tensor]:
    """Value, first and second derivative at each element of x."""
    x = x.clone().requires_grad_()
    value = function(x)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    second = torch.zeros_like(x)
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), x)
    return [value.detach(), first.detach(), second]


@pytest.mark.parametrize("name", NAMES)
def test_value_and_two_derivatives(name):
    computed = derivatives(look_up(name), torch.from_numpy(X))
    for got, form in zip(computed, CLOSED_FORMS[name], strict=True):
        np.testing.assert_allclose(got, np.asarray(form(X), float), rtol=1e-9, atol=1e-12)


def test_every_activation_has_a_closed_form():
    assert {name.partition("(")[0] for name in CLOSED_FORMS} == {*ACTIVATIONS, *FAMILIES} - {
        "irelu_spline"
    }


@pytest.mark.parametrize("name", [*ACTIVATIONS, *FAMILIES])
def test_the_value_is_the_integral_of_the_derivative(name):
    x = torch.linspace(-3, 3, 60001, dtype=torch.float64)
    value, derivative, _ = derivatives(look_up(name), x)
    integral = torch.cumulative_trapezoid(derivative, x)
    torch.testing.assert_close(value[1:] - value[0], integral, rtol=0, atol=1e-4 * derivative.max())
    if name != "relu":
        torch.testing.assert_close(value[1:] - value[0], integral, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", [*ACTIVATIONS, *FAMILIES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_far_from_zero(name, dtype):
    x = torch.tensor([-1e12, -1e4, -200.0, 200.0, 1e4, 1e12], dtype=dtype)
    for values in derivatives(look_up(name), x):
        assert values.isfinite().all()


@pytest.mark.parametrize("name", SMOOTH)
def test_differentiable_four_times(name):
    """Training on Hessians differentiates the first derivative twice more."""
    function = look_up(name)
    x = torch.tensor([-2.3, -0.7, -0.1, 0.2, 0.9, 2.1], dtype=torch.float64, requires_grad=True)

    def derivative(x):
        return torch.autograd.grad(function(x).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(function, x)
    assert torch.autograd.gradgradcheck(derivative, x)


@pytest.mark.parametrize("name", [*ACTIVATIONS, *FAMILIES])
def test_traced_double_backward_equals_eager(name):
    function = look_up(name)

    def step(x, w):
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        y = function(x)
        (pull,) = torch.autograd.grad(y, x, w, create_graph=True)
        return torch.autograd.grad(y.sum() + pull.square().sum(), (x, w))

    random = torch.Generator().manual_seed(0)
    small, large = (torch.randn(2, n, 5, generator=random) for n in (7, 11))
    traced = make_fx(step, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*small)
    torch.testing.assert_close(traced(*large), step(*large))


def test_a_spline_can_be_any_quadratic_spline_with_straight_ends():
    spline = FAMILIES["irelu_spline"](5).double()
    torch.nn.init.normal_(spline.slopes, generator=torch.Generator().manual_seed(0))
    knots = np.linspace(-4, 4, 6)
    x = np.concatenate([np.linspace(-7, 7, 41), knots])
    first = make_interp_spline(knots, spline.slopes.detach().numpy(), k=1)
    inside = np.clip(x, -4, 4)
    value = first.antiderivative()(inside) + first(inside) * (x - inside)
    offset = (spline.offset + spline.slopes[0] * -4.0).item()
    computed = derivatives(spline, torch.from_numpy(x))
    np.testing.assert_allclose(computed[0], value + offset, atol=1e-12)
    np.testing.assert_allclose(computed[1], first(inside), atol=1e-12)
    between = np.abs(x[:, None] - knots).min(1) > 1e-9
    second = np.where(np.abs(x) < 4, first.derivative()(inside), 0)
    np.testing.assert_allclose(computed[2][between], second[between], atol=1e-12)


def test_a_spline_starts_as_silu():
    x = torch.linspace(-6, 6, 500)
    for n_pieces, error in ((8, 0.011), (16, 0.009)):
        spline = look_up(f"irelu_spline({n_pieces})")
        assert (spline(x) - torch.nn.functional.silu(x)).abs().max() < error


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("irelu", 3 / 8),
        ("squared_relu", 3 / 2),
        ("relu", 1 / 2),
        ("leaky_irelu(0.2)", 3 / 8 * (1 + 0.2**2)),
        ("elu", 0.5 + np.exp(2) * phi(-2) - 2 * np.exp(0.5) * phi(-1) + 0.5),
    ],
)
def test_gain_for_known_second_moments(name, moment):
    assert gain(look_up(name)) == pytest.approx(moment**-0.5, rel=1e-6)


@pytest.mark.parametrize("name", [*ACTIVATIONS, *FAMILIES])
def test_gain_keeps_the_second_moment(name):
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    function = look_up(name)
    moment = (gain(function) * function(x)).square().mean()
    assert moment.item() == pytest.approx(1.0, rel=0.03)


def test_relu_warns_about_its_forces():
    with pytest.warns(UserWarning, match="forces are discontinuous"):
        activation("relu")


def test_a_number_in_parentheses():
    x = torch.linspace(-3, 3, 50)
    torch.testing.assert_close(activation("tent(2)")(x), FAMILIES["tent"](2.0)(x))
    torch.testing.assert_close(activation("tent")(x), activation("tent(2.0)")(x))
    assert not torch.allclose(activation("tent(1)")(x), activation("tent(2)")(x))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("swish", r"unknown activation 'swish' .*; known: irelu, ssp.*tent\(number\)"),
        ("silu(2)", "silu has no number; write 'silu'"),
        ("tent(wide)", r"'tent\(wide\)' is not understood; write tent\(2\)"),
        ("tent(2", "is not understood"),
        ("tent(0)", "c is 0 but must be positive"),
        ("capped_irelu(nan)", r"its number must be at most 1e\+06 in size"),
        ("ielu(inf)", r"its number must be at most 1e\+06 in size"),
        ("leaky_irelu(1)", "gamma is 1 but must be at least 0 and less than 1"),
        ("irelu_spline(2.5)", "n_pieces is 2.5 but must be a whole number from 1 to 64"),
    ],
)
def test_wrong_names_say_what_is_expected(name, text):
    with pytest.raises(InputError, match=text):
        activation(name)


@pytest.mark.filterwarnings("ignore:.*discontinuous")
@pytest.mark.parametrize("name", [*ACTIVATIONS, *FAMILIES])
def test_which_activations_are_quadratic(name):
    with torch.no_grad():
        near, far = (float(activation(name)(torch.tensor([x]))) for x in (500.0, 1000.0))
    assert (far > 3 * near > 0) == (name in QUADRATIC)
