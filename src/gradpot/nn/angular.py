"""Functions of an angle, given by its cosine: polynomials, finite with all their derivatives."""

from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor


def legendre(cosine: Float[Tensor, "n"], n_spherical: int) -> Float[Tensor, "n n_spherical"]:
    """√(2l + 1)·P_l(cos α) for l below `n_spherical`: unit second moment over the sphere."""
    values = [torch.ones_like(cosine), cosine]
    for l in range(1, n_spherical - 1):  # noqa: E741, Bonnet's recursion in its letters
        values.append(((2 * l + 1) * cosine * values[l] - l * values[l - 1]) / (l + 1))
    terms = [sqrt(2 * l + 1) * value for l, value in enumerate(values[:n_spherical])]  # noqa: E741
    return torch.stack(terms, dim=-1)
