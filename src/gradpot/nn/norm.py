"""Batch norm that a training step can be traced through.

In training mode a batch is normalized by its own mean and variance and nothing is remembered, so
a step has no side effect. What evaluation needs is measured before it, over a few batches:
"precise batch norm" (Wu and Johnson, arXiv 2105.07576, section 3). A network that is trained on
its derivatives is better without: in training mode the force on one molecule depends on the
others of its batch (arXiv 2310.01649).
"""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-5
Moments = tuple[Tensor, Tensor]


class BatchNorm(nn.Module):
    """(x − mean)/√(variance + ε) · weight + bias, by column (arXiv 1502.03167, algorithm 1).

    Args:
        width: columns.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, *parts: Float[Tensor, "_ width"]) -> list[Tensor]:
        """Each part of a batch, normalized by the moments of the whole."""
        mean, variance = moments(parts) if self.training else (self.mean, self.variance)
        scale = self.weight * (variance + EPSILON).rsqrt()
        return [(part - mean) * scale + self.bias for part in parts]


class NoNorm(nn.Module):
    """Every part as it is."""

    def __init__(self, width: int):
        super().__init__()

    def forward(self, *parts: Tensor) -> list[Tensor]:
        return list(parts)


NORMS: dict[str, type[nn.Module]] = {"none": NoNorm, "batch": BatchNorm}


def moments(parts: Sequence[Float[Tensor, "_ width"]]) -> Moments:
    """Mean and (biased) variance of each column over the rows of all parts."""
    n_rows = sum(part.shape[0] for part in parts)
    mean = torch.stack([part.sum(0) for part in parts]).sum(0) / n_rows
    squares = torch.stack([(part - mean).square().sum(0) for part in parts])
    return mean, squares.sum(0) / n_rows


def batch_norms(model: nn.Module) -> list[BatchNorm]:
    """The batch norms of a model, in its own order."""
    return [module for module in model.modules() if isinstance(module, BatchNorm)]


@torch.no_grad()
def measure(model: nn.Module, batches: Iterable) -> None:
    """Set the mean and the variance of every batch norm to those of some batches.

    The variance is that within the batches and that between their means. The model is left in
    the mode that it was in.

    Args:
        batches: what the model is called with, one after the other.
    """
    layers = batch_norms(model)
    if not layers:
        return
    seen: list[list[Moments]] = [[] for _ in layers]
    hooks = [
        layer.register_forward_pre_hook(partial(_note, into))
        for layer, into in zip(layers, seen, strict=True)
    ]
    training = model.training
    model.train()
    for graph in batches:
        model(graph)
    model.train(training)
    for layer, hook, pairs in zip(layers, hooks, seen, strict=True):
        hook.remove()
        # batches without rows, such as those of lone atoms, have no moments
        if pairs:
            means, variances = (torch.stack(column) for column in zip(*pairs, strict=True))
            layer.mean.copy_(means.mean(0))
            layer.variance.copy_(variances.mean(0) + means.var(0, correction=0))


def _note(into: list[Moments], _layer: nn.Module, parts: tuple[Tensor, ...]) -> None:
    if parts[0].shape[0]:
        into.append(moments(parts))
