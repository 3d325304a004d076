"""Networks whose first forces are far too large are scaled down before they learn."""

import numpy as np
import pytest
import torch

from gradpot.data.references import least_squares
from gradpot.data.source import read
from gradpot.graph.dataset import Batch, batch, dataset
from gradpot.models import build
from gradpot.nn.activations import activation
from gradpot.nn.initialize import MLP, bound_moments
from gradpot.potential.potential import predict
from gradpot.train.start import TOO_LARGE, scale_down

MODELS = ("schnet", "painn", "dimenet++", "gemnet-dt", "cgcnn", "forcenet")


@pytest.fixture(scope="module")
def molecules() -> Batch:
    frames = read("ethanol").take(np.arange(4))
    return batch(dataset(frames, 5.0, least_squares(frames)), torch.arange(4))


@pytest.mark.parametrize("name", ["irelu", "leaky_irelu", "capped_irelu", "squared_relu"])
@pytest.mark.parametrize("model", MODELS)
def test_every_network_begins_with_forces_that_can_be_learned(model, name, molecules):
    for seed in range(3):
        torch.manual_seed(seed)
        network = build(model, activation=name)
        scale_down(network, molecules)
        force = rms(predict(network, molecules.graph).forces)
        assert 1e-4 < force <= TOO_LARGE


@pytest.mark.parametrize("model", ["dimenet++", "gemnet-dt"])
def test_irelu_in_the_output_blocks_only(model, molecules):
    for seed in range(3):
        torch.manual_seed(seed)
        network = build(model, output_activation="irelu")
        scale_down(network, molecules)
        assert 1e-2 < rms(predict(network, molecules.graph).forces) <= TOO_LARGE


@pytest.mark.parametrize("model", MODELS)
def test_published_activations_are_left_as_they_are(model, molecules):
    torch.manual_seed(0)
    network = build(model)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    assert scale_down(network, molecules) is None
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, before[name])


def test_it_is_said(molecules):
    torch.manual_seed(0)
    said = scale_down(build("gemnet-dt", activation="irelu"), molecules)
    assert said is not None
    assert "began with forces of nan times the labels and was scaled down" in said


def test_bound_moments_only_make_smaller():
    torch.manual_seed(0)
    x = 3.0 * torch.randn(200, 32)
    network = MLP([32, 32, 32, 32], activation("irelu"))
    bound_moments(network, x, limit=0.5)
    sizes = []
    for layer in network.layers:
        layer.register_forward_hook(lambda _, __, out: sizes.append(rms(out)))
    network(x)
    assert sizes[0] == pytest.approx(0.5, rel=1e-5)
    assert all(size <= 0.5 * (1 + 1e-5) for size in sizes)
    weights = [layer.weight.clone() for layer in network.layers]
    bound_moments(network, x, limit=0.51)
    assert all(torch.equal(a, b.weight) for a, b in zip(weights, network.layers, strict=True))


def rms(x: torch.Tensor) -> float:
    return x.square().mean().sqrt().item()
