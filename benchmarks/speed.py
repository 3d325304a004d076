"""Speed of training steps and ASE calls of gradpot and other packages, on one machine.

    python benchmarks/speed.py run --data DATA [--only call] [--peers pyg,mace] ...
    python benchmarks/speed.py growth --data DATA
    python benchmarks/speed.py show

The packages of a comparison take turns: in every round, each works for a short time, so that other
load on the machine affects all of them alike. Medians are over the rounds. Every round also
multiplies two matrices, to measure what the processor can do. Rows are added to results/speed.jsonl
and results/growth.jsonl; README.md describes their columns.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer

from peers.remote import NAMES, Remote

HERE = Path(__file__).parent
RESULTS = HERE / "results"
GEMM_SIZE = 2048
GROWTH = [1, 2, 4, 8, 16, 32, 64]
GROWTH_MODELS = ["painn-64x3", "schnet-128x6"]

app = typer.Typer(help=__doc__, add_completion=False)
Data = Annotated[Path, typer.Option(help="folder with the data sets")]


class Comparison(NamedTuple):
    """A task that all packages do."""

    kind: str
    """train or call"""
    system: str
    batch: int
    threads: int


ALL = [
    *(Comparison("train", s, b, 1) for s in ("ethanol", "aspirin") for b in (10, 32)),
    *(Comparison("call", s, 1, 1) for s in ("ethanol", "aspirin", "water")),
    Comparison("train", "aspirin", 32, 2),
    Comparison("call", "water", 1, 2),
]
# slow, so measured in one comparison only
ONLY_THERE = {"dimenet++": Comparison("train", "ethanol", 10, 1)}


class Wanted(NamedTuple):
    """What the options select."""

    peers: tuple[str, ...]
    models: str
    modes: str
    flushed: bool


class Job(NamedTuple):
    """One participant: a network of a package, and one way to run it."""

    worker: Remote
    about: dict
    """the columns of its rows that identify it"""
    blocks: list[dict]


@app.command()
def run(
    data: Data = Path("data"),
    peers: Annotated[str, typer.Option(help="comma-separated names, or all")] = "all",
    models: Annotated[str, typer.Option(help="comma-separated names, or all")] = "all",
    modes: Annotated[str, typer.Option(help="eager, compiled, or all")] = "all",
    systems: str = "ethanol,aspirin,water",
    batches: str = "1,10,32",
    threads: str = "1,2",
    only: Annotated[str, typer.Option(help="train or call; both by default")] = "train,call",
    flushed: Annotated[bool, typer.Option(help="run only with denormals flushed to zero")] = False,
    rounds: int = 5,
    seconds: Annotated[float, typer.Option(help="length of a block, at least one step")] = 0.5,
    rows: Path = RESULTS / "speed.jsonl",
) -> None:
    """Compare packages, round by round; add one row for each network and way to run it."""
    names = NAMES if peers == "all" else tuple(peers.split(","))
    for name in names:
        if name not in NAMES:
            raise typer.BadParameter(f"no peer {name}; there are: {', '.join(NAMES)}")
    wanted = Wanted(names, models, modes, flushed)
    for comparison in ALL:
        texts = tuple(map(str, comparison))
        if all(map(chosen, texts, (only, systems, batches, threads))):
            logs = Path(tempfile.mkdtemp(prefix="speed-"))
            print(f"{' '.join(texts)}; logs in {logs}", flush=True)
            append(rows, compare(comparison, wanted, data, logs, rounds, seconds))


def compare(
    comparison: Comparison,
    wanted: Wanted,
    data: Path,
    logs: Path,
    rounds: int,
    seconds: float,
) -> list[dict]:
    """Rows of one comparison."""
    workers = []
    try:
        for name in wanted.peers:
            workers.append(Remote(name, data, comparison.threads, logs / f"{name}.log"))
        jobs, failed = prepare(comparison, workers, wanted)
        gemm = []
        for i in range(rounds):
            gemm.append(gemm_rate(comparison.threads))
            # reverse the order every other round, so that no job is always first
            for job in jobs if i % 2 == 0 else jobs[::-1]:
                request = {key: job.about[key] for key in ("job", "flush")}
                job.blocks.append(job.worker.ask("block", seconds=seconds, **request))
    finally:
        for worker in workers:
            worker.close()
    return [row(job.about, job.blocks, gemm) for job in jobs] + failed


def prepare(
    comparison: Comparison, workers: list[Remote], wanted: Wanted
) -> tuple[list[Job], list[dict]]:
    """Jobs that are ready to run, and rows for those that failed."""
    jobs, failed = [], []
    for worker, model, mode in entrants(comparison, workers, wanted):
        about = {
            "peer": worker.name,
            "version": worker.hello.get("version"),
            "torch": worker.hello.get("torch"),
            "model": model,
            **comparison._asdict(),
            "mode": mode,
        }
        request = {key: about[key] for key in ("kind", "model", "system", "batch", "mode")}
        answer = worker.ask("prepare", **request) if model else worker.hello
        print(f"  {worker.name} {model} {mode}: {answer.get('failed', 'ready')}", flush=True)
        if "failed" in answer:
            failed.append({**common(), **about, "failed": answer["failed"]})
            continue
        # a second thread inherits the flag only if it was set before the thread started
        both = comparison.threads == 1 and not wanted.flushed
        both = both and (mode == "eager" or worker.name == "gradpot")
        for flush in (True, False) if both else (True,):
            jobs.append(Job(worker, {**about, "flush": flush, **answer}, []))
    return jobs, failed


def entrants(
    comparison: Comparison, workers: list[Remote], wanted: Wanted
) -> Iterator[tuple[Remote, str | None, str | None]]:
    """Worker, model and mode; the last two are None if the worker did not start."""
    for worker in workers:
        if "failed" in worker.hello:
            yield worker, None, None
            continue
        for model in worker.hello["models"]:
            if ONLY_THERE.get(model, comparison) != comparison:
                continue
            for mode in worker.hello["modes"][comparison.kind]:
                if chosen(model, wanted.models) and chosen(mode, wanted.modes):
                    yield worker, model, mode


def chosen(name: str, names: str) -> bool:
    """Whether a comma-separated option includes this name."""
    return names == "all" or name in names.split(",")


def row(about: dict, blocks: list[dict], gemm: list[dict]) -> dict:
    """One line of results: the job, its times, and the rate that the processor reaches."""
    good = [block for block in blocks if "failed" not in block]
    base = {**common(), **{key: value for key, value in about.items() if key != "job"}}
    if not good:
        return {**base, "failed": blocks[0]["failed"] if blocks else "no rounds"}
    wall, cpu = ([block[key] for block in good] for key in ("wall_ms", "cpu_ms"))
    out = {
        **base,
        "n_blocks": len(good),
        "n_steps": sum(block["n"] for block in good),
        **spread("wall_ms", wall),
        **spread("cpu_ms", cpu),
        **{key: round(float(np.median([g[key] for g in gemm])), 2) for key in gemm[0]},
    }
    if about.get("matmul_flops"):
        reached = about["matmul_flops"] / (1e6 * float(np.median(cpu)))
        out["matmul_gflops_per_cpu_s"] = round(reached, 2)
    return out


def spread(name: str, values: list[float]) -> dict:
    """Median, quartiles and minimum over the blocks."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    figures = {"": middle, "_q1": low, "_q3": high, "_min": min(values)}
    return {name + key: round(float(value), 4) for key, value in figures.items()}


