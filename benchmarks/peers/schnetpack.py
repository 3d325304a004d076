"""SchNetPack: SchNet and PaiNN, with its `SpkCalculator`.

This adapter works around two problems with current torch: the import needs a name that torch no
longer has, and torch refuses to read the model from a file. The neighbor list is matscipy's with
the package's own skin of 0.3 Å. The model takes the gradient for the forces inside itself, which
torch.compile cannot trace, so "compiled" compiles the representation only.
"""

import typing
from collections.abc import Callable
from importlib.metadata import version

import torch
import torch.utils.data.dataloader
from torch import Tensor

torch.utils.data.dataloader.T_co = typing.TypeVar("T_co")  # type: ignore[attr-defined]

import schnetpack as spk  # noqa: E402
from schnetpack import properties as key  # noqa: E402
from schnetpack.interfaces import SpkCalculator  # noqa: E402
from schnetpack.transform import MatScipyNeighborList, SkinNeighborList  # noqa: E402

from peers import CUTOFF, LEARNING_RATE  # noqa: E402
from peers.systems import Frames, edges  # noqa: E402

VERSION = version("schnetpack")
MODELS = {
    "schnet-128x6": lambda cutoff: spk.representation.SchNet(
        128, 6, spk.nn.GaussianRBF(50, CUTOFF), cutoff
    ),
    "painn-128x3": lambda cutoff: spk.representation.PaiNN(
        128, 3, spk.nn.GaussianRBF(20, CUTOFF), cutoff
    ),
}
MODES = {"train": ("eager",), "call": ("eager", "compiled")}


def training(model: str, frames: Frames, mode: str) -> tuple[Callable[[], Tensor], int]:
    """See `peers`."""
    network = build(model)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    inputs = batched(frames)
    n_atoms = frames.numbers.shape[0]
    energy = torch.from_numpy(frames.energy).float()
    forces = torch.from_numpy(frames.forces).float().reshape(-1, 3)

    def step() -> Tensor:
        optimizer.zero_grad()
        out = network(dict(inputs))
        loss = ((out["energy"] - energy) / n_atoms).square().mean()
        loss = loss + (out["forces"] - forces).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, sum(p.numel() for p in network.parameters())


def calculator(model: str, frames: Frames, mode: str) -> tuple[SpkCalculator, int]:
    """See `peers`."""
    network = build(model).eval()
    if mode == "compiled":
        network.representation = torch.compile(network.representation, dynamic=True)

    class InMemory(SpkCalculator):
        def _load_model(self, model_file):
            return network

    # its examples of Langevin and Verlet dynamics use the skin
    search = SkinNeighborList(MatScipyNeighborList(CUTOFF), cutoff_skin=0.3)
    made = InMemory("", search, energy_unit="eV", position_unit="Ang")
    return made, sum(p.numel() for p in network.parameters())


def build(model: str) -> spk.model.NeuralNetworkPotential:
    """Distances, representation, energy readout and forces."""
    return spk.model.NeuralNetworkPotential(
        representation=MODELS[model](spk.nn.CosineCutoff(CUTOFF)),
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[
            spk.atomistic.Atomwise(128, output_key="energy"),
            spk.atomistic.Forces(),
        ],
    )


def batched(frames: Frames) -> dict[str, Tensor]:
    """All frames as one batch, as SchNetPack's data loader would make it."""
    n_frames, n_atoms = frames.energy.shape[0], frames.numbers.shape[0]
    edge_index, offset = edges(frames, CUTOFF)
    return {
        key.Z: torch.from_numpy(frames.numbers).repeat(n_frames),
        key.R: torch.from_numpy(frames.positions).float().reshape(-1, 3),
        key.idx_i: torch.from_numpy(edge_index[0]),
        key.idx_j: torch.from_numpy(edge_index[1]),
        key.offsets: torch.from_numpy(offset).float(),
        key.idx_m: torch.from_numpy(frames.batch),
        key.n_atoms: torch.full((n_frames,), n_atoms),
    }
