"""Force error against CPU time of training, for gradpot and its peers, by their own commands.

    python benchmarks/accuracy.py run --data DATA --runs RUNS [--peers nequip,mace] [...]
    python benchmarks/accuracy.py rates --data DATA --runs RUNS [...]
    python benchmarks/accuracy.py table
    python benchmarks/accuracy.py plot

`run` trains on 950 frames of rMD17 and validates on 50, the same for all packages, on one thread,
for each budget of CPU minutes. It evaluates the best checkpoint on test frames, and skips what has
a row already. Peers need their environments (peers/environments.sh); peers/training/recipes.py says
how they are trained. Their time counts from the beginning of training, without imports, reading and
building the model. Ours counts from the start of the process to its end, with imports, compiling,
evaluation and plots. `rates` prints how many steps each peer makes per CPU minute; `run` measures
this itself where needed, to fit a schedule to a budget. DATA holds the folders rmd17_ethanol and
rmd17_aspirin.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

import gradpot
from gradpot.data.split import split
from peers.training.recipes import RECIPES, Data, Plan, Recipe
from peers.training.watch import ONE_THREAD, Failed, Mark, watch

RESULTS = Path(__file__).parent / "results"
N_TRAIN, N_VALID = 950, 50
MOLECULES = {
    "ethanol": ("rmd17_ethanol/rmd17_ethanol_train1000.npz", "rmd17_ethanol_test500.npz"),
    "aspirin": ("rmd17_aspirin/rmd17_aspirin_train1200.npz", "rmd17_aspirin_test900.npz"),
}
NAMES = ("painn", "schnet", "gemnet-dt", "dimenet++", "cgcnn", "forcenet")
ADAM = "train.optimizer=adam"
# the only norm that PaiNN had when most of its rows were made
PUBLISHED = "model.vector_norm=published"
# name -> arguments of `gradpot train`; rows with Adam are from when it was the default
OURS = {f"gradpot-{name}": name for name in NAMES}
OURS |= {f"gradpot-{name}-adam": f"{name} {ADAM}" for name in NAMES}
OURS["gradpot-painn-published"] = f"painn {PUBLISHED}"
OURS["gradpot-painn-adam"] = f"painn {ADAM} {PUBLISHED}"
OURS["gradpot-painn-128-adam"] = (
    f"painn {ADAM} model.width=128 train.learning_rate=5e-3 {PUBLISHED}"
)
OURS["gradpot-gemnet-dt-irelu-adam"] = f"gemnet-dt {ADAM} model.output_activation=irelu"
# CPU seconds of the run that measures a peer's steps per second: ignored, then measured
PROBE_S = (10.0, 30.0)
# fraction of a budget for the schedule; the rest allows for validation and a slower machine
SHARE = 0.95
# number of epochs of a run that stops at its budget
ENDLESS = 100_000

app = typer.Typer(help=__doc__, add_completion=False)
DataOption = Annotated[Path, typer.Option("--data", help="folder with the data sets")]
RunsOption = Annotated[Path, typer.Option("--runs", help="folder for the run folders")]
RowsOption = Annotated[Path, typer.Option("--rows", help="file of rows")]
Names = Annotated[str, typer.Option(help="comma-separated")]
ALL_PEERS = ",".join(RECIPES)
EVERYTHING = ",".join([*OURS, *RECIPES])
BOTH = ",".join(MOLECULES)


@app.command()
def run(
    data: DataOption = Path("data"),
    runs: RunsOption = Path("runs"),
    rows: RowsOption = RESULTS / "accuracy.jsonl",
    peers: Names = EVERYTHING,
    molecules: Names = BOTH,
    budgets: Annotated[str, typer.Option(help="CPU minutes, comma-separated")] = "2.5,5,10,20",
    schedule: Annotated[str, typer.Option(help="annealed (if the peer supports it) or curve")] = (
        "annealed"
    ),
    seed: int = 0,
) -> None:
    """Train and evaluate every model without a row, and add its rows."""
    minutes = sorted(float(b) for b in budgets.split(","))
    for name in peers.split(","):
        for molecule in molecules.split(","):
            mode = "annealed" if name in OURS or RECIPES[name].anneals else "curve"
            mode = "curve" if schedule == "curve" and name not in OURS else mode
            done = {key(row) for row in read(rows)}
            left = [m for m in minutes if (name, molecule, m, seed, mode) not in done]
            # one run serves all budgets of a curve
            for group in [left] if mode == "curve" and left else [[m] for m in left]:
                case = Case(name, molecule, seed, mode, data.resolve(), runs.resolve())
                for row in case.rows(group):
                    add(rows, row)


@app.command()
def rates(
    data: DataOption = Path("data"),
    runs: RunsOption = Path("runs"),
    peers: Names = ALL_PEERS,
    molecules: Names = BOTH,
    seed: int = 0,
) -> None:
    """Print optimizer steps and epochs per CPU minute of each peer; measure them if unknown."""
    print("| model | molecule | steps per CPU minute | epochs | lost at the start, s |")
    print("|---|---|---|---|---|")
    for name in peers.split(","):
        for molecule in molecules.split(","):
            case = Case(name, molecule, seed, "curve", data.resolve(), runs.resolve())
            per_s, lost = case.rate()
            steps = 60 * per_s
            epochs = steps / RECIPES[name].steps_per_epoch(N_TRAIN)
            print(f"| {name} | {molecule} | {steps:.0f} | {epochs:.2f} | {lost:.1f} |", flush=True)


@app.command()
def table(rows: RowsOption = RESULTS / "accuracy.jsonl") -> None:
    """Print Markdown tables of force MAE (energy MAE), with the CPU minutes used."""
    found = read(rows)
    budgets = sorted({row["budget_cpu_min"] for row in found})
    for molecule in MOLECULES:
        print(f"\n{molecule}: forces meV/Å (energy meV), CPU minutes used\n")
        print("| model | parameters | schedule |", *(f"{b:g} min |" for b in budgets))
        print("|---|---|---|" + "---|" * len(budgets))
        for name, mode in sorted({(r["name"], r["schedule"]) for r in found}):
            mine = [r for r in found if (r["name"], r["schedule"]) == (name, mode)]
            cells = {r["budget_cpu_min"]: cell(r) for r in mine if r["molecule"] == molecule}
            size = next((r["n_parameters"] for r in mine if r["n_parameters"]), "")
            print(f"| {name} | {size} | {mode} |", *(f"{cells.get(b, '')} |" for b in budgets))


@app.command()
def plot(
    rows: RowsOption = RESULTS / "accuracy.jsonl", out: Path = RESULTS / "accuracy.png"
) -> None:
    """Draw force MAE against CPU minutes, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    found = [row for row in read(rows) if row.get("errors")]
    lines = sorted({(row["name"], row["schedule"]) for row in found})
    for panel, molecule in zip(panels, MOLECULES):
        for i, (name, mode) in enumerate(lines):
            points = sorted(
                (row["cpu_s"] / 60, row["errors"]["forces_mae_meV_A"])
                for row in found
                if (row["name"], row["schedule"], row["molecule"]) == (name, mode, molecule)
            )
            label = name if name in OURS else f"{name}, {mode}"
            if points:
                style = {"lw": 2.5} if name in OURS else {"ls": "--" if mode == "curve" else "-"}
                panel.loglog(*zip(*points), marker="o", color=f"C{i}", label=label, **style)
        panel.set(title=f"rMD17 {molecule}", xlabel="CPU minutes", ylabel="force MAE, meV/Å")
        panel.grid(which="both", alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right", fontsize="small")
    figure.savefig(out, dpi=150)
    print(out)


class Case:
    """One model on one molecule."""

    def __init__(self, name: str, molecule: str, seed: int, mode: str, data: Path, runs: Path):
        self.name, self.molecule, self.seed, self.mode, self.runs = (
            *(name, molecule, seed, mode),
            runs,
        )
        train, test = MOLECULES[molecule]
        self.train_file = data / train
        self.test_file = self.train_file.parent / test

    def rows(self, minutes: list[float]) -> list[dict]:
        """Train for these budgets; return one row for each."""
        print(f"{self.name}, {self.molecule}, {minutes} CPU minutes", file=sys.stderr, flush=True)
        try:
            return [self.ours(minutes[0])] if self.name in OURS else self.peer(minutes)
        except Failed as failed:
            note = {"failed": str(failed), "errors": None, "n_parameters": None, "cpu_s": None}
            return [{**self.about(m), **note} for m in minutes]

    def about(self, minutes: float) -> dict:
        return {
            "name": self.name,
            "molecule": self.molecule,
            "budget_cpu_min": minutes,
            "seed": self.seed,
            "schedule": self.mode,
            "machine": machine(),
        }

    def ours(self, minutes: float) -> dict:
        """Train with our command line and evaluate on the test frames."""
        folder = self.folder(f"{minutes:g}")
        out = folder / "run"
        settings = f"data.n_train={N_TRAIN} data.n_valid={N_VALID} seed={self.seed}"
        model, *more = OURS[self.name].split()
        settings = " ".join([settings, *more])
        options = f"--model {model} {settings} train.max_cpu_minutes={minutes:g}"
        command = [sys.executable, "-m", "gradpot", "train", "--data", str(self.train_file)]
        command += ["--out", str(out), *options.split()]
        # nothing is compiled beforehand, unless the user names a cache of compiled code
        kept = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        cache = {"TORCHINDUCTOR_CACHE_DIR": kept or str(folder / "inductor")}
        [mark] = watch(command, folder, [float("inf")], lambda _: None, True, cache)
        results = json.loads((out / "results.json").read_text())
        best = str(out / "model.safetensors")
        command = [sys.executable, "-m", "gradpot", "eval", best, str(self.test_file), "--json"]
        printed = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, env={**os.environ, **ONE_THREAD}
        )
        return {
            **self.about(minutes),
            "version": gradpot.__version__,
            "torch": torch.__version__,
            "command": f"gradpot train --data {MOLECULES[self.molecule][0]} {options}",
            "cpu_s": round(mark.cpu_s, 2),
            "wall_s": round(mark.wall_s, 2),
            "train_cpu_s": results["train_cpu_s"],
            "compile_cpu_s": results.get("compile_cpu_s"),
            "compiled_before": kept is not None,
            **{name: results[name] for name in ("steps", "epochs", "n_parameters")},
            "errors": json.loads(printed.stdout),
        }

    def peer(self, minutes: list[float]) -> list[dict]:
        """Train with the peer's command; evaluate its best checkpoint at each budget."""
        recipe, folder = RECIPES[self.name], self.folder(f"{minutes[-1]:g}")
        epochs, lost = ENDLESS, 0.0
        if self.mode == "annealed":
            per_s, lost = self.rate()
            steps = SHARE * (60 * minutes[-1] - lost) * per_s
            epochs = max(1, int(steps / recipe.steps_per_epoch(N_TRAIN)))
        command = recipe.command(self.plan(epochs))
        marks = watch(command, folder, [60 * m for m in minutes], recipe.best)
        if self.mode == "annealed":
            # this rate includes validation and the present load of the machine; it also corrects
            # a rate so high that the budget ended the run before its schedule
            self.remember(marks[-1].steps / (marks[-1].cpu_s - lost), lost)
        shown = " ".join(command[4:])
        for path in (f"{self.files()}/", str(self.files()), f"{Path(__file__).parents[1]}/"):
            shown = shown.replace(path, "")
        return [
            {
                **self.about(m),
                **versions(recipe),
                "command": shown,
                "cpu_s": round(mark.cpu_s, 2),
                "wall_s": round(mark.wall_s, 2),
                "before_cpu_s": round(mark.before_s, 2),
                # False: the budget ended the run; an annealed schedule was not completed
                "ended": mark.ended,
                "steps": mark.steps,
                "epochs": round(mark.steps / recipe.steps_per_epoch(N_TRAIN), 2),
                **self.measure(recipe, mark),
            }
            for m, mark in zip(minutes, marks)
        ]

    def rate(self) -> tuple[float, float]:
        """Optimizer steps per CPU second of a peer, and the seconds before its first step."""
        name = f"{self.name} {self.molecule}"
        if name not in self.known_rates():
            command = RECIPES[self.name].command(self.plan(ENDLESS))
            first, second = watch(command, self.folder("probe"), [*PROBE_S], lambda _: None)
            per_s = (second.steps - first.steps) / (second.cpu_s - first.cpu_s)
            self.remember(per_s, max(0.0, first.cpu_s - first.steps / per_s))
        per_s, lost = self.known_rates()[name]
        return per_s, lost

    def known_rates(self) -> dict[str, list[float]]:
        path = self.runs / "rates.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def remember(self, per_s: float, lost: float) -> None:
        known = self.known_rates() | {f"{self.name} {self.molecule}": [per_s, lost]}
        (self.runs / "rates.json").write_text(json.dumps(known, indent=1))

    def measure(self, recipe: Recipe, mark: Mark) -> dict:
        """Errors on the test frames; None without a checkpoint, which the first epoch writes."""
        if mark.checkpoint is None:
            return {"errors": None, "n_parameters": None}
        frames = gradpot.read(self.test_file)
        n_atoms = frames.n_atoms[0]
        given, out = mark.checkpoint.with_suffix(".npz"), mark.checkpoint.with_suffix(".out.npz")
        positions = frames.positions.reshape(-1, n_atoms, 3)
        np.savez(given, numbers=frames.numbers[:n_atoms], positions=positions)
        script = Path(__file__).parent / "peers" / "training" / "predict.py"
        command = [recipe.python, "-P", script, recipe.peer, mark.checkpoint, given, out]
        done = subprocess.run(command, capture_output=True, env={**os.environ, **ONE_THREAD})
        if done.returncode:
            raise Failed(done.stderr.decode()[-2000:])
        predicted = np.load(out)
        energy = 1e3 * (predicted["energy"] - frames.energy)
        forces = 1e3 * (predicted["forces"].reshape(-1, 3) - frames.forces)
        errors = {
            "energy_mae_meV": float(np.abs(energy).mean()),
            "forces_mae_meV_A": float(np.abs(forces).mean()),
            "forces_rmse_meV_A": float(np.sqrt(np.square(forces).mean())),
            "n_frames": energy.shape[0],
        }
        return {"errors": errors, "n_parameters": int(predicted["n_parameters"])}

    def plan(self, epochs: int) -> Plan:
        return Plan(self.files(), self.seed, self.mode == "annealed", epochs, N_TRAIN, N_VALID)

    def files(self) -> Path:
        """The folder with the frames in the peer's format, written once."""
        recipe = RECIPES[self.name]
        folder = self.runs / "data" / f"{recipe.peer}-{self.molecule}-seed{self.seed}"
        if not (folder / "complete").exists():
            folder.mkdir(parents=True, exist_ok=True)
            frames = gradpot.read(self.train_file)
            # the frames that `gradpot train` uses
            n_frames = frames.n_atoms.shape[0]
            parts = split(n_frames, n_train=N_TRAIN, n_valid=N_VALID, seed=self.seed)
            recipe.write(Data(frames.take(parts.train), frames.take(parts.valid)), folder)
            (folder / "complete").touch()
        return folder

    def folder(self, what: str) -> Path:
        """A new folder; a folder that an interrupted run left is renamed."""
        folder = self.runs / f"{self.name}-{self.molecule}-seed{self.seed}-{self.mode}-{what}"
        if folder.exists():
            n_before = len(list(self.runs.glob(f"{folder.name}.before*")))
            folder.rename(folder.with_name(f"{folder.name}.before{n_before}"))
        folder.mkdir(parents=True)
        return folder


def versions(recipe: Recipe) -> dict:
    """Versions of the peer and its torch, recorded by pip when the environment was made."""
    lines = (recipe.python.parents[1] / "versions").read_text().splitlines()
    found = dict(line.split("==") for line in lines if "==" in line)
    return {"version": found[recipe.package], "torch": found["torch"]}


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "")
    return f"{name or platform.machine()}, {os.cpu_count()} cores"


def key(row: dict) -> tuple:
    """What identifies a row; a failed row matches nothing, so that it is run again."""
    if "failed" in row:
        return ()
    names = ("name", "molecule", "budget_cpu_min", "seed", "schedule")
    return tuple(row[name] for name in names)


def cell(row: dict) -> str:
    if "failed" in row:
        return "failed"
    if row["errors"] is None:
        return f"no epoch, {row['cpu_s'] / 60:.1f}"
    e = row["errors"]
    return f"{e['forces_mae_meV_A']:.1f} ({e['energy_mae_meV']:.1f}), {row['cpu_s'] / 60:.1f}"


def read(rows: Path) -> list[dict]:
    return [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []


def add(rows: Path, row: dict) -> None:
    with open(rows, "a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    app()
