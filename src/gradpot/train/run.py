"""A run from a configuration to a folder with a model, its errors and its plots."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gradpot import __version__
from gradpot.data.checks import inspect
from gradpot.data.files import require
from gradpot.data.frames import Frames
from gradpot.data.references import Rescaling, given, isolated, least_squares, rescaling
from gradpot.data.source import read
from gradpot.data.split import Split, split
from gradpot.data.stress import stress_label
from gradpot.errors import InputError
from gradpot.graph.dataset import batch, dataset
from gradpot.models import build, specification
from gradpot.nn.norm import batch_norms
from gradpot.potential.checkpoint import load
from gradpot.potential.evaluate import errors_of, evaluate, sizes
from gradpot.potential.potential import NOT_CONSERVATIVE
from gradpot.process import keep_memory, usage, write_bytes, write_json
from gradpot.train.board import with_board
from gradpot.train.compiling import gradient_step, minutes, pays, why_not
from gradpot.train.config import ADAM_RATE, MUON_RATE, RATE_WIDTH, Config, Data, Train, read_json
from gradpot.train.loop import Task, Watch, batches_per_epoch, fit
from gradpot.train.start import quiet
from gradpot.train.state import State

Say = Callable[[str], None]
# what a run writes, in this order
FILES = ("split.json", "rescaling.json", "config.json", "metrics.jsonl", "model.safetensors")
FILES += ("state.safetensors", "results.json", "learning_curve.png", "parity.png")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
SUMS_ONLY = (
    "fewer compositions than elements: only the sums of these atom energies mean something; "
    "total energies of other molecules will mean nothing"
)
THROUGH_BATCH_NORM = (
    "warning: derivatives are trained through batch norm: in training the forces on a molecule "
    "depend on the others of its batch, afterwards they do not; model.norm=none avoids that"
)
# frames that are looked at for what seems wrong with them: a second
INSPECTED = 5_000
# a run that says neither epochs nor minutes
DEFAULT_EPOCHS = 200
STEPS_BETWEEN_VALIDATIONS = 200


def train(
    settings: Config,
    out: str | Path,
    resume: bool = False,
    say: Say = print,
    watch: Watch = lambda state, done, row: None,
) -> dict:
    """Train a potential and leave everything about it in the folder `out`.

    Args:
        settings: see `train.config`.
        resume: go on with the run in `out`, which has the same settings (only `train.epochs`
            and the times that it may take may differ); begin one if there is none.
        say: takes notices, a line each.
        watch: see `loop.fit`.

    Returns:
        What `results.json` holds; with a key "stopped" if a signal ended the run early.

    Raises:
        InputError: settings or data are wrong; nothing was changed.
        RunError: the loss is not finite.
    """
    out = Path(out)
    begun = _check_folder(out, resume)
    specification(**settings.model.model_dump())
    # small tensors: more threads mostly wait for each other, and sums lose their order
    torch.set_num_threads(settings.train.threads)
    keep_memory()
    if begun and settings.train.compile == "auto":
        settings = settings.model_copy(deep=True)
        settings.train.compile = read_json(out / "config.json").train.compile
    frames = _frames(settings, say)
    task, state = prepare(settings, frames, out, (lambda _: None) if begun else say)
    say(str(task.rescaling))
    for notice in _about_forces(task.config, state.model):
        say(notice)
    if not task.parts.test.shape[0]:
        say("no frames are left for a test: parity.png shows those of the validation")
    if settings.train.compile == "auto" and not task.config.train.compile:
        say(why_not(state.model, task.config.model.name))
    fitted = settings.rescale.references in ("auto", "least-squares")
    if fitted and frames.n_compositions < len(task.rescaling.references):
        say(SUMS_ONLY)
    if begun:
        _continue(task, state, frames.fingerprint(), say)
    else:
        _begin(task, frames.fingerprint())
    stopped = fit(task, state, gradient_step(task, state, say), with_board(watch, out))
    if stopped:
        return {"stopped": stopped, "step": state.step, "out": str(out)}
    return finish(task, state, frames)


def prepare(settings: Config, frames: Frames, out: Path, say: Say = print) -> tuple[Task, State]:
    """Split, references, graphs, network: all that follows from settings and data."""
    parts = split(
        frames.n_atoms.shape[0],
        settings.data.split,
        settings.data.n_train,
        settings.data.n_valid,
        settings.data.n_test,
        settings.seed,
    )
    scale = _rescaling(settings, frames, parts)
    torch.manual_seed(settings.seed)
    arguments = settings.model.model_dump()
    dtype = DTYPES[settings.train.dtype]
    model = build(**arguments).to(dtype)
    settings = settings.model_copy(deep=True)
    spec: dict[str, Any] = model.spec  # type: ignore[assignment]
    settings.model = type(settings.model)(**spec)
    if not (settings.train.epochs or minutes(settings.train)):
        settings.train.epochs = DEFAULT_EPOCHS
    triplets = getattr(model, "uses_triplets", False)
    data = dataset(frames, model.cutoff, scale.references, dtype, triplets)  # type: ignore[arg-type]
    task = Task(settings, data, parts, scale, out)
    n_batches = batches_per_epoch(task)
    if settings.train.valid_every is None:
        settings.train.valid_every = -(-STEPS_BETWEEN_VALIDATIONS // n_batches)
    if settings.train.learning_rate is None:
        settings.train.learning_rate = _rate(settings.train, model, spec.get("width"))
    settings.train.compile = pays(settings.train, n_batches, model)
    some = torch.from_numpy(parts.train)[: settings.train.batch_size]
    if scaled := quiet(model, batch(data, some)):
        say(scaled)
    return task, State(model, settings.train)


def read_data(data: Data) -> Frames:
    """Read the file or the named set of a configuration, in eV and Å."""
    stress = stress_label(data.stress_key, data.stress_unit, data.stress_order, data.stress_sign)
    return read(data.file, data.energy_unit, data.length_unit, data.force_unit, stress)


def finish(task: Task, state: State, frames: Frames) -> dict:
    """Measure the best model on the test frames; write results and plots."""
    from gradpot.report.figures import learning_curve, parity

    best = load(task.out / "model.safetensors")
    test, valid = (torch.from_numpy(part) for part in (task.parts.test, task.parts.valid))
    # the same graphs, with total energies: the best model has its references on
    whole = task.data._replace(energy=torch.from_numpy(frames.energy))
    results = {
        "test": errors_of(best, whole, test),
        "valid": errors_of(best, whole, valid),
        "n_parameters": sum(p.numel() for p in best.parameters()),
        "n_train": task.parts.train.shape[0],
        "epochs": state.epoch,
        "steps": state.step,
        "train_cpu_s": round(state.cpu_s, 2),
        "train_wall_s": round(state.wall_s, 2),
        "compile_cpu_s": round(state.compile_cpu_s, 2),
        "peak_memory_MiB": round(usage().peak_memory_MiB, 1),
        "seed": task.config.seed,
        "model": task.config.model.model_dump(),
        "threads": torch.get_num_threads(),
        "gradpot": __version__,
        "torch": torch.__version__,
        "out": str(task.out),
    }
    write_json(task.out / "results.json", results)
    learning_curve(metrics(task.out), task.out / "learning_curve.png")
    shown = test if test.shape[0] else valid
    shown = shown[:1000]
    parity(*evaluate(best, whole, shown), sizes(whole)[shown], task.out / "parity.png")
    return results


def metrics(out: Path) -> list[dict]:
    """Rows of `metrics.jsonl`, one for each validation; a row that was not finished is no row."""
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _check_folder(out: Path, resume: bool) -> bool:
    """Whether a run was begun in `out`; refuse a folder where files would be overwritten."""
    found = [name for name in FILES if (out / name).exists()]
    if "config.json" in found:
        if not resume:
            raise InputError(f"{out} already holds a run; choose another --out, or --resume it")
        return True
    if resume:  # killed before it had written its configuration
        found = [name for name in found if name not in FILES[:2]]
    if found:
        raise InputError(
            f"{out} holds {found[0]} but no config.json, so it is no run; choose another --out"
        )
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out names a folder")
    return False


def _frames(settings: Config, say: Say) -> Frames:
    frames = read_data(settings.data)
    wanted = settings.loss
    missing = require(frames, wanted.energy > 0, wanted.forces > 0, wanted.stress > 0)
    for notice in (*frames.notices, *missing, *_suspicious(frames, settings.data.split)):
        say(notice)
    return frames


def _suspicious(frames: Frames, split: str) -> list[str]:
    """What `gradpot data info` would warn of, for the first frames."""
    some = frames.take(np.arange(min(frames.n_atoms.shape[0], INSPECTED)))
    return [f"warning: {text}" for text in inspect(some, split == "random")["warnings"]]


def _rescaling(settings: Config, frames: Frames, parts: Split) -> Rescaling:
    training = frames.take(parts.train)
    elements = np.unique(frames.numbers)
    mode, source = settings.rescale.mode, settings.rescale.references
    if source == "auto":
        source = "none" if mode in ("none", "constant") else "least-squares"
    if isinstance(source, dict):
        references = given(source, elements)
    elif source == "none":
        references = dict.fromkeys(elements.tolist(), 0.0)
    elif source == "least-squares":
        references = least_squares(training)
    elif source == "isolated":
        references = isolated(frames, elements)
    else:
        references = isolated(
            read_data(settings.data.model_copy(update={"file": source})), elements
        )
    missing = set(elements.tolist()) - references.keys()
    if missing:
        raise InputError(
            f"elements with numbers {sorted(missing)} are in the file but in none of the training "
            "frames; train on more frames or choose another split"
        )
    return rescaling(training, mode, references, settings.rescale.constant)


def _about_forces(settings: Config, model: nn.Module) -> list[str]:
    """What a user should know of the derivatives of this model.

    Raises:
        InputError: stress is to be learned, and the model has none.
    """
    notices = []
    if getattr(model, "direct", False):
        if settings.loss.stress:
            raise InputError("a model with direct forces has no stress; set loss.stress=0")
        notices.append("note: " + NOT_CONSERVATIVE)
    elif batch_norms(model) and (settings.loss.forces or settings.loss.stress):
        notices.append(THROUGH_BATCH_NORM)
    return notices


def _rate(train: Train, model: nn.Module, width: int | None) -> float:
    """The default learning rate of a network of this width; of others' networks it is not known."""
    rate = MUON_RATE if train.optimizer == "muon" else getattr(model, "adam_rate", ADAM_RATE)
    return rate * min(1.0, RATE_WIDTH / (width or RATE_WIDTH))


