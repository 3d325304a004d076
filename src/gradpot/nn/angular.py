"""Functions of angles and directions, and the radial functions of spherical bases.

An angle enters as a polynomial of its cosine. The angle itself would have an infinite derivative
where three atoms are in line.
"""

from math import pi, sqrt

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

# the interval of the Chebyshev polynomials extends beyond [0, 1] by this much on both sides: at
# its ends the derivative of arccos is infinite
MARGIN = 0.01


class SphericalBessel(nn.Module):
    """√2/|j_{l+1}(z_ln)| · j_l(z_ln x), orthonormal on the unit ball (arXiv 2003.03123, eq. 6).

    z_ln is the n-th zero of the spherical Bessel function j_l; l = 0 … `n_spherical` − 1,
    n = 1 … `n_radial`. Recursions and closed forms in sines and cosines lose all digits where x
    is small and l is large. The functions are smooth, so each is a sum of a few dozen Chebyshev
    polynomials, as one matrix product: accurate to a few roundings everywhere.
    """

    order: Tensor
    coefficients: Tensor

    def __init__(self, n_spherical: int, n_radial: int):
        super().__init__()
        from scipy.special import spherical_jn

        zeros = bessel_zeros(n_spherical, n_radial)
        degree = np.arange(n_spherical)[:, None]
        norm = sqrt(2.0) / np.abs(spherical_jn(degree + 1, zeros))
        # phase of the fastest function from the middle to the end of the interval; terms of a
        # higher degree decay faster than any exponential
        phase = (0.5 + MARGIN) * zeros.max()
        n_terms = int(phase + 7.0 * phase ** (1 / 3)) + 6
        node = np.cos(pi * (np.arange(n_terms) + 0.5) / n_terms)
        x = 0.5 + (0.5 + MARGIN) * node[:, None, None]
        # j_l(-x) = (-1)^l j_l(x)
        values = norm * spherical_jn(degree, zeros * np.abs(x)) * np.sign(x) ** degree
        cosines = np.cos(np.arange(n_terms)[:, None] * np.arccos(node))
        coefficients = 2.0 / n_terms * cosines @ values.reshape(n_terms, -1)
        coefficients[0] *= 0.5
        self.register_buffer("order", torch.arange(float(n_terms)), persistent=False)
        table = torch.from_numpy(coefficients).to(torch.get_default_dtype())
        self.register_buffer("coefficients", table, persistent=False)

    def forward(
        self, x: Float[Tensor, "n"], envelope: Float[Tensor, "n"]
    ) -> Float[Tensor, "n n_basis"]:
        """All functions times an envelope, for 0 ≤ x ≤ 1; n runs faster than l."""
        angle = torch.acos((x - 0.5) * (1.0 / (0.5 + MARGIN)))
        return (envelope[:, None] * torch.cos(angle[:, None] * self.order)) @ self.coefficients


def bessel_zeros(n_spherical: int, n_radial: int) -> Float[np.ndarray, "n_spherical n_radial"]:
    """The first positive zeros of the spherical Bessel functions j_l.

    There is one zero of j_{l+1} between two zeros of j_l.
    """
    from scipy.optimize import brentq
    from scipy.special import spherical_jn

    rows = [pi * np.arange(1, n_radial + n_spherical)]
    for degree in range(1, n_spherical):
        between = zip(rows[-1][:-1], rows[-1][1:], strict=True)
        rows.append(
            np.array([brentq(lambda z, n=degree: spherical_jn(n, z), *ends) for ends in between])
        )
    return np.stack([row[:n_radial] for row in rows])


def zonal_harmonics(cosine: Float[Tensor, "n"], n_spherical: int) -> Float[Tensor, "n n_spherical"]:
    """Spherical harmonics Y_l0 = √((2l+1)/4π) P_l for l = 0 … `n_spherical` − 1.

    The Legendre polynomials follow from (l+1) P_{l+1} = (2l+1) x P_l − l P_{l−1}.
    """
    legendre = [torch.ones_like(cosine), cosine]
    for n in range(1, n_spherical - 1):
        legendre.append(
            cosine * legendre[-1] * ((2 * n + 1) / (n + 1)) - legendre[-2] * (n / (n + 1))
        )
    norms = [sqrt((2 * n + 1) / (4 * pi)) for n in range(n_spherical)]
    terms = zip(legendre[:n_spherical], norms, strict=True)
    return torch.stack([p * norm for p, norm in terms], dim=1)


