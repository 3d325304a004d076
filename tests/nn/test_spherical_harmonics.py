"""Spherical harmonics are orthonormal on the sphere and have the parity of their degree."""

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y
from torch.testing import assert_close

from gradpot.nn.angular import spherical_harmonics


@pytest.fixture
def sphere() -> tuple[torch.Tensor, torch.Tensor]:
    """A quadrature exact for polynomials of degree 4: directions, and weights that sum to 1."""
    height, weight = np.polynomial.legendre.leggauss(6)
    angle = np.arange(12) * (2 * np.pi / 12)
    z, phi = (grid.ravel() for grid in np.meshgrid(height, angle))
    ring = np.sqrt(1 - z**2)
    directions = np.stack([ring * np.cos(phi), ring * np.sin(phi), z], axis=1)
    return torch.from_numpy(directions), torch.from_numpy(np.tile(weight, 12) / 24)


def test_orthonormal(sphere):
    directions, weights = sphere
    values = torch.cat(spherical_harmonics(directions), dim=1)
    overlap = (weights[:, None] * values).T @ values
    assert_close(overlap, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-12)


def test_parity(sphere):
    directions, _ = sphere
    even, odd = spherical_harmonics(directions)
    assert_close(spherical_harmonics(-directions), (even, -odd))


@pytest.mark.parametrize("degree", [1, 2])
def test_spans_the_complex_harmonics(sphere, degree):
    """Σ_m Y_m(a) Y_m(b) of two directions a and b equals scipy's."""
    directions, _ = sphere
    polar = np.arccos(directions[:, 2].numpy())
    azimuth = np.arctan2(directions[:, 1].numpy(), directions[:, 0].numpy())
    orders = range(-degree, degree + 1)
    theirs = np.stack([sph_harm_y(degree, m, polar, azimuth) for m in orders], axis=1)
    even, odd = spherical_harmonics(directions)
    ours = odd if degree == 1 else even[:, 1:]
    expected = 4 * np.pi * (theirs @ theirs.conj().T).real
    assert_close(ours @ ours.T, torch.from_numpy(expected))
