"""A compiled step is compared with the eager one, and the run says what is wrong with it."""

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
