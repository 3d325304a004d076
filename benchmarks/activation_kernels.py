"""CPU time of activations, alone and in training steps; one thread, float32.

    python benchmarks/activation_kernels.py kernels
    python benchmarks/activation_kernels.py steps --data DATA
    python benchmarks/activation_kernels.py page

`kernels` times what our training step does with an activation: y = φ(x), the gradient of Σ y·w
with respect to x, a loss of both, and its gradient with respect to x and w. `steps` times whole
training steps of SchNet and PaiNN. Both run eager, and compiled as in `gradpot.compile.step`. All
activations take turns, in reverse order every other round. Rows are added to
results/activation_kernels.jsonl; `page` writes the newest into benchmarks/activations.md.
"""

import json
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from speed import RESULTS, append, common, spread
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from gradpot.compile.step import STEP_OPTIONS, available, compile_step, example_batch
from gradpot.data.references import least_squares
from gradpot.data.source import read
from gradpot.graph.dataset import batch, dataset
from gradpot.models import build
from gradpot.nn.activations import ACTIVATIONS, FAMILIES, look_up
from gradpot.process import keep_memory
from gradpot.train.loss import Weights, penalty, weighted
from gradpot.train.step import gradients
from gradpot.train.weights import flatten

ROWS = RESULTS / "activation_kernels.jsonl"
PAGE = Path(__file__).parent / "activations.md"
MODES = ("eager", "compiled")
SIZES = [(2_000, 128), (13_000, 128)]
MODELS = {
    "schnet-128x6": {"name": "schnet", "width": 128, "n_layers": 6},
    "painn-64x3": {"name": "painn", "width": 64, "n_layers": 3},
}
Step = Callable[[], object]

app = typer.Typer(help=__doc__, add_completion=False)


@app.command()
def kernels(
    names: Annotated[str, typer.Option(help="comma-separated, or all")] = "all",
    rounds: int = 9,
    seconds: Annotated[float, typer.Option(help="length of a block, at least one pass")] = 0.05,
    rows: Path = ROWS,
) -> None:
    """Time forward, backward and double backward of every activation."""
    torch.set_num_threads(1)
    keep_memory()
    chosen = [*ACTIVATIONS, *FAMILIES] if names == "all" else names.split(",")
    for n, width in SIZES:
        jobs = {(name, mode): one_pass(name, mode, n, width) for name in chosen for mode in MODES}
        about = {"kind": "kernel", "n": n, "width": width}
        append(rows, measured(jobs, rounds, seconds, about))


