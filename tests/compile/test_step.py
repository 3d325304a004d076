"""The gradient step is traced with open sizes, with stress too; examples have no equal sizes.

The contract tests trace the step of every model. `test_compiled_step.py` tests what the C++
compiler makes of a trace (slow).
"""

from functools import partial

import numpy as np
import pytest
import torch

from gradpot.compile.step import example_batch, has_compiler, tensors, trace
from gradpot.data.source import read
from gradpot.data.stress import StressLabel
from gradpot.graph.dataset import Dataset, batch, dataset
from gradpot.models import build
from gradpot.train.loss import Weights, penalty, weighted
from gradpot.train.step import gradients
from gradpot.train.weights import flatten


@pytest.fixture(scope="module")
def molecules() -> Dataset:
    return dataset(read("ethanol").take(np.arange(40)), 5.0, dtype=torch.float64)


def test_stress_is_traced(data):
    """Cells of several sizes, with stress in the loss."""
    frames = read(
        data / "mlearn_si" / "si_test25.npz",
        stress=StressLabel("virial_stress", "kbar", "vasp", "compression"),
    )
    cells = dataset(frames, 4.0, dtype=torch.float64)
    network = build("painn", cutoff=4.0, width=8, n_layers=1, n_radial=6).double()
    loss = partial(weighted, weights=Weights(1, 1, 1), length=1.0, penalty=penalty("l2", 1.0))
    step = gradients(network, loss, stress=True)
    weights = flatten(network)
    traced = trace(step, weights, example_batch(cells, network))
    one = batch(cells, torch.tensor([0, 9, 20]))
    expected = step(weights, one)
    for a, b in zip(traced(weights, *tensors(one)), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_example_sizes_are_all_different(molecules):
    graph = example_batch(molecules, build("schnet", width=45, n_layers=1)).graph
    sizes = {tensor.shape[0] for tensor in (graph.cell, graph.numbers, graph.edge_vec)}
    sizes.add(graph.pair_vec.shape[0])
    assert len(sizes) == 4
    assert not sizes & {45, 22, 50, 64, 119}


def test_without_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not has_compiler()
