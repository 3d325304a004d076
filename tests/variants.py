"""Every variant of every model: all combinations of its filters, norms and kinds of forces."""

import inspect
from itertools import product
from typing import Any

import pytest
from torch import nn

from gradpot.models import MODELS, NAMES, build

SIZES = {"width": 8, "n_layers": 2, "n_radial": 6, "triplet_width": 6, "output_width": 10}


def forms(name: str) -> list[dict[str, str]]:
    """All combinations of the arguments in `NAMES` that a model has."""
    parameters = inspect.signature(MODELS[name]).parameters
    own = {key: names for key, names in NAMES.items() if key in parameters}
    return [dict(zip(own, values, strict=True)) for values in product(*own.values())]


VARIANTS = [
    pytest.param((name, form), id="-".join([name, *form.values()]))
    for name in MODELS
    for form in forms(name)
]

LONG_TO_TRACE = ("gaunt", "gemnet-dt", "dimenet++")


def layers_to_trace(variant: tuple[str, dict[str, str]]) -> list[tuple[int, list]]:
    """Numbers of layers, with marks."""
    return [(1, []), (2, [pytest.mark.slow])] if variant[0] in LONG_TO_TRACE else [(2, [])]


# for slow checks: the first form of each model; the other forms are marked slow
ONE_FORM_EACH = [
    pytest.param((name, form), id=case.id, marks=[] if form == forms(name)[0] else pytest.mark.slow)
    for case in VARIANTS
    for name, form in case.values
]

# the same with one layer of the models whose code takes long to trace; with two, slow
TO_TRACE = [
    pytest.param(case.values[0], n, id=f"{case.id}-{n}", marks=[*case.marks, *marks])
    for case in ONE_FORM_EACH
    for n, marks in layers_to_trace(case.values[0])
]


def small(variant: tuple[str, dict[str, str]], **sizes: Any) -> nn.Module:
    """A float64 model in one of its forms, with those of `sizes` and `SIZES` that it accepts."""
    name, form = variant
    parameters = inspect.signature(MODELS[name]).parameters
    known = {key: value for key, value in (SIZES | sizes).items() if key in parameters}
    return build(name, **form, **known).double()
