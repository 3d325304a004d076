"""Run a command with a budget of CPU time, and keep its best checkpoint at given times."""

import os
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
LOOK_EVERY_S = 0.25
PATIENCE_S = 10.0
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    # do not import from the folder of the script
    "PYTHONSAFEPATH": "1",
    "PYTHONWARNINGS": "ignore",
}


class Mark(NamedTuple):
    """State of a run when a budget was used up or the run ended."""

    cpu_s: float
    """user and system time of the process and its children, since training began"""
    wall_s: float
    """since training began"""
    before_s: float
    """CPU time until training began"""
    steps: int
    checkpoint: Path | None
    """a copy of the best checkpoint so far; None if there is none"""
    ended: bool
    """whether the run ended before the budget was used up"""


class Failed(Exception):
    """The command ended with an error; the message is the end of its log."""


def watch(
    command: list[str],
    folder: Path,
    budgets_s: list[float],
    best: Callable[[Path], Path | None],
    from_start: bool = False,
    environment: dict[str, str] | None = None,
) -> list[Mark]:
    """Run `command` in `folder` until the longest budget is used up.

    Args:
        command: runs `launch.py`, which writes the file `folder`/clock.
        budgets_s: CPU seconds, in ascending order.
        best: finds the best checkpoint in `folder` now, or None.
        from_start: count from the start of the process instead of the start of training.

    Returns:
        One mark for each budget.

    Raises:
        Failed: the command ended with an error before its budget was used up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.zeros(2, np.int64).tofile(folder / "clock")
    clock = np.memmap(folder / "clock", np.int64, "r", shape=2)
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ONE_THREAD, **(environment or {})},
            start_new_session=True,
        )
    try:
        return _marks(process, None if from_start else clock, folder, budgets_s, best)
    finally:
        _end(process)


def _marks(
    process: subprocess.Popen,
    clock: np.memmap | None,
    folder: Path,
    budgets_s: list[float],
    best: Callable[[Path], Path | None],
) -> list[Mark]:
    marks: list[Mark] = []
    total, began_at = 0.0, time.perf_counter()
    while len(marks) < len(budgets_s):
        ended = _has_ended(process.pid)
        # the time of a child is lost when it ends, if no process waits for it
        total = max(total, tree_cpu_s(process.pid))
        before = 0.0 if clock is None else clock[0] * 1e-9
        if clock is not None and not before:
            began_at = time.perf_counter()
            used = 0.0
        else:
            used = max(0.0, total - before)
        if ended and process.wait() != 0:
            raise Failed((folder / "log").read_text()[-2000:])
        if not ended and used < budgets_s[len(marks)]:
            time.sleep(LOOK_EVERY_S)
            continue
        kept = _copy(folder, best, folder / f"budget{len(marks)}.ckpt")
        wall, steps = time.perf_counter() - began_at, 0 if clock is None else int(clock[1])
        mark = Mark(used, wall, before, steps, kept, ended)
        marks += [mark] * (len(budgets_s) - len(marks)) if ended else [mark]
    return marks


def tree_cpu_s(root: int) -> float:
    """User and system time of a process and its descendants, including ended ones."""
    ticks, parents = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry)] = int(fields[1])
            ticks[int(entry)] = sum(map(int, fields[11:15]))
    return TICK_S * sum(t for pid, t in ticks.items() if _is_below(pid, root, parents))


def _is_below(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid != root and pid in parents:
        pid = parents[pid]
    return pid == root


def _has_ended(pid: int) -> bool:
    """Whether the process has ended; until it is waited for, its times can be read."""
    state = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    return state == "Z"


def _copy(folder: Path, best: Callable[[Path], Path | None], to: Path) -> Path | None:
    """Copy the best checkpoint; wait if it is being written."""
    last = time.perf_counter() + PATIENCE_S
    while time.perf_counter() < last:
        path = best(folder)
        if path is None:
            return None
        try:
            shutil.copyfile(path, to)
        except FileNotFoundError:
            continue  # replaced by a better one
        # torch saves a zip archive, whose table of contents is written last
        if zipfile.is_zipfile(to):
            return to
        time.sleep(LOOK_EVERY_S)
    raise Failed(f"{path} was not complete after {PATIENCE_S} s")


def _end(process: subprocess.Popen) -> None:
    """Stop the process and its children."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, kind)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                continue
