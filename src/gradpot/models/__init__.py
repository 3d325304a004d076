"""One paper, one file: `Graph` → atom energies. `MODELS` names them, `build` makes one."""

import inspect

from torch import nn

from gradpot.errors import InputError, unknown
from gradpot.models.painn import PaiNN
from gradpot.models.schnet import SchNet
from gradpot.nn.radial import FILTERS

MODELS: dict[str, type[nn.Module]] = {"schnet": SchNet, "painn": PaiNN}


def build(name: str, **arguments: object) -> nn.Module:
    """Make a model that remembers how it was made, in `.spec`, so that it can be saved.

    Args:
        name: one of `MODELS`.
        arguments: of its class; what is left out takes the class's default.

    Raises:
        InputError: the model, one of its arguments or a value is not known.
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    parameters = inspect.signature(MODELS[name]).parameters
    for key in arguments:
        if key not in parameters:
            raise unknown(f"argument of {name}", key, parameters)
    spec = {key: arguments.get(key, p.default) for key, p in parameters.items()}
    _check(spec)
    model = MODELS[name](**spec)
    model.spec = {"name": name, **spec}  # type: ignore[assignment]
    return model


def _check(spec: dict) -> None:
    if not spec["cutoff"] > 0:
        raise InputError(f"cutoff is {spec['cutoff']} Å but must be positive")
    for key in ("width", "n_layers", "n_radial"):
        if key in spec and (spec[key] < 1 or spec[key] != int(spec[key])):
            raise InputError(f"{key} is {spec[key]} but must be a positive whole number")
    if spec.get("filter", "mlp") not in FILTERS:
        raise unknown("filter", spec["filter"], FILTERS)
