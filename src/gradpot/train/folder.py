"""The run folder: what it holds, read and checked; its log."""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gradpot import __version__
from gradpot.data.references import Rescaling
from gradpot.data.split import Split
from gradpot.errors import InputError
from gradpot.potential.header import Kind, Positive, References, Section, energies, why
from gradpot.process import parse_json, write_bytes, write_json
from gradpot.train.config import Data

# what a run writes, in this order
FILES = ("split.json", "rescaling.json", "config.json", "metrics.jsonl", "model.safetensors")
FILES += ("state.safetensors", "results.json", "learning_curve.png", "parity.png")

Count = Annotated[int, Field(strict=True, ge=0)]
Say = Callable[[str], None]


class Place(Section):
    """Where a file of the data was when the run started."""

    absolute: str
    from_run: str
    """relative to the run folder"""


class Parts(Section):
    """The content of `split.json`."""

    data: str
    """fingerprint of the frames"""
    places: dict[str, Place] = Field(default_factory=dict)
    """by the name that the configuration has"""
    train: list[Count]
    valid: list[Count]
    test: list[Count]


class Scales(Section):
    """The content of `rescaling.json`."""

    mode: str
    references: References
    scale: Positive
    length: Positive


class Row(BaseModel):
    """A row of `metrics.jsonl`; errors without labels are None, and numbers may be NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epoch: Count
    step: Count
    seconds: float
    learning_rate: float
    train_loss: float
    valid: dict[str, int | float | None]
    best: bool


def check_folder(out: Path, resume: bool) -> bool:
    """Whether a run was started in `out`; refuse a folder where files would be overwritten."""
    started = (out / "config.json").exists()
    if started and not resume:
        raise InputError(f"{out} already holds a run; choose another --out, or --resume it")
    # a run that was killed before it wrote its configuration left the first two files at most
    harmless = FILES[:2] if resume else ()
    found = [name for name in FILES if (out / name).exists() and name not in harmless]
    if found and not started:
        raise InputError(
            f"{out} holds {found[0]} but no config.json, so it is not a run; choose another --out"
        )
    return started


def metrics(out: Path) -> list[dict[str, Any]]:
    """Rows of `metrics.jsonl`, one for each validation; a row cut short by a kill is left out.

    Raises:
        InputError: a row is damaged.
    """
    path = out / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    rows = (_parsed(line, Row, path, f"in row {n}, ") for n, line in enumerate(whole, 1))
    return [row.model_dump() for row in rows]


def keep_metrics(out: Path, step: int) -> None:
    """Drop the rows after `step`: the run goes on from there."""
    kept = (json.dumps(row) + "\n" for row in metrics(out) if row["step"] <= step)
    write_bytes(out / "metrics.jsonl", "".join(kept).encode())


def write_parts(out: Path, data: Data, fingerprint: str, parts: Split) -> None:
    """Write `split.json`."""
    here = [name for name in data.every_file if Path(name).exists()]
    places = {
        name: {"absolute": os.path.abspath(name), "from_run": os.path.relpath(name, out)}
        for name in here
    }
    lists = {name: part.tolist() for name, part in parts._asdict().items()}
    write_json(out / "split.json", {"data": fingerprint, "places": places, **lists})


def read_parts(out: Path) -> Parts:
    """Read `split.json`.

    Raises:
        InputError: it is missing or damaged.
    """
    parts = _read(out / "split.json", Parts)
    index = [*parts.train, *parts.valid, *parts.test]
    if not parts.train or len(set(index)) < len(index):
        what = "frames are in two sets" if parts.train else "there is no training frame"
        raise InputError(f"{out / 'split.json'} is damaged: {what}; start a new run")
    return parts


def as_split(parts: Parts, n_frames: int, out: Path) -> Split:
    """The same as arrays.

    Raises:
        InputError: the data have fewer frames.
    """
    if (last := max([*parts.train, *parts.valid, *parts.test])) >= n_frames:
        raise InputError(
            f"{out / 'split.json'} is damaged: there is no frame {last}; start a new run"
        )
    return Split(*(np.array(part, int) for part in (parts.train, parts.valid, parts.test)))


def read_rescaling(out: Path) -> Rescaling:
    """Read `rescaling.json`.

    Raises:
        InputError: it is missing or damaged.
    """
    found = _read(out / "rescaling.json", Scales)
    return Rescaling(found.mode, energies(found.references), found.scale, found.length)


class Log:
    """Says notices, and keeps them in `log.txt` with the time; writes nothing before `begin`."""

    def __init__(self, out: Path, say: Say):
        self.path, self._say, self._begun = out / "log.txt", say, False
        self._waiting = [f"gradpot {__version__}: {shlex.join(sys.argv)}"]

    def say(self, line: str) -> None:
        """Say one line and keep it."""
        self._say(line)
        self._waiting.append(line)
        if self._begun:
            self.begin()

    def begin(self) -> None:
        """Write what was said so far, beginning with the command line, and from now on."""
        self._begun = True
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        with open(self.path, "a") as file:
            file.writelines(f"{now}  {' '.join(line.split())}\n" for line in self._waiting)
        self._waiting = []


def _read(path: Path, kind: type[Kind]) -> Kind:
    try:
        return _parsed(path.read_bytes(), kind, path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing, so the run cannot go on; start a new one") from error


def _parsed(text: bytes, kind: type[Kind], path: Path, place: str = "") -> Kind:
    """JSON as an instance of its schema.

    Raises:
        InputError: names the file, the place in it, and the first thing that does not fit.
    """
    try:
        return kind.model_validate(parse_json(text))
    except ValidationError as error:
        problem = why(error)
    except ValueError as error:
        problem = f"it is not JSON ({error})"
    raise InputError(f"{path} is damaged: {place}{problem}; start a new run")
