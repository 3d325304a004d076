"""Linear layers and small networks, with an initialization that knows the activation.

Weights are drawn after Glorot and Bengio (2010), as the published networks do, times the gain of
the activation that a layer's input has passed: an activation that shrinks second moments, or
squares them, then leaves the same signal behind it.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradpot.nn.activations import Activation, gain


def branch_scale(n_layers: int) -> float:
    """What the last weights of each of `n_layers` residual branches are multiplied by: 1/√(2n).

    All branches together then add half of the first layer's second moment, whatever their
    number. IReLU squares: a branch's moment grows as q², so that without the factor ½,
    dq/dl = q²/n from q = 1, moments would diverge at the last layer.
    """
    return (2 * n_layers) ** -0.5


def linear(n_in: int, n_out: int, gain: float = 1.0, bias: bool = True) -> nn.Linear:
    """A linear layer with weights of variance 2·gain²/(n_in + n_out) and zero bias."""
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.xavier_normal_(layer.weight, gain)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """Linear layers with an activation between them, none after the last.

    Args:
        sizes: widths from input to output, at least two.
        scale: of the output at the start.
    """

    def __init__(self, sizes: Sequence[int], activation: Activation, scale: float = 1.0):
        super().__init__()
        gains = [1.0] + [gain(activation)] * (len(sizes) - 2)
        gains[-1] *= scale
        self.layers = nn.ModuleList(
            linear(n_in, n_out, g) for (n_in, n_out), g in zip(pairwise(sizes), gains, strict=True)
        )
        # one with parameters has its own in every place
        own: list = [deepcopy(activation) for _ in sizes[2:]]
        self.activations = nn.ModuleList(own) if isinstance(activation, nn.Module) else own

    def forward(self, x: Float[Tensor, "n n_in"]) -> Float[Tensor, "n n_out"]:
        for layer, activation in zip(self.layers[:-1], self.activations, strict=True):
            x = activation(layer(x))
        return self.layers[-1](x)


@torch.no_grad()
def bound_moments(network: nn.Module, *inputs: object, limit: float = 1.0) -> None:
    """Divide the weights of layers, in place: for these inputs no output has an rms above `limit`.

    Layer by layer as in `unit_moments`, in the one pass in which each layer is reached. For
    networks in which an activation that squares follows another without a path around it:
    GemNet and DimeNet++ multiply the logarithm of what deviates by 2⁸ and more in a block. A
    layer is a module with a matrix named weight that is no table of embeddings; one with
    several matrices of its own brings a method `bound_moments`, which is given its inputs.
    """
    hooks = []
    for module in network.modules():
        if own := getattr(module, "bound_moments", None):
            hooks.append(module.register_forward_pre_hook(partial(_own_bound, own, limit)))
        elif _is_layer(module):
            hooks.append(module.register_forward_hook(partial(_bound, limit)))
    try:
        network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()


def _is_layer(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim > 1 and not isinstance(module, nn.Embedding)


def _own_bound(own: Callable, limit: float, _module: nn.Module, inputs: tuple) -> None:
    own(*inputs, limit)


def _bound(
    limit: float, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor | None:
    size = output.square().mean().sqrt() / limit
    if size <= 1.0:
        return None
    layer.weight.div_(size)  # type: ignore[operator, union-attr]
    return layer.forward(*inputs)


@torch.no_grad()
def unit_moments(
    network: MLP | nn.Linear, x: Float[Tensor, "n n_in"], scale: float = 1.0
) -> MLP | nn.Linear:
    """Scale each layer's weights: for these inputs its outputs get unit second moment.

    Layer by layer and in place, as Mishkin and Matas do (arXiv 1511.06422). For inputs whose
    moments are known and far from one, such as radial bases, where the gain alone cannot help.

    Args:
        scale: of the last layer's outputs.
    """
    layers = list(network.layers) if isinstance(network, MLP) else [network]
    for i, layer in enumerate(layers):
        layer.weight.div_(layer(x).square().mean().sqrt())  # type: ignore[operator, union-attr]
        if i + 1 < len(layers):
            x = network.activations[i](layer(x))  # type: ignore[index, operator]
    layers[-1].weight.mul_(scale)  # type: ignore[operator, union-attr]
    return network
