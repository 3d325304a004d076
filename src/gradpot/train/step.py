"""One gradient step, eager or compiled, and one update of the weights."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gradpot.compile.step import Gradients, compile_step, example_batch, has_compiler
from gradpot.graph.dataset import Batch, batch
from gradpot.potential.potential import predict
from gradpot.process import OutOfTime, time_limit, usage
from gradpot.train.config import Train
from gradpot.train.loss import Weights, penalty, rescaled, weighted
from gradpot.train.plan import Task, progress
from gradpot.train.state import State
from gradpot.train.weights import by_name, layout

BatchLoss = Callable[..., Tensor]
Say = Callable[[str], None]
# rounding changes a compiled step by far less than this; a size treated as a constant, by far more
CLOSE, CLOSE_TO_ZERO = 1e-2, 1e-6
# of the time that is left, at most: of the shortest run that is compiled by itself
# (`plan.COMPILE_FROM_S`), it is the minute that compiling takes on a machine of one's own
COMPILE_SHARE = 0.4


def gradients(model: nn.Module, loss: BatchLoss, stress: bool) -> Gradients:
    """A function from all weights, in the order of `layout`, and a batch to loss and gradient.

    Args:
        loss: a function of the network's raw properties and the batch (`loss.weighted`).
        stress: whether the loss needs the stress.
    """
    slots = layout(model)

    def step(weights: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            weights = weights.detach().requires_grad_()
            parameters = by_name(weights, slots)

            def network(graph):
                return torch.func.functional_call(model, parameters, (graph,))

            raw = predict(network, batch.graph, create_graph=True, stress=stress)
            value = loss(raw, batch)
            (gradient,) = torch.autograd.grad(value, weights)
        return value.detach(), gradient

    return step


def gradient_step(task: Task, state: State, say: Say) -> Gradients:
    """The gradient step of a run; compiled if the plan says so and it works in time.

    Compiling counts as time of the run, but not for the schedule (`plan.progress`).
    """
    loss = task.plan.config.loss
    cost = partial(
        weighted,
        weights=Weights(loss.energy, loss.forces, loss.stress),
        length=task.rescaling.length,
        penalty=penalty(loss.penalty, loss.huber_delta),
    )
    eager = gradients(state.model, cost, loss.stress > 0)
    if not task.plan.compile or progress(task.plan, state) == 1:
        return eager
    if not has_compiler():
        say("found no C++ compiler (g++, or CXX): the training step is not compiled")
        return eager
    say("compiling the training step: one to two minutes the first time")
    before, step = usage(), eager
    wall_s = COMPILE_SHARE * (task.plan.max_wall_s - state.wall_s)
    cpu_s = COMPILE_SHARE * (task.plan.max_cpu_s - state.cpu_s)
    try:
        with time_limit(wall_s, cpu_s):
            example = example_batch(task.data, state.model)
            step = compile_step(eager, state.weights, example)
            _check(step, eager, example, task, state)
    except OutOfTime:
        step = eager
        say(
            "warning: the training step is not compiled, because compiling took "
            f"{COMPILE_SHARE:.0%} of the time that this run has: allow more time, or set "
            "train.compile=false"
        )
    # the tracer and the compiler raise anything, depending on the network
    except Exception as error:
        first_line = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        say(f"the training step is not compiled, because compiling failed: {first_line}")
        step = eager
    state.count_compiling(usage().wall_s - before.wall_s, usage().cpu_s - before.cpu_s)
    return step


def _check(compiled: Gradients, eager: Gradients, example: Batch, task: Task, state: State) -> None:
    """Compare a compiled step with the eager one, for the traced batch and for other sizes.

    Raises:
        RuntimeError: says whether the compiler or a fixed size in the network is to blame.
    """

    def problem(one: Batch) -> str:
        """What is wrong with the compiled step on a batch; empty if nothing is."""
        loss, exact = eager(state.weights, one)
        try:
            value, gradient = compiled(state.weights, one)
        except Exception as error:  # constants of a wrong size raise anything
            return type(error).__name__
        near = torch.isclose(value, loss, rtol=CLOSE, atol=CLOSE_TO_ZERO, equal_nan=True)
        near &= (gradient - exact).norm() <= CLOSE * exact.norm() + CLOSE_TO_ZERO
        return "" if near else "wrong loss or gradient"

    if why := problem(example):
        raise RuntimeError(f"{why} even for the batch that was traced: a compiler bug")
    n_frames, n_traced = task.data.cell.shape[0], example.graph.cell.shape[0]
    for n in sorted({3, task.plan.config.train.batch_size}):
        one = batch(task.data, torch.arange(n) % n_frames)
        if why := problem(rescaled(one, task.rescaling.scale)):
            raise RuntimeError(
                f"{why} for {n} frames, unlike for the {n_traced} that were traced: the network "
                "turns a size into a constant"
            )


@torch.no_grad()
def update(state: State, gradient: Tensor, learning_rate: float, config: Train) -> None:
    """Clip, step, average: change the weights of `state` by one batch's gradient."""
    state.weights.grad.copy_(gradient)  # type: ignore[union-attr]
    torch.nn.utils.clip_grad_norm_([state.weights], config.clip_norm)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
    # early on, the average forgets faster: the first weights are random
    decay = min(config.ema, (1 + state.step) / (10 + state.step))
    state.averages.lerp_(state.weights, 1.0 - decay)
