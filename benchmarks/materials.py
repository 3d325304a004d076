"""Measurements of docs/materials.md: silicon, its elasticity and phonons; errors for ethanol.

    python benchmarks/materials.py run --data DATA     # adds rows to results/materials.jsonl
    python benchmarks/materials.py page                # writes the tables of docs/materials.md

DATA holds the folders mlearn_si and rmd17_ethanol. Every silicon model is trained with the command
of the page and a seed. Then the page's Python code runs on the model, and a row stores the values
of its variables. Ethanol is trained for the same number of steps with each norm. `run` skips cases
that have a row.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from accuracy import machine, read
from ase.build import bulk
from speed import RESULTS, append

from gradpot import Calculator

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "materials.md"
ROWS = RESULTS / "materials.jsonl"
NORMS, SEEDS = ("smooth", "published"), (0, 1, 2)
CPU_MINUTES = 4
STRESS = (
    "--stress-key virial_stress --stress-unit kbar --stress-order vasp --stress-sign compression"
)
SYSTEMS = {
    "silicon": (
        "mlearn_si/si_training214.npz",
        "mlearn_si/si_test25.npz",
        STRESS,
        f"data.n_train=190 data.n_valid=24 loss.stress=1 train.max_cpu_minutes={CPU_MINUTES}",
    ),
    "silicon-60": (
        "mlearn_si/si_training214.npz",
        "mlearn_si/si_test25.npz",
        STRESS,
        "data.n_train=190 data.n_valid=24 loss.stress=1 train.epochs=60 train.compile=true",
    ),
    "ethanol": (
        "rmd17_ethanol/rmd17_ethanol_train1000.npz",
        "rmd17_ethanol/rmd17_ethanol_test500.npz",
        "",
        "data.n_train=950 data.n_valid=50 train.epochs=50 train.compile=true",
    ),
}
DISPLACEMENTS = (1e-3, 1e-2, 3e-2, 1e-1)
DFT = {"a": 5.469, "c11": 153.1, "c12": 57.0, "c44": 74.3}
MEASURED = {"a": 5.431, "c11": 165.0, "c12": 65.0, "c44": 79.2}
MEASURED |= {"Γ": [15.5], "X": [4.5, 12.3, 13.9], "L": [3.4, 11.4, 12.6, 14.7]}

app = typer.Typer(help=__doc__, add_completion=False)


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="folder with the data sets")] = Path("data"),
    systems: Annotated[str, typer.Option(help="comma-separated")] = ",".join(SYSTEMS),
) -> None:
    """Train every case that has no row yet, and append its row."""
    done = {(row["system"], row["norm"], row["seed"]) for row in read(ROWS)}
    wanted = [(s, norm, seed) for seed in SEEDS for s in systems.split(",") for norm in NORMS]
    for case in wanted:
        if case not in done:
            append(ROWS, [measure(*case, data.resolve())])


def measure(system: str, norm: str, seed: int, data: Path) -> dict:
    """Train and evaluate one model; for silicon also run the Python of the page."""
    train, test, options, keys = SYSTEMS[system]
    command = f"gradpot train --data {train} {options} --model painn {keys} seed={seed}"
    command += f" model.vector_norm={norm}"
    with tempfile.TemporaryDirectory() as folder:
        results = gradpot(f"{command} --out {folder}/RUN --json", data)
        model = f"{folder}/RUN/model.safetensors"
        errors = gradpot(f"gradpot eval {model} {test} {options} --json", data)
        row = {"system": system, "norm": norm, "seed": seed, "command": command}
        row |= {"machine": machine(), "steps": results["steps"]}
        row |= {"train_cpu_s": results["train_cpu_s"], "compile_cpu_s": results["compile_cpu_s"]}
        row |= {"valid": results["valid"], "test": errors}
        return row | (properties(Path(folder)) if system == "silicon" else {})


def gradpot(command: str, folder: Path) -> dict:
    """The JSON output of a command that ends with --json."""
    words = [sys.executable, "-m", *command.split()]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def properties(folder: Path) -> dict:
    """Values of the page's variables, and force constants of an atom in silicon."""
    text = (
        PAGE.read_text().replace("RUN/", f"{folder}/RUN/").replace('"npt"\n', f'"{folder}/npt"\n')
    )
    names: dict = {}
    try:
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(compile(block, PAGE.name, "exec"), names)
    except Exception as error:  # with cones, relaxation or dynamics may fail
        names["failed"] = f"{type(error).__name__}: {error}"
    found = {key: names.get(key) for key in ("a", "bulk_modulus", "c11", "c12", "c44", "failed")}
    frequencies = {key: list(f) for key, f in names.get("frequencies", {}).items()}
    atoms = bulk("Si", a=names["a"], cubic=True).repeat(2)
    atoms.calc = Calculator(folder / "RUN" / "model.safetensors", dtype="float64")
    constants = [force_constant(atoms, x) for x in DISPLACEMENTS]
    plain = {key: value if value is None else str(value) if key == "failed" else float(value)
             for key, value in found.items()}  # fmt: skip
    return {**plain, "frequencies_THz": frequencies, "force_constants_eV_A2": constants}


