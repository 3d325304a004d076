"""The gradient step from the C++ compiler equals the eager one, for sizes of every kind.

Slow: each case is compiled, which takes about a minute.
"""

from functools import partial

import pytest
import torch

from gradpot.compile.step import compile_step, example_batch
from gradpot.data.source import read
from gradpot.data.stress import StressLabel
from gradpot.graph.dataset import Dataset, batch, dataset
from gradpot.models import MODELS, build
from gradpot.train.loss import Weights, penalty, weighted
from gradpot.train.step import gradients
from gradpot.train.weights import flatten

pytestmark = pytest.mark.slow
BATCHES = [[0, 700, 1500], list(range(40, 60)), [2400, 3], list(range(0, 2500, 300))]
CELLS = [[0, 9], [1, 2, 3, 20], list(range(12))]


def molecules(data, cutoff: float, dtype: torch.dtype, triplets: bool) -> Dataset:
    """4 to 23 atoms, several sizes in each batch."""
    [path] = (data / "qm7x_250x10").glob("*.npz")
    frames = read(path, energy_unit="eV", length_unit="Ang")
    return dataset(frames, cutoff, dtype=dtype, triplets=triplets)


def silicon(data, cutoff: float, dtype: torch.dtype) -> Dataset:
    """Bulk, strained cells, surfaces, with stress."""
    label = StressLabel("virial_stress", "kbar", "vasp", "compression")
    return dataset(read(data / "mlearn_si" / "si_test25.npz", stress=label), cutoff, dtype=dtype)


def assert_equal_to_eager(name: str, made: Dataset, batches: list, stress: float, rtol: float):
    """Compare loss and gradient, relative to its norm."""
    torch.manual_seed(0)
    network = build(name, cutoff=4.0, width=16, n_layers=2).to(made.pair_vec.dtype)
    loss = partial(weighted, weights=Weights(1, 1, stress), length=1.0, penalty=penalty("l2", 1.0))
    step, weights = gradients(network, loss, stress > 0), flatten(network)
    fast = compile_step(step, weights, example_batch(made, network))
    for index in batches:
        one = batch(made, torch.tensor(index))
        value, gradient = fast(weights, one)
        expected, exact = step(weights, one)
        torch.testing.assert_close(value, expected, rtol=rtol, atol=0)
        assert (gradient - exact).norm() <= rtol * exact.norm()


@pytest.mark.parametrize("name", MODELS)
def test_molecules_of_mixed_sizes_in_float64(data, name):
    made = molecules(data, 4.0, torch.float64, getattr(MODELS[name], "uses_triplets", False))
    assert_equal_to_eager(name, made, BATCHES, 0.0, 1e-10)


@pytest.mark.parametrize("name", ["schnet", "painn"])
def test_molecules_of_mixed_sizes_in_float32(data, name):
    assert_equal_to_eager(name, molecules(data, 4.0, torch.float32, False), BATCHES, 0.0, 1e-5)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_cells_with_stress(data, dtype, rtol):
    assert_equal_to_eager("painn", silicon(data, 4.0, dtype), CELLS, 1.0, rtol)
