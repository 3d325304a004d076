"""Bases, cutoffs and splines: values, derivatives, and no denormal numbers."""

import numpy as np
import pytest
import torch
from ase.build import molecule
from scipy.interpolate import BSpline

from gradpot.graph.graph import from_atoms
from gradpot.models import build
from gradpot.nn.initialize import MLP
from gradpot.nn.radial import (
    FILTERS,
    BesselBasis,
    GaussianBasis,
    bspline,
    bspline_grid,
    cosine_cutoff,
    envelope,
    interpolate,
    polynomial_cutoff,
    tabulate,
)

CUTOFF = 5.0


def derivatives(function, r: torch.Tensor) -> list[torch.Tensor]:
    """Value, first and second derivative of each column of `function(r)`."""
    r = r.clone().requires_grad_()
    value = function(r)
    first, second = [], []
    for column in value.unbind(1):
        (derivative,) = torch.autograd.grad(column.sum(), r, create_graph=True)
        first.append(derivative)
        second.append(torch.autograd.grad(derivative.sum(), r, retain_graph=True)[0])
    return [value, torch.stack(first, 1), torch.stack(second, 1)]


def test_gaussian_basis():
    r = torch.linspace(0, CUTOFF, 30, dtype=torch.float64)
    basis = GaussianBasis(20, CUTOFF).double()
    centers = np.linspace(0, CUTOFF, 20)
    width = centers[1]
    expected = np.exp(-0.5 * ((r.numpy()[:, None] - centers) / width) ** 2)
    np.testing.assert_allclose(basis(r).numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("basis", [GaussianBasis, BesselBasis])
def test_bases_make_no_denormal_numbers(basis):
    r = torch.linspace(0.01, CUTOFF, 500).requires_grad_()
    value = basis(50, CUTOFF)(r)
    (derivative,) = torch.autograd.grad(value.sum(), r)
    for x in (value.detach(), derivative):
        assert not ((x != 0) & (x.abs() < torch.finfo(x.dtype).tiny)).any()


def test_bessel_basis():
    r = torch.linspace(0.1, CUTOFF, 30, dtype=torch.float64)
    n = np.arange(1, 9)
    expected = np.sin(n * np.pi * r.numpy()[:, None] / CUTOFF) / r.numpy()[:, None]
    np.testing.assert_allclose(BesselBasis(8, CUTOFF).double()(r).numpy(), expected, atol=1e-6)


def test_bessel_basis_is_finite_at_zero():
    values = derivatives(BesselBasis(4, CUTOFF).double(), torch.zeros(1, dtype=torch.float64))
    assert all(torch.isfinite(v).all() for v in values[:2])
    np.testing.assert_allclose(values[0][0].detach(), np.arange(1, 5) * np.pi / CUTOFF, rtol=1e-6)


def test_cosine_cutoff():
    r = torch.tensor([0.0, CUTOFF / 2, CUTOFF, 7.0], dtype=torch.float64)
    np.testing.assert_allclose(cosine_cutoff(r, CUTOFF), [1, 0.5, 0, 0], atol=1e-12)


def test_envelope_has_zero_derivatives_at_the_cutoff():
    r = torch.tensor([0.0, CUTOFF / 2, CUTOFF, 7.0], dtype=torch.float64)
    value, first, second = derivatives(lambda x: envelope(x, CUTOFF), r)
    np.testing.assert_allclose(value.detach()[:, 0], [1, 0.5, 0, 0], atol=1e-12)
    np.testing.assert_allclose(first.detach()[:, 0] * CUTOFF, [0, -1.875, 0, 0], atol=1e-12)
    np.testing.assert_allclose(second.detach()[:, 0], 0, atol=1e-12)


@pytest.mark.parametrize("p", [1, 5, 6])
def test_polynomial_cutoff(p):
    """Equation 8 of DimeNet, whose terms cancel near the cutoff."""
    x = torch.linspace(0, 1, 50, dtype=torch.float64)
    powers = (p + 1) * (p + 2) / 2, p * (p + 2), p * (p + 1) / 2
    expected = 1 - powers[0] * x**p + powers[1] * x ** (p + 1) - powers[2] * x ** (p + 2)
    np.testing.assert_allclose(polynomial_cutoff(x, p), expected, atol=1e-13)
    ends = torch.ones(1, dtype=torch.float64)
    value, first, second = derivatives(lambda x: polynomial_cutoff(x, p)[:, None], ends)
    assert (value.item(), first.item(), second.item()) == (0.0, 0.0, 0.0)


def test_bspline_equals_scipy_to_the_second_derivative():
    n = 12
    h = CUTOFF / n
    r = torch.linspace(0, CUTOFF, 101, dtype=torch.float64)
    # each control point alone
    table = torch.cat([torch.eye(n), torch.zeros(4, n)]).double()
    computed = derivatives(lambda x: interpolate(*bspline(x, n, CUTOFF), table), r)
    for k, center in enumerate(bspline_grid(n, CUTOFF).double().numpy()):
        knots = center + h * np.arange(-2, 3)
        basis = BSpline.basis_element(knots, extrapolate=False)
        for order in range(3):
            spline = basis if order == 0 else basis.derivative(order)
            expected = np.nan_to_num(spline(r.numpy()))
            got = computed[order][:, k].detach().numpy()
            np.testing.assert_allclose(got, expected, atol=2e-5 / h**order)


def test_bspline_sums_to_one_and_ends_smoothly():
    n = 16
    r = torch.tensor([0.0, 1.0, CUTOFF - 3.01 * CUTOFF / n, CUTOFF, 6.0], dtype=torch.float64)
    table = torch.cat([torch.ones(n, 1), torch.zeros(4, 1)]).double()
    value, first, second = derivatives(lambda x: interpolate(*bspline(x, n, CUTOFF), table), r)
    np.testing.assert_allclose(value.detach()[:, 0], [1, 1, 1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(first.detach()[-2:, 0], 0, atol=1e-12)
    np.testing.assert_allclose(second.detach()[-2:, 0], 0, atol=1e-9)


def test_spline_filter_follows_the_network():
    """With many control points the spline equals the published filter."""
    torch.manual_seed(0)
    network = MLP([10, 16, 4], torch.tanh)
    basis = GaussianBasis(10, CUTOFF)
    r = torch.linspace(0.5, CUTOFF - 0.2, 200, dtype=torch.float64)
    exact = FILTERS["mlp"](basis, [network], 4, CUTOFF).double()(r)[0][0]
    errors = []
    for n_control in (50, 100):
        filters = FILTERS["spline"](basis, [network], 4, CUTOFF, n_control).double()
        errors.append((filters(r)[0][0] - exact).abs().max().item())
    assert errors[1] < 0.01 * exact.abs().max().item()
    # quasi-interpolation: the error is of second order in the spacing
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.25)


@pytest.mark.parametrize("model", ["schnet", "painn", "cgcnn"])
def test_a_tabulated_model_gives_the_same_energies(model):
    torch.manual_seed(0)
    network = build(model, width=8, n_layers=2, n_radial=6).eval()
    graph = from_atoms(molecule("CH3CH2OH"), network.cutoff)
    with torch.no_grad():
        expected = network(graph)
        assert torch.equal(tabulate(network)(graph), expected)
    assert not any("networks" in name for name, _ in network.named_parameters())
