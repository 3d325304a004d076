"""How the learning rate changes after the warm-up, as factors of its highest value."""

from collections.abc import Callable
from math import cos, pi

from gradpot.train.state import State

# (state, share of the run that is done) -> factor
Schedule = Callable[[State, float], float]


def cosine(_state: State, done: float) -> float:
    """From 1 to 0: cosine annealing without restarts (arXiv 1608.03983)."""
    return 0.5 * (1.0 + cos(pi * done))


def plateau(state: State, _done: float) -> float:
    """Lowered whenever validations stop improving (`State.count_validation`)."""
    return state.plateau


def constant(_state: State, _done: float) -> float:
    """1."""
    return 1.0


SCHEDULES: dict[str, Schedule] = {"cosine": cosine, "plateau": plateau, "constant": constant}
