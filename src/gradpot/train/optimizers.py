"""What moves the weights: Adam, AdamW, or Muon.

Muon (Jordan et al., 2024; scaled as in Liu et al., arXiv 2502.16982) moves a matrix along its
momentum with all singular values set to one: along all directions alike, not mostly along the few
that the gradient is made of. What is no matrix is left to AdamW.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradpot.train.config import Train
from gradpot.train.weights import Slot, stacks

# a step of Newton and Schulz is x ← a x + (b xxᵀ + c (xxᵀ)²) x; five bring singular values between
# 0.003 and 1 to between 0.7 and 1.2
QUINTIC = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
MOMENTUM = 0.95
# a momentum decays to no less, an entry of a matrix of norm 1 is no less: powers of smaller numbers
# would be denormal, and products of matrices thirty times slower
LOWEST_MOMENTUM, LOWEST_ENTRY = 1e-30, 1e-9
# root mean square of the entries of an update, times the learning rate: about that of Adam's
UPDATE_SIZE = 0.2


def optimizers(
    weights: Tensor, slots: Sequence[Slot], config: Train
) -> list[torch.optim.Optimizer]:
    """Each for a part of all weights, of which and of `weights.grad` it has views.

    Learning rates are set before every step.
    """
    settings: dict[str, Any] = {"weight_decay": config.weight_decay}
    if config.optimizer != "muon":
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        return [kind([weights], fused=True, **settings)]
    assert weights.grad is not None
    others, matrices = stacks(weights, slots)
    slopes = stacks(weights.grad, slots)
    others.grad = slopes[0]
    for stack, slope in zip(matrices, slopes[1], strict=True):
        stack.grad = slope
    adam = torch.optim.AdamW([others], fused=True, **settings)
    return [adam, Muon(matrices, **settings)] if matrices else [adam]


class Muon(torch.optim.Optimizer):
    """Orthogonalized Nesterov momentum, for stacks of matrices [n, n_rows, n_columns].

    Args:
        weight_decay: what is taken off the weights in each step, as a share of them and of the
            learning rate.
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


def orthogonal(
    x: Float[Tensor, "n n_rows n_columns"],
) -> Float[Tensor, "n n_rows n_columns"]:
    """Each matrix with singular values near 1 and its own singular vectors; zero stays zero."""
    if x.shape[-2] > x.shape[-1]:
        return orthogonal(x.mT).mT
    a, b, c = QUINTIC
    # by the largest entry first: squares of small ones are zero, and so would be the norm
    x = x / x.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    x = x / x.flatten(1).norm(dim=1).clamp(min=1.0)[:, None, None]
    x = x * (x.abs() > LOWEST_ENTRY)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x
