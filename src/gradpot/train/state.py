"""Everything that training changes, in one object that is saved and restored as a whole.

Nothing else carries over from step to step: the seed and the epoch determine the order of the
frames. A run that was killed and resumed therefore ends with the same bits as an uninterrupted one.
"""

from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from gradpot.errors import InputError
from gradpot.models.base import Model
from gradpot.potential.checkpoint import read_tensors, write_tensors
from gradpot.train.optimizers import OPTIMIZERS
from gradpot.train.weights import flatten, layout

# 4: several optimizers
FORMAT = 4


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

    # counters, saved and restored by these names
    step: int = 0  # gradient steps done
    epoch: int = 0  # epochs done
    position: int = 0  # batches done in the current epoch
    loss_sum: float = 0.0  # over the steps since the last validation
    loss_steps: int = 0
    best: float = float("inf")  # lowest validation score
    since_best: int = 0  # validations since then
    plateau: float = 1.0  # factor of the learning rate in the plateau schedule
    since_plateau: int = 0  # validations since it fell, or since the best
    wall_s: float = 0.0
    cpu_s: float = 0.0
    # parts of these
    compile_wall_s: float = 0.0
    compile_cpu_s: float = 0.0

    def __init__(self, model: Model, optimizer: str, weight_decay: float = 0.0):
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
        """Write everything to one safetensors file, all or nothing.

        Tensors are named model.*, average.* and optimizer.NUMBER.WEIGHT.MOMENT; the counters are
        in the header.
        """
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for n, optimizer in enumerate(self.optimizers):
            for i, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{n}.{i}.{k}": v for k, v in moments.items()}
        counters = {name: getattr(self, name) for name in State.__annotations__}
        write_tensors(path, tensors, {"format": FORMAT, "counters": counters})

    def restore(self, path: Path) -> None:
        """Read everything from a file that `save` wrote for the same model and optimizer.

        Raises:
            InputError: the file belongs to another model or another version of gradpot.
        """
        tensors, header = read_tensors(path)
        if header["format"] != FORMAT:
            raise InputError(
                f"{path} was written by another version of gradpot: its format is "
                f"{header['format']}, not {FORMAT}; start a new run"
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, key = name.partition(".")
            parts[part][key] = tensor
        try:
            self.model.load_state_dict(parts["model"])
            self.average.load_state_dict(parts["average"])
        except RuntimeError as error:
            raise InputError(f"{path} does not fit this model: {error}") from error
        saved = [optimizer.state_dict() for optimizer in self.optimizers]
        for key, tensor in parts["optimizer"].items():
            n, i, kind = key.split(".")
            saved[int(n)]["state"].setdefault(int(i), {})[kind] = tensor
        for optimizer, content in zip(self.optimizers, saved, strict=True):
            optimizer.load_state_dict(content)
        vars(self).update(header["counters"])
