"""Muon: momentum whose singular values are set to one, for stacks of matrices.

Muon (Jordan et al., 2024; scaled as in Liu et al., arXiv 2502.16982) moves a matrix along its
momentum equally far in all directions, instead of mostly in the few that dominate the gradient.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

# a Newton-Schulz step is x ← a x + (b xxᵀ + c (xxᵀ)²) x; five steps bring singular values between
# 0.003 and 1 to between 0.7 and 1.2 (Jordan et al.)
QUINTIC = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
# as in Jordan et al.
MOMENTUM = 0.95
# momenta and entries of normalized matrices below these are set to zero: their powers would be
# denormal, which makes matrix products thirty times slower
LOWEST_MOMENTUM, LOWEST_ENTRY = 1e-30, 1e-9
# rms of an update's entries per learning rate: about that of Adam (Liu et al.)
UPDATE_SIZE = 0.2


class Muon(Optimizer):
    """Orthogonalized Nesterov momentum, for stacks of matrices [n, n_rows, n_columns].

    Args:
        weight_decay: share of the weights that a step removes, per learning rate.
    """

    def __init__(self, matrices: Sequence[Tensor], weight_decay: float = 0.0):
        super().__init__(matrices, {"lr": 1e-3, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every stack by its gradient."""
        for group in self.param_groups:
            for stack in group["params"]:
                if not self.state[stack]:
                    self.state[stack]["momentum"] = torch.zeros_like(stack)
                momentum = self.state[stack]["momentum"].lerp_(stack.grad, 1.0 - MOMENTUM)
                momentum.mul_(momentum.abs() > LOWEST_MOMENTUM)
                update = orthogonal(stack.grad.lerp(momentum, MOMENTUM))
                size = UPDATE_SIZE * max(stack.shape[-2:]) ** 0.5
                stack.mul_(1.0 - group["lr"] * group["weight_decay"])
                stack.sub_(update, alpha=group["lr"] * size)


def orthogonal(x: Float[Tensor, "n n_rows n_columns"]) -> Float[Tensor, "n n_rows n_columns"]:
    """Set singular values to about 1 and keep singular vectors; a zero matrix stays zero."""
    if x.shape[-2] > x.shape[-1]:
        return orthogonal(x.mT).mT
    a, b, c = QUINTIC
    # divide by the largest entry first: squares of small entries underflow, and so does the norm
    x = x / x.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    x = x / x.flatten(1).norm(dim=1).clamp(min=1.0)[:, None, None]
    x = x * (x.abs() > LOWEST_ENTRY)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x
