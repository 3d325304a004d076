"""TorchMD-NET: TensorNet, 128 × 2, with its `TMDNETCalculator` and its option to compile.

Its networks search their neighbors themselves, also in training. It compiles with fixed shapes, so
every atom gets space for the largest number of neighbors here, plus a tenth.
"""

import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchmdnet.calculators import TMDNETCalculator
from torchmdnet.models.model import create_model

from peers import CUTOFF, LEARNING_RATE
from peers.systems import Frames, edges

VERSION = version("torchmd-net")
MODELS = {"tensornet-128x2": "tensornet"}
MODES = {"train": ("eager",), "call": ("eager", "compiled")}
# its example for rMD17, except for the cutoff
SETTINGS = {
    "embedding_dimension": 128,
    "num_layers": 2,
    "num_rbf": 32,
    "rbf_type": "expnorm",
    "trainable_rbf": False,
    "activation": "silu",
    "cutoff_lower": 0.0,
    "cutoff_upper": CUTOFF,
    "max_z": 100,
    "equivariance_invariance_group": "O(3)",
    "output_model": "Scalar",
    "reduce_op": "add",
    "precision": 32,
    "atom_filter": -1,
    "prior_model": None,
    "derivative": True,
}


def training(model: str, frames: Frames, mode: str) -> tuple[Callable[[], Tensor], int]:
    """See `peers`."""
    network = create_model(settings(model, frames)).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    n_frames, n_atoms = frames.energy.shape[0], frames.numbers.shape[0]
    numbers = torch.from_numpy(frames.numbers).repeat(n_frames)
    positions = torch.from_numpy(frames.positions).float().reshape(-1, 3)
    batch = torch.from_numpy(frames.batch)
    box = torch.from_numpy(frames.cell).float() if frames.periodic else None
    energy = torch.from_numpy(frames.energy).float()[:, None]
    forces = torch.from_numpy(frames.forces).float().reshape(-1, 3)

    def step() -> Tensor:
        optimizer.zero_grad()
        predicted, force = network(numbers, positions.detach(), batch, box)
        loss = ((predicted - energy) / n_atoms).square().mean()
        loss = loss + (force - forces).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, sum(p.numel() for p in network.parameters())


def calculator(model: str, frames: Frames, mode: str) -> tuple[TMDNETCalculator, int]:
    """See `peers`. The calculator reads a file, so the network is written to one."""
    arguments = settings(model, frames)
    network = create_model(dict(arguments))
    weights = {f"model.{key}": value for key, value in network.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.ckpt"
        torch.save({"hyper_parameters": arguments, "state_dict": weights}, file)
        made = NoCharge(
            str(file),
            compile=mode == "compiled",
            max_num_neighbors=arguments["max_num_neighbors"],
        )
    return made, sum(p.numel() for p in network.parameters())


class NoCharge(TMDNETCalculator):
    """The calculator with charge 0, because it requires a charge in `atoms.info`."""

    def calculate(self, atoms=None, properties=None, system_changes=()) -> None:
        atoms.info["charge"] = 0
        super().calculate(atoms, properties, system_changes)


def settings(model: str, frames: Frames) -> dict:
    """Settings of its configuration file, and the number of neighbors (self included)."""
    centers = edges(frames, CUTOFF)[0][0]
    most = int(np.bincount(centers).max()) + 1
    return {**SETTINGS, "model": MODELS[model], "max_num_neighbors": most + most // 10 + 1}
