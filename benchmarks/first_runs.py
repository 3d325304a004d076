"""What one command and ten minutes give, on eight sets of real data: rows and a table.

    python benchmarks/first_runs.py run --data DATA --runs RUNS [NAME ...]
    python benchmarks/first_runs.py table

`run` trains each NAME (all of them, unless some are named) by the command line into RUNS/NAME,
unless that run is finished already, and adds a row to results/first_runs.jsonl. DATA is a folder
with the data sets; their files are named in `RUNS` below. `table` prints Markdown.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

ROWS = Path(__file__).parent / "results" / "first_runs.jsonl"
ETHANOL = ("rmd17_ethanol/rmd17_ethanol_train1000.npz", "rmd17_ethanol/rmd17_ethanol_test500.npz")
SILICON = ("mlearn_si/si_training214.npz", "mlearn_si/si_test25.npz")
KBAR = "--stress-key virial_stress --stress-unit kbar --stress-order vasp --stress-sign compression"
EV = "--stress-key stress --stress-unit eV/Ang^3 --stress-order matrix --stress-sign tension"
FEW = "data.n_train=950 data.n_valid=50"

# name -> training file, test file (or None: the frames left over), reading options, settings
RUNS: dict[str, tuple[str, str | None, str, str]] = {
    "painn-silu": (*ETHANOL, "", f"--model painn {FEW}"),
    "painn-irelu": (*ETHANOL, "", f"--model painn --activation irelu {FEW}"),
    "painn-ssp": (*ETHANOL, "", f"--model painn --activation ssp {FEW}"),
    "schnet-ssp": (*ETHANOL, "", f"--model schnet {FEW}"),
    "traj": (
        "md17_ethanol_traj/md17_ethanol_traj2000.npz",
        None,
        "--energy-unit kcal/mol --length-unit Ang",
        f"--model painn data.split=block {FEW}",
    ),
    "si64": (
        "si64_periodic/sitraj.xyz",
        None,
        EV,
        "--model painn data.n_train=80 data.n_valid=10 loss.stress=1",
    ),
    "mlearn": (*SILICON, KBAR, "--model painn data.n_train=190 data.n_valid=24 loss.stress=1"),
    "qm7x": (
        "qm7x_250x10/qm7x_250_small.npz",
        None,
        "--energy-unit eV --length-unit Ang",
        "--model painn data.n_train=2000 data.n_valid=250",
    ),
}

app = typer.Typer(help=__doc__, add_completion=False)


@app.command()
def run(
    names: Annotated[list[str] | None, typer.Argument()] = None,
    data: Annotated[Path, typer.Option(help="folder with the data sets")] = Path("data"),
    runs: Annotated[Path, typer.Option(help="where run folders go")] = Path("runs"),
    minutes: float = 10.0,
) -> None:
    """Train, evaluate, add rows."""
    runs.mkdir(parents=True, exist_ok=True)
    for name in names or RUNS:
        file, test, reading, settings = RUNS[name]
        out = runs / name
        if not (out / "results.json").exists():
            options = f"{reading} {settings} train.max_minutes={minutes:g}"
            gradpot("train", "--data", str(data / file), "--out", str(out), *options.split())
        results = json.loads((out / "results.json").read_text())
        errors = results["test"]
        if test:
            model = str(out / "model.safetensors")
            errors = gradpot("eval", model, str(data / test), *reading.split())
        row = {
            "name": name,
            "command": f"gradpot train --data {file} {reading} {settings}".replace("  ", " "),
            "minutes": results["train_wall_s"] / 60,
            "errors": errors,
            "tested_on": test or "the frames left over",
            **{key: results[key] for key in ("n_parameters", "steps", "train_cpu_s", "seed")},
            **{key: results[key] for key in ("train_wall_s", "threads", "gradpot", "torch")},
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }
        with open(ROWS, "a") as rows:
            rows.write(json.dumps(row) + "\n")


@app.command()
def table() -> None:
    """Print the newest row of each name as Markdown."""
    rows = {row["name"]: row for row in map(json.loads, ROWS.read_text().splitlines())}
    print("| run | energy MAE | per atom | forces MAE | stress MAE | frames | steps | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in RUNS:
        if name in rows:
            row = rows[name]
            e = row["errors"]
            stress = f"{e['stress_mae_meV_A3']:.2f}" if "stress_mae_meV_A3" in e else ""
            print(
                f"| {name} | {e['energy_mae_meV']:.1f} | {e['energy_mae_meV_per_atom']:.2f} "
                f"| {e['forces_mae_meV_A']:.1f} | {stress} | {e['n_frames']} | {row['steps']} "
                f"| {row['train_cpu_s']:.0f} |"
            )


def gradpot(*arguments: str) -> dict:
    """One command, its JSON; its progress goes to the terminal."""
    command = [sys.executable, "-m", "gradpot", *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


if __name__ == "__main__":
    app()
