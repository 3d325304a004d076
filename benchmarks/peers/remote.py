"""Control of a worker process from the benchmark: start it, ask it, stop it."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("gradpot", "pyg", "schnetpack", "nequip", "mace", "torchmdnet")
# seconds; compiling a large network is slow
PATIENCE = 1800.0


class Remote:
    """A worker process (`peers.worker`), which works only on request.

    Args:
        name: name of the adapter.
        data: folder with the data sets.
        threads: number of threads of torch, OpenMP and MKL.
        log: file for the output of the worker.
    """

    def __init__(self, name: str, data: Path, threads: int, log: Path):
        count = str(threads)
        environment = {
            "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "CUDA_VISIBLE_DEVICES": "",
        }
        self.name = name
        with open(log, "a") as errors:
            self.process = subprocess.Popen(
                [python(name), "-P", "-u", "-W", "ignore", "-m", "peers.worker", name, data, count],
                env={**os.environ, **environment, "PYTHONPATH": str(HERE.parent)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.hello = self._answer()

    def ask(self, do: str, **request: object) -> dict:
        """Send a request and return the answer, or {"failed": reason}."""
        if self.process.poll() is not None:
            return {"failed": f"the worker ended with code {self.process.returncode}"}
        assert self.process.stdin
        line = json.dumps({"do": do, **request}) + "\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait()

    def _answer(self) -> dict:
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else b""
        if line:
            return json.loads(line)
        if not ready:
            self.close()
            return {"failed": f"no answer within {PATIENCE:.0f} s"}
        return {"failed": f"the worker ended with code {self.process.wait()}"}


def python(name: str) -> str:
    """The interpreter of an adapter; gradpot uses the present one.

    Raises:
        FileNotFoundError: the environment does not exist.
    """
    if name == "gradpot":
        return sys.executable
    path = HERE / ".envs" / name / "bin" / "python"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; run benchmarks/peers/environments.sh {name}"
        )
    return str(path)
