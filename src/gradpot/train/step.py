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
    """A function from all weights, as `state.flatten` lays them, and a batch to loss and gradient.

    Args:
        loss: of the network's raw properties and the batch (`loss.weighted`).
        stress: whether the loss looks at the stress.
    """
    shapes = {name: p.shape for name, p in model.named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]

    def step(weights: Tensor, piece: Batch) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            weights = weights.detach().requires_grad_()
            pieces = zip(shapes.items(), weights.split(sizes), strict=True)
            parameters = {name: part.view(shape) for (name, shape), part in pieces}

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
    state.weights.grad = slope
    torch.nn.utils.clip_grad_norm_([state.weights], config.clip_norm)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    state.optimizer.step()
    # the average forgets the first steps sooner
    decay = min(config.ema, (1 + state.step) / (10 + state.step))
    state.averages.lerp_(state.weights, 1.0 - decay)
