"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, for stacks of matrices.

Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", ICLR 2025, arXiv 2409.11321,
algorithm 3. For a matrix with gradient G, running means L of G Gᵀ and R of Gᵀ G have eigenvectors
Q_L and Q_R. Adam moves Q_Lᵀ W Q_R instead of W. `orthogonalized` gives SOAP-Muon (Harari et al.,
2026, arXiv 2607.02499): the singular values of the move are then set to one.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from gradpot.train.muon import LOWEST_MOMENTUM, UPDATE_SIZE, orthogonal

# as in Vyas et al.
BETA, SQUARE_BETA, COVARIANCE_BETA = 0.95, 0.95, 0.95
# relative to the largest root of a mean square in a matrix. Directions without a gradient, such as
# those of dead units, get one of 1e-7 by rounding, which the published 1e-8 (not relative) would
# turn into a full move.
EPSILON = 1e-5
# steps between two improvements of the eigenvectors, by one step of orthogonal iteration
EVERY = 10
# a side longer than this keeps its own basis: its eigenvectors would cost more than the gradient
LONGEST = 128


class SOAP(Optimizer):
    """Adam in the eigenbasis of the gradient's covariances, for stacks [n, n_rows, n_columns].

    The first step only sets the eigenvectors and moves nothing, as in the authors' code.

    Args:
        weight_decay: share of the weights that a step removes, per learning rate.
        orthogonalized: SOAP-Muon, which sets the singular values of each move to one.
    """

    def __init__(
        self,
        matrices: Sequence[Tensor],
        weight_decay: float = 0.0,
        orthogonalized: bool = False,
    ):
        super().__init__(matrices, {"lr": 1e-3, "weight_decay": weight_decay})
        self.orthogonalized = orthogonalized

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every stack by its gradient."""
        for group in self.param_groups:
            for stack in group["params"]:
                state = self.state[stack]
                if not state:
                    self._start(state, stack.grad)
                    continue
                move = self._move(state, stack.grad)
                if self.orthogonalized:
                    size = UPDATE_SIZE * max(stack.shape[-2:]) ** 0.5
                    move = size * orthogonal(move)
                stack.mul_(1.0 - group["lr"] * group["weight_decay"])
                stack.sub_(move, alpha=group["lr"])

    def _start(self, state: dict, gradient: Tensor) -> None:
        """Covariances of the first gradient, their eigenvectors, and moments of zero."""
        for side, square in _squares(gradient):
            state[f"covariance_{side}"] = (1.0 - COVARIANCE_BETA) * square
            state[f"basis_{side}"] = torch.linalg.eigh(square).eigenvectors.flip(-1)
        state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] = torch.zeros((), dtype=torch.float32)

    def _move(self, state: dict, gradient: Tensor) -> Tensor:
        """The move per learning rate, and one step of everything that is kept."""
        state["step"] += 1.0
        t = state["step"].item()
        state["mean"].lerp_(gradient, 1.0 - BETA)
        state["square"].lerp_(_rotated(state, gradient).square(), 1.0 - SQUARE_BETA)
        for moment in (state["mean"], state["square"]):
            moment.mul_(moment.abs() > LOWEST_MOMENTUM)
        mean = _rotated(state, state["mean"]) / (1.0 - BETA**t)
        root = (state["square"] / (1.0 - SQUARE_BETA**t)).sqrt()
        floor = EPSILON * root.amax((1, 2), keepdim=True).clamp(min=LOWEST_MOMENTUM)
        move = _rotated(state, mean / (root + floor), back=True)
        for side, square in _squares(gradient):
            covariance, basis = state[f"covariance_{side}"], state[f"basis_{side}"]
            covariance.lerp_(square, 1.0 - COVARIANCE_BETA)
            if t % EVERY == 0:
                basis.copy_(torch.linalg.qr(covariance @ basis).Q)
        return move


def _squares(x: Float[Tensor, "n n_rows n_columns"]) -> list[tuple[str, Tensor]]:
    """Both squares, x xᵀ and xᵀ x, by their sides; none for a side that is too long."""
    sides = (("rows", x.shape[-2], x, x.mT), ("columns", x.shape[-1], x.mT, x))
    return [(name, a @ b) for name, length, a, b in sides if length <= LONGEST]


def _rotated(state: dict, x: Tensor, back: bool = False) -> Float[Tensor, "n n_rows n_columns"]:
    """A stack in the eigenvectors' basis, or `back` from it."""
    rows, columns = state.get("basis_rows"), state.get("basis_columns")
    if rows is not None:
        x = (rows if back else rows.mT) @ x
    if columns is not None:
        x = x @ (columns.mT if back else columns)
    return x
