"""How a network starts: with forces about as large as the labels."""

from torch import nn

from gradpot.graph.dataset import Batch
from gradpot.nn.initialize import bound_moments
from gradpot.potential.potential import predict

# rms of forces in the unit of the labels: above which a network is scaled down, and to which.
# Networks of this package start far below the first, except with quadratic activations.
TOO_LARGE, SMALL_ENOUGH = 50.0, 5.0
# root second moments of the layers' outputs, tried in this order
LIMITS = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2)


def scale_down(model: nn.Module, batch: Batch) -> str | None:
    """Scale a network down, in place, if its forces on a batch far exceed any label.

    Layer by layer (`nn.initialize.bound_moments`), to smaller and smaller second moments until
    the forces are small enough. With IReLU, the forces of GemNet and DimeNet++ on molecules are
    not even finite before.

    Returns:
        A notice of what was done; None if nothing was.
    """

    def rms_force() -> float:
        return predict(model, batch.graph, stress=False).forces.square().mean().sqrt().item()

    if (first := rms_force()) <= TOO_LARGE:  # false for NaN
        return None
    for limit in LIMITS:
        bound_moments(model, batch.graph, limit=limit)
        if (force := rms_force()) <= SMALL_ENOUGH:
            break
    return (
        f"the network began with forces of {first:.2g} times the labels and was scaled down, layer "
        f"by layer, to {force:.2g} times"
    )
