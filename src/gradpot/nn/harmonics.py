"""Real spherical harmonics of a direction, as polynomials of its components."""

from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

N_EVEN, N_ODD = 6, 3


def harmonics(
    direction: Float[Tensor, "n 3"],
) -> tuple[Float[Tensor, "n 6"], Float[Tensor, "n 3"]]:
    """Degrees 0 and 2, which are the same for −direction; and 1, which change sign.

    Each has a mean square of 1 over the sphere, 4π times the usual.

    Args:
        direction: unit vectors.
    """
    x, y, z = direction.unbind(-1)
    second = [x * y, y * z, z * x, (x * x - y * y) / 2, (3 * z * z - 1) / sqrt(12)]
    even = torch.stack([torch.ones_like(x), *(sqrt(15) * term for term in second)], dim=-1)
    return even, sqrt(3) * direction
