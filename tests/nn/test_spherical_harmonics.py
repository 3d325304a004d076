"""Spherical harmonics are orthonormal on the sphere and have the parity of their degree."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y
from torch.testing import assert_close

from gradpot.nn.angular import SphereGrid, lebedev_rule, spherical_harmonics


@pytest.fixture
def sphere() -> tuple[torch.Tensor, torch.Tensor]:
    """A quadrature exact for polynomials of degree 6: directions, and weights that sum to 1."""
    height, weight = np.polynomial.legendre.leggauss(6)
    angle = np.arange(12) * (2 * np.pi / 12)
    z, phi = (grid.ravel() for grid in np.meshgrid(height, angle))
    ring = np.sqrt(1 - z**2)
    directions = np.stack([ring * np.cos(phi), ring * np.sin(phi), z], axis=1)
    return torch.from_numpy(directions), torch.from_numpy(np.tile(weight, 12) / 24)


def test_orthonormal(sphere):
    directions, weights = sphere
    values = torch.cat(spherical_harmonics(directions, 3), dim=1)
    overlap = (weights[:, None] * values).T @ values
    assert_close(overlap, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-12)


def test_parity(sphere):
    directions, _ = sphere
    there, back = spherical_harmonics(directions, 3), spherical_harmonics(-directions, 3)
    for degree, (one, other) in enumerate(zip(there, back, strict=True)):
        assert one.shape == (72, 2 * degree + 1)
        assert_close(other, (-1) ** degree * one)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_spans_the_complex_harmonics(sphere, degree):
    """Σ_m Y_m(a) Y_m(b) of two directions a and b equals scipy's."""
    directions, _ = sphere
    polar = np.arccos(directions[:, 2].numpy())
    azimuth = np.arctan2(directions[:, 1].numpy(), directions[:, 0].numpy())
    orders = range(-degree, degree + 1)
    theirs = np.stack([sph_harm_y(degree, m, polar, azimuth) for m in orders], axis=1)
    ours = spherical_harmonics(directions, degree)[degree]
    expected = 4 * np.pi * (theirs @ theirs.conj().T).real
    assert_close(ours @ ours.T, torch.from_numpy(expected))


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("order", [2, 3])
def test_products_on_the_grid_are_exact(sphere, degree, order):
    """A product is expanded as by another quadrature with more points."""
    random = torch.Generator().manual_seed(0)
    size = (degree + 1) ** 2
    x = torch.randn(order, size, 2, generator=random, dtype=torch.float64)
    grid = SphereGrid(degree, (order + 1) * degree).double()
    product = torch.stack([grid.values(each) for each in x]).prod(dim=0)

    height, weight = np.polynomial.legendre.leggauss(9)
    angle = np.arange(18) * (2 * np.pi / 18)
    z, phi = (each.ravel() for each in np.meshgrid(height, angle))
    ring = np.sqrt(1 - z**2)
    points = torch.from_numpy(np.stack([ring * np.cos(phi), ring * np.sin(phi), z], axis=1))
    harmonics = torch.cat(spherical_harmonics(points, degree), dim=1)
    values = torch.einsum("gm,kmc->kgc", harmonics, x).prod(dim=0)
    weights = torch.from_numpy(np.tile(weight, 18) / 36)
    expected = torch.einsum("g,gm,gc->mc", weights, harmonics, values)
    assert_close(grid.expand(product), expected, rtol=0, atol=1e-12)
    assert_close(grid.mean(product), expected[0], rtol=0, atol=1e-12)


def test_the_tables_of_the_grid_keep_all_digits_in_float64():
    grid = SphereGrid(2, 8)
    unit = grid.expansion_of.double() @ grid.values_of.double()
    assert_close(unit, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-6)
    grid = grid.float().double()
    assert_close(
        grid.expansion_of @ grid.values_of, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-14
    )


def test_rules_have_positive_weights_and_as_few_points_as_there_are():
    rules = [lebedev_rule(exact) for exact in range(2, 13)]
    assert all((weights > 0).all() for _, weights in rules)
    sizes = [len(weights) for _, weights in rules]
    assert all(one <= other for one, other in pairwise(sizes))
    assert sizes[-1] == 86
