"""A compiled step is compared with the eager one, and the run says what is wrong with it."""

import time

import numpy as np
import pytest
import torch

from gradpot.data.source import read
from gradpot.train import step
from gradpot.train.config import config, override
from gradpot.train.run import prepare


def wrong_everywhere(eager, n_traced):
    return lambda weights, batch: tuple(2 * x for x in eager(weights, batch))


def wrong_for_other_sizes(eager, n_traced):
    def compiled(weights, batch):
        loss, gradient = eager(weights, batch)
        return loss, gradient if batch.graph.cell.shape[0] == n_traced else -gradient

    return compiled


def fails_for_other_sizes(eager, n_traced):
    def compiled(weights, batch):
        if batch.graph.cell.shape[0] != n_traced:
            raise IndexError
        return eager(weights, batch)

    return compiled


def right(eager, n_traced):
    return eager


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (wrong_everywhere, "wrong loss or gradient even for the batch that was traced: a compiler"),
        (wrong_for_other_sizes, "wrong loss or gradient for 3 frames, unlike for the"),
        (fails_for_other_sizes, "IndexError for 3 frames, unlike for the"),
        (right, None),
    ],
)
def test_what_is_wrong_with_a_compiled_step(monkeypatch, tmp_path, made, message):
    monkeypatch.setattr(step, "has_compiler", lambda: True)
    monkeypatch.setattr(
        step,
        "compile_step",
        lambda eager, _weights, example: made(eager, example.graph.cell.shape[0]),
    )
    keys = ["train.compile=true", "model.width=8", "model.n_layers=1", "data.n_train=20"]
    settings = config(override({}, [*keys, "data.n_valid=5", "data.n_test=0"]))
    frames = read("ethanol").take(np.arange(40))
    task, state = prepare(settings, frames, tmp_path)
    said: list[str] = []
    chosen = step.gradient_step(task, state, said.append)
    assert [line for line in said if "not compiled" in line and (message or "") in line] == (
        said[1:] if message else []
    )
    index = torch.arange(4)
    assert torch.isfinite(chosen(state.weights, step.batch(task.data, index))[0])


def test_compiling_that_takes_too_long_is_given_up(monkeypatch, tmp_path):
    def endless(*_):
        while True:
            try:
                time.sleep(60)
            except Exception:
                continue

    monkeypatch.setattr(step, "has_compiler", lambda: True)
    monkeypatch.setattr(step, "compile_step", endless)
    keys = ["train.compile=true", "model.width=8", "model.n_layers=1", "data.n_train=20"]
    keys += ["data.n_valid=5", "data.n_test=0", "train.max_minutes=0.02"]
    frames = read("ethanol").take(np.arange(40))
    task, state = prepare(config(override({}, keys)), frames, tmp_path, lambda line: None)
    said: list[str] = []
    chosen = step.gradient_step(task, state, said.append)
    assert "is not compiled, because compiling took 40% of the time that this run has" in said[-1]
    assert 0.4 * 1.2 <= state.compile_wall_s == state.wall_s < 1.2
    assert torch.isfinite(chosen(state.weights, step.batch(task.data, torch.arange(4)))[0])
