"""How the learning rate changes after the warm-up, as factors of its highest value."""

from collections.abc import Callable
from math import cos, pi

from gradpot.train.state import State

# (state, share of the run that is done) -> factor
Schedule = Callable[[State, float], float]


SCHEDULES: dict[str, Schedule] = {
    # from 1 to 0: cosine annealing without restarts (arXiv 1608.03983)
    "cosine": lambda state, done: 0.5 * (1.0 + cos(pi * done)),
    # lowered whenever validations stop improving (`State.count_validation`)
    "plateau": lambda state, done: state.plateau,
    "constant": lambda state, done: 1.0,
}
