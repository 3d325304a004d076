"""Linear layers and small networks, with an initialization that knows the activation.

Weights are drawn after Glorot and Bengio (2010), as the published networks do, times the gain of
the activation that a layer's input has passed: an activation that shrinks second moments, or
squares them, then leaves the same signal behind it.
"""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from gradpot.nn.activations import Activation, gain


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
    """

    def __init__(self, sizes: Sequence[int], activation: Activation):
        super().__init__()
        gains = [1.0] + [gain(activation)] * (len(sizes) - 2)
        self.layers = nn.ModuleList(
            linear(n_in, n_out, g) for (n_in, n_out), g in zip(pairwise(sizes), gains, strict=True)
        )
        # one with parameters has its own in every place
        own = [deepcopy(activation) for _ in sizes[2:]]
        self.activations = nn.ModuleList(own) if isinstance(activation, nn.Module) else own

    def forward(self, x: Float[Tensor, "n n_in"]) -> Float[Tensor, "n n_out"]:
        for layer, activation in zip(self.layers[:-1], self.activations, strict=True):
            x = activation(layer(x))
        return self.layers[-1](x)
