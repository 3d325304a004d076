"""A plan has no holes: every choice that the settings leave open is made, once."""

from math import inf

import pytest

from gradpot import Model
from gradpot.errors import InputError
from gradpot.models import build
from gradpot.train.config import config, override
from gradpot.train.plan import Plan, ended_too_soon, progress, resolve
from gradpot.train.state import State


def plan(*keys: str, n_train: int = 42, model: Model | None = None) -> Plan:
    return resolve(config(override({}, list(keys))), n_train, model or small())


def small(name: str = "painn", **arguments: object) -> Model:
    return build(name, width=8, n_layers=1, **arguments)


def test_a_run_without_limits_has_epochs():
    made = plan()
    assert (made.batches_per_epoch, made.n_steps) == (9, 200 * 9)
    assert made.max_wall_s == made.max_cpu_s == made.early_stop == inf
    assert made.valid_every == 23
    assert made.compile is False
    assert made.config.train.epochs == 200


def test_minutes_replace_epochs():
    made = plan("train.max_cpu_minutes=3", "train.max_minutes=2.5")
    assert (made.n_steps, made.max_wall_s, made.max_cpu_s) == (inf, 150, 180)
    assert made.config.train.epochs is None
    assert plan("train.max_minutes=2", "train.epochs=3").n_steps == 27


@pytest.mark.parametrize("keys", [(), ("train.max_minutes=9", "train.early_stop=4")])
def test_a_plan_of_its_own_configuration_is_the_same(keys):
    """What `config.json` keeps leaves nothing open but limits, and it is not changed later."""
    made = plan(*keys)
    assert resolve(made.config, 42, small()) == made
    open_keys = {key for key, value in made.config.train.model_dump().items() if value is None}
    assert open_keys <= {"epochs", "max_minutes", "max_cpu_minutes", "early_stop"}
    with pytest.raises(ValueError, match="frozen"):
        made.config.train.epochs = 3


@pytest.mark.parametrize(
    ("keys", "compiled"),
    [
        (("train.epochs=888",), False),
        (("train.epochs=889",), True),
        (("train.max_minutes=2.5",), True),
        (("train.max_minutes=2.4",), False),
        # a time limit decides alone
        (("train.max_minutes=2.4", "train.epochs=10000"), False),
        (("train.compile=true",), True),
    ],
)
def test_compiled_if_the_run_is_long(keys, compiled):
    assert plan(*keys).compile is compiled


def test_a_model_that_is_slow_to_compile_is_not_compiled_by_itself():
    slow = small()
    slow.slow_to_compile = True
    assert not plan("train.epochs=10000", model=slow).compile
    assert plan("train.compile=true", model=slow).compile


@pytest.mark.parametrize("keys", [("train.learning_rate=0.5",), ("train.learning_rate=2",)])
def test_a_decay_that_would_turn_weights_around(keys):
    with pytest.raises(InputError, match=r"weight_decay is 2, but times .* must be below 1"):
        plan("train.weight_decay=2", *keys)
    assert plan("train.weight_decay=2").learning_rate == 2.5e-3


def test_direct_forces_have_no_stress():
    direct = small("forcenet", forces="direct")
    with pytest.raises(InputError, match=r"set loss\.stress=0"):
        plan("loss.stress=1", model=direct)


def test_progress_is_the_furthest_of_steps_and_times():
    made = plan("train.epochs=10", "train.max_minutes=1", "train.max_cpu_minutes=1")
    state = State(small(), "adam")
    assert progress(made, state) == 0
    state.step, state.wall_s, state.cpu_s = 45, 12.0, 6.0
    assert progress(made, state) == 0.5
    state.cpu_s = 48.0
    assert progress(made, state) == 0.8
    state.wall_s = 1e3
    assert progress(made, state) == 1


def test_compiling_is_no_part_of_the_schedule():
    made, state = plan("train.max_minutes=1"), State(small(), "adam")
    state.count_compiling(20.0, 25.0)
    assert progress(made, state) == 0
    state.wall_s += 10.0
    assert progress(made, state) == 0.25
    state.wall_s += 30.0
    assert progress(made, state) == 1
    state.count_compiling(1e3, 1e3)
    assert progress(made, state) == 1


def test_a_run_without_patience_left_is_done():
    made, state = plan("train.early_stop=3"), State(small(), "adam")
    state.since_best = 3
    assert progress(made, state) == 1


@pytest.mark.parametrize(
    ("keys", "steps", "too_soon"),
    [
        (("train.max_minutes=1",), 299, True),
        (("train.max_minutes=1",), 300, False),
        (("train.max_cpu_minutes=1",), 1, True),
        # the limit that was reached is that of the steps
        (("train.max_minutes=1", "train.epochs=1"), 9, False),
        (("train.max_minutes=1", "train.epochs=2"), 9, True),
        (("train.epochs=1",), 9, False),
    ],
)
def test_only_time_ends_a_run_too_soon(keys, steps, too_soon):
    made, state = plan(*keys), State(small(), "adam")
    state.step, state.wall_s, state.cpu_s = steps, 61.0, 61.0
    assert ended_too_soon(made, state) is too_soon
