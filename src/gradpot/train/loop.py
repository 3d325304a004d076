"""The training loop, top to bottom."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gradpot.compile.step import Gradients
from gradpot.data.references import Rescaling
from gradpot.data.split import Split
from gradpot.errors import RunError
from gradpot.graph.dataset import Batch, Dataset, batch, random_rotations, rotated
from gradpot.nn.norm import measure
from gradpot.potential.checkpoint import save
from gradpot.potential.evaluate import errors_of, sizes
from gradpot.potential.potential import Potential, volume
from gradpot.process import signals
from gradpot.train.config import Config, Train
from gradpot.train.loss import rescaled
from gradpot.train.schedule import judge, learning_rate, progress
from gradpot.train.state import State
from gradpot.train.step import update

# for the statistics of batch norms
NORM_BATCHES = 20
Watch = Callable[[State, float, dict | None], None]


class Task(NamedTuple):
    """What a run works on."""

    config: Config
    data: Dataset
    """energies without references"""
    parts: Split
    rescaling: Rescaling
    out: Path
    """run folder: `model.safetensors`, `state.safetensors` and `metrics.jsonl` go there"""


def fit(task: Task, state: State, step: Gradients, watch: Watch) -> int:
    """Train until the epochs, the minutes or the patience are used up.

    Args:
        state: where to begin; changed in place.
        step: gives loss and gradients of a batch.
        watch: told of the state, the share of the run that is done, and each validation's row.

    Returns:
        The signal that asked to stop, or 0.

    Raises:
        RunError: the loss is not finite; the last good model is kept.
    """
    train, n_batches = task.config.train, batches_per_epoch(task)
    done, saved_at = progress(state, train, n_batches), state.wall_s
    order = _batches(task, state)
    with signals() as stop, clock(state) as tick:
        # compiling may have used up the time already: one step, so that there is a model
        while (done < 1 or not state.step) and not stop() and not _patience_is_over(state, train):
            index = next(order)
            piece = presented(task, state.model, index, state.epoch, state.position)
            loss, slope = step(state.weights, piece)
            value = _finite(loss.item(), task, state, index)
            update(state, slope, learning_rate(state, train, done), train)
            state.count(value, n_batches)
            tick()
            done = progress(state, train, n_batches)
            due = state.position == 0 and state.epoch % (train.valid_every or 1) == 0
            watch(state, done, _validate(task, state, done) if due or done == 1 else None)
            if state.wall_s - saved_at > train.save_every_s:
                state.save(task.out / "state.safetensors")
                saved_at = state.wall_s
    state.save(task.out / "state.safetensors")
    return stop()


def batches_per_epoch(task: Task) -> int:
    """The last batch of an epoch may be smaller."""
    return -(-task.parts.train.shape[0] // task.config.train.batch_size)


def presented(task: Task, model: nn.Module, index: Tensor, epoch: int, position: int) -> Batch:
    """The batch at `position` of an epoch, its labels in the network's units.

    It is turned at random for a model that is not invariant.

    Rotations depend on the seed and these two numbers alone, so that they need not be saved.
    """
    piece = rescaled(batch(task.data, index), task.rescaling.scale)
    if getattr(model, "invariant", True):
        return piece
    return rotated(piece, random_rotations(index.shape[0], [task.config.seed, epoch, position]))


def potential(task: Task, state: State) -> Potential:
    """The averaged weights as a potential, their batch norms measured on training batches."""
    some = torch.from_numpy(task.parts.train).split(task.config.train.batch_size)[:NORM_BATCHES]
    measure(
        state.average,
        (presented(task, state.average, index, 0, i).graph for i, index in enumerate(some)),
    )
    return Potential(state.average, task.rescaling.references, task.rescaling.scale)


def score(errors: dict, task: Task) -> float:
    """One number for a validation: absolute errors in the units and weights of the loss."""
    unit = 1e3 * task.rescaling.scale
    loss, valid = task.config.loss, torch.from_numpy(task.parts.valid)
    room = volume(task.data.cell[valid]).sum() / sizes(task.data)[valid].sum()
    terms = {
        "energy_mae_meV_per_atom": loss.energy / unit,
        "forces_mae_meV_A": loss.forces * task.rescaling.length / unit,
        "stress_mae_meV_A3": loss.stress * room.item() / unit,
    }
    return sum(weight * (errors.get(key) or 0.0) for key, weight in terms.items())


def _batches(task: Task, state: State) -> Iterator[Tensor]:
    """Frames of batch after batch, from where the state stands.

    The order of an epoch depends on the seed and its number alone, so that it need not be saved.
    """
    start = state.position
    for epoch in count(state.epoch):
        random = np.random.default_rng([task.config.seed, epoch])
        order = torch.from_numpy(random.permutation(task.parts.train))
        yield from order.split(task.config.train.batch_size)[start:]
        start = 0


def _finite(loss: float, task: Task, state: State, index: Tensor) -> float:
    """Stop before a loss that is not finite spoils the weights."""
    if np.isfinite(loss):
        return loss
    where = (
        f"loss is {loss} at step {state.step + 1}, frames {index.tolist()} of the file: look at "
    )
    if not state.step:
        raise RunError(f"{where}their labels, or choose another model.activation")
    kept = task.out / "model.safetensors"
    if not kept.exists():
        save(potential(task, state), kept)
    raise RunError(
        f"{where}their labels, or lower train.learning_rate or train.clip_norm; "
        f"the last good model is {kept}"
    )


def _validate(task: Task, state: State, done: float) -> dict:
    """Measure the averaged weights, keep them if they are the best, write a row of metrics."""
    candidate = potential(task, state)
    # references are off the labels and cancel in differences
    bare = Potential(state.average, dict.fromkeys(candidate.references, 0.0), candidate.scale)
    errors = errors_of(bare, task.data, torch.from_numpy(task.parts.valid))
    if judge(state, task.config.train, score(errors, task)):
        note = {
            "epoch": state.epoch,
            "step": state.step,
            "valid": errors,
            "rescaling": task.rescaling._asdict(),
            "config": task.config.model_dump(),
        }
        save(candidate, task.out / "model.safetensors", note)
    row = {
        "epoch": state.epoch,
        "step": state.step,
        "seconds": round(state.wall_s, 3),
        "learning_rate": learning_rate(state, task.config.train, done),
        "train_loss": state.loss_sum / max(1, state.loss_steps),
        "valid": errors,
        "best": state.since_best == 0,
    }
    state.loss_sum, state.loss_steps = 0.0, 0
    with open(task.out / "metrics.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def _patience_is_over(state: State, train: Train) -> bool:
    return train.early_stop is not None and state.since_best >= train.early_stop


@contextmanager
def clock(state: State) -> Iterator[Callable[[], None]]:
    """Give a function that adds the time since its last call to the state's counters."""
    last = [time.perf_counter(), time.process_time()]

    def tick() -> None:
        now = [time.perf_counter(), time.process_time()]
        state.wall_s += now[0] - last[0]
        state.cpu_s += now[1] - last[1]
        last[:] = now

    yield tick
    tick()
