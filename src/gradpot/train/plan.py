"""What a run does: a configuration with every open choice made."""

from math import ceil, inf
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gradpot.data.references import Rescaling
from gradpot.data.split import Split
from gradpot.errors import InputError
from gradpot.graph.dataset import Dataset
from gradpot.models.base import Model
from gradpot.potential.device import device
from gradpot.potential.header import Repulsion, Seen
from gradpot.train.config import Config
from gradpot.train.optimizers import DEFAULT_RATES
from gradpot.train.schedule import SCHEDULES
from gradpot.train.state import State

# if the settings give neither epochs nor minutes
DEFAULT_EPOCHS = 200
# a validation of a few hundred frames then takes less time than the steps before it
STEPS_BETWEEN_VALIDATIONS = 200
# the default warm-up, and the steps before a second validation
ENOUGH_STEPS = 300
# a layer's output sums the steps of all its inputs: wider networks diverge at the default rates
RATE_WIDTH = 64
# compiling takes about a minute and then saves two thirds of every step
COMPILE_FROM_S, COMPILE_FROM_STEPS = 150.0, 8_000


class Plan(NamedTuple):
    """A configuration without holes. A limit that nobody set is infinite."""

    config: Config
    """as `config.json` keeps it, with the choices below filled in"""
    batches_per_epoch: int
    """the last batch of an epoch may be smaller"""
    n_steps: float
    """gradient steps in all epochs"""
    max_wall_s: float
    max_cpu_s: float
    early_stop: float
    """validations without an improvement"""
    learning_rate: float
    """highest value of the schedule"""
    valid_every: int
    """epochs"""
    compile: bool
    device: torch.device


class Task(NamedTuple):
    """A plan and what it works on."""

    plan: Plan
    data: Dataset
    """energies without references"""
    parts: Split
    rescaling: Rescaling
    out: Path
    """run folder: `model.safetensors`, `state.safetensors` and `metrics.jsonl` go there"""
    seen: Seen
    """what the training frames are like"""
    repulsion: Repulsion | None
    """of the potential; the training step needs none, because it is zero for its frames"""


def resolve(settings: Config, n_train: int, model: Model) -> Plan:
    """Choose whatever the settings leave open.

    Args:
        n_train: frames in an epoch.
        model: built from `settings.model`; its `spec` has every argument.

    Raises:
        InputError: settings contradict each other or the model, or there is no such device.
    """
    train, spec = settings.train, model.spec or {}
    if settings.loss.stress and model.direct:
        raise InputError("a model with direct forces has no stress; set loss.stress=0")
    batches_per_epoch = ceil(n_train / train.batch_size)
    max_wall_s = 60 * (train.max_minutes or inf)
    max_cpu_s = 60 * (train.max_cpu_minutes or inf)
    max_s, epochs = min(max_wall_s, max_cpu_s), train.epochs
    if epochs is None and max_s == inf:
        epochs = DEFAULT_EPOCHS
    n_steps = epochs * batches_per_epoch if epochs else inf
    rate = train.learning_rate
    if rate is None:
        rate = DEFAULT_RATES.get(train.optimizer, model.adam_rate)
        # models of other packages may have no width
        rate *= min(1.0, RATE_WIDTH / spec.get("width", RATE_WIDTH))
    if rate * train.weight_decay >= 1:
        raise InputError(
            f"train.weight_decay is {train.weight_decay:g}, but times the learning rate {rate:g} "
            "it must be below 1: each step removes that share of the weights"
        )
    place, compile = device(train.device), train.compile
    if place.type == "mps" and train.dtype == "float64":
        raise InputError("mps has no float64: set train.dtype=float32, or train on the CPU")
    if place.type != "cpu" and compile is True:
        raise InputError(f"train.compile=true is for the CPU; leave it out on {place}")
    if place.type != "cpu":
        compile = False
    if compile == "auto":
        long = n_steps >= COMPILE_FROM_STEPS if max_s == inf else max_s >= COMPILE_FROM_S
        compile = long and not model.slow_to_compile
    valid_every = train.valid_every or ceil(STEPS_BETWEEN_VALIDATIONS / batches_per_epoch)
    chosen: Any = {"learning_rate": rate, "valid_every": valid_every, "compile": compile}
    filled = train.model_copy(update={"epochs": epochs, **chosen})
    config = settings.model_copy(update={"model": type(settings.model)(**spec), "train": filled})
    limits = (batches_per_epoch, n_steps, max_wall_s, max_cpu_s, train.early_stop or inf)
    return Plan(config, *limits, **chosen, device=place)


def progress(plan: Plan, state: State) -> float:
    """Share of the run that is done, 0 to 1: by steps or by time, whichever is further.

    With a time limit the learning rate follows the clock, so that it has come down when the time
    is up, on any machine. Two such runs do not end with the same bits. The time that compiling took
    is taken from the limit: the schedule begins with the first step. A limit that nobody set is
    infinite, so that its share stays 0. A run whose patience is used up is done.
    """
    if state.since_best >= plan.early_stop:
        return 1.0
    limits = (
        (state.step, plan.n_steps, 0.0),
        (state.wall_s, plan.max_wall_s, state.compile_wall_s),
        (state.cpu_s, plan.max_cpu_s, state.compile_cpu_s),
    )
    return max(
        1.0 if used >= limit else (used - compiling) / (limit - compiling)
        for used, limit, compiling in limits
    )


def ended_too_soon(plan: Plan, state: State) -> bool:
    """Whether time ended a run before it could learn: steps that were asked for are enough."""
    time_is_up = limit_reached(plan, state) in ("train.max_cpu_minutes", "train.max_minutes")
    return time_is_up and state.step < ENOUGH_STEPS


def limit_reached(plan: Plan, state: State) -> str:
    """The setting that ended a run, such as "train.epochs"; empty while it goes on."""
    reached = {
        "train.epochs": state.step >= plan.n_steps,
        "train.max_cpu_minutes": state.cpu_s >= plan.max_cpu_s,
        "train.max_minutes": state.wall_s >= plan.max_wall_s,
        "train.early_stop": state.since_best >= plan.early_stop,
    }
    return next((key for key, is_over in reached.items() if is_over), "")


def length(plan: Plan) -> str:
    """How long a run will be: "200 epochs of 9 steps", "until 2 CPU minutes are over"."""
    train, steps = plan.config.train, plan.batches_per_epoch
    limits = []
    if train.epochs:
        epochs = f"{train.epochs} epoch{'s' * (train.epochs > 1)}"
        limits.append(f"{epochs} of {steps} step{'s' * (steps > 1)}")
    for minutes, unit in ((train.max_minutes, "min"), (train.max_cpu_minutes, "min of CPU time")):
        if minutes:
            limits.append(f"until {minutes:g} {unit} are over")
    first = ", whichever comes first" if len(limits) > 1 else ""
    return f"this run: {' or '.join(limits)}{first}"


def learning_rate(plan: Plan, state: State, done: float) -> float:
    """Rate of the coming step, at `done` (0 to 1) of the run.

    Over the warm-up it rises in equal steps to the value of the schedule.
    """
    train = plan.config.train
    warmup = min(1.0, (state.step + 1) / max(1, train.warmup_steps))
    return plan.learning_rate * warmup * SCHEDULES[train.schedule](state, done)
