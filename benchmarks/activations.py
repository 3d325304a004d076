"""Which activation is best? Errors of trainings that differ in one setting.

    python benchmarks/activations.py run --data DATA --runs RUNS [--studies rates,seeds] [--jobs 2]
    python benchmarks/activations.py plan

A study is a list of cases. A case is one `gradpot train` command, with a budget of epochs or CPU
minutes, and the errors of its model on unseen frames. `run` works through the cases of each study,
several at once, each on one thread, and adds one row per case to results/activations.jsonl. It
skips cases that have a row, so it can be stopped and repeated. `plan` shows how many cases of each
study have rows.

Learning rates come first: PaiNN and SchNet are trained with `silu`, `ssp`, `irelu` and
`capped_irelu`, PaiNN also with `ielu` and `irelu_spline`, at three rates with the first seed. Later
studies use the rate with the smallest validation error of forces. There is no other tuning.
Compiled code is kept in RUNS/inductor and is made before a training with a budget of CPU minutes
begins; `compile_cpu_s` is the part of `train_cpu_s` that went into compiling or loading it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Annotated, NamedTuple

import typer
from accuracy import machine, read

from peers.training.watch import ONE_THREAD

ROWS = Path(__file__).parent / "results" / "activations.jsonl"
# training file, test file
ETHANOL = ("rmd17_ethanol/rmd17_ethanol_train1000.npz", "rmd17_ethanol/rmd17_ethanol_test500.npz")
SILICON = ("mlearn_si/si_training214.npz", "mlearn_si/si_test25.npz")
# how to read the stress of SILICON
KBAR = "--stress-key virial_stress --stress-unit kbar --stress-order vasp --stress-sign compression"
# split of files with 1,000 frames or more
FEW = "data.n_train=950 data.n_valid=50"
app = typer.Typer(help=__doc__, add_completion=False)
RowsOption = Annotated[Path, typer.Option("--rows", help="file of rows")]


class System(NamedTuple):
    """Frames to train on."""

    train: str
    test: str | None
    """None: the remaining frames of the training file"""
    reading: str
    settings: str
    epochs: int
    """for models whose step is compiled"""
    slow_epochs: int
    """for the other models"""


SYSTEMS = {
    "ethanol": System(*ETHANOL, "", FEW, 50, 10),
    "aspirin": System(
        "rmd17_aspirin/rmd17_aspirin_train1200.npz",
        "rmd17_aspirin/rmd17_aspirin_test900.npz",
        "",
        FEW,
        25,
        4,
    ),
    # the IReLU authors' setting: energies near −10⁵ kcal/mol
    "md17": System(
        "md17_ethanol/md17_ethanol_2000.npz",
        None,
        "--energy-unit kcal/mol --length-unit Ang",
        f"{FEW} data.n_test=500",
        50,
        10,
    ),
    "silicon": System(*SILICON, KBAR, "data.n_train=190 data.n_valid=24 loss.stress=1", 40, 8),
    "mixed": System(
        "qm7x_250x10/qm7x_250_small.npz",
        None,
        "--energy-unit eV --length-unit Ang",
        "data.n_train=2000 data.n_valid=250",
        20,
        4,
    ),
}
SLOW = ("dimenet++", "gemnet-dt")
PUBLISHED = {
    "schnet": "ssp",
    "painn": "silu",
    "cgcnn": "softplus",
    "forcenet": "silu",
    "dimenet++": "silu",
    "gemnet-dt": "silu",
}
FOUR = ("silu", "ssp", "irelu", "capped_irelu")
TUNED = {"painn": (*FOUR, "ielu", "irelu_spline"), "schnet": FOUR}
# half the default, the default, twice the default
RATES = {"painn": (2.5e-3, 5e-3, 1e-2), "schnet": (1.25e-3, 2.5e-3, 5e-3)}
MUON_RATE = 2.5e-3
# for models whose default differs from that of `Case`
DEFAULT_RATE = {"dimenet++": 2e-3}
SEEDS = (0, 1, 2)
OTHERS = ("leaky_irelu", "tent", "softplus", "gelu", "tanh", "elu")
# the IReLU authors' constant for MD17 is 10⁶ kcal/mol
CONSTANT = {"constant": "rescale.constant=43364.1"}
TIME_CPU_MINUTES, DEFAULTS_CPU_MINUTES = 1.5, 3.0


class Case(NamedTuple):
    """One training."""

    system: str
    model: str
    activation: str
    learning_rate: float = 5e-3
    seed: int = 0
    output_activation: str | None = None
    """only of models that have one; None: same as `activation`"""
    rescale: str = "forces"
    norm: str | None = None
    cpu_minutes: float | None = None
    """None: the epochs of the system"""
    batch_size: int = 5
    optimizer: str = "adam"
    """rows without this key are older and used Adam"""

    @property
    def name(self) -> str:
        return "-".join(str(part) for part in self if part is not None).replace("/", "_")

    def command(self, data: Path) -> list[str]:
        """Arguments of `gradpot`, without --out."""
        system = SYSTEMS[self.system]
        epochs = system.slow_epochs if self.model in SLOW else system.epochs
        budget = f"train.max_cpu_minutes={self.cpu_minutes}"
        chosen = [
            *("train", "--data", str(data / system.train), *system.reading.split()),
            *("--model", self.model, "--activation", self.activation, *system.settings.split()),
            f"train.learning_rate={self.learning_rate}",
            f"train.batch_size={self.batch_size}",
            f"train.optimizer={self.optimizer}",
            f"seed={self.seed}",
            f"train.epochs={epochs}" if self.cpu_minutes is None else budget,
            f"train.compile={str(self.model not in SLOW).lower()}",
            f"rescale.mode={self.rescale}",
        ]
        if self.model == "painn":  # the only norm that PaiNN had when these studies began
            chosen.append("model.vector_norm=published")
        if self.rescale in CONSTANT:
            chosen.append(CONSTANT[self.rescale])
        if self.model in SLOW:
            chosen.append(f"model.output_activation={self.output_activation or self.activation}")
        return chosen + ([f"model.norm={self.norm}"] if self.norm else [])


def case_of(row: dict) -> Case:
    """The case of a row."""
    return Case(**{key: row[key] for key in Case._fields if key in row})


def rates(found: list[dict]) -> Iterator[Case]:
    """Three learning rates for each activation."""
    for model, activations in TUNED.items():
        for rate in RATES[model]:
            for activation in activations:
                yield Case("ethanol", model, activation, rate)


def seeds(found: list[dict]) -> Iterator[Case]:
    """Three seeds at the tuned rate."""
    for seed in SEEDS:
        for model, activations in TUNED.items():
            for activation in activations:
                yield Case("ethanol", model, activation, tuned(found, model, activation), seed)


def equal_time(found: list[dict]) -> Iterator[Case]:
    """Equal CPU time instead of equal steps."""
    for case in seeds(found):
        if case.model == "painn":
            yield case._replace(cpu_minutes=TIME_CPU_MINUTES)


def defaults(found: list[dict]) -> Iterator[Case]:
    """Whether the default rate and batch size, chosen on ethanol, suit other structures."""
    for system in ("silicon", "mixed"):
        for rate, batch_size in ((5e-3, 5), (2.5e-3, 5), (1e-2, 5), (5e-3, 2), (5e-3, 10)):
            case = Case(system, "painn", PUBLISHED["painn"], rate, batch_size=batch_size)
            yield case._replace(cpu_minutes=DEFAULTS_CPU_MINUTES)


def others(found: list[dict]) -> Iterator[Case]:
    """More activations, at the default rate."""
    for activation in OTHERS:
        yield Case("ethanol", "painn", activation)


def untuned(found: list[dict]) -> Iterator[Case]:
    """Untuned models: as published, with IReLU, and with IReLU only where its authors use it."""
    for model in ("cgcnn", "forcenet", *SLOW):
        for activation in dict.fromkeys((PUBLISHED[model], "irelu", "capped_irelu")):
            yield Case("ethanol", model, activation, tuned(found, model, activation))
    for model in SLOW:
        rate = tuned(found, model, PUBLISHED[model])
        yield Case("ethanol", model, PUBLISHED[model], rate, output_activation="irelu")


def output_blocks(found: list[dict]) -> Iterator[Case]:
    """IReLU in the output blocks of GemNet-dT, where its authors use it; three seeds."""
    for seed in SEEDS:
        for output in (None, "irelu"):
            yield Case("ethanol", "gemnet-dt", "silu", seed=seed, output_activation=output)


def rescalings(found: list[dict]) -> Iterator[Case]:
    """Effect of reference energies and scale, with labels in both units."""
    for model, system in (("schnet", "md17"), ("painn", "ethanol"), ("painn", "md17")):
        for mode in ("none", "offset", "constant", "forces", "natural"):
            for activation in (PUBLISHED[model], "irelu"):
                rate = tuned(found, model, activation)
                yield Case(system, model, activation, rate, rescale=mode)


def norms(found: list[dict]) -> Iterator[Case]:
    """Batch norm in the models that were published with it."""
    for model in ("cgcnn", "forcenet"):
        for norm in (None, "batch"):
            for activation in (PUBLISHED[model], "irelu"):
                yield Case("ethanol", model, activation, norm=norm)


def systems(found: list[dict]) -> Iterator[Case]:
    """Larger, periodic and mixed structures."""
    for system in ("aspirin", "silicon", "mixed"):
        for model in TUNED:
            for activation in dict.fromkeys((PUBLISHED[model], "silu", "irelu", "capped_irelu")):
                yield Case(system, model, activation, tuned(found, model, activation))


def mixed_rates(found: list[dict]) -> Iterator[Case]:
    """Whether the rates tuned on ethanol decide which activation is best for mixed molecules."""
    for rate in RATES["painn"]:
        for activation in ("silu", "irelu"):
            yield Case("mixed", "painn", activation, rate)


def muon(found: list[dict]) -> Iterator[Case]:
    """The default optimizer: default rate with three seeds, half and twice that with one."""
    for activation in ("silu", "irelu"):
        case = Case("ethanol", "painn", activation, MUON_RATE, optimizer="muon")
        yield from (case._replace(seed=seed) for seed in SEEDS)
        if activation == "silu":
            yield from (case._replace(learning_rate=MUON_RATE * factor) for factor in (0.5, 2.0))


def muon_defaults(found: list[dict]) -> Iterator[Case]:
    """Whether the default rate of Muon, chosen on ethanol, suits other structures."""
    for system in ("silicon", "mixed"):
        for factor in (1.0, 0.5, 2.0):
            case = Case(system, "painn", "silu", factor * MUON_RATE, optimizer="muon")
            yield case._replace(cpu_minutes=DEFAULTS_CPU_MINUTES)


ALL = (
    *(rates, seeds, equal_time, untuned, output_blocks, rescalings, norms),
    *(systems, mixed_rates, others, defaults, muon, muon_defaults),
)
STUDIES = {study.__name__: study for study in ALL}


def tuned(found: list[dict], model: str, activation: str) -> float:
    """The rate with the smallest validation error of forces; the default if untuned."""
    if activation not in TUNED.get(model, ()):
        return DEFAULT_RATE.get(model, Case._field_defaults["learning_rate"])
    tried = {case for case in rates([]) if (case.model, case.activation) == (model, activation)}
    mine = [row for row in found if row["valid"] and case_of(row) in tried]
    best = min(mine, key=lambda row: row["valid"]["forces_mae_meV_A"], default=None)
    return best["learning_rate"] if best else RATES[model][1]


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="folder with the data sets")] = Path("data"),
    runs: Annotated[Path, typer.Option(help="folder for the run folders")] = Path("runs"),
    studies: Annotated[str, typer.Option(help="comma-separated")] = ",".join(STUDIES),
    models: Annotated[str, typer.Option(help="comma-separated, or all")] = "all",
    jobs: Annotated[int, typer.Option(help="trainings at once")] = 1,
    rows: RowsOption = ROWS,
) -> None:
    """Train and evaluate every case without a row, and add its row."""
    runs.mkdir(parents=True, exist_ok=True)
    lock = Lock()

    def work(case: Case) -> None:
        print(case.name, flush=True)
        row = {**case._asdict(), **measured(case, data.resolve(), runs.resolve())}
        with lock, open(rows, "a") as file:
            file.write(json.dumps(row) + "\n")

    for study in studies.split(","):
        found = read(rows)
        cases = [
            case
            for case in dict.fromkeys(STUDIES[study](found))
            if not has_row(case, found) and (models == "all" or case.model in models.split(","))
        ]
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(work, cases))


@app.command()
def plan(rows: RowsOption = ROWS) -> None:
    """Show how many cases of each study have rows."""
    found = read(rows)
    for name, study in STUDIES.items():
        cases = list(dict.fromkeys(study(found)))
        print(f"{name}: {sum(has_row(case, found) for case in cases)} of {len(cases)}")


def has_row(case: Case, found: list[dict]) -> bool:
    return any(case == case_of(row) for row in found)


def measured(case: Case, data: Path, runs: Path) -> dict:
    """Train and evaluate; a failed training also gives a row."""
    system, out = SYSTEMS[case.system], runs / case.name
    command = case.command(data)
    shown = " ".join(["gradpot", *command]).replace(f"{data}/", "")
    about = {"command": shown, "machine": machine(), "load": round(os.getloadavg()[0], 1)}
    if case.cpu_minutes is not None:
        warm_up(case, data, runs)
    if not (out / "results.json").exists():
        log = runs / f"{case.name}.log"
        failure = gradpot(runs, [*command, "--out", str(out), "--resume"], log)
        if failure:
            return {**about, "failed": failure, "valid": None, "test": None}
    results = json.loads((out / "results.json").read_text())
    test = results["test"]
    if system.test:
        arguments = [str(out / "model.safetensors"), str(data / system.test)]
        file = runs / f"{case.name}.test.json"
        gradpot(runs, ["eval", *arguments, *system.reading.split(), "--json"], file)
        test = json.loads(file.read_text())
    keys = ("steps", "epochs", "n_parameters", "train_cpu_s", "compile_cpu_s", "gradpot", "torch")
    return {**about, **{k: results[k] for k in keys}, "valid": results["valid"], "test": test}


def warm_up(case: Case, data: Path, runs: Path) -> None:
    """Compile the case's step before its time budget starts, by a very short training."""
    out = runs / f"compiled-{case.system}-{case.model}-{case.activation}-{case.rescale}"
    if not (out / "results.json").exists():
        command = case._replace(cpu_minutes=1e-3).command(data)
        gradpot(runs, [*command, "--out", str(out), "--resume"], out.with_suffix(".log"))


def gradpot(runs: Path, arguments: list[str], printed: Path) -> str | None:
    """Run gradpot on one thread; returns the last line of standard error if it fails."""
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(runs / "inductor")}
    with open(printed, "w") as file:
        done = subprocess.run(
            [sys.executable, "-m", "gradpot", *arguments],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD, **cache},
        )
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


if __name__ == "__main__":
    app()
