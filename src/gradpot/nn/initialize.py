"""Linear layers and MLPs, whose initialization knows the activation and the depth.

Weights are drawn after Glorot and Bengio (2010), as in the published networks, times the gain of
the activation before the layer. The second moment of the signal then stays the same after any
activation.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradpot.nn.activations import Activation, gain


def branch_scale(n_layers: int) -> float:
    """Factor of the last weights of each of `n_layers` residual branches: 1/√(2n).

    Together the branches add half of the first layer's second moment q, whatever their number.
    IReLU squares its input, so a branch adds q²: without the ½, dq/dl = q²/n from q = 1 diverges
    at the last layer.

    Args:
        n_layers: number of residual branches, one after the other.
    """
    return (2 * n_layers) ** -0.5


def linear(n_in: int, n_out: int, gain: float = 1.0, bias: bool = True) -> nn.Linear:
    """A linear layer with weights of variance 2·gain²/(n_in + n_out) and a bias of zero.

    Args:
        gain: 1, or that of the activation in front of the layer (`activations.gain`).
    """
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.xavier_normal_(layer.weight, gain)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """Linear layers with activations between them, and none after the last.

    Args:
        sizes: widths from input to output, at least two.
        scale: rms of the output at the start, for inputs of unit second moment.
    """

    def __init__(self, sizes: Sequence[int], activation: Activation, scale: float = 1.0):
        super().__init__()
        gains = [1.0] + [gain(activation)] * (len(sizes) - 2)
        gains[-1] *= scale
        self.layers = nn.ModuleList(
            linear(n_in, n_out, g) for (n_in, n_out), g in zip(pairwise(sizes), gains, strict=True)
        )
        # an activation with parameters has its own copy in every place
        own: list = [deepcopy(activation) for _ in sizes[2:]]
        self.activations = nn.ModuleList(own) if isinstance(activation, nn.Module) else own

    def forward(self, x: Float[Tensor, "n n_in"]) -> Float[Tensor, "n n_out"]:
        for layer, activation in zip(self.layers[:-1], self.activations, strict=True):
            x = activation(layer(x))
        return self.layers[-1](x)


class Stack(nn.Module, ABC):
    """A module with several weight matrices of its own, which knows how to bound them."""

    @abstractmethod
    def bound_moments(self, x: Tensor, limit: float) -> None:
        """Divide weights in place so that, for this input, no product has an rms above `limit`."""


@torch.no_grad()
def bound_moments(network: nn.Module, *inputs: object, limit: float = 1.0) -> None:
    """Divide weights in place so that, for these inputs, no output has an rms above `limit`.

    All layers are treated in one pass, in the order in which `forward` reaches them, as in
    `unit_moments`. This is for networks that stack quadratic activations without skip connections:
    a block of GemNet or DimeNet++ raises deviations to the power of 2⁸ and more. A layer is a
    module with a matrix named weight that is not an embedding, or a `Stack`.
    """

    def of_stack(stack: Stack, inputs: tuple[Tensor, ...]) -> None:
        stack.bound_moments(inputs[0], limit)

    def of_layer(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        size = output.square().mean().sqrt() / limit
        if size <= 1.0:
            return None
        layer.weight.div_(size)  # type: ignore[operator, union-attr]
        return layer.forward(*inputs)

    hooks = []
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, Stack):
            hooks.append(module.register_forward_pre_hook(of_stack))
        elif (
            isinstance(weight, Tensor) and weight.ndim > 1 and not isinstance(module, nn.Embedding)
        ):
            hooks.append(module.register_forward_hook(of_layer))
    try:
        network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def unit_moments(
    network: MLP | nn.Linear, x: Float[Tensor, "n n_in"], scale: float = 1.0
) -> MLP | nn.Linear:
    """Scale weights in place so that, for these inputs, each layer has unit second moment.

    As in Mishkin and Matas (arXiv 1511.06422). Use this for inputs whose moments are known and far
    from one, such as radial bases, where the gain alone does not help.

    Args:
        scale: rms of the last layer's outputs.
    """
    layers = list(network.layers) if isinstance(network, MLP) else [network]
    for i, layer in enumerate(layers):
        layer.weight.div_(layer(x).square().mean().sqrt())  # type: ignore[operator, union-attr]
        if i + 1 < len(layers):
            x = network.activations[i](layer(x))  # type: ignore[index, operator]
    layers[-1].weight.mul_(scale)  # type: ignore[operator, union-attr]
    return network