def one_pass(name: str, mode: str, n: int, width: int) -> Step:
    """One pass through an activation as in our training step, with random tensors."""
    function = look_up(name)
    parameters = list(function.parameters()) if isinstance(function, torch.nn.Module) else []
    random = torch.Generator().manual_seed(0)
    inputs = list(torch.randn(4, n, width, generator=random).unbind(0))

    def step(x: Tensor, w: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """Gradient of the loss Σ u·y + Σ v·(∂/∂x Σ w·y)."""
        with torch.enable_grad():
            x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
            y = function(x)
            (first,) = torch.autograd.grad(y, x, w, create_graph=True)
            second = torch.autograd.grad((y, first), (x, w, *parameters), (u, v))
        # return all, because the matrix products of a network read all of them
        return y.detach(), first.detach(), *second

    if mode == "compiled":
        example = [tensor[: width + 1] for tensor in inputs]
        traced = make_fx(step, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example)
        step = torch.compile(traced, dynamic=True, fullgraph=True, options=available(STEP_OPTIONS))

    def once() -> object:
        with torch.no_grad():
            return step(*inputs)

    return once


@app.command()
def steps(
    data: Annotated[Path, typer.Option(help="folder with the data sets")] = Path("data"),
    names: str = "irelu,softplus,silu,ssp",
    modes: Annotated[str, typer.Option(help="comma-separated")] = ",".join(MODES),
    n_frames: Annotated[int, typer.Option(help="ethanol molecules in a batch")] = 10,
    rounds: int = 9,
    seconds: float = 0.3,
    rows: Path = ROWS,
) -> None:
    """Time the loss and gradient of whole networks for a batch of rMD17 ethanol."""
    torch.set_num_threads(1)
    keep_memory()
    frames = read(data / "rmd17_ethanol" / "rmd17_ethanol_train1000.npz")
    graphs = dataset(frames, 5.0, least_squares(frames))
    for model in MODELS:
        keys = [(name, mode) for name in names.split(",") for mode in modes.split(",")]
        jobs = {key: training_step(model, *key, graphs, n_frames) for key in keys}
        about = {"kind": "step", "model": model, "system": "ethanol", "batch": n_frames}
        append(rows, measured(jobs, rounds, seconds, about))


def training_step(model: str, name: str, mode: str, graphs, n_frames: int) -> Step:
    """A gradient step of a network with this activation."""
    torch.manual_seed(0)
    network = build(**MODELS[model], activation=name)
    loss = partial(
        weighted,
        weights=Weights(1.0, 1.0, 0.0),
        length=1.0,
        penalty=penalty("huber", 0.01),
    )
    weights = flatten(network)
    step = gradients(network, loss, stress=False)
    if mode == "compiled":
        step = compile_step(step, weights, example_batch(graphs, network))
    return partial(step, weights, batch(graphs, torch.arange(n_frames)))


def measured(jobs: dict[tuple[str, str], Step], rounds: int, seconds: float, about: dict):
    """Rows with the CPU time of one pass of each job; the jobs take turns."""
    blocks: dict[tuple[str, str], list[float]] = {key: [] for key in jobs}
    for job in jobs.values():
        job()
    for i in range(rounds):
        # reverse the order every other round, so that no job is always first
        for key in list(jobs) if i % 2 == 0 else list(jobs)[::-1]:
            blocks[key].append(block(jobs[key], seconds))
    out = []
    for (name, mode), taken in blocks.items():
        row = {**common(), "torch": torch.__version__, **about, "activation": name, "mode": mode}
        row |= {"threads": 1, "n_blocks": rounds, **spread("cpu_ms", taken)}
        row["load"] = round(os.getloadavg()[0], 1)
        print(f"{about} {name} {mode}: {row['cpu_ms']} ms", flush=True)
        out.append(row)
    return out


def block(job: Step, seconds: float) -> float:
    """Mean CPU time of one pass in ms over `seconds`, after one uncounted pass."""
    job()
    n, begun = 0, time.process_time()
    while n == 0 or time.process_time() - begun < seconds:
        job()
        n += 1
    return 1e3 * (time.process_time() - begun) / n


@app.command()
def page(rows: Path = ROWS) -> None:
    """Write the tables between the markers of benchmarks/activations.md."""
    newest: dict[tuple, dict] = {}
    for row in map(json.loads, rows.read_text().splitlines()):
        place = (row["kind"], row.get("n"), row.get("model"), row["mode"], row["activation"])
        newest[place] = row
    table = f"{kernel_table(newest)}\n\n{step_table(newest)}"
    text = re.sub(
        r"(<!-- kernels -->\n).*?(\n<!-- end -->)",
        lambda m: m[1] + table + m[2],
        PAGE.read_text(),
        flags=re.DOTALL,
    )
    PAGE.write_text(text)
    print(table)


def kernel_table(newest: dict[tuple, dict]) -> str:
    """CPU ms of each activation by size and mode, and its ratio to ssp."""
    columns = [(n, mode) for n, _ in SIZES for mode in MODES]
    names = [name for kind, *_, name in newest if kind == "kernel"]
    heads = [f"{n:,} × {width}, {mode}" for n, width in SIZES for mode in MODES]
    lines = [["activation", *heads], ["---"] * (1 + len(heads))]
    for name in dict.fromkeys(names):
        cells = []
        for n, mode in columns:
            row, ssp = (newest["kernel", n, None, mode, k] for k in (name, "ssp"))
            ratio = row["cpu_ms"] / ssp["cpu_ms"]
            cells.append(f"{interval(row)} · {ratio:.2f}")
        lines.append([f"`{name}`", *cells])
    return markdown(lines)


def step_table(newest: dict[tuple, dict]) -> str:
    """Whole training steps, CPU ms."""
    columns = [(model, mode) for model in MODELS for mode in MODES]
    names = [name for kind, *_, name in newest if kind == "step"]
    lines = [["activation", *(f"{model}, {mode}" for model, mode in columns)]]
    lines.append(["---"] * (1 + len(columns)))
    for name in dict.fromkeys(names):
        found = [newest.get(("step", None, model, mode, name)) for model, mode in columns]
        lines.append([f"`{name}`", *(interval(row) if row else "" for row in found)])
    return markdown(lines)


def interval(row: dict) -> str:
    """Median (quartiles)."""
    return f"{row['cpu_ms']:.2f} ({row['cpu_ms_q1']:.2f}–{row['cpu_ms_q3']:.2f})"


def markdown(lines: list[list[str]]) -> str:
    """A table of cells."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    app()
