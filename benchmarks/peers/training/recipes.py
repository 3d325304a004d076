"""How each peer is trained: its files, its own command, its best checkpoint.

PyG is left out, because it has models but no training command.

A recipe is the peer's published one for small molecules, with its batch size, learning rate, loss
and averaging; the cutoff is 5 Å for all. There are two schedules. "curve" is the published one,
usually a reduction on plateau; one run serves all budgets. "annealed" lowers the learning rate
within the budget, with an option of the peer's own command, if it has one.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import db, io, units

from gradpot.data.frames import Frames

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent / ".envs"
KCAL_MOL = units.kcal / units.mol


class Data(NamedTuple):
    """The frames, the same for all peers."""

    train: Frames
    valid: Frames


class Plan(NamedTuple):
    """The settings of a command."""

    data: Path
    """folder with the files of `write`"""
    seed: int
    annealed: bool
    epochs: int
    n_train: int
    n_valid: int


class Recipe(NamedTuple):
    """One model of one peer."""

    peer: str
    package: str
    """name of the Python package, to look up its version"""
    entry: str
    """module:function of the peer's training command"""
    batch_size: int
    anneals: bool
    write: Callable[[Data, Path], None]
    """writes the frames into a folder, in the peer's format"""
    arguments: Callable[[Plan], list[str]]
    best: Callable[[Path], Path | None]
    """finds the best checkpoint in a run folder"""

    @property
    def python(self) -> Path:
        return ENVIRONMENTS / self.peer / "bin" / "python"

    def steps_per_epoch(self, n_train: int) -> int:
        return -(-n_train // self.batch_size)

    def command(self, plan: Plan) -> list[str]:
        """The peer's command, run through `launch.py`."""
        launch = [str(self.python), "-P", str(HERE / "launch.py"), "clock", self.entry]
        return launch + self.arguments(plan)


def newest(pattern: str) -> Callable[[Path], Path | None]:
    """Find the last checkpoint, for a trainer that writes one only after an improvement."""

    def find(folder: Path) -> Path | None:
        times = {}
        for path in folder.glob(pattern):
            try:
                times[path] = path.stat().st_mtime_ns
            except FileNotFoundError:  # replaced by a better one
                continue
        return max(times, key=times.__getitem__, default=None)

    return find


def lowest_loss(folder: Path) -> Path | None:
    """Find the best of TorchMD-NET's checkpoints, whose names contain the validation loss."""
    losses = {}
    for path in folder.glob("epoch=*.ckpt"):
        if found := re.search(r"val_loss=([0-9.e+-]+?)\.ckpt", path.name):
            losses[path] = float(found[1])
    return min(losses, key=losses.__getitem__, default=None)


def write_extxyz(data: Data, folder: Path) -> None:
    for name, frames in data._asdict().items():
        io.write(folder / f"{name}.xyz", _structures(frames), format="extxyz")


def write_mace(data: Data, folder: Path) -> None:
    """Write extxyz with the label names that MACE expects."""
    for name, frames in data._asdict().items():
        structures = _structures(frames)
        for atoms in structures:
            atoms.info["REF_energy"] = atoms.get_potential_energy()
            atoms.arrays["REF_forces"] = atoms.get_forces()
            atoms.calc = None
        io.write(folder / f"{name}.xyz", structures, format="extxyz")


def write_database(data: Data, folder: Path) -> None:
    """Write SchNetPack's ASE database, and a file with the split."""
    path = folder / "frames.db"
    path.unlink(missing_ok=True)
    with db.connect(path, use_lock_file=False) as rows:
        rows.metadata = {
            "_property_unit_dict": {"energy": "eV", "forces": "eV/Ang"},
            "_distance_unit": "Ang",
            "atomrefs": {},
        }
        for atoms in _structures(data.train) + _structures(data.valid):
            labels = {"energy": [atoms.get_potential_energy()], "forces": atoms.get_forces()}
            atoms.calc = None
            rows.write(atoms, data={key: np.array(value) for key, value in labels.items()})
    train, valid = _positions(data)
    np.savez(folder / "split.npz", train_idx=train, val_idx=valid, test_idx=valid[:0])


def write_arrays(data: Data, folder: Path) -> None:
    """Write TorchMD-NET's arrays, in kcal/mol as in its examples, and a file with the split."""
    n_atoms = data.train.n_atoms[0]
    both = [data.train, data.valid]
    joined = {key: np.concatenate([getattr(f, key) for f in both]) for key in ("energy", "forces")}
    positions = np.concatenate([f.positions for f in both])
    np.save(folder / "energy.npy", joined["energy"][:, None] / KCAL_MOL)
    np.save(folder / "forces.npy", joined["forces"].reshape(-1, n_atoms, 3) / KCAL_MOL)
    np.save(folder / "positions.npy", positions.reshape(-1, n_atoms, 3))
    np.save(folder / "numbers.npy", data.train.numbers[:n_atoms])
    train, valid = _positions(data)
    np.savez(folder / "split.npz", idx_train=train, idx_val=valid, idx_test=valid[:0])


def nequip(plan: Plan, optimizer: str) -> list[str]:
    """The command of NequIP's tutorial; Muon as in NequIP's documentation."""
    steps = plan.epochs * RECIPES["nequip"].steps_per_epoch(plan.n_train)
    return [
        *("-cp", str(HERE), "-cn", "nequip.yaml", "hydra.run.dir=."),
        f"train_file={plan.data}/train.xyz",
        f"valid_file={plan.data}/valid.xyz",
        f"seed={plan.seed}",
        f"epochs={plan.epochs}",
        f"steps={steps}",
        f"schedule={'cosine' if plan.annealed else 'plateau'}",
        f"optimizer={optimizer}",
    ]


def mace(plan: Plan) -> list[str]:
    """The command of MACE's readme, 32 channels; no second stage, which starts at a set epoch."""
    arguments = [
        *("--name=mace", "--model=MACE", "--hidden_irreps=32x0e + 32x1o", "--r_max=5.0"),
        *("--batch_size=5", "--valid_batch_size=10", "--ema", "--ema_decay=0.99", "--amsgrad"),
        *("--E0s=average", "--default_dtype=float32", "--device=cpu", f"--seed={plan.seed}"),
        *("--work_dir=.", f"--train_file={plan.data}/train.xyz"),
        f"--valid_file={plan.data}/valid.xyz",
        f"--max_num_epochs={plan.epochs}",
    ]
    if plan.annealed:  # to a hundredth of the learning rate
        gamma = 0.01 ** (1.0 / plan.epochs)
        arguments += ["--scheduler=ExponentialLR", f"--lr_scheduler_gamma={gamma:.6f}"]
    return arguments


def schnetpack(model: str) -> Callable[[Plan], list[str]]:
    """SchNetPack's own experiment for MD17, on our database."""

    def arguments(plan: Plan) -> list[str]:
        settings = [
            *("experiment=md17", f"model/representation={model}", "logger=csv"),
            *("data._target_=schnetpack.data.AtomsDataModule", "~data.molecule"),
            *(f"data.datapath={plan.data}/frames.db", f"+data.split_file={plan.data}/split.npz"),
            *(f"data.num_train={plan.n_train}", f"data.num_val={plan.n_valid}"),
            "data.num_workers=0",
            *("run.path=.", "run.id=run", "run.experiment=budget", f"run.data_dir={plan.data}"),
            *("print_config=False", "trainer.accelerator=cpu", f"+seed={plan.seed}"),
            *("+trainer.enable_progress_bar=False", f"trainer.max_epochs={plan.epochs}"),
        ]
        if plan.annealed:
            settings += [
                "task.scheduler_cls=torch.optim.lr_scheduler.CosineAnnealingLR",
                *("~task.scheduler_args", f"+task.scheduler_args.T_max={plan.epochs}"),
            ]
        return settings

    return arguments


def tensornet(plan: Plan) -> list[str]:
    files = {"coord": "positions", "embed": "numbers", "energy": "energy", "force": "forces"}
    return [
        *("--conf", str(HERE / "tensornet.yaml"), "--log-dir", ".", "--seed", str(plan.seed)),
        *("--splits", f"{plan.data}/split.npz", "--num-epochs", str(plan.epochs)),
        *(part for kind, name in files.items() for part in _array(kind, plan.data / name)),
    ]


def _array(kind: str, path: Path) -> tuple[str, str]:
    return f"--{kind}-files", f"{path}.npy"


def _structures(frames: Frames) -> list:
    return [frames.atoms(i) for i in range(frames.n_atoms.shape[0])]


def _positions(data: Data) -> tuple[np.ndarray, np.ndarray]:
    n_train, n_valid = (part.n_atoms.shape[0] for part in data)
    return np.arange(n_train), n_train + np.arange(n_valid)


def _spk(model: str) -> Recipe:
    arguments, best = schnetpack(model), newest("run/best_model")
    entry = "schnetpack.cli:train"
    return Recipe("schnetpack", "schnetpack", entry, 10, True, write_database, arguments, best)


def _nequip(optimizer: str) -> Recipe:
    arguments, best = partial(nequip, optimizer=optimizer), newest("best*.ckpt")
    entry = "nequip.scripts.train:main"
    return Recipe("nequip", "nequip", entry, 5, True, write_extxyz, arguments, best)


RECIPES = {
    "nequip": _nequip("adam"),
    "nequip-muon": _nequip("muon"),
    "mace": Recipe(
        peer="mace",
        package="mace-torch",
        entry="mace.cli.run_train:main",
        batch_size=5,
        anneals=True,
        write=write_mace,
        arguments=mace,
        best=newest("checkpoints/*_epoch-*.pt"),
    ),
    "schnetpack-painn": _spk("painn"),
    "schnetpack-schnet": _spk("schnet"),
    "tensornet": Recipe(
        peer="torchmdnet",
        package="torchmd-net",
        entry="torchmdnet.scripts.train:main",
        batch_size=8,
        anneals=False,
        write=write_arrays,
        arguments=tensornet,
        best=lowest_loss,
    ),
}
