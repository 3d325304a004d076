"""Everything that training changes, in one object that is saved and restored whole.

Nothing else carries over from step to step: the order of the frames follows from the seed and
the epoch, so a run that is killed and resumed ends with the same bits as one that was not.
"""

from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from gradpot.errors import InputError
from gradpot.potential.checkpoint import read_tensors, write_tensors
from gradpot.train.config import Train
from gradpot.train.optimizers import optimizers
from gradpot.train.weights import flatten, layout

COUNTERS = {
    "step": 0,  # gradient steps done
    "epoch": 0,  # epochs done
    "position": 0,  # batches done of the epoch under way
    "loss_sum": 0.0,  # over the steps since the last validation
    "loss_steps": 0,
    "best": float("inf"),  # lowest validation score
    "since_best": 0,  # validations since then
    "plateau": 1.0,  # what the plateau schedule has left of the learning rate
    "since_plateau": 0,
    "wall_s": 0.0,
    "cpu_s": 0.0,
}
# 4: several optimizers
FORMAT = 4


class State:
    """Weights, their moving average, the optimizers and the counters of a run.

    Attributes:
        model: what is trained.
        average: the same network with exponentially averaged weights; validated and kept. It is in
            evaluation mode, the model in training mode.
        weights, averages: all parameters of the two, end to end. The networks' parameters are
            views of them, so that a step of Adam is one pass over one tensor.
        optimizers: each for a part of the weights, see `optimizers.optimizers`.
        step, epoch, ...: see `COUNTERS`.
    """

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

    def __init__(self, model: nn.Module, config: Train):
        self.model = model.train()
        self.average = deepcopy(model).requires_grad_(False).eval()
        self.weights, self.averages = flatten(model), flatten(self.average)
        self.weights.grad = torch.zeros_like(self.weights)
        self.optimizers = optimizers(self.weights, layout(model), config)
        vars(self).update(COUNTERS)
        self.compile_cpu_s = 0.0

    def count(self, loss: float, batches_per_epoch: int) -> None:
        """Note one step done, and its loss."""
        self.step += 1
        self.epoch, self.position = divmod(
            self.epoch * batches_per_epoch + self.position + 1, batches_per_epoch
        )
        self.loss_sum += loss
        self.loss_steps += 1

    def counters(self) -> dict[str, float | int]:
        """The numbers of `COUNTERS` as they stand."""
        return {name: getattr(self, name) for name in COUNTERS}

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file, all or nothing."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for n, optimizer in enumerate(self.optimizers):
            for i, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{n}.{i}.{k}": v for k, v in moments.items()}
        write_tensors(path, tensors, {"format": FORMAT, "counters": self.counters()})

    def restore(self, path: Path) -> None:
        """Take everything from a file that `save` wrote for the same model and optimizer.

        Raises:
            InputError: the file belongs to another model.
        """
        tensors, header = read_tensors(path)
        if header["format"] != FORMAT:
            raise InputError(
                f"{path} was written by another version of gradpot, as format "
                f"{header['format']}, not {FORMAT}; begin a new run"
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, key = name.partition(".")
            parts[part][key] = tensor
        try:
            self.model.load_state_dict(parts["model"])
            self.average.load_state_dict(parts["average"])
        except RuntimeError as error:
            raise InputError(f"{path} does not fit this model: {error}") from None
        moments: list[dict[int, dict[str, Tensor]]] = [{} for _ in self.optimizers]
        for key, tensor in parts["optimizer"].items():
            n, i, kind = key.split(".")
            moments[int(n)].setdefault(int(i), {})[kind] = tensor
        for optimizer, found in zip(self.optimizers, moments, strict=True):
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": found, "param_groups": groups})
        vars(self).update(header["counters"])
