"""Where our compiled training steps and calls spend their time.

    python benchmarks/shares.py --data DATA

torch's profiler splits a training step into matrix products, compiled kernels (fused arithmetic,
gathers, sums by atom), and the rest. A call is timed as a whole, and its network alone on the same
inputs. `floor_ms` is the time of the matrix products of the eager step or call at the rate of a
2048 × 2048 product. `weights_ms` is the time to read every weight twice (forward and backward), at
the rate at which this processor sums memory of that size. Rows are added to results/shares.jsonl.
One thread, denormals flushed.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from speed import RESULTS, append, common, gemm_rate
from torch.profiler import ProfilerActivity, profile

from peers import gradpot as ours
from peers import systems
from peers.worker import Operations, forces_of

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")
COMPILED = "CompiledFxGraph"
N_RECORDED = 10
TRAIN = [("ethanol", 10), ("aspirin", 32)]
CALLS = ["ethanol", "aspirin", "water"]


def main(
    data: Annotated[Path, typer.Option(help="folder with the data sets")] = Path("data"),
    models: str = "schnet-128x6,painn-128x3,painn-64x3",
    only: str = "train,call",
    repetitions: int = 200,
    rows: Path = RESULTS / "shares.jsonl",
) -> None:
    """Add one row for each model and system."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for model in models.split(","):
        for system, batch in TRAIN if "train" in only else []:
            append(rows, [row(training(model, systems.read(data, system, batch)), model, system)])
        for system in CALLS if "call" in only else []:
            found = call(model, systems.read(data, system, 1), repetitions)
            append(rows, [row(found, model, system)])


def row(found: dict, model: str, system: str) -> dict:
    """One line of results, with the rate that the processor reaches."""
    rate = gemm_rate(1)["gemm_gflops_per_cpu_s"]
    floor = {"gemm_gflops_per_cpu_s": round(rate, 2), "floor_ms": 1e-6 * found["flops"] / rate}
    out = {**common(), "model": model, "system": system, **found, **floor}
    print({key: out[key] for key in ("model", "system", *found, *floor)}, flush=True)
    return out


def training(model: str, frames: systems.Frames) -> dict:
    """Parts of a compiled step, CPU ms."""
    torch.manual_seed(0)
    flops = operations(ours.training(model, frames, "eager")[0])
    step, n_parameters = ours.training(model, frames, "compiled")
    for _ in range(3):
        step()
    total = median_ms(step, N_RECORDED)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(N_RECORDED):
            step()
    own = {e.key: 1e-3 * e.self_cpu_time_total / N_RECORDED for e in recorded.key_averages()}
    products = sum(own.get(name, 0.0) for name in PRODUCTS)
    fused = sum(ms for name, ms in own.items() if COMPILED in name)
    around = sum(own.values()) - products - fused
    return {
        "kind": "train",
        "batch": len(frames.energy),
        "n_parameters": n_parameters,
        "whole_ms": total,
        "products_ms": products,
        "fused_ms": fused,
        "around_ms": around,
        "flops": flops,
    }


def call(model: str, frames: systems.Frames, repetitions: int) -> dict:
    """A whole compiled call, and its network alone, CPU ms."""
    torch.manual_seed(0)
    flops = operations(forces_of(ours.calculator(model, frames, "eager")[0], frames))
    calculator, n_parameters = ours.calculator(model, frames, "compiled")
    forces = forces_of(calculator, frames)
    inputs: list[tuple] = []
    run = calculator.potential.run
    calculator.potential.run = lambda *args: inputs.append(args) or run(*args)
    forces()
    calculator.potential.run = run
    total, network = [], []
    for _ in range(5):
        total.append(median_ms(forces, repetitions // 5))
        network.append(median_ms(lambda: run(*inputs[0]), repetitions // 5))
    return {
        "kind": "call",
        "batch": 1,
        "n_parameters": n_parameters,
        "whole_ms": float(np.median(total)),
        "network_ms": float(np.median(network)),
        "weights_ms": 2 * reading_ms(n_parameters),
        "flops": flops,
    }


def operations(step: Callable) -> int:
    """Floating-point operations of the matrix products of one step."""
    with Operations() as counted:
        step()
    return counted.count


def reading_ms(n_numbers: int) -> float:
    """CPU ms to read this many floats once, measured by summing them."""
    numbers = torch.zeros(n_numbers)
    return median_ms(numbers.sum, 50)


def median_ms(function: Callable, repetitions: int) -> float:
    """Median CPU time of one call of the function, ms."""
    taken = []
    for _ in range(repetitions):
        before = time.process_time()
        function()
        taken.append(time.process_time() - before)
    return 1e3 * float(np.median(taken))


if __name__ == "__main__":
    typer.run(main)
