"""Effect of activations on physics: energy drift, smoothness of forces, vibrations.

    python benchmarks/physics.py --data DATA --runs RUNS [--activations silu,irelu] [...]

RUNS holds the models that `activations.py run --studies rates,seeds` trained on rMD17 ethanol.
Each model gives one row of results/physics.jsonl:

- `drift`: velocity Verlet with 0.5 fs for 100 ps from the relaxed molecule, with the compiled
  calculator (float32 network). It has the slope of a line through the total energy over time, the
  scatter around that line, and the mean temperature.
- `stretch`: the O–H bond of the relaxed molecule from 0.85 to 1.25 Å in steps h of 10⁻³ and 10⁻⁴ Å,
  in float64. k is the change of the hydrogen's force along the bond, divided by h. The row has the
  largest change of k from one step to the next for both h. It falls with h where forces have two
  derivatives, and stays where k jumps.
- `vibrations`: frequencies of the relaxed molecule by central differences of forces, with
  displacements of 0.01 and 0.001 Å, in float64. Also the frequency of one normal mode of the
  reference method, from the curvature through the same five points for the model and the reference,
  whose energies are in the data set.
"""

import tempfile
from itertools import product
from pathlib import Path
from typing import Annotated

import ase.io
import numpy as np
import torch
import typer
from accuracy import read
from activations import FOUR, SEEDS, Case, has_row, tuned
from activations import ROWS as TRAINED
from ase import Atoms
from ase.optimize import BFGS
from ase.vibrations import Vibrations
from speed import RESULTS, append, common

from gradpot import Calculator
from gradpot.md import dynamics as md

ROWS = RESULTS / "physics.jsonl"
STRETCH = (0.85, 1.25)
STEPS = (1e-3, 1e-4)
DISPLACEMENTS = (0.01, 0.001)
# order of the atoms in rMD17's ethanol
OXYGEN, HYDROGEN = 2, 8
MODE = "rmd17_ethanol/test_norm_mode_874.xyz"
MODE_CM = 874.0

app = typer.Typer(help=__doc__, add_completion=False)


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="folder with the data sets")] = Path("data"),
    runs: Annotated[
        Path, typer.Option(help="folder with the run folders of activations.py")
    ] = Path("runs"),
    models: Annotated[str, typer.Option(help="comma-separated")] = "painn",
    activations: Annotated[str, typer.Option(help="comma-separated")] = ",".join(FOUR),
    seeds: Annotated[str, typer.Option(help="comma-separated")] = ",".join(map(str, SEEDS)),
    time_ps: Annotated[float, typer.Option(help="length of each dynamics run")] = 100.0,
    temperatures: Annotated[str, typer.Option(help="K, comma-separated")] = "300,500",
    rows: Path = ROWS,
) -> None:
    """Measure every trained model that has no row yet."""
    trained = read(TRAINED)
    good = [row for row in trained if row["test"]]
    done = {(row["model"], row["activation"], row["seed"]) for row in read(rows)}
    asked = product(seeds.split(","), models.split(","), activations.split(","))
    for seed, model, activation in asked:
        rate = tuned(trained, model, activation)
        case = Case("ethanol", model, activation, rate, int(seed))
        if (model, activation, case.seed) in done or not has_row(case, good):
            continue
        file = runs / case.name / "model.safetensors"
        kelvins = map(float, temperatures.split(","))
        moving = {"drift": [drift(file, data, kelvin, time_ps) for kelvin in kelvins]}
        append(rows, [{**about(case), **static(file, data), **moving}])
        print(case.name, flush=True)


def about(case: Case) -> dict:
    row = {**common(), "model": case.model, "activation": case.activation, "seed": case.seed}
    return {**row, "learning_rate": case.learning_rate}


def static(file: Path, data: Path) -> dict:
    """The measurements that need no dynamics."""
    atoms = relaxed(file, data)
    return {"stretch": stretch(atoms), "vibrations": vibrations(atoms, data)}


