"""Everything that training changes, in one object that is saved and restored as a whole.

Nothing else carries over from step to step: the seed and the epoch determine the order of the
frames. A run that was killed and resumed therefore ends with the same bits as an uninterrupted one.
"""

from copy import deepcopy
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from gradpot.errors import InputError
from gradpot.models.base import Model
from gradpot.potential.checkpoint import read_tensors, write_tensors
from gradpot.potential.header import Number, Positive, Section, validated
from gradpot.train.optimizers import OPTIMIZERS
from gradpot.train.weights import flatten, layout

# 4: several optimizers
FORMAT = 4


Whole = Annotated[int, Field(strict=True, ge=0)]
Seconds = Annotated[float, Field(strict=True, ge=0)]


class Counters(Section):
    """The numbers of a state."""

    step: Whole = 0
    """gradient steps done"""
    epoch: Whole = 0
    """epochs done"""
    position: Whole = 0
    """batches done in the current epoch"""
    loss_sum: Number = 0.0
    """over the steps since the last validation"""
    loss_steps: Whole = 0
    best: Annotated[float, Field(strict=True, allow_inf_nan=True)] = float("inf")
    """lowest validation score"""
    since_best: Whole = 0
    """validations since then"""
    plateau: Positive = 1.0
    """factor of the learning rate in the plateau schedule"""
    since_plateau: Whole = 0
    """validations since it fell, or since the best"""
    wall_s: Seconds = 0.0
    cpu_s: Seconds = 0.0
    compile_wall_s: Seconds = 0.0
    """part of `wall_s`"""
    compile_cpu_s: Seconds = 0.0
    """part of `cpu_s`"""


class Header(Section):
    """The header of a `state.safetensors`."""

    format: Literal[4]
    counters: Counters


class State:
    """Weights, their moving average, the optimizers and the counters of a run.

    Args:
        model: its parameters become views of `weights`.
        optimizer: a name of `OPTIMIZERS`.
        weight_decay: share of the weights that a step removes, per learning rate.

    Attributes:
        model: what is trained, in training mode.
        average: the same network with exponentially averaged weights, in evaluation mode. This is
            the network that is validated and kept.
        weights, averages: all parameters of the two, end to end. The networks' parameters are
            views of them, so that a step of Adam is one pass over one tensor.
        optimizers: each for a part of the weights, see `optimizers`.
    """

    # saved and restored by the names that `Counters` has; `vars` of it are set here
    step: int
    epoch: int
    position: int
    loss_sum: float
    loss_steps: int
    best: float
    since_best: int
    plateau: float
    since_plateau: int
    wall_s: float
    cpu_s: float
    compile_wall_s: float
    compile_cpu_s: float

    def __init__(self, model: Model, optimizer: str, weight_decay: float = 0.0):
        vars(self).update(Counters())
        self.model: Model = model.train()
        self.average: Model = deepcopy(model).requires_grad_(False).eval()
        self.weights, self.averages = flatten(model), flatten(self.average)
        self.weights.grad = torch.zeros_like(self.weights)
        self.optimizers = OPTIMIZERS[optimizer](self.weights, layout(model), weight_decay)

    def count(self, loss: float, batches_per_epoch: int) -> None:
        """Note one step done, and its loss.

        After the last batch of an epoch, `position` is 0 again.
        """
        self.step += 1
        self.epoch, self.position = divmod(
            self.epoch * batches_per_epoch + self.position + 1, batches_per_epoch
        )
        self.loss_sum += loss
        self.loss_steps += 1

    def count_compiling(self, wall_s: float, cpu_s: float) -> None:
        """Note that compiling took so many seconds."""
        self.wall_s += wall_s
        self.cpu_s += cpu_s
        self.compile_wall_s += wall_s
        self.compile_cpu_s += cpu_s

    def count_validation(self, score: float, patience: int, factor: float) -> bool:
        """Note a validation `score` (lower is better); return whether it is the best so far.

        After `patience` validations without an improvement, `plateau` falls by `factor`.
        """
        better = score < self.best
        self.since_best = 0 if better else self.since_best + 1
        self.since_plateau = 0 if better else self.since_plateau + 1
        if better:
            self.best = score
        elif self.since_plateau >= patience:
            self.plateau *= factor
            self.since_plateau = 0
        return better

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file, all or nothing."""
        counters = {name: getattr(self, name) for name in Counters.model_fields}
        write_tensors(path, self._tensors(), {"format": FORMAT, "counters": counters})

    def restore(self, path: Path) -> None:
        """Read everything from a file that `save` wrote for the same model and optimizer.

        Raises:
            InputError: the file is damaged, or belongs to another model or version of gradpot.
        """
        tensors, content = read_tensors(path)
        if type(content.get("format")) is int and content["format"] != FORMAT:
            raise InputError(
                f"{path} was written by another version of gradpot: its format is "
                f"{content['format']}, not {FORMAT}; start a new run"
            )
        counters = validated(Header, content, path).counters
        for optimizer in self.optimizers if counters.step else ():
            # lets it make its moments, by a step that changes no weight
            for group in optimizer.param_groups:
                group["lr"] = 0.0
            optimizer.step()
        expected = self._tensors()
        for name in sorted(tensors.keys() ^ expected.keys()):
            what = "lacks" if name in expected else "has an unknown"
            raise InputError(f"{path} is damaged, or does not fit this model: it {what} {name}")
        for name, tensor in tensors.items():
            kind, wanted = ((x.dtype, tuple(x.shape)) for x in (tensor, expected[name]))
            if kind != wanted:
                raise InputError(
                    f"{path} does not fit this model: {name} is {kind[0]} {kind[1]}, not "
                    f"{wanted[0]} {wanted[1]}"
                )
            if not tensor.isfinite().all():
                raise InputError(f"{path} is damaged: {name} is not finite")
        with torch.no_grad():
            for name, tensor in tensors.items():
                expected[name].copy_(tensor)
        vars(self).update(counters)

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors: model.*, average.* and optimizer.NUMBER.WEIGHT.MOMENT."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for n, optimizer in enumerate(self.optimizers):
            for i, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{n}.{i}.{k}": v for k, v in moments.items()}
        return tensors
