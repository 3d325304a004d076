"""MACE: 64x0e + 64x1o, two layers, otherwise the defaults of `mace_run_train`; float32.

`cuequivariance` needs a GPU, so "compiled" is the calculator's own `compile_mode`.
"""

from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from mace.calculators import MACECalculator  # before e3nn, so that e3nn can read its files

# isort: split
from e3nn import o3
from mace import data, modules, tools
from mace.tools import torch_geometric
from torch import Tensor

from peers import CUTOFF, LEARNING_RATE
from peers.systems import Frames, edges

VERSION = version("mace-torch")
MODELS = {"mace-64x0e+64x1o": "64x0e + 64x1o"}
MODES = {"train": ("eager",), "call": ("eager", "compiled")}


def training(model: str, frames: Frames, mode: str) -> tuple[Callable[[], Tensor], int]:
    """See `peers`."""
    network = build(model, frames)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, amsgrad=True)
    batch = batched(frames).to_dict()
    n_atoms = frames.numbers.shape[0]
    energy = torch.from_numpy(frames.energy).float()
    forces = torch.from_numpy(frames.forces).float().reshape(-1, 3)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        out = network(batch, training=True)
        loss = ((out["energy"] - energy) / n_atoms).square().mean()
        loss = loss + (out["forces"] - forces).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, sum(p.numel() for p in network.parameters())


def calculator(model: str, frames: Frames, mode: str) -> tuple[MACECalculator, int]:
    """See `peers`."""
    network = build(model, frames).eval()
    n_parameters = sum(p.numel() for p in network.parameters())
    return MACECalculator(
        models=network,
        device="cpu",
        default_dtype="float32",
        compile_mode="default" if mode == "compiled" else None,
    ), n_parameters


def build(model: str, frames: Frames) -> torch.nn.Module:
    """The defaults of `mace.tools.build_default_arg_parser`."""
    tools.set_default_dtype("float32")
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    elements = frames.elements
    return modules.ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=len(elements),
        hidden_irreps=o3.Irreps(MODELS[model]),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(elements)),
        avg_num_neighbors=edges(frames, CUTOFF)[0].shape[1] / frames.positions[..., 0].size,
        atomic_numbers=elements,
        correlation=3,
        gate=torch.nn.functional.silu,
        use_reduced_cg=False,
        radial_MLP=[64, 64, 64],
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )


def batched(frames: Frames):
    """All frames as one batch, as MACE's data loader would make it."""
    table = tools.AtomicNumberTable(frames.elements)
    graphs = [
        data.AtomicData.from_config(
            data.config_from_atoms(frames.atoms(i), data.KeySpecification()), table, CUTOFF
        )
        for i in range(len(frames.energy))
    ]
    return torch_geometric.Batch.from_data_list(graphs)
