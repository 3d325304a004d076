"""A process that runs the tasks of one adapter on request: JSON lines in, JSON lines out.

    PYTHONPATH=benchmarks .envs/NAME/bin/python -P -m peers.worker NAME DATA THREADS

Each line is one request and gets one line as answer; an error gives `{"failed": "..."}`:

    {"do": "prepare", "kind": "train" | "call", "model", "system", "batch", "mode"}
        prepares a job and runs it twice; returns its description, memory and operations
    {"do": "block", "job": N, "seconds": S, "flush": true | false}
        repeats a job for S seconds, at least once, after one uncounted run, because the first
        run after a pause is slower; returns the times

Output of libraries goes to standard error. The process is idle while it waits for a request.
"""

import ctypes
import gc
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from peers import CUTOFF, SEED, systems


class Worker:
    """The jobs of one adapter."""

    def __init__(self, name: str, data: Path, threads: int):
        torch.set_num_threads(threads)
        self.threads = threads
        # a thread inherits the flag when it starts; it cannot be changed later
        torch.set_flush_denormal(threads > 1)
        self.adapter = importlib.import_module(f"peers.{name}")
        self.data = data
        self.jobs: dict[int, Callable[[], object]] = {}
        self._flops: dict[tuple, int | None] = {}

    def hello(self) -> dict:
        """Versions, models and modes of the package."""
        return {
            "version": self.adapter.VERSION,
            "models": list(self.adapter.MODELS),
            "modes": self.adapter.MODES,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }

    def prepare(
        self, kind: str, model: str, system: str, batch: int, mode: str, count: bool = True
    ) -> dict:
        """Make a job and run it twice; the second run measures its memory."""
        frames = systems.read(self.data, system, batch)
        flops = self._count(kind, model, system, batch, frames) if count else None
        started = time.perf_counter()
        step, n_parameters = self._job(kind, model, frames, mode)
        step()
        seconds = time.perf_counter() - started
        trim()
        before = resident("VmRSS")
        reset_peak()
        step()
        peak = resident("VmHWM")
        job = len(self.jobs)
        self.jobs[job] = step
        return {
            "job": job,
            "n_parameters": n_parameters,
            "n_atoms": int(frames.positions[..., 0].size),
            "n_edges": int(systems.edges(frames, CUTOFF)[0].shape[1]),
            "matmul_flops": flops,
            "first_run_s": round(seconds, 3),
            "peak_MiB": peak,
            "increase_MiB": round(max(0.0, peak - before), 1),
        }

    def block(self, job: int, seconds: float, flush: bool) -> dict:
        """Repeat a job; medians over its repetitions, in ms."""
        if self.threads > 1 and not flush:
            raise ValueError(
                "flush is false, but with several threads denormals are always flushed"
            )
        if not torch.set_flush_denormal(flush) and flush:
            raise RuntimeError("this processor cannot flush denormals")
        step, wall, cpu, value = self.jobs[job], [], [], None
        step()
        while not wall or sum(wall) < seconds:
            cpu_before, before = time.process_time(), time.perf_counter()
            value = step()
            wall.append(time.perf_counter() - before)
            cpu.append(time.process_time() - cpu_before)
        torch.set_flush_denormal(self.threads > 1)
        if not np.isfinite(np.asarray(value)).all():
            raise RuntimeError("the result is not finite")
        return {"n": len(wall), "wall_ms": 1e3 * np.median(wall), "cpu_ms": 1e3 * np.median(cpu)}

    def _job(self, kind: str, model: str, frames: systems.Frames, mode: str):
        torch.manual_seed(SEED)
        if kind == "train":
            step, n_parameters = self.adapter.training(model, frames, mode)
            return lambda: float(step()), n_parameters
        calculator, n_parameters = self.adapter.calculator(model, frames, mode)
        return forces_of(calculator, frames), n_parameters

    def _count(self, kind: str, model: str, system: str, batch: int, frames) -> int | None:
        """Floating-point operations of the matrix products in one eager run; None if none found.

        Always counted in eager mode, so that all modes are compared by the same work.
        """
        key = (kind, model, system, batch)
        if key not in self._flops:
            step, _ = self._job(kind, model, frames, self.adapter.MODES[kind][0])
            with Operations() as operations:
                step()
            self._flops[key] = operations.count or None
        return self._flops[key]


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products, by torch's formulas.

    `FlopCounterMode` does the same, but its tracking of modules breaks `autograd.grad`.
    """

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function._overloadpacket)
        if formula:
            self.count += formula(*args, **(kwargs or {}), out_val=out)
        return out


def forces_of(calculator, frames: systems.Frames) -> Callable[[], np.ndarray]:
    """A function that moves the atoms and asks ASE for the forces."""
    atoms, places, i = frames.atoms(), systems.walk(frames.positions[0]), 0
    atoms.calc = calculator

    def call() -> np.ndarray:
        nonlocal i
        i = (i + 1) % len(places)
        atoms.positions = places[i]
        return atoms.get_forces()

    return call


def resident(what: str) -> float:
    """Memory of this process in MiB: VmRSS, or its peak VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError(f"no {what} in /proc/self/status")


def reset_peak() -> None:
    """Reset the peak VmHWM."""
    Path("/proc/self/clear_refs").write_text("5")


def trim() -> None:
    """Return free memory to the system, if the C library supports it."""
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def main(name: str, data: str, threads: str) -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keeps output of libraries, also from C, out of the answers
    worker = answer(lambda: Worker(name, Path(data), int(threads)))
    print(json.dumps(worker if isinstance(worker, dict) else worker.hello()), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        do = getattr(worker, request.pop("do"))
        print(json.dumps(answer(partial(do, **request))), file=answers)


def answer(function: Callable):
    """The result of the function, or {"failed": reason}."""
    try:
        return function()
    except Exception as error:
        import traceback

        traceback.print_exc()
        first = str(error).strip().splitlines() or [""]
        return {"failed": f"{type(error).__name__}: {first[0][:300]}"}


if __name__ == "__main__":
    main(*sys.argv[1:])
