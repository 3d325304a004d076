"""One paper, one file: `Graph` → atom energies. `MODELS` names them, `build` makes one.

A model says of itself what is not the rule: `direct = True`, it returns atom energies and forces,
which are then not the gradient of anything; `invariant = False`, what it says changes when a
structure is turned, and it is trained on structures that are turned at random.
"""

import importlib
import inspect
from math import isfinite
from typing import Any

from torch import nn

from gradpot.errors import InputError, unknown
from gradpot.models.cgcnn import CGCNN
from gradpot.models.dimenet import DimeNetPlusPlus
from gradpot.models.forcenet import ForceNet
from gradpot.models.gemnet import GemNetDT
from gradpot.models.painn import PaiNN
from gradpot.models.schnet import SchNet
from gradpot.nn.activations import look_up
from gradpot.nn.norm import NORMS
from gradpot.nn.radial import FILTERS

MODELS: dict[str, type[nn.Module]] = {
    "schnet": SchNet,
    "painn": PaiNN,
    "cgcnn": CGCNN,
    "forcenet": ForceNet,
    "dimenet++": DimeNetPlusPlus,
    "gemnet-dt": GemNetDT,
}
# of other packages: file, which imports the package and has the name of its extra, and class
EXTERNAL = {
    "pyg/schnet": ("pyg", "SchNet"),
    "pyg/dimenet++": ("pyg", "DimeNetPlusPlus"),
    "schnetpack/schnet": ("schnetpack", "SchNet"),
    "schnetpack/painn": ("schnetpack", "PaiNN"),
}
FORCES = ("gradient", "direct")
NAMES = {"filter": FILTERS, "norm": NORMS, "forces": FORCES}
# readouts halve the width; Gaussians lie cutoff/(n_radial - 1) apart
SMALLEST = {"width": 2, "n_radial": 2}
KINDS = {int: "a whole number", float: "a number", str: "a name"}


def build(name: str, **arguments: object) -> nn.Module:
    """Make a model that remembers how it was made, in `.spec`, so that it can be saved.

    Args:
        name: one of `MODELS`, or of `EXTERNAL`.
        arguments: of its class; what is left out takes the class's default.

    Raises:
        InputError: the model, one of its arguments or a value is not known, or it is of a package
            that is not installed.
    """
    spec = specification(name, **arguments)
    model = model_class(name)(**spec)
    model.spec = {"name": name, **spec}  # type: ignore[assignment]
    return model


def model_class(name: str) -> type[nn.Module]:
    """The class of a model; it may have to be imported."""
    if name in MODELS:
        return MODELS[name]
    if name not in EXTERNAL:
        raise unknown("model", name, (*MODELS, *EXTERNAL))
    file, kind = EXTERNAL[name]
    try:
        return getattr(importlib.import_module(f"gradpot.models.external.{file}"), kind)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise InputError(
            f'model {name} needs {package}, which is not here: pip install "gradpot[{file}]"'
        ) from None


def specification(name: str, **arguments: object) -> dict[str, Any]:
    """All arguments of a model, checked, without making it."""
    parameters = inspect.signature(model_class(name)).parameters
    for key in arguments:
        if key not in parameters:
            raise unknown(f"argument of {name}", key, parameters)
    for key, value in arguments.items():
        _check_kind(key, value, parameters[key].annotation)
        _check_value(key, value)
    return {key: arguments.get(key, p.default) for key, p in parameters.items()}


def _check_kind(key: str, value: object, kind: Any) -> None:
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{key} is {value!r} but must be {KINDS.get(kind, kind)}")


def _check_value(key: str, value: Any) -> None:
    if key in NAMES and value not in NAMES[key]:
        raise unknown(key, value, NAMES[key])
    if key in ("activation", "output_activation"):
        look_up(value)
    if isinstance(value, float) and not isfinite(value):
        raise InputError(f"{key} is {value} but must be finite")
    if key == "cutoff" and value <= 0:
        raise InputError(f"cutoff is {value} Å but must be positive")
    if type(value) is int and value < (least := SMALLEST.get(key, 1)):
        raise InputError(f"{key} is {value} but must be at least {least}")
