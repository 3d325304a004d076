"""Every model with every filter that it has, small."""

import inspect

from torch import nn

from gradpot.models import MODELS, build
from gradpot.nn.radial import FILTERS

SIZES = {"width": 8, "n_layers": 2, "n_radial": 6, "triplet_width": 6, "output_width": 10}


def takes(model: str, argument: str) -> bool:
    return argument in inspect.signature(MODELS[model]).parameters


KINDS = [(m, f) for m in MODELS for f in (FILTERS if takes(m, "filter") else ["none"])]


def small(model: str, **arguments: object) -> nn.Module:
    """Of the arguments, and `SIZES`, those that the model has."""
    wanted = SIZES | arguments
    return build(model, **{k: v for k, v in wanted.items() if takes(model, k)})
