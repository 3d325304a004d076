"""The loss: units, weights, missing labels; and the metrics."""

import pytest
import torch

from gradpot.graph.dataset import Batch
from gradpot.graph.graph import Graph, Properties
from gradpot.potential.metrics import errors
from gradpot.train.loss import Weights, penalty, rescaled, weighted

NAN = float("nan")


def batch(energy, forces, stress=NAN, size: float = 0.0) -> Batch:
    """Two structures of two and one atoms, without edges."""
    graph = Graph(
        numbers=torch.ones(3, dtype=torch.long),
        edge_index=torch.zeros(2, 0, dtype=torch.long),
        edge_vec=torch.zeros(0, 3),
        batch=torch.tensor([0, 0, 1]),
        cell=torch.eye(3).expand(2, 3, 3) * size,
    )
    return Batch(graph, properties(energy, forces, stress))


def properties(energy, forces, stress=NAN) -> Properties:
    return Properties(
        torch.tensor(energy), torch.full((3, 3), forces), torch.full((2, 3, 3), stress)
    )


def loss(raw, data, weights=(1, 1, 0), scale=1.0, length=1.0, name="l1") -> float:
    data = rescaled(data, scale)
    return weighted(raw, data, Weights(*weights), length, penalty(name, 0.01)).item()


def test_energy_counts_per_atom():
    assert loss(properties([2.0, 1.0], 0.0), batch([0.0, 0.0], 0.0)) == pytest.approx(1.0)


def test_forces_count_per_component():
    value = loss(properties([0.0, 0.0], 0.5), batch([0.0, 0.0], 0.25), weights=(0, 2, 0))
    assert value == pytest.approx(0.5)


def test_residuals_are_in_the_units_of_the_scale():
    """Equal predictions in other units have equal losses, up to the units."""
    raw = properties([2.0, 1.0], 0.5)
    labels = batch([20.0, 30.0], 10.0)
    energy = loss(raw, labels, (1, 0, 0), scale=10.0)
    assert energy == pytest.approx((abs(2 - 2) / 2 + abs(1 - 3)) / 2)
    forces = loss(raw, labels, (0, 1, 0), scale=10.0, length=0.2)
    assert forces == pytest.approx(abs(0.5 - 1.0) * 0.2)


def test_stress_counts_as_virial_per_atom():
    raw, labels = properties([0.0, 0.0], 0.0, 0.3), batch([0.0, 0.0], 0.0, 0.1, size=2.0)
    assert loss(raw, labels, (0, 0, 1)) == pytest.approx(0.2 * 8 * (1 / 2 + 1) / 2)


def test_missing_labels_do_not_count():
    raw = properties([2.0, 1.0], 0.5)
    assert loss(raw, batch([NAN, 0.0], 0.5)) == pytest.approx(1.0)
    assert loss(raw, batch([0.0, 0.0], NAN)) == pytest.approx(1.0)
    assert loss(raw, batch([NAN, NAN], NAN)) == 0.0


def test_missing_labels_leave_gradients_finite():
    raw = Properties(*(t.requires_grad_() for t in properties([2.0, 1.0], 0.5, NAN)))
    labels = batch([NAN, 0.0], NAN)
    value = weighted(raw, labels, Weights(1, 1, 1), 1.0, penalty("huber", 0.01))
    gradients = torch.autograd.grad(value, list(raw))
    assert all(torch.isfinite(g).all() for g in gradients)
    assert gradients[0].tolist() == [0.0, pytest.approx(1.0)]


def test_a_prediction_that_is_nan_is_not_hidden():
    assert torch.tensor(loss(properties([NAN, 1.0], 0.5), batch([0.0, 0.0], 0.0))).isnan()


def test_penalties():
    x = torch.tensor([-2.0, -0.1, 0.0, 0.1, 2.0], dtype=torch.float64)
    assert penalty("l1", 1.0)(x).tolist() == [2, 0.1, 0, 0.1, 2]
    torch.testing.assert_close(penalty("l2", 1.0)(x), x**2)
    expected = torch.nn.functional.huber_loss(x, torch.zeros_like(x), reduction="none", delta=0.5)
    torch.testing.assert_close(penalty("huber", 0.5)(x), expected / 0.5)


def test_metrics():
    predicted = properties([2.0, 1.0], 0.5)
    result = errors(predicted, properties([1.0, 1.5], 0.25), torch.tensor([2, 1]))
    assert result["energy_mae_meV"] == pytest.approx(750)
    assert result["energy_mae_meV_per_atom"] == pytest.approx(500)
    assert result["forces_mae_meV_A"] == pytest.approx(250)
    assert result["forces_rmse_meV_A"] == pytest.approx(250)
    assert result["n_frames"] == 2
    assert "stress_mae_meV_A3" not in result


def test_metrics_without_labels():
    result = errors(properties([2.0, 1.0], 0.5), properties([NAN, NAN], 0.5), torch.tensor([2, 1]))
    assert result["energy_mae_meV"] is None
    assert result["forces_mae_meV_A"] == 0
