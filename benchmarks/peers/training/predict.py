"""Energies and forces of a peer's checkpoint, by the peer's own code, in eV and eV/Å.

    PEER_PYTHON -P predict.py PEER CHECKPOINT FRAMES.npz OUT.npz

FRAMES.npz holds `numbers` [n_atoms] and `positions` [n_frames, n_atoms, 3] in Å. OUT.npz gets
`energy` [n_frames], `forces` [n_frames, n_atoms, 3] and `n_parameters`, the trained ones.
"""

import sys
import typing
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator

# all structures of one molecule -> energies, forces
Predict = Callable[[list[Atoms]], tuple[np.ndarray, np.ndarray]]
Loaded = tuple[torch.nn.Module, Predict]
KCAL_MOL = units.kcal / units.mol
BATCH = 50


def nequip(path: Path) -> Loaded:
    """The averaged weights, which NequIP itself loads."""
    from nequip.integrations.ase import NequIPCalculator

    calculator = NequIPCalculator._from_saved_model(path)
    return calculator.model, one_by_one(calculator)


def mace(path: Path) -> Loaded:
    """The averaged weights, which MACE saves."""
    from mace.calculators import MACECalculator

    model = torch.load(path.parent / "skeleton.pt", weights_only=False)
    model.load_state_dict(torch.load(path, weights_only=False)["model"])
    # a copy, because the calculator turns off the gradients of its model
    calculator = MACECalculator(models=[deepcopy(model)], device="cpu", default_dtype="float64")
    return model, one_by_one(calculator)


def schnetpack(path: Path) -> Loaded:
    """The averaged weights, which SchNetPack saves as its best model."""
    import torch.utils.data.dataloader as dataloader

    if not hasattr(dataloader, "T_co"):
        dataloader.T_co = typing.TypeVar("T_co", covariant=True)
    from schnetpack.interfaces import AtomsConverter
    from schnetpack.transform import MatScipyNeighborList

    model = torch.load(path, weights_only=False).eval()
    convert = AtomsConverter(neighbor_list=MatScipyNeighborList(cutoff=5.0))

    def predict(frames: list[Atoms]) -> tuple[np.ndarray, np.ndarray]:
        out = model(convert(frames))
        return KCAL_MOL * array(out["energy"]), KCAL_MOL * array(out["forces"])

    return model, in_batches(predict)


def torchmdnet(path: Path) -> Loaded:
    """The weights as trained; TorchMD-NET does not average them."""
    from torchmdnet.models.model import load_model

    model = load_model(str(path), derivative=True).eval()

    def predict(frames: list[Atoms]) -> tuple[np.ndarray, np.ndarray]:
        n_atoms = len(frames[0])
        numbers = torch.from_numpy(np.concatenate([f.numbers for f in frames]))
        positions = torch.from_numpy(np.concatenate([f.positions for f in frames])).float()
        batch = torch.arange(len(frames)).repeat_interleave(n_atoms)
        energy, forces = model(numbers, positions, batch)
        return KCAL_MOL * array(energy), KCAL_MOL * array(forces)

    return model, in_batches(predict)


def one_by_one(calculator: Calculator) -> Predict:
    """Predict with an ASE calculator."""

    def predict(frames: list[Atoms]) -> tuple[np.ndarray, np.ndarray]:
        energy, forces = [], []
        for atoms in frames:
            atoms.calc = calculator
            forces.append(atoms.get_forces())
            energy.append(atoms.get_potential_energy())
        return np.array(energy), np.array(forces)

    return predict


def in_batches(predict: Predict) -> Predict:
    """Predict a few structures at a time, to save memory."""

    def all_of_them(frames: list[Atoms]) -> tuple[np.ndarray, np.ndarray]:
        parts = [predict(frames[i : i + BATCH]) for i in range(0, len(frames), BATCH)]
        shape = (len(frames), len(frames[0]), 3)
        energy, forces = (np.concatenate([part[k].reshape(-1) for part in parts]) for k in (0, 1))
        return energy, forces.reshape(shape)

    return all_of_them


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


PEERS = {"nequip": nequip, "mace": mace, "schnetpack": schnetpack, "torchmdnet": torchmdnet}


def main() -> None:
    peer, checkpoint, frames, out = sys.argv[1:]
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    given = np.load(frames)
    model, predict = PEERS[peer](Path(checkpoint))
    energy, forces = predict([Atoms(given["numbers"], r) for r in given["positions"]])
    n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    np.savez(out, energy=energy, forces=forces, n_parameters=n_parameters)


if __name__ == "__main__":
    main()
