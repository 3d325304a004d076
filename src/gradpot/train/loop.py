"""The training loop, top to bottom."""

import json
import time
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor

from gradpot.compile.step import Gradients
from gradpot.errors import RunError
from gradpot.graph.dataset import Batch, batch, random_rotations, rotated
from gradpot.models.base import Model
from gradpot.nn.activations import QUADRATIC
from gradpot.nn.norm import measure
from gradpot.potential.checkpoint import save
from gradpot.potential.evaluate import errors_of, sizes
from gradpot.potential.potential import Potential, volume
from gradpot.process import signals
from gradpot.train.loss import rescaled
from gradpot.train.plan import Task, learning_rate, progress
from gradpot.train.state import State
from gradpot.train.step import update

# enough for the statistics of batch norms: means over 100 frames with the default batch size
NORM_BATCHES = 20
Watch = Callable[[State, float, dict | None], None]


def fit(task: Task, state: State, step: Gradients, watch: Watch) -> int:
    """Train until the epochs, the minutes or the patience are used up.

    Args:
        state: where to start; changed in place.
        step: gives loss and gradient of a batch.
        watch: called at the start and after each step with the state, the share of the run that
            is done, and the validation's row of `metrics.jsonl`, or None.

    Returns:
        The signal that stopped the run, or 0 if it is done.

    Raises:
        RunError: the loss is not finite; the last good model is kept.
    """
    plan, train = task.plan, task.plan.config.train
    done, saved_at = progress(plan, state), state.wall_s
    order, last = _batches(task, state), (time.perf_counter(), time.process_time())
    watch(state, done, None)
    with signals() as stop:
        # at least one step, so that there is a model however short the time is
        while (done < 1 or not state.step) and not stop():
            index = next(order)
            batch = presented(task, state.model, index, state.epoch, state.position)
            loss, gradient = step(state.weights, batch)
            value = _finite(loss.item(), task, state, index)
            update(state, gradient, learning_rate(plan, state, done), train)
            state.count(value, plan.batches_per_epoch)
            last = add_time(state, last)
            done = progress(plan, state)
            due = state.position == 0 and state.epoch % plan.valid_every == 0
            row = _validate(task, state, done) if due or done == 1 else None
            done = progress(plan, state)
            watch(state, done, row)
            if state.wall_s - saved_at > train.save_every_s:
                state.save(task.out / "state.safetensors")
                saved_at = state.wall_s
    add_time(state, last)
    state.save(task.out / "state.safetensors")
    return 0 if done == 1 else stop()


def presented(task: Task, model: Model, index: Tensor, epoch: int, position: int) -> Batch:
    """The batch at `position` of an epoch, with labels in the network's units.

    Models that are not invariant get the structures rotated at random. The rotations depend only on
    the seed, the epoch and the position, so they need not be saved.
    """
    as_it_is = rescaled(batch(task.data, index, task.plan.device), task.rescaling.scale)
    if model.invariant:
        return as_it_is
    seed = [task.plan.config.seed, epoch, position]
    return rotated(as_it_is, random_rotations(index.shape[0], seed))


def potential(task: Task, state: State) -> Potential:
    """The averaged weights as a potential; batch norms are measured on training batches.

    The network is `state.average` itself, not a copy: it changes with the next step.
    """
    train = torch.from_numpy(task.parts.train)
    some = train.split(task.plan.config.train.batch_size)[:NORM_BATCHES]
    measure(
        state.average,
        (presented(task, state.average, index, 0, i).graph for i, index in enumerate(some)),
    )
    of_labels = task.rescaling.references, task.rescaling.scale
    return Potential(state.average, *of_labels, task.seen, task.repulsion)


