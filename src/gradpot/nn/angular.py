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
# numbers of functions of `spherical_harmonics`
N_EVEN, N_ODD = 6, 3


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


def spherical_harmonics(
    direction: Float[Tensor, "n 3"],
) -> tuple[Float[Tensor, "n 6"], Float[Tensor, "n 3"]]:
    """Real spherical harmonics: those of degrees 0 and 2, and those of degree 1.

    The first are even; the last change sign with the direction. Each has a mean square of 1 over
    the sphere, 4π times the usual.

    Args:
        direction: unit vectors.
    """
    x, y, z = direction.unbind(-1)
    second = [x * y, y * z, z * x, (x * x - y * y) / 2, (3 * z * z - 1) / sqrt(12)]
    even = torch.stack([torch.ones_like(x), *(sqrt(15) * term for term in second)], dim=-1)
    return even, sqrt(3) * direction
