"""NequIP with l = 1: 32 features, 4 layers; its own training-time compiler and AOTInductor.

Its compiled ASE target needs a cell, so a molecule gets one of 100 Å, without periodic images.
"""

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from ase.data import chemical_symbols
from nequip.data import AtomicDataDict as Key
from nequip.data import from_ase
from nequip.integrations.ase import NequIPCalculator
from nequip.integrations.utils import basic_transforms
from nequip.model import NequIPGNNModel
from nequip.scripts._compile_utils import COMPILE_TARGET_DICT
from nequip.utils.aot import aot_export_model
from nequip.utils.global_state import set_global_state
from torch import Tensor

from peers import CUTOFF, LEARNING_RATE, SEED
from peers.systems import Frames, edges

VERSION = version("nequip")
# without odd parity it is faster and, according to its documentation, as accurate
MODELS = {
    "nequip-l1-32x4": {"num_layers": 4, "l_max": 1, "num_features": 32, "parity": False},
}
MODES = {"train": ("eager", "compiled"), "call": ("eager", "compiled")}

set_global_state()


def training(model: str, frames: Frames, mode: str) -> tuple[Callable[[], Tensor], int]:
    """See `peers`."""
    network = build(model, frames, "compile" if mode == "compiled" else "eager").train()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    data = Key.batched_from_list([graph(frames, i) for i in range(len(frames.energy))])
    n_atoms = frames.numbers.shape[0]
    energy = torch.from_numpy(frames.energy).float()[:, None]
    forces = torch.from_numpy(frames.forces).float().reshape(-1, 3)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        out = network({key: value.detach() for key, value in data.items()})
        loss = ((out[Key.TOTAL_ENERGY_KEY] - energy) / n_atoms).square().mean()
        loss = loss + (out[Key.FORCE_KEY] - forces).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, sum(p.numel() for p in network.parameters())


def calculator(model: str, frames: Frames, mode: str) -> tuple[NequIPCalculator, int]:
    """See `peers`."""
    network = build(model, frames, "eager").eval()
    n_parameters = sum(p.numel() for p in network.parameters())
    if mode == "eager":
        made = NequIPCalculator(network, "cpu", transforms=transforms(frames))
        return made, n_parameters
    path = package(network, frames)
    made = WithCell.from_compiled_model(path, "cpu", chemical_species_to_atom_type_map=True)
    return made, n_parameters


class WithCell(NequIPCalculator):
    """The calculator, with a large cell for structures that have none."""

    def atoms_to_data(self, atoms):
        if not atoms.cell.any():
            atoms = atoms.copy()
            atoms.cell = [100.0] * 3
        return super().atoms_to_data(atoms)


def package(network, frames: Frames) -> str:
    """Compile the network as `nequip-compile --mode aotinductor --target ase` does.

    This takes minutes, so packages stay in the environment; the weights come from the seed.
    """
    name = f"{''.join(names(frames))}-{neighbors(frames):.3f}-{torch.get_num_threads()}.nequip.pt2"
    path = Path(sys.prefix) / "packages" / name
    if path.exists():
        return str(path)
    path.parent.mkdir(exist_ok=True)
    target = COMPILE_TARGET_DICT["ase"]
    sizes = {"graph": torch.export.Dim.STATIC}
    for key in ("node", "edge"):
        sizes[key] = torch.export.dynamic_shapes.Dim(f"num_{key}s", min=2, max=torch.inf)
    part = path.with_name("part-" + name)
    aot_export_model(
        model=network,
        device=torch.device("cpu"),
        input_fields=target["input"],
        output_fields=target["output"],
        data=target["data_settings"](graph(frames, 0, cell=True)),
        batch_map=sizes,
        output_path=str(part),
        inductor_configs={"aot_inductor.metadata": metadata(network, target)},
    )
    part.rename(path)
    return str(path)


def metadata(network, target: dict) -> dict[str, str]:
    """The metadata that the calculator reads from a package."""
    from nequip.utils.aoti_metadata import (
        NEQUIP_AOTI_INPUTS_KEY,
        NEQUIP_AOTI_OUTPUTS_KEY,
        serialize_aoti_keys,
    )
    from nequip.utils.global_state import get_latest_global_state

    found = {**network.metadata, **get_latest_global_state(only_metadata_related=True)}
    found = {key: str(int(v)) if isinstance(v, bool) else str(v) for key, v in found.items()}
    return {
        **found,
        NEQUIP_AOTI_INPUTS_KEY: serialize_aoti_keys(target["input"]),
        NEQUIP_AOTI_OUTPUTS_KEY: serialize_aoti_keys(target["output"]),
    }


def build(model: str, frames: Frames, compile_mode: str):
    """The network for the elements of these frames."""
    return NequIPGNNModel(
        **MODELS[model],
        seed=SEED,
        model_dtype="float32",
        type_names=names(frames),
        r_max=CUTOFF,
        avg_num_neighbors=neighbors(frames),
        per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0,
        compile_mode=compile_mode,
    )


def graph(frames: Frames, i: int, cell: bool = False) -> dict:
    """One frame with its edges, single precision."""
    atoms = frames.atoms(i)
    if cell and not frames.periodic:
        atoms.cell = [100.0] * 3
    data = from_ase(atoms)
    for transform in transforms(frames):
        data = transform(data)
    return data


def transforms(frames: Frames) -> list[Callable]:
    """Transforms that add atom types and edges, as in its calculator."""
    kinds = names(frames)
    return basic_transforms({}, CUTOFF, kinds, {name: name for name in kinds})


def neighbors(frames: Frames) -> float:
    """Mean number of neighbors of an atom."""
    return edges(frames, CUTOFF)[0].shape[1] / frames.positions[..., 0].size


def names(frames: Frames) -> list[str]:
    """Symbols of the elements."""
    return [chemical_symbols[z] for z in frames.elements]
