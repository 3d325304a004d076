"""How a network begins: with forces of about the size of the labels."""

from torch import nn

from gradpot.graph.dataset import Batch
from gradpot.nn.initialize import bound_moments
from gradpot.potential.potential import predict

# rms of forces, in the unit of the labels: beyond which a network is scaled down, and to which
LOUD, QUIET = 50.0, 5.0
LIMITS = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2)


def quiet(model: nn.Module, piece: Batch) -> str | None:
    """Scale a network down whose forces on these structures are far larger than any label.

    Layer by layer (`nn.mlp.bound_moments`), to smaller and smaller second moments until they are
    not. Networks of this package begin far below LOUD with all activations but those that square:
    with IReLU, GemNet's and DimeNet++'s forces on molecules are not finite.

    Returns:
        What was done, in words; nothing where nothing was.
    """
    first = _force(model, piece)
    if first <= LOUD:  # not so for NaN
        return None
    for limit in LIMITS:
        bound_moments(model, piece.graph, limit=limit)
        if (force := _force(model, piece)) <= QUIET:
            break
    return (
        f"the network began with forces of {first:.2g} times the labels and was scaled down, layer "
        f"by layer, to {force:.2g} times"
    )


def _force(model: nn.Module, piece: Batch) -> float:
    """Root mean square of a component."""
    return predict(model, piece.graph, stress=False).forces.square().mean().sqrt().item()
