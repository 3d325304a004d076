"""The learning rate: warm-up, then cosine, plateau or constant."""

from math import cos, pi

from gradpot.train.config import Train
from gradpot.train.state import State


def progress(state: State, config: Train, batches_per_epoch: int) -> float:
    """How much of the run is done, from 0 to 1: by steps or by time, whichever is further.

    With a time budget the learning rate follows the clock, so that the run has cooled down when
    its time is up however fast the machine is; two such runs are not equal to the last bit.
    """
    by_steps = state.step / (config.epochs * batches_per_epoch) if config.epochs else 0.0
    by_time = state.wall_s / (60 * config.max_minutes) if config.max_minutes else 0.0
    by_cpu = state.cpu_s / (60 * config.max_cpu_minutes) if config.max_cpu_minutes else 0.0
    return min(1.0, max(by_steps, by_time, by_cpu))


def learning_rate(state: State, config: Train, done: float) -> float:
    """Rate of the coming step, at `done` (0 to 1) of the run."""
    assert config.learning_rate is not None, "a run has chosen one"
    rate = config.learning_rate * min(1.0, (state.step + 1) / max(1, config.warmup_steps))
    if config.schedule == "cosine":
        return rate * 0.5 * (1.0 + cos(pi * done))
    if config.schedule == "plateau":
        return rate * state.plateau
    return rate


def judge(state: State, config: Train, score: float) -> bool:
    """Count a validation `score` (lower is better); whether it is the best so far."""
    better = score < state.best
    state.since_best = 0 if better else state.since_best + 1
    state.since_plateau = 0 if better else state.since_plateau + 1
    if better:
        state.best = score
    elif state.since_plateau >= config.plateau_patience:
        state.plateau *= config.plateau_factor
        state.since_plateau = 0
    return better