def score(errors: dict, task: Task) -> float:
    """One number for a validation: mean absolute errors in the units and weights of the loss."""
    unit = 1e3 * task.rescaling.scale
    loss, valid = task.plan.config.loss, torch.from_numpy(task.parts.valid)
    volume_per_atom = volume(task.data.cell[valid]).sum() / sizes(task.data)[valid].sum()
    terms = {
        "energy_mae_meV_per_atom": loss.energy / unit,
        "forces_mae_meV_A": loss.forces * task.rescaling.length / unit,
        "stress_mae_meV_A3": loss.stress * volume_per_atom.item() / unit,
    }
    return sum(weight * (errors.get(key) or 0.0) for key, weight in terms.items())


def _batches(task: Task, state: State) -> Iterator[Tensor]:
    """Frames of each batch, endlessly, starting where the state stands.

    The order in an epoch depends only on the seed and the epoch, so it need not be saved.
    """
    start = state.position
    for epoch in count(state.epoch):
        random = np.random.default_rng([task.plan.config.seed, epoch])
        order = torch.from_numpy(random.permutation(task.parts.train))
        yield from order.split(task.plan.config.train.batch_size)[start:]
        start = 0


def _finite(loss: float, task: Task, state: State, index: Tensor) -> float:
    """Return the loss, or stop before one that is not finite spoils the weights."""
    if np.isfinite(loss):
        return loss
    where = f"loss is {loss} at step {state.step + 1}, frames {index.tolist()} of the file: check "
    remedy = _lost_in_depth(task.plan.config.model.model_dump())
    if not state.step:
        raise RunError(f"{where}their labels, or {remedy or 'choose another model.activation'}")
    kept = task.out / "model.safetensors"
    if not kept.exists():
        save(potential(task, state), kept)
    remedy = remedy or "lower train.learning_rate or train.clip_norm"
    raise RunError(f"{where}their labels, or {remedy}; the last good model is {kept}")


def _lost_in_depth(model: dict) -> str:
    """What helps a network that a quadratic activation blows up at any rate; else nothing.

    Networks that stack such activations without skip connections, DimeNet++ and GemNet-dT, have an
    `output_activation`: it may be quadratic, because nothing is stacked on it.
    """
    name = str(model.get("activation")).partition("(")[0]
    if "output_activation" not in model or name not in QUADRATIC:
        return ""
    return (
        f"leave out model.activation={model['activation']}, with which {model['name']} does not "
        f"train at any rate, and set model.output_activation={model['activation']} instead"
    )


def _validate(task: Task, state: State, done: float) -> dict:
    """Measure the averaged weights, keep them if they are the best, write a row of metrics."""
    candidate = potential(task, state)
    # reference energies were subtracted from the labels
    no_references = dict.fromkeys(candidate.references, 0.0)
    bare = Potential(state.average, no_references, candidate.scale, repulsion=task.repulsion)
    errors = errors_of(bare, task.data, torch.from_numpy(task.parts.valid))
    train, now = task.plan.config.train, {"epoch": state.epoch, "step": state.step}
    if state.count_validation(score(errors, task), train.plateau_patience, train.plateau_factor):
        note = {
            **now,
            "valid": errors,
            "rescaling": task.rescaling._asdict(),
            "config": task.plan.config.model_dump(),
        }
        save(candidate, task.out / "model.safetensors", note)
    row = {
        **now,
        "seconds": round(state.wall_s, 3),
        "learning_rate": learning_rate(task.plan, state, done),
        "train_loss": state.loss_sum / max(1, state.loss_steps),
        "valid": errors,
        "best": state.since_best == 0,
    }
    state.loss_sum, state.loss_steps = 0.0, 0
    with open(task.out / "metrics.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def add_time(state: State, last: tuple[float, float]) -> tuple[float, float]:
    """Add the time since `last` to the state's counters; return the time now.

    A time is a pair in seconds: `perf_counter`, and the processor time of this process.
    """
    now = time.perf_counter(), time.process_time()
    state.wall_s += now[0] - last[0]
    state.cpu_s += now[1] - last[1]
    return now
