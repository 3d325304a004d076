"""Run the command line, in this process or in a new one, and list the files it leaves."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from gradpot import cli

TINY = "data.n_train=10 data.n_valid=5 data.n_test=5 train.epochs=1 model.width=8 model.n_layers=1"


class Said(NamedTuple):
    """Exit code and both streams of a command."""

    code: int
    out: str
    err: str


def gradpot(monkeypatch, capsys, arguments: list[str]) -> Said:
    """Run `gradpot` with these arguments in this process, through its real entry point."""
    monkeypatch.setattr(sys, "argv", ["gradpot", *arguments])
    capsys.readouterr()
    code = None
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    assert isinstance(code, int), "the command line always ends by exiting"
    return Said(code, *capsys.readouterr())


def process(arguments: list[str], folder: Path, stdout: int = subprocess.PIPE) -> Said:
    """Run `gradpot` in a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "gradpot", *arguments],
        cwd=folder,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Said(done.returncode, done.stdout or "", done.stderr)


def contents(folder: Path) -> dict[str, str]:
    """Names and hashes of everything in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }
