"""One gradient step, and one update of the weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gradpot.compile import Gradients
from gradpot.data.dataset import Batch
from gradpot.potential import predict
from gradpot.train.config import Train
from gradpot.train.state import State

BatchLoss = Callable[..., Tensor]


def gradients(model: nn.Module, loss: BatchLoss, stress: bool) -> Gradients:
    """A function from parameters and a batch to the loss and its gradient.

    Args:
        loss: of the network's raw properties and the batch (`loss.weighted`).
        stress: whether the loss looks at the stress.
    """
    names = [name for name, _ in model.named_parameters()]

    def step(parameters: list[Tensor], piece: Batch) -> tuple[Tensor, ...]:
        weights = dict(zip(names, parameters, strict=True))

        def network(graph):
            return torch.func.functional_call(model, weights, (graph,))

        raw = predict(network, piece.graph, create_graph=True, stress=stress)
        value = loss(raw, piece)
        slopes = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        return value.detach(), *slopes

    return step


@torch.no_grad()
def update(state: State, slopes: list[Tensor], learning_rate: float, config: Train) -> None:
    """Clip, step, average: change the weights of `state` by one batch's gradient."""
    for parameter, slope in zip(state.parameters, slopes, strict=True):
        parameter.grad = slope
    torch.nn.utils.clip_grad_norm_(state.parameters, config.clip_norm, foreach=True)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    state.optimizer.step()
    # the average forgets the first steps sooner
    decay = min(config.ema, (1 + state.step) / (10 + state.step))
    torch._foreach_lerp_(state.averages, state.parameters, 1.0 - decay)
