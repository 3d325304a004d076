"""Holes of a potential at short range, with and without its repulsion.

    python benchmarks/holes.py run --data DATA --runs RUNS [--minutes 6] [--seed 0]
    python benchmarks/holes.py cost --runs RUNS [--seed 0]
    python benchmarks/holes.py plot

`run` trains PaiNN on 950 frames of rMD17 ethanol, unless RUNS has that model, and adds a row to
results/holes.jsonl for the potential as trained (`full`), without the floor of atom energies
(`no floor`), with nothing but the floor (`floor`), and without all of it (`none`): the weights are
the same. A row has

- `bfgs`: for each size of the random displacements, how many of 20 runs of BFGS (0.02 eV/Å, 300
  steps) from ethanol end in a hole: more than 0.5 eV below the minimum, two atoms nearer than 0.6
  of the sum of their covalent radii, or numbers that are not finite;
- `dimers`: energies of pairs of atoms from 0.3 to 3 Å without that at 4.9 Å, the lowest, and
  whether they rise all the way in from the onset;
- `test`: errors on the 500 test frames;
- `dynamics`: 20 ps of Langevin dynamics at 2,000 K with steps of 0.5 fs, from the minimum.

`cost` measures calls of the calculator, compiled and eager, with and without, in turns.
`plot` draws the dimers of the newest rows.
"""

import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from accuracy import read as read_rows
from ase import Atoms, units
from ase.build import molecule
from ase.data import atomic_numbers, covalent_radii
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS
from speed import RESULTS, append, common

from gradpot import Calculator, InputError, Potential, load, read
from gradpot.graph.dataset import dataset
from gradpot.graph.graph import from_atoms
from gradpot.potential.evaluate import errors_of

ROWS = RESULTS / "holes.jsonl"
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "dimers.png"
TRAIN = "rmd17_ethanol/rmd17_ethanol_train1000.npz"
TEST = "rmd17_ethanol/rmd17_ethanol_test500.npz"
SIZES, N_SEEDS, STEPS, FORCE = (0.1, 0.15, 0.2, 0.3), 20, 300, 0.02
BELOW_EV, NEARER = 0.5, 0.6
PAIRS = ("HH", "CH", "OH", "CC", "CO")
DISTANCES = np.arange(0.3, 3.001, 0.02)
VARIANTS = ("full", "no floor", "floor", "none")

app = typer.Typer(help=__doc__, add_completion=False)
Runs = Annotated[Path, typer.Option(help="folder for the run folders")]


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="folder with the data sets")] = Path("data"),
    runs: Runs = Path("runs"),
    minutes: float = 6.0,
    seed: int = 0,
    variants: Annotated[str, typer.Option(help="comma-separated")] = ",".join(VARIANTS),
    rows: Path = ROWS,
) -> None:
    """Train once, and measure the potential with and without its parts."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    file = trained(data, runs, minutes, seed)
    for variant in variants.split(","):
        potential = stripped(load(file, torch.float64), variant)
        row = {**common(), "variant": variant, "seed": seed, "minutes": minutes}
        row |= {"bfgs": bfgs(potential), "dimers": dimers(potential)}
        row |= {"test": test_errors(potential, data), "dynamics": dynamics(potential)}
        append(rows, [row])
        print(variant, row["bfgs"], row["dynamics"], flush=True)


def trained(data: Path, runs: Path, minutes: float, seed: int) -> Path:
    """The model file of a run with this seed, which is trained now unless it is there."""
    out = runs / f"ethanol-{minutes:g}-{seed}"
    if not (out / "results.json").exists():
        command = [sys.executable, "-m", "gradpot", "train", "--data", str(data / TRAIN)]
        command += ["--out", str(out), "data.n_train=950", "data.n_valid=50", f"seed={seed}"]
        subprocess.run([*command, f"train.max_cpu_minutes={minutes:g}"], check=True)
    return out / "model.safetensors"


def stripped(potential: Potential, variant: str) -> Potential:
    """The same weights with only a part of what keeps atoms out of holes."""
    record = potential.repulsion
    assert record is not None
    if variant == "no floor":
        record = record.model_copy(update={"floor": {}})
    if variant == "floor":  # begin where no two atoms come
        record = record.model_copy(update={"onset": dict.fromkeys(record.onset, 1e-6)})
    own = potential.model, potential.references, potential.scale
    return Potential(*own, None, None if variant == "none" else record).eval()


def bfgs(potential: Potential) -> list[dict]:
    """Optimizations from displaced ethanol."""
    atoms = molecule("CH3CH2OH")
    calculator = Calculator(potential, compile=False)
    atoms.calc = calculator
    BFGS(atoms, logfile=None).run(FORCE, STEPS)
    lowest, found = atoms.get_potential_energy(), []
    for size in SIZES:
        ends = []
        for seed in range(N_SEEDS):
            atoms = molecule("CH3CH2OH")
            atoms.rattle(size, seed=seed)
            atoms.calc = calculator
            ends.append(optimized(atoms, lowest))
        found.append(
            {
                "size_A": size,
                "holes": sum(end["hole"] for end in ends),
                "at_the_minimum": sum(abs(end["energy_eV"] or 9) < 1e-2 for end in ends),
                "converged": sum(end["converged"] for end in ends),
                "lowest_eV": min((end["energy_eV"] for end in ends if end["energy_eV"]), default=0),
                "nearest": min(end["nearest"] for end in ends),
            }
        )
    return found


def optimized(atoms: Atoms, lowest: float) -> dict:
    """How one optimization ends."""
    bonds = covalent_radii[atoms.numbers]
    bonds = (bonds[:, None] + bonds)[np.triu_indices(len(atoms), 1)]
    try:
        converged = bool(BFGS(atoms, logfile=None).run(FORCE, STEPS))
        energy = atoms.get_potential_energy() - lowest
    except (InputError, np.linalg.LinAlgError):
        return {"hole": True, "energy_eV": None, "nearest": 0.0, "converged": False}
    apart = atoms.get_all_distances()[np.triu_indices(len(atoms), 1)]
    nearest = float((apart / bonds).min())
    hole = bool(energy < -BELOW_EV or nearest < NEARER)
    return {"hole": hole, "energy_eV": energy, "nearest": nearest, "converged": converged}


def dimers(potential: Potential) -> dict:
    """Energy curve of each pair of elements, alone."""
    found = {}
    for pair in PAIRS:
        numbers = sorted(atomic_numbers[element] for element in pair)
        # as saved, also for the variants without
        energies = [energy_of(potential, pair, r) for r in DISTANCES]
        energies = np.array(energies) - energy_of(potential, pair, 4.9)
        onset = 1.0
        if potential.repulsion:
            onset = potential.repulsion.onset["-".join(map(str, numbers))]
        inside = energies[onset > DISTANCES]
        found[pair] = {
            "onset_A": onset if onset > 1e-3 else None,
            "rises": bool((np.diff(inside) < 0).all()) if inside.size > 1 else None,
            "lowest_eV": float(energies.min()),
            "lowest_at_A": float(DISTANCES[energies.argmin()]),
            "energies_eV": [float(f"{e:.4g}") for e in energies],
        }
    return found


def energy_of(potential: Potential, pair: str, r: float) -> float:
    atoms = Atoms(pair, [[0, 0, 0], [r, 0, 0]])
    return potential(from_atoms(atoms, potential.cutoff, potential.dtype)).energy.item()


def test_errors(potential: Potential, data: Path) -> dict:
    frames = read(str(data / TEST), "eV", "Ang")
    some = dataset(frames, potential.cutoff, dtype=potential.dtype)
    return errors_of(potential, some, torch.arange(frames.n_atoms.shape[0]))


def dynamics(potential: Potential, temperature_K: float = 2000.0, time_ps: float = 20.0) -> dict:
    """Langevin dynamics from the minimum; the run ends when energies are not finite."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = Calculator(potential, dtype="float32", compile=False)
    BFGS(atoms, logfile=None).run(FORCE, STEPS)
    lowest, energies, problem = atoms.get_potential_energy(), [], None
    rng = np.random.default_rng(0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature_K, rng=rng)
    friction = 0.01 / units.fs
    steps = Langevin(atoms, 0.5 * units.fs, temperature_K=temperature_K, friction=friction, rng=rng)
    try:
        for _ in steps.irun(round(2e3 * time_ps)):
            energies.append(atoms.get_potential_energy() - lowest)
    except InputError as error:
        problem = str(error)
    return {
        "time_ps": 5e-4 * (len(energies) - 1),
        "lowest_eV": float(np.min(energies)),
        "highest_eV": float(np.max(energies)),
        "ended_by": problem,
    }


