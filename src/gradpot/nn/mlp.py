"""Linear layers and small networks, with an initialization that knows the activation.

Weights are drawn so that second moments stay what they are from layer to layer: variance
gain²/n_in, with the gain of the activation that the layer's input has passed.
"""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from gradpot.nn.activations import Activation, gain


def linear(n_in: int, n_out: int, gain: float = 1.0, bias: bool = True) -> nn.Linear:
    """A linear layer with normal weights of standard deviation gain/√n_in and zero bias."""
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.normal_(layer.weight, std=gain * n_in**-0.5)
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
        self.activation = activation

    def forward(self, x: Float[Tensor, "n n_in"]) -> Float[Tensor, "n n_out"]:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)
