"""The network that a file's header describes, if it is the one that the file's tensors belong to.

A header is text that anybody can write. It cannot make gradpot allocate or compute much more than
the tensors beside it are worth: sizes are compared before anything is built, and building stops
when it takes more than that.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from gradpot.errors import InputError
from gradpot.models import build, saved_specification, specification
from gradpot.models.base import Model

# no argument that counts is above the largest axis of a model's tensors, but for a few small ones
# such as exponents
SMALL = 128
# elements of a tensor that any model may make while it is built, such as 20,001 points of an
# integral over an activation
SCRATCH = 1_000_000
# functions that make tensors of any size
MAKERS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye}
# operations on tensors that build a model: GemNet-dT, which starts most carefully, takes 12 for
# each of its tensors, and DimeNet++ of torch_geometric 50
FREE_OPERATIONS, OPERATIONS_PER_TENSOR = 10_000, 200
# the data types of weights, as safetensors names them
FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""data type and shape of each tensor in a file"""


def rebuild(spec: Mapping[str, Any], shapes: Shapes, path: str | Path) -> Model:
    """Build the network of a header, with weights of the file's data type but not yet its values.

    Args:
        spec: name and arguments, as in `Model.spec`.
        path: of the file, for messages.

    Raises:
        InputError: the header names no model, lacks one of its arguments, or describes a network
            that has other tensors than the file.
    """
    try:
        whole = saved_specification(spec)
        lacking = specification(**whole).keys() - whole.keys()
        if lacking:
            raise InputError(f"its header's model lacks {', '.join(sorted(lacking))}")
        full = [shape for _, shape in shapes.values() if shape and prod(shape)]
        longest = max(map(max, full), default=1)
        for key, value in whole.items():
            if type(value) is int and value > max(SMALL, longest):
                raise InputError(
                    f"its header's {key} is {value}; the longest axis of its tensors is {longest}"
                )
        with _Budget(shapes):
            model = build(**whole)
    except InputError as error:
        raise InputError(f"{path} cannot be loaded: {error}") from error
    except Exception as error:  # from the constructor: its arguments contradict each other
        raise InputError(f"{path} is damaged: its model cannot be built ({error})") from error
    return model.to(_compare(model, shapes, path))


def _compare(model: Model, shapes: Shapes, path: str | Path) -> torch.dtype:
    """Check that the network has exactly the tensors of the file; return the weights' data type."""
    expected, kinds = model.state_dict(), set()
    for name in sorted(expected.keys() | shapes.keys()):
        if name not in shapes:
            raise InputError(f"{path} is damaged: it has no tensor {name!r}")
        if name not in expected:
            raise InputError(f"{path} is damaged: its model has no tensor {name!r}")
        kind, shape = shapes[name]
        if tuple(expected[name].shape) != shape:
            raise InputError(
                f"{path} is damaged: its tensor {name!r} is {list(shape)}, but its header "
                f"describes one of {list(expected[name].shape)}"
            )
        if expected[name].is_floating_point():
            kinds.add(kind)
    if len(kinds) != 1 or not kinds <= FLOATS.keys():
        raise InputError(
            f"{path} is damaged: its weights are {' and '.join(sorted(kinds))}, but must all be of "
            f"one of the data types {', '.join(FLOATS)}"
        )
    return FLOATS[kinds.pop()]


class _Budget(TorchFunctionMode):
    """Stop an operation that makes a tensor much larger than a file's, or the one too many."""

    def __init__(self, shapes: Shapes):
        super().__init__()
        self.elements = max(SCRATCH, sum(prod(shape) for _, shape in shapes.values()))
        self.operations = FREE_OPERATIONS + OPERATIONS_PER_TENSOR * len(shapes)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.operations -= 1
        size = 0
        if func in MAKERS:
            lengths = args[0] if args and isinstance(args[0], (list, tuple)) else args
            size = prod(length for length in lengths if isinstance(length, int))
        if self.operations < 0 or size > self.elements:
            raise InputError("its header describes a network much larger than its tensors")
        return func(*args, **(kwargs or {}))