@app.command()
def cost(
    runs: Runs = Path("runs"),
    minutes: float = 6.0,
    seed: int = 0,
    rounds: int = 40,
    calls: int = 50,
    rows: Path = ROWS,
) -> None:
    """Times of calls with and without, in turns in one process; medians of the rounds."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    potential = load(runs / f"ethanol-{minutes:g}-{seed}" / "model.safetensors")
    atoms, rng = molecule("CH3CH2OH"), np.random.default_rng(0)
    walk = [atoms.positions + 0.01 * rng.normal(size=(9, 3)) for _ in range(calls)]
    for compiled in (True, False):
        both = {
            name: Calculator(stripped(potential, name), compile=compiled)
            for name in ("full", "none")
        }
        took: dict[str, list[float]] = {name: [] for name in both}
        for turn in range(rounds + 1):
            for name in sorted(both, reverse=turn % 2 == 0):
                atoms.calc, before = both[name], time.process_time()
                for positions in walk:
                    atoms.positions[:] = positions
                    atoms.get_forces()
                took[name].append(1e3 * (time.process_time() - before) / calls)
        with_it, without = (np.array(took[name][1:]) for name in ("full", "none"))
        ratio = {"median": float(np.median(with_it / without))}
        ratio["quartiles"] = np.quantile(with_it / without, [0.25, 0.75]).tolist()
        row = {**common(), "variant": "cost", "compiled": compiled, "ratio": ratio}
        row |= {"full_ms": float(np.median(with_it)), "none_ms": float(np.median(without))}
        append(rows, [row])
        print(json.dumps(row), flush=True)


@app.command()
def plot(rows: Path = ROWS, out: Path = FIGURE) -> None:
    """Draw the dimers before and after."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    newest = {row["variant"]: row for row in read_rows(rows)}
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    titles = ("train.repulsion=none", "train.repulsion=zbl")
    for panel, variant, title in zip(panels, ("none", "full"), titles):
        for i, pair in enumerate(PAIRS):
            curve = newest[variant]["dimers"][pair]
            panel.plot(DISTANCES, curve["energies_eV"], color=f"C{i}", label=f"{pair[0]}–{pair[1]}")
            if variant == "full":
                panel.axvline(curve["onset_A"], color=f"C{i}", lw=0.8, ls=":")
        panel.set(title=title, xlabel="distance, Å", xlim=(0.3, 3.0), ylim=(-1e4, 1e4))
        panel.set_yscale("symlog", linthresh=1.0)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("energy of two atoms alone, eV")
    panels[0].legend(fontsize="small")
    figure.savefig(out, dpi=130)
    print(out)


if __name__ == "__main__":
    app()
