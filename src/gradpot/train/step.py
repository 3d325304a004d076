"""One gradient step, and one update of the weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gradpot.data.dataset import Batch
from gradpot.potential import predict
from gradpot.train.config import Train
from gradpot.train.state import State

GradientStep = Callable[[Batch], tuple[Tensor, list[Tensor]]]
BatchLoss = Callable[..., Tensor]


def gradient_step(model: nn.Module, loss: BatchLoss, stress: bool) -> GradientStep:
    """A function from a batch to its loss and the loss's gradient, parameter by parameter.

    Args:
        loss: of the network's raw properties and the batch (`loss.weighted`).
        stress: whether the loss looks at the stress.
    """
    parameters = list(model.parameters())

    def step(batch: Batch) -> tuple[Tensor, list[Tensor]]:
        raw = predict(model, batch.graph, create_graph=True, stress=stress)
        value = loss(raw, batch)
        gradients = torch.autograd.grad(
            value, parameters, allow_unused=True, materialize_grads=True
        )
        return value.detach(), list(gradients)

    return step


@torch.no_grad()
def update(state: State, gradients: list[Tensor], learning_rate: float, config: Train) -> None:
    """Clip, step, average: change the weights of `state` by one batch's gradients."""
    for parameter, gradient in zip(state.parameters, gradients, strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(state.parameters, config.clip_norm, foreach=True)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    state.optimizer.step()
    # the average forgets the first steps sooner
    decay = min(config.ema, (1 + state.step) / (10 + state.step))
    torch._foreach_lerp_(state.averages, state.parameters, 1.0 - decay)
