"""What changes the weights: Adam, AdamW, or for the matrices Muon, SOAP or SOAP-Muon.

Vectors then use AdamW with the same learning rate.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from gradpot.train.muon import Muon
from gradpot.train.soap import SOAP
from gradpot.train.weights import Slot, stacks

# each for a part of the weights; learning rates are set before every step
Optimizers = list[Optimizer]
# (all weights with their gradient, their layout, weight decay) -> optimizers
Make = Callable[[Tensor, Sequence[Slot], float], Optimizers]


def by_matrix(
    kind: Callable[[Sequence[Tensor], float], Optimizer],
    weights: Tensor,
    slots: Sequence[Slot],
    weight_decay: float,
) -> Optimizers:
    """An optimizer for the matrices, AdamW for the rest, on views of `weights` and its gradient.

    A stack of matrices of one shape is one parameter. A network without matrices gets AdamW alone.

    Args:
        kind: makes the optimizer of stacks of matrices from them and the weight decay.
    """
    assert weights.grad is not None
    vectors, matrices = stacks(weights, slots)
    vectors.grad, gradients = stacks(weights.grad, slots)
    for stack, gradient in zip(matrices, gradients, strict=True):
        stack.grad = gradient
    rest = AdamW([vectors], fused=True, weight_decay=weight_decay)
    return [rest, kind(matrices, weight_decay)] if matrices else [rest]


OPTIMIZERS: dict[str, Make] = {
    "muon": partial(by_matrix, Muon),
    "soap": partial(by_matrix, SOAP),
    "soap-muon": partial(by_matrix, partial(SOAP, orthogonalized=True)),
    # adds the decay to the gradient
    "adam": lambda weights, slots, decay: [Adam([weights], fused=True, weight_decay=decay)],
    # decay is decoupled from the gradient
    "adamw": lambda weights, slots, decay: [AdamW([weights], fused=True, weight_decay=decay)],
}
# measured default learning rates up to a width of 64; the others use the model's `adam_rate`
DEFAULT_RATES = {"muon": 2.5e-3}
