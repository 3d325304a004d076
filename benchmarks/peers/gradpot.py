"""gradpot itself, through its own functions, like the other packages.

A training step does more here than in the other packages: it also clips the gradient and averages
the weights, as gradpot always does.
"""

import inspect
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gradpot import Calculator, __version__
from gradpot.compile.step import compile_step, example_batch
from gradpot.data.frames import Frames as Labeled
from gradpot.graph.dataset import Dataset, batch, dataset
from gradpot.models import build
from gradpot.potential.potential import Potential
from gradpot.process import keep_memory
from gradpot.train.config import Train
from gradpot.train.loss import Weights, penalty, weighted
from gradpot.train.state import State
from gradpot.train.step import gradients, update
from peers import CUTOFF, LEARNING_RATE
from peers.systems import Frames

VERSION = __version__
MODELS = {
    "schnet-128x6": {"name": "schnet", "width": 128, "n_layers": 6, "n_radial": 50},
    "painn-128x3": {"name": "painn", "width": 128, "n_layers": 3, "n_radial": 20},
    "painn-64x3": {"name": "painn", "width": 64, "n_layers": 3},
    "dimenet++": {
        "name": "dimenet++",
        "width": 128,
        "n_layers": 4,
        "triplet_width": 64,
        "output_width": 256,
    },
}
MODES = {"train": ("eager", "compiled"), "call": ("eager", "compiled")}


def training(model: str, frames: Frames, mode: str) -> tuple[Callable[[], Tensor], int]:
    """See `peers`."""
    # every training run starts with this
    keep_memory()
    network = build(**MODELS[model], cutoff=CUTOFF)
    data = graphs(frames)._replace(triplets=getattr(network, "uses_triplets", False))
    # Adam, as in the other packages
    config = Train(optimizer="adam")
    state = State(network, config.optimizer)
    loss = partial(
        weighted,
        weights=Weights(1.0, 1.0, 0.0),
        length=1.0,
        penalty=penalty("huber", 0.01),
    )
    step = gradients(network, loss, stress=False)
    if mode == "compiled":
        step = compile_step(step, state.weights, example_batch(data, network))
    minibatch = batch(data, torch.arange(len(frames.energy)))

    def whole_step() -> Tensor:
        value, gradient = step(state.weights, minibatch)
        update(state, gradient, LEARNING_RATE, config)
        return value

    return whole_step, sum(p.numel() for p in network.parameters())


def calculator(model: str, frames: Frames, mode: str) -> tuple[Calculator, int]:
    """See `peers`."""
    network = build(**MODELS[model], cutoff=CUTOFF)
    potential = Potential(network, dict.fromkeys(frames.elements, 0.0), 1.0)
    options = {"compile": mode == "compiled"}
    if "compile" not in inspect.signature(Calculator.__init__).parameters:
        if mode == "compiled":
            raise NotImplementedError(f"the calculator of gradpot {VERSION} does not compile")
        options = {}
    return Calculator(potential, **options), sum(p.numel() for p in network.parameters())


def graphs(frames: Frames) -> Dataset:
    """The frames as the package's training set."""
    n_frames, n_atoms = frames.energy.shape[0], frames.numbers.shape[0]
    labeled = Labeled(
        n_atoms=np.full(n_frames, n_atoms),
        numbers=np.tile(frames.numbers, n_frames),
        positions=frames.positions.reshape(-1, 3),
        cell=np.tile(frames.cell, (n_frames, 1, 1)),
        pbc=np.full((n_frames, 3), frames.periodic),
        energy=frames.energy,
        forces=frames.forces.reshape(-1, 3),
        stress=np.full((n_frames, 3, 3), np.nan),
    )
    return dataset(labeled, CUTOFF)
