"""Whether the gradient step of a run is compiled, and the step."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from gradpot.compile.step import Gradients, compile_step, example_batch, has_compiler
from gradpot.graph.dataset import batch
from gradpot.process import usage
from gradpot.train.config import Train
from gradpot.train.loop import Task
from gradpot.train.loss import Weights, penalty, rescaled, weighted
from gradpot.train.state import State
from gradpot.train.step import gradients

Say = Callable[[str], None]
# compiling takes about a minute, and then saves two thirds of every step
COMPILE_FROM_MINUTES, COMPILE_FROM_STEPS = 2.5, 8_000


def gradient_step(task: Task, state: State, say: Say) -> Gradients:
    """The gradient step that the configuration asks for, compiled or not."""
    loss = task.config.loss
    cost = partial(
        weighted,
        weights=Weights(loss.energy, loss.forces, loss.stress),
        length=task.rescaling.length,
        penalty=penalty(loss.penalty, loss.huber_delta),
    )
    step = gradients(state.model, cost, loss.stress > 0)
    if not task.config.train.compile:
        return step
    if not has_compiler():
        say("no C++ compiler found (g++, or CXX): training goes on without compiling its step")
        return step
    say("compiling the training step: one to two minutes the first time")
    before = usage()
    try:
        fast = compile_step(step, state.weights, example_batch(task.data, state.model))
        _check(fast, step, task, state)
    except Exception as error:
        # whatever the tracer or the compiler meets in a network that somebody else wrote
        say(f"training goes on without compiling its step, which failed: {_first_line(error)}")
        fast = step
    # compiling is part of the run, and of its time
    state.compile_cpu_s = usage().cpu_s - before.cpu_s
    state.wall_s += usage().wall_s - before.wall_s
    state.cpu_s += state.compile_cpu_s
    limit = minutes(task.config.train)
    if limit and state.compile_cpu_s > 30 * limit:
        say(
            f"warning: compiling took {state.compile_cpu_s:.0f} of the {60 * limit:.0f} seconds "
            "of this run: give it more, or train.compile=false"
        )
    return fast


def _check(fast: Gradients, step: Gradients, task: Task, state: State) -> None:
    """Run a compiled step on a batch of another size than it was traced with.

    A network that asks for its sizes in a way that the tracer cannot see gives other numbers.
    """
    piece = batch(task.data, torch.arange(3) % task.data.cell.shape[0])
    piece = rescaled(piece, task.rescaling.scale)
    (value, slope), (loss, exact) = fast(state.weights, piece), step(state.weights, piece)
    near = torch.isclose(value, loss, rtol=1e-2, atol=1e-6, equal_nan=True)
    if not near or (slope - exact).norm() > 1e-2 * exact.norm() + 1e-6:
        raise RuntimeError("its loss or gradient is not that of the network for other batch sizes")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]


def pays(train: Train, n_batches: int, model: nn.Module) -> bool:
    """Whether "auto" compiles: when the run is long enough to win back the time."""
    if isinstance(train.compile, bool):
        return train.compile
    if getattr(model, "slow_to_compile", False):
        return False
    if limit := minutes(train):
        return limit >= COMPILE_FROM_MINUTES
    return (train.epochs or 0) * n_batches >= COMPILE_FROM_STEPS


def why_not(model: nn.Module, name: str) -> str:
    """What a user is told when "auto" decided not to compile."""
    why = "so short a run would not win back the time"
    if getattr(model, "slow_to_compile", False):
        why = f"for {name} that takes long; train.compile=true does it all the same"
    return f"the training step is not compiled: {why}"


def minutes(train: Train) -> float | None:
    """The shorter of the two times that a run may take."""
    given = [minutes for minutes in (train.max_minutes, train.max_cpu_minutes) if minutes]
    return min(given, default=None)
