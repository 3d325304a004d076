"""Batch norm: moments of the batch in training, measured moments afterwards."""

import pytest
import torch
from torch import nn

from gradpot.graph.graph import from_atoms, join
from gradpot.models import build
from gradpot.nn.norm import BatchNorm, measure, moments
from gradpot.potential.potential import predict


def random(*shape: int) -> torch.Tensor:
    return 3.0 + 2.0 * torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def norm() -> BatchNorm:
    torch.manual_seed(0)
    layer = BatchNorm(4).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


def reference(norm: BatchNorm, **buffers: torch.Tensor) -> nn.BatchNorm1d:
    """Batch norm of torch, with the same weights."""
    theirs = nn.BatchNorm1d(4).double()
    theirs.load_state_dict({"weight": norm.weight, "bias": norm.bias, **buffers}, strict=False)
    return theirs


def test_training_equals_torch(norm):
    x = random(30, 4)
    torch.testing.assert_close(norm(x)[0], reference(norm)(x))


def test_several_tensors_are_normalized_as_one_batch(norm):
    x = random(30, 4)
    torch.testing.assert_close(torch.cat(norm(x[:10], x[10:])), norm(x)[0])


def test_training_changes_no_buffer(norm):
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    norm.train()(random(30, 4))
    assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())


def test_measured_moments_are_those_of_all_batches(norm):
    batches = [random(20, 4) * (1 + i) for i in range(3)]
    norm.eval()
    measure(norm, batches)
    mean, variance = moments([torch.cat(batches)])
    torch.testing.assert_close(norm.mean, mean)
    torch.testing.assert_close(norm.variance, variance)
    assert not norm.training
    theirs = reference(norm, running_mean=mean, running_var=variance).eval()
    torch.testing.assert_close(norm(batches[1])[0], theirs(batches[1]))


def test_batches_without_rows_are_not_measured(norm):
    measure(norm, [random(0, 4), random(9, 4)])
    assert norm.mean.isfinite().all()
    before = norm.mean.clone()
    measure(norm, [random(0, 4)])
    assert torch.equal(norm.mean, before)


@pytest.mark.parametrize("name", ["cgcnn", "forcenet"])
def test_molecules_are_coupled_in_training_and_not_afterwards(name, ethanol):
    """Do not train forces through batch norm: they depend on the rest of the batch."""
    torch.manual_seed(0)
    model = build(name, width=8, n_layers=2, n_radial=6, norm="batch").double()
    stretched = ethanol.copy()
    stretched.positions *= 1.2
    alone, together = (
        join([from_atoms(atoms, 5.0, torch.float64) for atoms in atoms_])
        for atoms_ in ([ethanol], [ethanol, stretched])
    )
    measure(model, [together])

    def change() -> float:
        forces = [predict(model, graph).forces[:9] for graph in (alone, together)]
        return (forces[0] - forces[1]).abs().max().item()

    assert change() > 1e-3
    model.eval()
    assert change() < 1e-12
