"""Spherical bases against scipy: values, derivatives, zeros."""

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre, spherical_jn

from gradpot.nn.angular import SphericalBessel, bessel_zeros, zonal_harmonics

DEGREE = np.arange(7)[:, None]


def exact(x: np.ndarray, derivative: bool = False) -> np.ndarray:
    """Normalized spherical Bessel functions [n, 42] or their derivatives."""
    zeros = bessel_zeros(7, 6)
    norm = np.sqrt(2) / np.abs(spherical_jn(DEGREE + 1, zeros))
    values = norm * spherical_jn(DEGREE, zeros * x[:, None, None], derivative)
    return (values * zeros if derivative else values).reshape(len(x), -1)


def test_zeros_are_zeros_and_none_is_missed():
    zeros = bessel_zeros(7, 6)
    np.testing.assert_allclose(spherical_jn(DEGREE, zeros), 0, atol=1e-13)
    # the last of 6 zeros is outside the range, so 5 changes of sign remain
    x = np.linspace(0.01, 1, 5000)
    for degree, row in enumerate(zeros):
        signs = np.sign(spherical_jn(degree, x * row[-1] * 0.999))
        assert (np.diff(signs) != 0).sum() == 5


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 3e-6), (torch.float32, 3e-5)])
def test_bessel_functions_and_their_derivatives(dtype, within):
    """From a very short bond to the cutoff; largest value 21, largest derivative 219."""
    x = torch.linspace(0.05, 1, 300, dtype=torch.float32).to(dtype).requires_grad_()
    basis = SphericalBessel(7, 6).to(dtype)
    values = basis(x, torch.ones_like(x))
    np.testing.assert_allclose(values.detach(), exact(x.detach().double().numpy()), atol=within)
    derivatives = [torch.autograd.grad(v.sum(), x, retain_graph=True)[0] for v in values.unbind(1)]
    expected = exact(x.detach().double().numpy(), derivative=True)
    np.testing.assert_allclose(torch.stack(derivatives, 1), expected, atol=20 * within)


def test_bessel_functions_are_orthonormal():
    """On the unit ball, ∫ x² f g dx, for each degree."""
    node, weight = np.polynomial.legendre.leggauss(80)
    x, weight = 0.5 * (node + 1), 0.5 * weight
    values = SphericalBessel(3, 4).double()(torch.from_numpy(x), torch.ones(80).double())
    for f in values.numpy().reshape(-1, 3, 4).transpose(1, 2, 0):
        np.testing.assert_allclose((f * weight * x**2) @ f.T, np.eye(4), atol=1e-5)


def test_zonal_harmonics_equal_scipy():
    cosine = torch.linspace(-1, 1, 50, dtype=torch.float64)
    expected = np.sqrt((2 * DEGREE.T + 1) / (4 * np.pi)) * eval_legendre(
        DEGREE.T, cosine.numpy()[:, None]
    )
    np.testing.assert_allclose(zonal_harmonics(cosine, 7), expected, atol=1e-14)


@pytest.mark.parametrize("n_spherical", [1, 2, 3])
def test_few_degrees(n_spherical):
    assert zonal_harmonics(torch.zeros(4), n_spherical).shape == (4, n_spherical)
    assert SphericalBessel(n_spherical, 1)(torch.ones(4), torch.ones(4)).shape == (4, n_spherical)


def test_no_denormal_numbers():
    x = torch.linspace(0.02, 1, 500).requires_grad_()
    values = SphericalBessel(7, 6)(x, (1 - x) ** 3)
    derivative = torch.autograd.grad(values.sum(), x)[0]
    for numbers in (values.detach(), derivative):
        assert not ((numbers != 0) & (numbers.abs() < torch.finfo(torch.float32).tiny)).any()