def gemm_rate(threads: int, repetitions: int = 3) -> dict:
    """GFLOP/s of a float32 product of 2048 × 2048 matrices, by wall and CPU time, best of 3.

    Also the load of the machine: the mean number of runnable processes in the last minute.
    """
    torch.set_num_threads(threads)
    a = torch.rand(GEMM_SIZE, GEMM_SIZE)
    wall, cpu = [], []
    for _ in range(repetitions):
        started, used = time.perf_counter(), time.process_time()
        a @ a
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    flops = 2e-9 * GEMM_SIZE**3
    return {
        "gemm_gflops": flops / min(wall),
        "gemm_gflops_per_cpu_s": flops / min(cpu),
        "load": os.getloadavg()[0],
    }


@app.command()
def growth(
    data: Data = Path("data"),
    models: Annotated[list[str], typer.Option()] = GROWTH_MODELS,
    copies: Annotated[list[int], typer.Option(help="copies of the cell of 192 atoms")] = GROWTH,
    mode: str = "eager",
    threads: int = 1,
    rounds: int = 3,
    seconds: float = 1.0,
    rows: Path = RESULTS / "growth.jsonl",
) -> None:
    """Measure time per atom and memory of our calculator, for water of 192 to 12,288 atoms.

    Every size gets a new process in every round, so that peak memory is measured separately.
    """
    taken: dict[tuple[str, int], list[dict]] = {}
    about: dict[tuple[str, int], dict] = {}
    gemm = []
    logs = Path(tempfile.mkdtemp(prefix="growth-"))
    print(f"logs in {logs}")
    for i in range(rounds):
        gemm.append(gemm_rate(threads))
        for model, n in product(models, copies):
            request = {"model": model, "system": f"water*{n}", "mode": mode}
            answer, block = once(data, request, threads, seconds, logs)
            about[model, n] = {**answer, **request, "threads": threads}
            taken.setdefault((model, n), []).append(block)
            print(f"  {i} {model} {192 * n} atoms: {block}", flush=True)
    append(rows, [per_atom(row(about[key], taken[key], gemm)) for key in taken])


