"""Muon against torch's, against singular values, and the order of weights that it needs."""

import pytest
import torch
from torch import nn

from gradpot.models import MODELS, build
from gradpot.train.muon import Muon, orthogonal
from gradpot.train.optimizers import OPTIMIZERS
from gradpot.train.weights import by_name, flatten, layout, stacks


def small(name: str) -> nn.Module:
    return build(name, cutoff=4.0, width=16, n_layers=2)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40), (2, 40, 8)])
def test_singular_values_become_one_and_vectors_stay(shape):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    result = orthogonal(x)
    values = torch.linalg.svdvals(result)
    torch.testing.assert_close(orthogonal(1e-28 * x.float()), result.float(), atol=1e-3, rtol=0)
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    core = u.mT @ result @ v.mT
    rest = core - torch.diag_embed(core.diagonal(dim1=-2, dim2=-1))
    assert rest.abs().max() < 1e-9


def test_matrices_do_not_see_each_other():
    torch.manual_seed(0)
    x = (
        torch.randn(4, 8, 16, dtype=torch.float64)
        * torch.tensor([1e-6, 1.0, 1e6, 0.0])[:, None, None]
    )
    together = orthogonal(x)
    for i in range(4):
        torch.testing.assert_close(orthogonal(x[i : i + 1])[0], together[i])
    assert not together[3].any()


@pytest.mark.parametrize("shape", [(24, 24), (8, 32), (32, 8)])
def test_muon_moves_as_in_torch(shape):
    """Up to the bfloat16 in which torch orthogonalizes."""
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(20, *shape)
    ours, theirs = start.clone()[None], nn.Parameter(start.clone())
    mine = Muon([ours], weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients:
        mine.param_groups[0]["lr"] = 0.02
        ours.grad, theirs.grad = gradient[None].clone(), gradient.clone()
        mine.step()
        other.step()
    moved = (theirs.detach() - start).norm()
    assert (ours[0] - theirs.detach()).norm() < 0.03 * moved


@pytest.mark.parametrize("name", MODELS)
def test_weights_in_order(name):
    """Every weight once; one stack for each shape of matrices; embeddings count as vectors."""
    torch.manual_seed(0)
    network = small(name)
    before = {key: p.detach().clone() for key, p in network.named_parameters()}
    weights, slots = flatten(network), layout(network)
    found = by_name(weights, slots)
    assert found.keys() == before.keys()
    for key, value in before.items():
        assert torch.equal(found[key], value)
    vectors, matrices = stacks(weights, slots)
    assert vectors.numel() + sum(stack.numel() for stack in matrices) == weights.numel()
    assert len({stack.shape[1:] for stack in matrices}) == len(matrices)
    assert all(min(stack.shape[1:]) > 1 for stack in matrices)
    n_embedded = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Embedding))
    assert vectors.numel() >= n_embedded
    matrices[-1].zero_()
    assert sum(not p.any() for p in network.parameters()) > sum(
        not p.any() for p in before.values()
    )


def test_without_matrices_and_with_nothing_else():
    for model, n_optimizers in ((nn.Linear(1, 1), 1), (nn.Linear(3, 4, bias=False), 2)):
        weights = flatten(model)
        weights.grad = torch.ones_like(weights)
        before, moved = weights.clone(), OPTIMIZERS["muon"](weights, layout(model), 0.0)
        assert len(moved) == n_optimizers
        for optimizer in moved:
            optimizer.step()
        assert (weights != before).all()


def test_momentum_of_dead_units_is_never_denormal():
    """With IReLU a quarter of PaiNN's momenta decay; a step then took 84 ms instead of 3."""
    torch.manual_seed(0)
    weights = torch.randn(1, 32, 32)
    muon = Muon([weights])
    for _ in range(3000):
        weights.grad = torch.randn(1, 32, 32)
        weights.grad[:, ::2] = 0.0 if muon.state else 1.0
        muon.step()
    momentum = muon.state[weights]["momentum"]
    assert not momentum[:, ::2].any()
    assert momentum[:, 1::2].all()
    result = orthogonal(torch.randn(1, 32, 32) * torch.logspace(0, -37, 32)[:, None])
    assert ((result == 0) | (result.abs() > torch.finfo(torch.float32).tiny)).all()
