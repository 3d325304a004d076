"""Ten kills −9 and ten full disks each, at random moments, of everything that writes.

Slow: `make test-slow` runs it. What a killed process left must be readable, and the next one must
end with exactly what an undisturbed one writes. A full disk is a limit on the size of files, which
needs no administrator; the system refuses to write beyond it, in the middle of a line.
"""

import io
import json
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

import gradpot
from gradpot.data.catalog import catalog
from gradpot.data.label import complete_frames
from gradpot.md.dynamics import read_log
from gradpot.potential.checkpoint import read_tensors
from gradpot.train.folder import metrics

pytestmark = pytest.mark.slow
KILLS = FULL_DISKS = 10
FETCHED_FRAMES = 14_000
SMALL = "data.n_train=60 data.n_valid=10 data.n_test=10 model.width=16 model.n_layers=1 seed=1"
SMALL += " train.epochs=25 train.save_every_s=0 train.valid_every=1 train.compile=false"


class Work(NamedTuple):
    """A command that writes `out` in a folder."""

    words: list[str]
    check: Callable[[Path], object]
    """what can be read of an unfinished output; raises if something cannot"""
    begun: str
    """a file that is there once the work has begun"""
    size: int
    """bytes; a full disk comes at a random size below"""


def start(work: Work, folder: Path, most: int = 0) -> subprocess.Popen:
    """The command in a new process, whose files cannot grow beyond `most` bytes."""

    def limit() -> None:
        if most:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return subprocess.Popen(
        [sys.executable, "-m", "gradpot", *work.words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def finish(work: Work, folder: Path) -> None:
    process = start(work, folder)
    _, err = process.communicate()
    assert process.returncode == 0, err


def killed(work: Work, folder: Path, chance: random.Random, seconds: float) -> int:
    """Kill the command ten times; return how many of the kills came before it had ended."""
    n_killed = 0
    for _ in range(KILLS):
        process = start(work, folder)
        end = time.monotonic() + 120
        while not (folder / work.begun).exists() and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.005)
        time.sleep(chance.uniform(0, seconds))
        process.kill()
        process.communicate()
        n_killed += process.returncode == -signal.SIGKILL
        work.check(folder)
    return n_killed


def filled(work: Work, folder: Path, chance: random.Random) -> int:
    """Let the command meet a full disk; return how often it was one line and an exit code."""
    n_full = 0
    for _ in range(FULL_DISKS):
        process = start(work, folder, chance.randrange(200, work.size))
        _, err = process.communicate()
        assert "Traceback" not in err, err
        if process.returncode:
            assert process.returncode in (1, 2), err
            assert re.search("too large|cannot write", err.splitlines()[-1].lower()), err
            n_full += 1
        work.check(folder)
    return n_full


def parts_left(folder: Path) -> list[Path]:
    return [*folder.rglob(".*.part"), *folder.rglob("*.lock")]


# --- training


def check_run(folder: Path) -> None:
    run = folder / "R"
    metrics(run)
    for name in ("model.safetensors", "state.safetensors"):
        if (run / name).exists():
            read_tensors(run / name)
    if (run / "model.safetensors").exists():
        gradpot.load(run / "model.safetensors")


TRAIN = Work(
    ["train", *SMALL.split(), "--out", "R", "--resume"], check_run, "R/state.safetensors", 40_000
)


def bits(run: Path) -> tuple:
    rows = [row | {"seconds": 0} for row in metrics(run)]
    tensors = {
        f"{name}:{key}": tensor.numpy().tobytes()
        for name in ("model", "state")
        for key, tensor in read_tensors(run / f"{name}.safetensors")[0].items()
    }
    return rows, tensors


@pytest.mark.parametrize("disturb", [killed, filled])
def test_training(tmp_path, disturb):
    (tmp_path / "whole").mkdir()
    finish(TRAIN, tmp_path / "whole")
    folder = tmp_path / "disturbed"
    folder.mkdir()
    more = (1.5,) if disturb is killed else ()
    n = disturb(TRAIN, folder, random.Random(0), *more)
    finish(TRAIN, folder)
    assert bits(folder / "R") == bits(tmp_path / "whole" / "R")
    assert parts_left(folder) == []
    assert n >= 5
    print(f"{n} of 10 disturbed")


# --- labels


def check_labels(folder: Path) -> None:
    if (folder / "out.extxyz").exists():
        n, end = complete_frames(folder / "out.extxyz")
        text = (folder / "out.extxyz").read_bytes()[:end].decode()
        (folder / "whole.extxyz").write_text(text)
        assert n == 0 or len(ase.io.read(folder / "whole.extxyz", ":")) == n
        (folder / "whole.extxyz").unlink()


LABEL = Work(
    ["label", "in.xyz", "--with", "gfn2-xtb", "--out", "out.extxyz"],
    check_labels,
    "out.extxyz",
    45_000,
)


@pytest.mark.parametrize("disturb", [killed, filled])
def test_labels(tmp_path, disturb):
    pytest.importorskip("tblite")
    benzene = molecule("C6H6")
    frames: list[Atoms] = [benzene.copy() for _ in range(40)]
    for seed, frame in enumerate(frames):
        frame.rattle(0.1, seed=seed)
    for name in ("whole", "disturbed"):
        (tmp_path / name).mkdir()
        ase.io.write(tmp_path / name / "in.xyz", frames)
    finish(LABEL, tmp_path / "whole")
    folder = tmp_path / "disturbed"
    more = (0.15,) if disturb is killed else ()
    n = disturb(LABEL, folder, random.Random(0), *more)
    finish(LABEL, folder)
    assert (folder / "out.extxyz").read_bytes() == (tmp_path / "whole/out.extxyz").read_bytes()
    assert len(ase.io.read(folder / "out.extxyz", ":")) == 40
    assert parts_left(folder) == []
    print(f"{n} of 10 disturbed")


# --- dynamics: not resumed; what was written can be read


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A potential whose forces are too weak to break a molecule."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    network = gradpot.build("painn", width=16, n_layers=1)
    gradpot.save(gradpot.Potential(network, {1: -45.0, 6: -15.0, 8: -7.5}, scale=0.001), path)
    return path


def check_dynamics(folder: Path) -> int:
    """Whole frames and rows, however the run ended; the number of frames.

    The next run is again the first one: this one gets another name.
    """
    n_frames = 0
    if (folder / "md-1").exists():
        (folder / "md-1").rename(folder / f"kept-{len([*folder.iterdir()])}")
    for run in folder.glob("kept-*"):
        if (run / "md.extxyz").exists():
            n, end = complete_frames(run / "md.extxyz")
            n_frames += n
            if n and end == (run / "md.extxyz").stat().st_size:
                assert len(ase.io.read(run / "md.extxyz", ":")) == n
        if (run / "md.csv").exists() and (run / "md.csv").read_text().count("\n") > 2:
            read_log(run / "md.csv")
        if (run / "md.json").exists():
            json.loads((run / "md.json").read_text())
    return n_frames


@pytest.mark.parametrize("disturb", [killed, filled])
def test_dynamics(tmp_path, model, disturb):
    words = f"md {model} CH3CH2OH --temperature-K 1 --time-ps 0.5 --save-every-fs 1 --compile false"
    work = Work([*words.split(), "--timestep-fs", "0.5"], check_dynamics, "md-1/md.csv", 200_000)
    more = (1.0,) if disturb is killed else ()
    n = disturb(work, tmp_path, random.Random(0), *more)
    assert check_dynamics(tmp_path) > 0
    if disturb is filled:  # cut back to whole frames
        for path in tmp_path.glob("kept-*/md.extxyz"):
            assert complete_frames(path)[1] == path.stat().st_size
    print(f"{n} of 10 disturbed")


# --- downloads


class Slow(BaseHTTPRequestHandler):
    """Serves one file, piece by piece, from any byte on."""

    content = b""

    def do_GET(self):
        first = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        self.send_response(206 if first else 200)
        if first:
            n = len(self.content)
            self.send_header("Content-Range", f"bytes {first}-{n - 1}/{n}")
        self.send_header("Content-Length", str(len(self.content) - first))
        self.send_header("ETag", '"one"')
        self.end_headers()
        try:
            for i in range(first, len(self.content), 1 << 16):
                self.wfile.write(self.content[i : i + (1 << 16)])
                time.sleep(0.01)
        except OSError:  # the client was killed
            return

    def log_message(self, *_):
        pass


FETCH = f"""
from gradpot.data.catalog import catalog
entry = catalog.find("md17:uracil")._replace(frames={FETCHED_FRAMES}, bytes=None)
catalog.entries = lambda: {{"md17:uracil": entry}}
catalog.fetch("md17:uracil")
"""


def made_up_set() -> bytes:
    """An npz of 8 MB: 12 carbon atoms each, on a grid, with noise."""
    noise = np.random.default_rng(0).normal(scale=0.01, size=(FETCHED_FRAMES, 12, 3))
    places = 1.5 * np.indices((3, 2, 2)).reshape(3, 12).T
    content = io.BytesIO()
    labels = {"E": noise.sum(axis=(1, 2)), "F": noise}
    np.savez(content, z=np.full(12, 6), R=places + noise, **labels)
    return content.getvalue()


@pytest.mark.parametrize("how", ["killed", "filled"])
def test_downloads(tmp_path, monkeypatch, how):
    Slow.content = made_up_set()
    monkeypatch.setenv(catalog.FOLDER_VARIABLE, str(tmp_path))
    path = catalog.path_of(catalog.find("md17:uracil"))
    server = HTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(catalog.MIRROR_VARIABLE, f"http://127.0.0.1:{server.server_port}")
    words = [sys.executable, "-c", FETCH]
    chance, n = random.Random(0), 0
    for _ in range(10):
        most = chance.randrange(1000, len(Slow.content)) if how == "filled" else 0

        def limit(most: int = most) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            if most:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL, preexec_fn=limit)
        if how == "killed":
            part, end = path.with_stem(path.stem + ".part"), time.monotonic() + 120
            before = part.stat().st_size if part.exists() else -1
            while process.poll() is None and (not part.exists() or part.stat().st_size <= before):
                assert time.monotonic() < end
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
        n += process.wait() != 0
        if path.exists():  # only as a whole, even if the process ended otherwise
            assert path.read_bytes() == Slow.content
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == Slow.content
    names = {each.name for each in tmp_path.rglob("*") if each.is_file()}
    assert names <= {path.name, f"{path.name}.sha256"}, names
    print(f"{n} of 10 disturbed")