def once(data: Path, request: dict, threads: int, seconds: float, logs: Path) -> tuple[dict, dict]:
    """The description of one new process, and one block of its calls."""
    worker = Remote("gradpot", data, threads, logs / "gradpot.log")
    try:
        answer = worker.ask("prepare", kind="call", batch=1, count=False, **request)
        block = answer
        if "failed" not in answer:
            block = worker.ask("block", job=answer["job"], seconds=seconds, flush=threads > 1)
        about = {"peer": "gradpot", "kind": "call", "flush": threads > 1, **answer}
        return {**about, **{key: worker.hello.get(key) for key in ("version", "torch")}}, block
    finally:
        worker.close()


def per_atom(row: dict) -> dict:
    """A row of growth, with µs per atom."""
    if "failed" in row:
        return row
    return {
        **row,
        "wall_us_per_atom": round(1e3 * row["wall_ms"] / row["n_atoms"], 3),
        "cpu_us_per_atom": round(1e3 * row["cpu_ms"] / row["n_atoms"], 3),
    }


@app.command()
def show(rows: Path = RESULTS / "speed.jsonl") -> None:
    """Print the newest row of every job, grouped by comparison."""
    if not rows.exists():
        raise typer.BadParameter(f"{rows} does not exist; `speed.py run` makes it")
    newest = {}
    keys = ("kind", "system", "batch", "threads", "peer", "model", "mode", "flush")
    for found in map(json.loads, rows.read_text().splitlines()):
        newest[tuple(found.get(key) for key in keys)] = found
    title = None
    for key, found in sorted(newest.items(), key=lambda item: tuple(map(str, item[0]))):
        if key[:4] != title:
            title = key[:4]
            print("\n" + " ".join(map(str, title)))
            print(f"{'':42s}  wall ms   (q1     q3)    cpu ms  peak MiB  + MiB")
        name = " ".join(str(k) for k in key[4:7]) + (" flushed" if key[7] else "")
        if "failed" in found:
            print(f"{name:42s}  failed: {found['failed'][:80]}")
            continue
        numbers = [found[k] for k in ("wall_ms", "wall_ms_q1", "wall_ms_q3", "cpu_ms", "peak_MiB")]
        form = "{:42s} {:8.2f} ({:7.2f} {:7.2f}) {:8.2f} {:8.0f} {:7.0f}"
        print(form.format(name, *numbers, found["increase_MiB"]))


def append(path: Path, rows: list[dict]) -> None:
    """Add rows to a file, one line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def common() -> dict:
    """Date, command, commit and processor of a row."""
    arguments = [a if "/" not in a else Path(a).name for a in sys.argv[1:]]
    git = subprocess.run(
        ["git", "-C", HERE, "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([f"python benchmarks/{Path(sys.argv[0]).name}", *arguments]),
        "commit": git.stdout.strip() or None,
        "cpu": processor(),
        "wait_policy": os.environ.get("OMP_WAIT_POLICY"),
    }


def processor() -> str:
    """The name of the processor, from /proc/cpuinfo."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


if __name__ == "__main__":
    app()