def relaxed(file: Path, data: Path) -> Atoms:
    """Ethanol at the model's own minimum, near the reference's; float64."""
    path = ase.io.read(data / MODE, ":")
    lowest = min(path, key=Atoms.get_potential_energy)
    atoms = Atoms(lowest.numbers, lowest.positions)
    atoms.calc = Calculator(file, dtype=torch.float64, compile=False)
    BFGS(atoms, logfile=None).run(fmax=1e-4, steps=500)
    return atoms


def stretch(atoms: Atoms) -> dict:
    """Largest change of the bond's force constant from step to step, eV/Å²."""
    along = atoms.positions[HYDROGEN] - atoms.positions[OXYGEN]
    along /= np.linalg.norm(along)
    out = {}
    for step in STEPS:
        moved, forces = atoms.copy(), []
        moved.calc = atoms.calc
        for r in np.arange(*STRETCH, step):
            moved.positions[HYDROGEN] = atoms.positions[OXYGEN] + r * along
            forces.append(moved.get_forces()[HYDROGEN] @ along)
        k = -np.diff(forces) / step
        changes = np.abs(np.diff(k))
        out[f"{step:g}"] = {
            "largest_eV_A2": float(changes.max()),
            "median_eV_A2": float(np.median(changes)),
            "k_mean_eV_A2": float(k.mean()),
        }
    return out


def vibrations(atoms: Atoms, data: Path) -> dict:
    """Frequencies in cm⁻¹, and the error of one mode of the reference."""
    frequencies = []
    for displacement in DISPLACEMENTS:
        with tempfile.TemporaryDirectory() as folder:
            found = Vibrations(atoms, name=f"{folder}/vibrations", delta=displacement)
            found.run()
            # the lowest six are translations and rotations
            frequencies.append(np.sort(found.get_frequencies().real)[6:])
    first, second = frequencies
    reference, own = curvatures(atoms.calc, data)
    return {
        "frequencies_cm": [round(float(f), 3) for f in second],
        "largest_change_with_displacement_cm": float(np.abs(first - second).max()),
        "mode_cm": MODE_CM,
        "mode_error_cm": MODE_CM * (np.sqrt(own / reference) - 1),
    }


def curvatures(calculator: Calculator, data: Path) -> tuple[float, float]:
    """Second derivatives of the energy along the mode: reference, model."""
    path = ase.io.read(data / MODE, ":")
    reference = np.array([frame.get_potential_energy() for frame in path])
    middle = int(reference.argmin())
    own = []
    for frame in path[middle - 2 : middle + 3]:
        bare = Atoms(frame.numbers, frame.positions)
        bare.calc = calculator
        own.append(bare.get_potential_energy())
    weights = np.array([-1, 16, -30, 16, -1]) / 12
    return float(weights @ reference[middle - 2 : middle + 3]), float(weights @ np.array(own))


def drift(file: Path, data: Path, temperature_K: float, time_ps: float) -> dict:
    """Drift of the total energy in NVE dynamics."""
    atoms = relaxed(file, data)
    atoms.calc = Calculator(file, compile=True)
    # half of the kinetic energy becomes potential energy
    start_K = 2 * temperature_K
    settings = md.Settings(start_K, time_ps, log_every_fs=10, save_every_fs=1e4)
    with tempfile.TemporaryDirectory() as folder:
        summary = md.run(atoms, settings, Path(folder) / "md")
        log = md.read_log(Path(folder) / "md" / md.LOG)
    time, total = log["time_fs"] * 1e-3, 1e3 * log["total_eV"] / len(atoms)
    slope, start = np.polyfit(time, total, 1)
    return {
        "temperature_K": temperature_K,
        "time_ps": float(time[-1]),
        "slope_meV_atom_ns": 1e3 * float(slope),
        "scatter_meV_atom": float(np.std(total - slope * time - start)),
        "mean_temperature_K": float(log["temperature_K"].mean()),
        "blow_up": summary.get("blow_up"),
    }


if __name__ == "__main__":
    app()
