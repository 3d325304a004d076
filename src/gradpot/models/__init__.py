"""One paper, one file: `Graph` → atom energies. `MODELS` names them, `build` makes one.

`base.Model` is what a model owes the rest of the package.
"""

import importlib
import inspect
from collections.abc import Mapping
from math import isfinite
from typing import Any

from gradpot import other_names
from gradpot.errors import InputError, shown, unknown
from gradpot.models.base import Model
from gradpot.models.cgcnn import CGCNN
from gradpot.models.dimenet import DimeNetPlusPlus
from gradpot.models.forcenet import ForceNet
from gradpot.models.gaunt import Gaunt
from gradpot.models.gemnet import GemNetDT
from gradpot.models.painn import VECTOR_NORMS, PaiNN
from gradpot.models.schnet import SchNet
from gradpot.nn.activations import look_up
from gradpot.nn.norm import NORMS
from gradpot.nn.radial import FILTERS

MODELS: dict[str, type[Model]] = {
    "gaunt": Gaunt,
    "schnet": SchNet,
    "painn": PaiNN,
    "cgcnn": CGCNN,
    "forcenet": ForceNet,
    "dimenet++": DimeNetPlusPlus,
    "gemnet-dt": GemNetDT,
}
# networks of other packages: the file of `external`, whose name is also that of the extra, and the
# class in it
EXTERNAL = {
    "pyg/schnet": ("pyg", "SchNet"),
    "pyg/dimenet++": ("pyg", "DimeNetPlusPlus"),
    "schnetpack/schnet": ("schnetpack", "SchNet"),
    "schnetpack/painn": ("schnetpack", "PaiNN"),
}
# in the name of a network of the user's own, between file and class; see `own.add_own`
OWN = ".py:"
# arguments whose value is one of a few names
NAMES = {
    "filter": FILTERS,
    "norm": NORMS,
    "forces": ("gradient", "direct"),
    "vector_norm": VECTOR_NORMS,
}
# readouts halve the width; Gaussians are cutoff/(n_radial − 1) apart
SMALLEST = {"width": 2, "n_radial": 2, "order": 2}
# far beyond any published model; a larger number is a slip, and fills the memory
LARGEST = {"n_layers": 100, "cutoff": 100.0, "degree": 3, "order": 3}
LARGEST_OTHER = 10_000
KINDS = {int: "a whole number", float: "a number", str: "a name"}
# values of arguments for models that were saved before the arguments existed
IMPLIED = {"painn": {"vector_norm": "published"}}


def build(name: str, **arguments: object) -> Model:
    """Make a model that remembers how it was made, in `.spec`, so that it can be saved.

    Args:
        name: one of `MODELS` or of `EXTERNAL`, in any case, or what `own.add_own` returned.
        arguments: of its class; the others have the defaults of the class.

    Raises:
        InputError: the model, one of its arguments or a value is unknown, or the package that the
            model comes from is not installed.
    """
    name = other_names.in_lower_case({"name": name})["name"]
    spec = specification(name, **arguments)
    model = model_class(name)(**spec)
    model.spec = {"name": name, **spec}
    return model


def model_class(name: str) -> type[Model]:
    """The class of a model; this may import the package that it comes from."""
    if name in MODELS:
        return MODELS[name]
    if OWN in name:
        raise InputError(
            f"{name} is somebody's own network, whose code runs only if you name its file: "
            f"--model FOLDER/{name}"
        )
    if name not in EXTERNAL:
        raise unknown("model", name, (*MODELS, *EXTERNAL), other_names.MODELS)
    file, kind = EXTERNAL[name]
    try:
        return getattr(importlib.import_module(f"gradpot.models.external.{file}"), kind)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise InputError(
            f'model {name} needs {package}, which is not installed: pip install "gradpot[{file}]"'
        ) from error


def specification(name: str, **arguments: object) -> dict[str, Any]:
    """All arguments of a model, checked, without making the model."""
    spec = other_names.in_lower_case({"name": name, **arguments})
    name, arguments = spec.pop("name"), spec
    kind = model_class(name)
    if kind.sizes and (size := arguments.pop("size", None)) is not None:
        if size not in kind.sizes:
            raise unknown("size", size, kind.sizes)
        arguments = {**kind.sizes[str(size)], **arguments}
    parameters = inspect.signature(kind, eval_str=True).parameters
    for key, value in arguments.items():
        if key not in parameters:
            raise unknown(f"argument of {name}", key, parameters, other_names.ARGUMENTS)
        wanted: Any = parameters[key].annotation
        accepted = (int, float) if wanted is float else wanted
        if not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool):
            raise InputError(f"{key} is {value!r} but must be {KINDS.get(wanted, wanted)}")
        if value != parameters[key].default:
            _check_value(key, value)
    return {key: arguments.get(key, p.default) for key, p in parameters.items()}


def saved_specification(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A specification from a file, completed by arguments that did not exist when it was written.

    Args:
        spec: name and arguments, as `build` stores them in `.spec`.

    Returns:
        A specification for `build` that gives the same network as before.
    """
    return {**IMPLIED.get(spec.get("name", ""), {}), **spec}


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
    most = LARGEST.get(key, LARGEST_OTHER)
    if isinstance(value, int | float) and value > most:
        raise InputError(f"{key} is {shown(value)} but must be at most {most:g}")
