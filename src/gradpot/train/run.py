"""A run: from a configuration to a folder with a model, its errors and its plots."""

from pathlib import Path
from warnings import catch_warnings

import torch

from gradpot import __version__
from gradpot.compile.package import DTYPES
from gradpot.data.checks import suspicions
from gradpot.data.files import require
from gradpot.data.frames import Frames
from gradpot.data.references import Rescaling
from gradpot.errors import InputError, RunError
from gradpot.graph.dataset import batch, dataset
from gradpot.locks import created, locked
from gradpot.models import build, specification
from gradpot.nn.norm import batch_norms
from gradpot.potential.checkpoint import load, save
from gradpot.potential.checkpoint import notes as saved_notes
from gradpot.potential.device import device as find_device
from gradpot.potential.evaluate import errors_of, evaluate, sizes, with_floor
from gradpot.potential.potential import NOT_CONSERVATIVE, NOT_SMOOTH
from gradpot.potential.repulsion import repulsion_below
from gradpot.potential.seen import seen_in
from gradpot.process import keep_memory, signals, usage, write_json
from gradpot.train.board import with_board
from gradpot.train.config import SPLIT, Config, Data, read_json
from gradpot.train.folder import (
    Log,
    Parts,
    as_split,
    check_folder,
    keep_metrics,
    metrics,
    read_parts,
    read_rescaling,
    write_parts,
)
from gradpot.train.loop import Watch, fit
from gradpot.train.plan import ENOUGH_STEPS, Task, ended_too_soon, length, limit_reached, resolve
from gradpot.train.sets import (
    Counts,
    check_labels,
    check_names,
    divide,
    find_data,
    read_sets,
    rescale,
)
from gradpot.train.start import scale_down
from gradpot.train.state import State
from gradpot.train.step import Say, gradient_step

