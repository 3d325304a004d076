"""The benchmark's end of a worker: start it, ask it, stop it."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("gradpot", "pyg", "schnetpack", "nequip", "mace", "torchmdnet")
# s; compiling a large network is slow
PATIENCE = 1800.0


class Remote:
    """A worker process (`peers.worker`); it works only while it is asked.

    Args:
        name: of the adapter.
        data: folder with the data sets.
        threads: of torch, OpenMP and MKL.
        log: file that gets what the worker prints.
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
        """Send a request and wait; an error comes back as {"failed": why}."""
        if self.process.poll() is not None:
            return {"failed": f"the worker ended with code {self.process.returncode}"}
        assert self.process.stdin
        line = json.dumps({"do": do, **request}) + "\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
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
    """The interpreter of an adapter; our own is the one that runs this.

    Raises:
        FileNotFoundError: the environment was not made.
    """
    if name == "gradpot":
        return sys.executable
    path = HERE / ".envs" / name / "bin" / "python"
    if not path.exists():
        raise FileNotFoundError(f"no {path}; make it by benchmarks/peers/environments.sh {name}")
    return str(path)