def force_constant(atoms, x: float) -> float:
    """−(F(x) − F(−x))/2x of the first atom along an axis, eV/Å²."""
    forces = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.positions[0, 0] += sign * x
        forces.append(moved.get_forces()[0, 0])
    return float((forces[1] - forces[0]) / (2 * x))


@app.command()
def page() -> None:
    """Write the tables into docs/materials.md."""
    text = PAGE.read_text()
    for mark, lines in (("materials", table()), ("cone", cone())):
        between = re.compile(f"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
        text = between.sub(lambda m, t=lines: m[1] + "\n".join(t) + "\n" + m[2], text)
    PAGE.write_text(text)


def rows(system: str, norm: str) -> list[dict]:
    return [row for row in read(ROWS) if (row["system"], row["norm"]) == (system, norm)]


def table() -> list[str]:
    """Properties of silicon: median and range over the seeds, with DFT and experiment."""
    found = rows("silicon", "smooth")
    lines = ["| | gradpot | DFT | measured |", "|---|---|---|---|"]
    names = {"a": "lattice constant, Å", "bulk_modulus": "bulk modulus, GPa"}
    names |= {key: f"{key.upper()}, GPa" for key in ("c11", "c12", "c44")}
    bulks = {key: (s["c11"] + 2 * s["c12"]) / 3 for key, s in (("DFT", DFT), ("m", MEASURED))}
    for key, name in names.items():
        digits = 3 if key == "a" else 0
        dft = DFT.get(key, bulks["DFT"])
        measured = MEASURED.get(key, bulks["m"])
        ours = spread([row[key] for row in found], digits)
        lines.append(f"| {name} | {ours} | {dft:.{digits}f} | {measured:.{digits}f} |")
    for point in ("Γ", "X", "L"):
        spectra = np.array([row["frequencies_THz"][point] for row in found])
        ours = distinct(spectra[:, 3:] if point == "Γ" else spectra)
        measured = ", ".join(f"{value:.1f}" for value in MEASURED[point])
        lines.append(f"| phonons at {point}, THz | {ours} | | {measured} |")
    test = [row["test"] for row in found]
    forces = spread([t["forces_mae_meV_A"] for t in test], 0)
    stress = spread([t["stress_mae_meV_A3"] for t in test], 1)
    return [
        *lines,
        "",
        f"gradpot: median of {len(found)} seeds, with the smallest and the largest. On the 25 "
        f"test cells of the set these models have force errors of {forces} meV/Å and stress errors "
        f"of {stress} meV/Å³.",
    ]


def spread(values: list[float], digits: int) -> str:
    """Median and range."""
    low, middle, high = np.min(values), np.median(values), np.max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def distinct(spectra: np.ndarray) -> str:
    """Median frequencies over the seeds, each degenerate one listed once."""
    values = [f"{value:.1f}" for value in np.median(spectra, axis=0)]
    return ", ".join(dict.fromkeys(values))


def cone() -> list[str]:
    """Force constants, shear and errors of both norms."""
    head = "| | " + " | ".join(f"v·v, seed {r['seed']}" for r in rows("silicon", "smooth"))
    head += (
        " | " + " | ".join(f"√(v·v), seed {r['seed']}" for r in rows("silicon", "published")) + " |"
    )
    both = [*rows("silicon", "smooth"), *rows("silicon", "published")]
    lines = [head, "|---" * (len(both) + 1) + "|"]
    for i, x in enumerate(DISPLACEMENTS):
        values = [f"{row['force_constants_eV_A2'][i]:.1f}" for row in both]
        lines.append(f"| force constant from {x:g} Å, eV/Å² | " + " | ".join(values) + " |")
    for key in ("c44", "Γ"):
        values = []
        for row in both:
            value = row["c44"] if key == "c44" else (row["frequencies_THz"].get(key) or [None])[-1]
            values.append(
                "–" if value is None else f"{value:.0f}" if key == "c44" else f"{value:.1f}"
            )
        name = "C44, GPa" if key == "c44" else "highest phonon at Γ, THz"
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    for system, name in (
        ("silicon", "silicon"),
        ("silicon-60", "silicon after 60 epochs"),
        ("ethanol", "ethanol after 50 epochs"),
    ):
        both = [*rows(system, "smooth"), *rows(system, "published")]
        values = [f"{row['test']['forces_mae_meV_A']:.1f}" for row in both]
        lines.append(f"| force error on {name}, meV/Å | " + " | ".join(values) + " |")
    return lines


if __name__ == "__main__":
    app()