# what may differ when a run is resumed
FREE = ("train.epochs", "train.max_minutes", "train.max_cpu_minutes", "train.save_every_s")
FREE += ("train.threads", "train.device")
THROUGH_BATCH_NORM = (
    "warning: derivatives are trained through batch norm, so during training the forces on a "
    "molecule depend on the rest of its batch, but not afterwards; model.norm=none avoids this"
)
FINISHING = (
    "the training is finished and saved; its errors are being measured (another Ctrl-C leaves this "
    "out, and --resume does it later)"
)
GONE = "the run folder {} is gone: it was moved or deleted while the run used it"
# points in the parity plot; more only hide each other
PLOTTED = 1_000


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
        resume: continue the run in `out`, which must have the same settings except those of
            `FREE`; start one if there is none.
        say: called with each notice, one line.
        watch: see `loop.fit`.

    Returns:
        What `results.json` holds; or, with a key "stopped", which signal ended the run early.

    Raises:
        InputError: settings or data are wrong; nothing was changed.
        RunError: the loss is not finite.
    """
    out = Path(out)
    with created(out), locked(out):
        log = Log(out, say)
        try:
            return _train(settings, out, check_folder(out, resume), log, watch)
        except OSError as error:
            if out.is_dir():
                raise
            raise RunError(GONE.format(out)) from error


def _train(settings: Config, out: Path, started: bool, log: Log, watch: Watch) -> dict:
    """`train` in a folder that belongs to this process."""
    say = log.say
    specification(**settings.model.model_dump())
    # tensors are small: more threads mostly wait for each other, and add up in random order
    torch.set_num_threads(settings.train.threads)
    keep_memory()
    loss, saved, counts = settings.loss, None, None
    if started:
        before, saved = read_json(out / "config.json"), (read_parts(out), read_rescaling(out))
        found, frames = find_data(settings.data, before.data, saved[0], out)
        as_before = settings.train
        if as_before.compile == "auto":
            as_before = as_before.model_copy(update={"compile": before.train.compile})
        settings = settings.model_copy(update={"data": found, "train": as_before})
    else:
        # reading the data can take minutes
        find_device(settings.train.device)
        check_names(settings)
        frames, counts = read_sets(settings.data)
    missing = require(frames, loss.energy > 0, loss.forces > 0, loss.stress > 0)
    suspicious = suspicions(frames, random_split=settings.data.split == "random")
    for notice in (*frames.notices, *missing, *suspicious):
        say(notice)
    task, state = prepare(settings, frames, out, say, saved, counts)
    for notice in _notices(settings, task, state):
        say(notice)
    if started:
        _restore(task, state, before, say)
    write_parts(out, settings.data, frames.fingerprint(), task.parts)
    write_json(out / "rescaling.json", task.rescaling._asdict())
    # last: a folder with this file is a run
    write_json(out / "config.json", task.plan.config.model_dump())
    log.begin()

    def in_folder(state: State, done: float, row: dict | None) -> None:
        watch(state, done, row)
        # somebody may be deleting the files one by one
        if row and not (out / "config.json").exists():
            raise RunError(GONE.format(out))

    stopped = fit(task, state, gradient_step(task, state, say), with_board(in_folder, out))
    if stopped:
        return {"stopped": stopped, "step": state.step, "out": str(out)}
    for notice in _afterwards(task, state):
        say(notice)
    with signals(lambda: say(FINISHING)):
        return finish(task, state, frames)


def _afterwards(task: Task, state: State) -> list[str]:
    """What a user should know of a model before using it."""
    loss, notices = task.plan.config.loss, []
    for name, labels in (("energy", "energies"), ("forces", "forces")):
        if not getattr(loss, name):
            notices.append(f"note: {labels} were not trained (loss.{name}=0): do not trust them")
    over = limit_reached(task.plan, state)
    if state.step < ENOUGH_STEPS:
        more = f"--out {task.out} --resume {over}=..." if over in FREE else "start a new run"
        why = f"the run ended after {state.step} steps"
        if ended_too_soon(task.plan, state):
            compiling = f"{state.compile_wall_s:.0f} of {state.wall_s:.0f} seconds"
            why = f"the time was up after {state.step} steps ({compiling} went into compiling)"
        notices.append(
            f"warning: {why}, too few to learn from: do not use this model. To train more: {more}"
        )
    return notices


def prepare(
    settings: Config,
    frames: Frames,
    out: Path,
    say: Say = print,
    saved: tuple[Parts, Rescaling] | None = None,
    counts: Counts | None = None,
) -> tuple[Task, State]:
    """Make the split, references, network, graphs and plan: all that settings and data determine.

    Args:
        saved: split and references of a run that goes on.
        counts: how many of the frames come from which file; all from `data.file` if None.

    Raises:
        InputError: they contradict each other.
    """
    n_frames = frames.n_atoms.shape[0]
    if saved:
        parts, scale = as_split(saved[0], n_frames, out), saved[1]
        check_labels(settings, frames, parts)
    else:
        parts, of_sets = divide(settings.data, frames, counts or Counts(n_frames), settings.seed)
        lacking = check_labels(settings, frames, parts)
        scale, of_scale = rescale(settings, frames, parts)
        for notice in (*of_sets, *lacking, *of_scale):
            say(notice)
    torch.manual_seed(settings.seed)
    dtype = DTYPES[settings.train.dtype]
    model = build(**settings.model.model_dump()).to(dtype)
    plan = resolve(settings, parts.train.shape[0], model)
    data = dataset(frames, model.cutoff, scale.references, dtype, model.uses_triplets)
    training = torch.from_numpy(parts.train)
    if not data.first_pair.diff()[training].any():
        raise InputError(
            f"no two atoms of any training frame are within model.cutoff={model.cutoff:g} Å, so "
            "there is nothing to learn; raise it, or check the length unit of the data"
        )
    first = training[: settings.train.batch_size]
    model = model.to(plan.device)
    notice = scale_down(model, batch(data, first, plan.device))
    if notice and not saved:
        say(notice)
    state = State(model, settings.train.optimizer, settings.train.weight_decay)
    seen = seen_in(frames, data, parts.train)
    zbl = settings.train.repulsion == "zbl"
    repulsion = repulsion_below(seen, scale.references, model.cutoff) if zbl else None
    return Task(plan, data, parts, scale, out, seen, repulsion), state


def finish(task: Task, state: State, frames: Frames) -> dict:
    """Give the best model its floor, measure it on the test frames; write results and plots."""
    from gradpot.report.figures import learning_curve, parity

    with catch_warnings(action="ignore"):  # about the activation: said when the run began
        best = load(task.out / "model.safetensors", device=task.plan.device)
    if task.repulsion:
        best = with_floor(best, task.data, torch.from_numpy(task.parts.train))
        save(best, task.out / "model.safetensors", saved_notes(task.out / "model.safetensors"))
    test, valid = (torch.from_numpy(part) for part in (task.parts.test, task.parts.valid))
    # the same graphs with total energies: the saved model includes its references
    whole = task.data._replace(energy=torch.from_numpy(frames.energy))
    results = {
        "test": errors_of(best, whole, test),
        "valid": errors_of(best, whole, valid),
        "n_parameters": sum(p.numel() for p in best.parameters()),
        "n_train": task.parts.train.shape[0],
        "epochs": state.epoch,
        "steps": state.step,
        "ended_too_soon": ended_too_soon(task.plan, state),
        "train_cpu_s": round(state.cpu_s, 2),
        "train_wall_s": round(state.wall_s, 2),
        "compile_cpu_s": round(state.compile_cpu_s, 2),
        "peak_memory_MiB": round(usage().peak_memory_MiB, 1),
        "seed": task.plan.config.seed,
        "model": task.plan.config.model.model_dump(),
        "threads": torch.get_num_threads(),
        "gradpot": __version__,
        "torch": torch.__version__,
        "out": str(task.out),
    }
    write_json(task.out / "results.json", results)
    per_atom = torch.unique(sizes(whole)).shape[0] > 1
    learning_curve(metrics(task.out), task.out / "learning_curve.png", per_atom)
    name, part = ("test", test) if test.shape[0] else ("validation", valid)
    shown, count = part[:PLOTTED], f"{part.shape[0]} frames"
    if shown.shape[0] < part.shape[0]:
        count = f"the first {PLOTTED} of {count}"
    title = f"{type(best.model).__name__} on the {name} set: {count}"
    parity(*evaluate(best, whole, shown), sizes(whole)[shown], task.out / "parity.png", title)
    return results


def _notices(settings: Config, task: Task, state: State) -> list[str]:
    """What a user should know before the training starts."""
    plan, model, loss = task.plan, state.model, settings.loss
    notices = [
        f"optimizer {settings.train.optimizer}, learning rate {plan.learning_rate:g}, "
        f"{settings.train.batch_size} frames a step",
        length(plan),
    ]
    if model.direct:
        notices.append("note: " + NOT_CONSERVATIVE)
    elif batch_norms(model) and (loss.forces or loss.stress):
        notices.append(THROUGH_BATCH_NORM)
    if not model.smooth:
        notices.append("warning: " + NOT_SMOOTH)
    if not task.parts.test.shape[0]:
        notices.append("no frames are left for a test: parity.png shows the validation frames")
    if settings.train.compile == "auto" and not plan.compile:
        why = "the run is too short for compiling to pay off"
        if plan.device.type != "cpu":
            why = f"compiling is for the CPU, and this run is on {plan.device}"
        elif model.slow_to_compile:
            name = settings.model.name
            why = f"compiling {name} takes long; train.compile=true compiles it anyway"
        notices.append(f"the training step is not compiled: {why}")
    return notices


def _restore(task: Task, state: State, before: Config, say: Say) -> None:
    """Restore the state, after checking that the settings are those of the run.

    Raises:
        InputError: they are not, or the folder is damaged.
    """
    out = task.out
    old, new = (_flat(c.model_dump()) for c in (before, task.plan.config))
    # the data are the same, however they are called and read
    free = {*FREE, *(f"data.{key}" for key in Data.model_fields if key not in SPLIT)}
    for key in sorted((old.keys() | new.keys()) - free):
        if old.get(key) != new.get(key):
            raise InputError(
                f"--resume: {out} was started with {key}={old.get(key)}, not {new.get(key)}; only "
                f"{', '.join(FREE)} may change"
            )
    file = out / "state.safetensors"
    if file.exists():
        state.restore(file)
        if state.epoch * task.plan.batches_per_epoch + state.position != state.step:
            raise InputError(f"{file} is damaged: its counters contradict each other")
    say(f"resuming {out} at step {state.step}")
    keep_metrics(out, state.step)
    if over := limit_reached(task.plan, state):
        value = getattr(task.plan.config.train, over.removeprefix("train."))
        done = f"{state.epoch} epochs, {state.step} steps, {state.cpu_s / 60:.2g} CPU minutes"
        more = f"to train more: {over}=..." if over in FREE else "to train more, start a new run"
        say(f"this run is finished ({done}): it has reached {over}={value:g}; {more}")


def _flat(tables: dict, prefix: str = "") -> dict:
    """Nested tables with dotted keys."""
    flat = {}
    for key, value in tables.items():
        dotted = prefix + key
        flat |= _flat(value, f"{dotted}.") if isinstance(value, dict) else {dotted: value}
    return flat