def spherical_harmonics(direction: Float[Tensor, "n 3"], degree: int) -> list[Tensor]:
    """Real spherical harmonics of degrees l = 0 … `degree` ≤ 3, [n, 2l + 1] each.

    Each has a mean square of 1 over the sphere: 4π times the usual. Those of odd degree change
    sign with the direction.

    Args:
        direction: unit vectors.
    """
    x, y, z = direction.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    terms = [
        [(1.0, torch.ones_like(x))],
        [(sqrt(3), x), (sqrt(3), y), (sqrt(3), z)],
        [
            (sqrt(15), x * y),
            (sqrt(15), y * z),
            (sqrt(15), z * x),
            (sqrt(15) / 2, xx - yy),
            (sqrt(5) / 2, 3 * zz - 1),
        ],
        [
            (sqrt(35 / 8), y * (3 * xx - yy)),
            (sqrt(105), x * y * z),
            (sqrt(21 / 8), y * (5 * zz - 1)),
            (sqrt(7) / 2, z * (5 * zz - 3)),
            (sqrt(21 / 8), x * (5 * zz - 1)),
            (sqrt(105) / 2, z * (xx - yy)),
            (sqrt(35 / 8), x * (xx - 3 * yy)),
        ],
    ]
    return [torch.stack([c * t for c, t in row], dim=-1) for row in terms[: degree + 1]]


class SphereGrid(nn.Module):
    """Functions on the unit sphere as values on a grid, and back.

    The points and weights are a Lebedev rule. It is exact for polynomials up to `exact`, so that
    products of functions are expanded without error: what the grid does is equivariant to rounding.

    Args:
        degree: largest degree of the expansions, see `spherical_harmonics`.
        exact: degree of product and harmonic together. For the product of k functions that is
            (k + 1) · `degree`.
    """

    values_of: Tensor
    expansion_of: Tensor

    def __init__(self, degree: int, exact: int):
        super().__init__()
        self.degree = degree
        points, weights = lebedev_rule(exact)
        harmonics = torch.cat(spherical_harmonics(torch.from_numpy(points), degree), dim=1)
        # plain attributes, which .to(float32) does not round: see `_apply`
        self._tables = harmonics, (harmonics * torch.from_numpy(weights)[:, None]).T.contiguous()
        dtype = torch.get_default_dtype()
        self.register_buffer("values_of", self._tables[0].to(dtype), persistent=False)
        self.register_buffer("expansion_of", self._tables[1].to(dtype), persistent=False)

    def _apply(self, fn, recurse: bool = True) -> "SphereGrid":
        super()._apply(fn, recurse)
        # from float32 to float64, for example, all digits are there
        self.values_of, self.expansion_of = (
            table.to(buffer)
            for table, buffer in zip(self._tables, (self.values_of, self.expansion_of), strict=True)
        )
        return self

    def values(self, x: Float[Tensor, "n_harmonics *rest"]) -> Float[Tensor, "n_points *rest"]:
        """Values on the grid of functions given by their coefficients."""
        return (self.values_of @ x.flatten(1)).unflatten(1, x.shape[1:])

    def expand(self, f: Float[Tensor, "n_points *rest"]) -> Float[Tensor, "n_harmonics *rest"]:
        """Coefficients, up to the degree, of functions given by their values."""
        return (self.expansion_of @ f.flatten(1)).unflatten(1, f.shape[1:])

    def mean(self, f: Float[Tensor, "n_points *rest"]) -> Float[Tensor, "*rest"]:
        """Mean over the sphere, the coefficient of degree 0."""
        return (self.expansion_of[:1] @ f.flatten(1)).view(f.shape[1:])


def lebedev_rule(
    exact: int,
) -> tuple[Float[np.ndarray, "n_points 3"], Float[np.ndarray, "n_points"]]:
    """Points on the unit sphere and weights that sum to 1, exact to at least this degree."""
    from scipy import integrate

    # degrees for which there is a rule; that of degree 13 has negative weights
    degree = next(n for n in (3, 5, 7, 9, 11, 15) if n >= exact)
    points, weights = integrate.lebedev_rule(degree)
    return points.T.copy(), weights / weights.sum()
