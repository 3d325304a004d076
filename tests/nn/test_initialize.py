"""Initialization: moments of deep models at the start, and copies of activations."""

from functools import partial

import numpy as np
import pytest
import torch

from gradpot.data.references import least_squares
from gradpot.data.source import read
from gradpot.errors import InputError
from gradpot.graph.dataset import Batch, batch, dataset
from gradpot.graph.graph import from_atoms
from gradpot.models import build
from gradpot.nn.activations import activation, gain
from gradpot.nn.initialize import MLP, linear, unit_moments
from gradpot.potential import checkpoint
from gradpot.potential.potential import Potential, predict
from gradpot.train.loss import Weights, penalty, rescaled, weighted
from gradpot.train.step import gradients
from gradpot.train.weights import by_name, flatten, layout

MODELS = {"schnet": "interactions", "painn": "updates"}
SCALE = 1.19  # eV: the rms force component of ethanol times 1 Å


@pytest.fixture(scope="module")
def molecules() -> Batch:
    frames = read("ethanol").take(np.arange(4))
    return batch(dataset(frames, 5.0, least_squares(frames)), torch.arange(4))


@pytest.mark.parametrize("name", ["silu", "ssp", "irelu", "capped_irelu(2)"])
def test_gain_keeps_second_moments_through_a_layer(name):
    torch.manual_seed(0)
    phi = activation(name)
    x = torch.randn(2000, 256)
    out = linear(256, 256, gain(phi))(phi(linear(256, 256)(x)))
    assert out.square().mean().item() == pytest.approx(1.0, rel=0.15)


def test_plain_stacks_of_irelu_square_every_deviation():
    """Deep networks here are residual because no gain keeps the moments of a plain stack."""
    torch.manual_seed(0)
    x = torch.randn(500, 128, dtype=torch.float64)
    network = MLP([128] * 8, activation("irelu")).double()
    small, large = (network(a * x).square().mean().item() for a in (1.0, 1.01))
    # six activations raise the input's scale to the power 2⁶; the mean square doubles the exponent
    assert large / small == pytest.approx(1.01**128, rel=1e-6)


@pytest.mark.parametrize("name", ["silu", "irelu"])
def test_unit_moments_of_known_inputs(name):
    torch.manual_seed(0)
    x = 0.03 * torch.rand(64, 20)
    phi = activation(name)
    network = MLP([20, 32, 32], phi)
    first = network.layers[0](x).square().mean().sqrt()
    unit_moments(network, x, scale=0.5)
    assert first < 0.1
    assert network.layers[0](x).square().mean().item() == pytest.approx(1.0, rel=1e-4)
    assert network(x).square().mean().sqrt().item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("n_layers", [3, 6, 12])
@pytest.mark.parametrize("name", ["silu", "irelu"])
@pytest.mark.parametrize("model", MODELS)
def test_moments_stay_near_one_through_the_layers(model, name, n_layers, molecules):
    """Features, atom energies, forces and gradients of an untrained network."""
    for seed in range(3):
        torch.manual_seed(seed)
        network = build(model, activation=name, n_layers=n_layers)
        features: list[torch.Tensor] = []
        network.readout.register_forward_pre_hook(lambda _, x, to=features: to.append(x[0]))
        atom_energy = network(molecules.graph)
        forces = predict(network, molecules.graph).forces
        assert 0.5 < rms(features[0]) < 2.0
        assert 0.1 < rms(atom_energy) < 5.0
        assert 0.2 < rms(forces) < 10.0
        sizes = block_gradients(network, MODELS[model], molecules)
        assert sizes.max() < 10 * sizes.min()
        assert 0.005 < sizes.min() < sizes.max() < 0.5


def block_gradients(network, blocks: str, minibatch: Batch) -> torch.Tensor:
    """Root mean square of the loss gradient with respect to each block's weights."""
    loss = partial(
        weighted,
        weights=Weights(1, 1, 0),
        length=1.0,
        penalty=penalty("huber", 0.1),
    )
    _, gradient = gradients(network, loss, stress=False)(
        flatten(network), rescaled(minibatch, SCALE)
    )
    named = by_name(gradient, layout(network))
    return torch.stack(
        [
            rms(
                torch.cat([g.flatten() for n, g in named.items() if n.startswith(f"{blocks}.{i}.")])
            )
            for i in range(len(getattr(network, blocks)))
        ]
    )


def rms(x: torch.Tensor) -> torch.Tensor:
    return x.square().mean().sqrt()


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_twelve_layers_of_irelu_learn(model, molecules):
    torch.manual_seed(0)
    network = build(model, activation="irelu", n_layers=12, width=32)
    loss = partial(weighted, weights=Weights(1, 1, 0), length=1.0, penalty=penalty("l2", 0.1))
    step, weights = gradients(network, loss, stress=False), flatten(network)
    optimizer = torch.optim.Adam([weights], lr=2e-3)
    losses, minibatch = [], rescaled(molecules, SCALE)
    for _ in range(60):
        value, weights.grad = step(weights, minibatch)
        losses.append(value.item())
        torch.nn.utils.clip_grad_norm_([weights], 10.0)
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("model", MODELS)
def test_every_layer_has_its_own_spline(model, ethanol, tmp_path):
    network = build(model, activation="irelu_spline(4)", width=8, n_layers=2, n_radial=6)
    splines = [name for name, _ in network.named_parameters() if name.endswith("slopes")]
    # two a layer (SchNet: filter, interaction; PaiNN: message, update), and the readout
    assert len(splines) == 5
    with torch.no_grad():
        network.get_parameter(splines[0]).add_(0.1)
    assert not torch.equal(network.get_parameter(splines[0]), network.get_parameter(splines[1]))
    path = tmp_path / "model.safetensors"
    checkpoint.save(Potential(network, {1: 0.0, 6: 0.0, 8: 0.0}), path)
    graph = from_atoms(ethanol, network.cutoff)
    assert torch.equal(checkpoint.load(path).model(graph), network(graph))


def test_activations_without_parameters_add_no_weights():
    names = build("schnet", width=8, n_layers=1).state_dict().keys()
    layers = ["filters.networks.0.layers.0", "filters.networks.0.layers.1", "interactions.0.after"]
    layers += ["interactions.0.out", "readout.layers.0", "readout.layers.1"]
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert names == expected | {"embedding.weight", "interactions.0.before.weight"}


@pytest.mark.parametrize("name", ["swish", "tent(-1)"])
def test_a_model_rejects_a_wrong_activation(name):
    with pytest.raises(InputError):
        build("painn", activation=name)
