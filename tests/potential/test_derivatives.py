"""What `check_derivatives` reports, and what it accepts."""

import pytest
import torch
from ase import Atoms
from torch import Tensor, nn

from gradpot import InputError, Model, Potential, build, check_derivatives, denormalize


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(1))


def network(*norms: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), *norms, nn.Tanh(), nn.Linear(8, 1))


def test_a_correct_network_passes(x):
    report = check_derivatives(network(), x)
    assert report.ok
    assert report.leak < 1e-12
    assert report.error < 1e-7
    assert str(report).endswith("- nothing is wrong")


def test_batch_norm_in_training_mode_leaks(x):
    leaky = network(nn.BatchNorm1d(8))
    state = {k: v.clone() for k, v in leaky.state_dict().items()}
    report = check_derivatives(leaky, x)
    assert not report.ok
    assert report.leak > 1e-3
    assert report.leak_from != report.leak_to
    # autograd correctly gives the derivative of the sum over the batch
    assert report.error < 1e-7
    assert report.training_norms == ("1",)
    assert "depends on sample" in str(report)
    assert "in training mode: 1" in str(report)
    # the check did not change the network
    assert all(torch.equal(v, state[k]) for k, v in leaky.state_dict().items())
    assert {p.dtype for p in leaky.parameters()} == {torch.float32}


def test_batch_norm_does_not_leak_in_eval_mode_or_if_removed(x):
    assert check_derivatives(network(nn.BatchNorm1d(8)).eval(), x).ok
    repaired = network(nn.BatchNorm1d(8))
    denormalize(repaired)
    assert check_derivatives(repaired, x).ok


def test_detached_statistics_still_leak(x):
    """Autograd does not see this leak; only moving the other sample shows it."""

    def scaled(x: Tensor) -> Tensor:
        return x.square().sum(-1) / x.detach().std()

    report = check_derivatives(scaled, x)
    assert report.leak > 1e-3
    assert report.error > 1e-3


def test_a_detached_derivative_is_found(x):
    report = check_derivatives(lambda x: (x * x.detach()).sum(-1), x)
    assert report.leak == 0
    assert report.error > 0.1
    assert "not the gradient" in str(report)


def test_a_constant_passes(x):
    assert check_derivatives(lambda x: torch.zeros(x.shape[0]), x).ok


def test_forces_are_compared_with_the_gradient(x):
    def right(x):
        return x.pow(3).sum(-1), -3 * x.square()

    def wrong_sign(x):
        return x.pow(3).sum(-1), 3 * x.square()

    def wrong_in_one_place(x):
        return x.pow(3).sum(-1), -3 * x.square() * (torch.arange(15).view(5, 3) != 7)

    assert check_derivatives(right, x).ok
    assert check_derivatives(wrong_sign, x).error > 0.5
    report = check_derivatives(wrong_in_one_place, x)
    assert report.error > 1e-3
    assert report.error_at == 2


def test_random_numbers_are_reported(x):
    report = check_derivatives(network(nn.Dropout(0.5)), x)
    assert report.noise > 1e-3
    assert "dropout" in str(report)
    assert check_derivatives(network(nn.Dropout(0.5)).eval(), x).ok


def test_nan_is_a_fault(x):
    assert not check_derivatives(lambda x: x.sum(-1) * torch.nan, x).ok


@pytest.mark.parametrize("periodic", [False, True])
def test_potentials_and_models_on_structures(ethanol, crystal, periodic):
    torch.manual_seed(0)
    model = build("painn", cutoff=4.0, width=8, n_layers=2, activation="irelu")
    structures = [ethanol, crystal if periodic else ethanol[:5], Atoms("O")]
    numbers = {int(z) for atoms in structures for z in atoms.numbers}
    assert check_derivatives(model, structures).ok
    report = check_derivatives(Potential(model, dict.fromkeys(numbers, -1e4), 0.3), structures)
    assert report.ok, report
    assert report.n_samples == 3


class Averaging(Model):
    """Atom energies that depend on the whole batch."""

    def forward(self, graph):
        bond = torch.exp(-graph.edge_vec.square().sum(-1))
        energy = bond.new_zeros(graph.numbers.shape[0]).index_add(0, graph.edge_index[0], bond)
        return energy - energy.mean().square()


def test_a_model_that_mixes_structures_is_found(ethanol):
    report = check_derivatives(Averaging(3.0), [ethanol, ethanol[:5]])
    assert report.leak > 1e-3


def test_wrong_input_is_an_error(x, ethanol):
    with pytest.raises(InputError, match="there is 1 sample"):
        check_derivatives(network(), x[:1])
    with pytest.raises(InputError, match=r"values have shape \[\] for 5 samples"):
        check_derivatives(lambda x: x.sum(), x)
    with pytest.raises(InputError, match=r"forces have shape \[5\]; expected .* \[5, 3\]"):
        check_derivatives(lambda x: (x.sum(-1), x.sum(-1)), x)
    with pytest.raises(InputError, match="function is a Sequential; for structures"):
        check_derivatives(network(), [ethanol, ethanol])
