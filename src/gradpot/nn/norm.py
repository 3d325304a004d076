"""Batch norm without side effects, so that a training step can be traced.

In training mode a batch is normalized by its own mean and variance, and nothing is stored. The
moments for evaluation are measured over a few batches before they are needed: "precise batch norm"
(Wu and Johnson, arXiv 2105.07576, section 3). Networks that are trained on derivatives do better
without batch norm: in training mode the forces on a molecule depend on the rest of its batch
(arXiv 2310.01649).
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
        """Each part of a batch, normalized by the moments of the whole batch."""
        mean, variance = moments(parts) if self.training else (self.mean, self.variance)
        scale = self.weight * (variance + EPSILON).rsqrt()
        return [(part - mean) * scale + self.bias for part in parts]


class NoNorm(nn.Module):
    """The identity."""

    def __init__(self, width: int):
        super().__init__()

    def forward(self, *parts: Tensor) -> list[Tensor]:
        return list(parts)


NORMS: dict[str, type[nn.Module]] = {"none": NoNorm, "batch": BatchNorm}


def moments(parts: Sequence[Float[Tensor, "_ width"]]) -> Moments:
    """Mean and (biased) variance of each column over the rows of all parts.

    Args:
        parts: blocks of rows that are never concatenated, to save the copy.

    Returns:
        Both of shape [width]. Differentiable, as training needs them.
    """
    n_rows = sum(part.shape[0] for part in parts)
    mean = torch.stack([part.sum(0) for part in parts]).sum(0) / n_rows
    squares = torch.stack([(part - mean).square().sum(0) for part in parts])
    return mean, squares.sum(0) / n_rows


def batch_norms(model: nn.Module) -> list[BatchNorm]:
    """The batch norms of a model, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, BatchNorm)]


@torch.no_grad()
def measure(model: nn.Module, batches: Iterable) -> None:
    """Set the mean and variance of every batch norm to those of some batches.

    The variance is the sum of that within batches and that between their means. The model keeps
    its mode.

    Args:
        batches: inputs of the model, one after the other.
    """
    layers = batch_norms(model)
    if not layers:
        return
    seen: list[list[Moments]] = [[] for _ in layers]

    def note(into: list[Moments], _layer: nn.Module, parts: tuple[Tensor, ...]) -> None:
        # batches without rows, such as those of isolated atoms, have no moments
        if parts[0].shape[0]:
            into.append(moments(parts))

    hooks = [
        layer.register_forward_pre_hook(partial(note, into))
        for layer, into in zip(layers, seen, strict=True)
    ]
    training = model.training
    model.train()
    for graph in batches:
        model(graph)
    model.train(training)
    for layer, hook, pairs in zip(layers, hooks, seen, strict=True):
        hook.remove()
        if pairs:
            means, variances = (torch.stack(column) for column in zip(*pairs, strict=True))
            layer.mean.copy_(means.mean(0))
            layer.variance.copy_(variances.mean(0) + means.var(0, correction=0))
