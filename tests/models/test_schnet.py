"""SchNet against PyTorch Geometric's, with copied weights."""

from functools import partial

import numpy as np
import pytest
import torch

from gradpot.data.references import least_squares
from gradpot.data.source import read
from gradpot.graph.dataset import batch, dataset
from gradpot.graph.graph import from_atoms, join
from gradpot.models import build
from gradpot.models.schnet import FILTER_SCALE
from gradpot.train.loss import Weights, penalty, rescaled, weighted
from gradpot.train.step import gradients
from gradpot.train.weights import flatten


@pytest.fixture(scope="module")
def schnet_of_pyg():
    pytest.importorskip("torch_geometric")
    from torch_geometric.nn.models import SchNet

    return SchNet


def copied(theirs, **arguments):
    """Our SchNet with their weights, which contain our constant factors."""
    ours = build("schnet", filter="mlp", **arguments)
    state = {"embedding.weight": torch.zeros_like(ours.embedding.weight)}
    state["embedding.weight"][:100] = theirs.embedding.weight
    for i, block in enumerate(theirs.interactions):
        parts = {
            f"filters.networks.{i}.layers.0": block.mlp[0],
            f"filters.networks.{i}.layers.1": block.mlp[2],
            f"interactions.{i}.before": block.conv.lin1,
            f"interactions.{i}.after": block.conv.lin2,
            f"interactions.{i}.out": block.lin,
        }
        state |= {f"{k}.{n}": p for k, m in parts.items() for n, p in m.named_parameters()}
    for name in state:
        if ".out." in name:
            state[name] = state[name] / ours.interactions[0].scale
        elif ".layers.1." in name:
            state[name] = state[name] / FILTER_SCALE
    for i, layer in enumerate((theirs.lin1, theirs.lin2)):
        state |= {f"readout.layers.{i}.{n}": p for n, p in layer.named_parameters()}
    ours.load_state_dict(state)
    return ours


def test_equals_pyg_with_copied_weights(schnet_of_pyg, ethanol):
    torch.manual_seed(0)
    cutoff, width, n_layers, n_radial = 5.0, 32, 3, 25
    graph = join([from_atoms(ethanol, cutoff), from_atoms(ethanol[:5], cutoff)])

    def interaction_graph(_positions, _batch):
        return graph.edge_index.flip(0), graph.edge_vec.norm(dim=-1)

    theirs = schnet_of_pyg(
        width, width, n_layers, n_radial, cutoff, interaction_graph=interaction_graph
    )
    ours = copied(theirs, cutoff=cutoff, width=width, n_layers=n_layers, n_radial=n_radial)
    positions = torch.zeros(graph.numbers.shape[0], 3)
    expected = theirs(graph.numbers, positions, graph.batch)[:, 0]
    energy = torch.zeros(2).index_add(0, graph.batch, ours(graph))
    torch.testing.assert_close(energy, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_training_does_not_diverge_at_a_high_learning_rate():
    """With the factors inside the weights, the network lost all forces here: a loss of 0.64."""
    frames = read("ethanol")
    data = dataset(frames, 5.0, least_squares(frames))
    torch.manual_seed(0)
    network = build("schnet")
    weights = flatten(network)
    loss = partial(weighted, weights=Weights(1, 1, 0), length=1.0, penalty=penalty("huber", 0.01))
    step = gradients(network, loss, stress=False)
    optimizer = torch.optim.Adam([weights], lr=5e-3, betas=(0.9, 0.99))
    random, losses = np.random.default_rng(0), []
    for _ in range(500):
        index = torch.from_numpy(random.integers(frames.energy.shape[0], size=5))
        value, weights.grad = step(weights, rescaled(batch(data, index), 1.19))
        losses.append(value.item())
        torch.nn.utils.clip_grad_norm_([weights], 10.0)
        optimizer.step()
    assert np.mean(losses[-100:]) < 0.3