def _begin(task: Task, fingerprint: str) -> None:
    task.out.mkdir(parents=True, exist_ok=True)
    names = ("train", "valid", "test")
    split = {name: getattr(task.parts, name).tolist() for name in names}
    write_json(task.out / "split.json", {"data": fingerprint, **split})
    scale = task.rescaling._asdict()
    write_json(task.out / "rescaling.json", scale)
    write_json(task.out / "config.json", task.config.model_dump())


def _continue(task: Task, state: State, fingerprint: str, say: Say) -> None:
    """Restore the state, after checking that settings and data are those it was saved with."""
    before = read_json(task.out / "config.json")
    _same_settings(before, task.config, task.out)
    if _begun_with(task.out / "split.json") != fingerprint:
        raise InputError(
            f"the frames of {task.config.data.file} are not those that {task.out} was begun with"
        )
    path = task.out / "state.safetensors"
    if path.exists():
        state.restore(path)
    say(f"going on with {task.out} at step {state.step}")
    rows = [row for row in metrics(task.out) if row["step"] <= state.step]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_bytes(task.out / "metrics.jsonl", lines.encode())
    write_json(task.out / "config.json", task.config.model_dump())


def _begun_with(split: Path) -> str:
    try:
        return json.loads(split.read_text())["data"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{split} is damaged; begin a new run") from None


def _same_settings(before: Config, now: Config, out: Path) -> None:
    old, new = (_flat(c.model_dump()) for c in (before, now))
    free = ("epochs", "max_minutes", "max_cpu_minutes", "save_every_s", "threads")
    free = tuple(f"train.{key}" for key in free)
    for key in sorted(old.keys() | new.keys()):
        if key not in free and old.get(key) != new.get(key):
            raise InputError(
                f"--resume: {out} was begun with {key}={old.get(key)}, not {new.get(key)}; only "
                f"{', '.join(free)} may change"
            )


def _flat(tables: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tables.items():
        inner = (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
        flat |= inner
    return flat
