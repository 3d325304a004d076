"""Scale down a network whose initial forces are far larger than the labels."""

from torch import nn

from gradpot.graph.dataset import Batch
from gradpot.nn.initialize import bound_moments
from gradpot.potential.potential import predict

# rms forces in the unit of the labels: a network above the first is scaled down to the second.
# Networks of this package start far below the first, except with quadratic activations.
TOO_LARGE, SMALL_ENOUGH = 50.0, 5.0
# rms of the layers' outputs, tried in this order
LIMITS = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2)


def scale_down(model: nn.Module, batch: Batch) -> str | None:
    """Scale a network down, in place, if its forces on a batch far exceed any label.

    This goes layer by layer (`nn.initialize.bound_moments`), to smaller and smaller moments until
    the forces are small enough. Without this, the forces of GemNet and DimeNet++ with IReLU
    on molecules would not even be finite.

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
