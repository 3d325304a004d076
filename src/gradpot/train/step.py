"""One gradient step, and one update of the weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gradpot.compile.step import Gradients
from gradpot.graph.dataset import Batch
from gradpot.potential.potential import predict
from gradpot.train.config import Train
from gradpot.train.state import State
from gradpot.train.weights import by_name, layout

BatchLoss = Callable[..., Tensor]


def gradients(model: nn.Module, loss: BatchLoss, stress: bool) -> Gradients:
    """A function from all weights, in the order of `layout`, and a batch to loss and gradient.

    Args:
        loss: of the network's raw properties and the batch (`loss.weighted`).
        stress: whether the loss looks at the stress.
    """
    slots = layout(model)

    def step(weights: Tensor, piece: Batch) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            weights = weights.detach().requires_grad_()
            parameters = by_name(weights, slots)

            def network(graph):
                return torch.func.functional_call(model, parameters, (graph,))

            raw = predict(network, piece.graph, create_graph=True, stress=stress)
            value = loss(raw, piece)
            (slope,) = torch.autograd.grad(value, weights)
        return value.detach(), slope

    return step


@torch.no_grad()
def update(state: State, slope: Tensor, learning_rate: float, config: Train) -> None:
    """Clip, step, average: change the weights of `state` by one batch's gradient."""
    state.weights.grad.copy_(slope)  # type: ignore[union-attr]
    torch.nn.utils.clip_grad_norm_([state.weights], config.clip_norm)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
    # the average forgets the first steps sooner
    decay = min(config.ema, (1 + state.step) / (10 + state.step))
    state.averages.lerp_(state.weights, 1.0 - decay)
