"""Run a peer's own training command on one thread, and record when its training began.

    PEER_PYTHON -P launch.py CLOCK MODULE:FUNCTION [ARGUMENT ...]

CLOCK is a file of two int64: the CPU time of this process, in ns, when the peer's training function
was called (0 until then, during imports, reading and building the model), and the optimizer steps
since. Denormal floats are flushed to zero. The process ends right after training, because what a
peer does next (tests, plots, archives) is not training.
"""

import importlib
import os
import sys
import time
import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.utils.data.dataloader as dataloader
from torch.optim.optimizer import register_optimizer_step_post_hook

# module of the command -> the function that does the training
TRAINS = {
    "nequip.scripts.train": ("lightning.pytorch", "Trainer", "fit"),
    "torchmdnet.scripts.train": ("lightning.pytorch", "Trainer", "fit"),
    "schnetpack.cli": ("pytorch_lightning", "Trainer", "fit"),
    "mace.cli.run_train": ("mace", "tools", "train"),
}


def main() -> None:
    path, entry, *arguments = sys.argv[1:]
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    restore_names()
    clock = np.memmap(path, np.int64, "r+", shape=2)
    register_optimizer_step_post_hook(counter(clock))
    name, function = entry.split(":")
    module = importlib.import_module(name)
    package, holder, attribute = TRAINS[name]
    owner = getattr(importlib.import_module(package), holder)
    setattr(owner, attribute, watched(getattr(owner, attribute), clock, Path(path).parent))
    sys.argv = [name, *arguments]
    getattr(module, function)()


def restore_names() -> None:
    """Restore what SchNetPack 2.0.4 needs from torch and current torch no longer has."""
    if not hasattr(dataloader, "T_co"):
        dataloader.T_co = typing.TypeVar("T_co", covariant=True)
    begin = torch.optim.lr_scheduler.ReduceLROnPlateau.__init__

    def without_verbose(self, *arguments, verbose: bool = False, **options) -> None:
        begin(self, *arguments, **options)

    torch.optim.lr_scheduler.ReduceLROnPlateau.__init__ = without_verbose


def counter(clock: np.memmap) -> Callable:
    """A hook that counts optimizer steps."""

    def count(*_) -> None:
        clock[1] += 1

    return count


def watched(train: Callable, clock: np.memmap, folder: Path) -> Callable:
    """`train`, which writes its start to the clock and ends the process afterwards."""

    def run(*arguments, **options) -> None:
        if "model" in options and "checkpoint_handler" in options:
            # MACE's checkpoints contain only weights, so save the model too
            torch.save(options["model"], folder / "skeleton.pt")
        clock[0] = time.process_time_ns()
        train(*arguments, **options)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    return run


if __name__ == "__main__":
    main()
