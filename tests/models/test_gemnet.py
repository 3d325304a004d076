"""GemNet-dT: properties that the contract tests do not cover."""

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from scipy.spatial.transform import Rotation

from gradpot.graph.graph import from_atoms, with_triplets
from gradpot.models import build
from gradpot.models.gemnet import Dense, reverse
from gradpot.nn.activations import activation
from gradpot.potential.potential import predict

SMALL = {"width": 8, "n_layers": 2, "triplet_width": 6, "cutoff": 4.0}


def graph(atoms: Atoms):
    return from_atoms(atoms, 4.0, torch.float64)


@pytest.mark.parametrize("name", ["silu", "irelu", "softplus", "ssp", "gelu"])
def test_dense_layers_keep_zero_and_the_second_moment(name):
    torch.manual_seed(0)
    dense = Dense(64, 64, activation(name)).double()
    assert (dense(torch.zeros(2, 64, dtype=torch.float64)) == 0).all()
    out = dense(torch.randn(4000, 64, dtype=torch.float64))
    assert 0.3 < out.square().mean() < 1.5


@pytest.mark.parametrize("name", ["softplus", "tanh"])
def test_energy_is_continuous_at_the_cutoff_if_the_activation_is_not_zero_at_zero(name):
    torch.manual_seed(0)
    model = build("gemnet-dt", activation=name, output_activation=name, **SMALL).double()

    def energy(distance: float) -> float:
        atoms = Atoms("CH2", positions=[[0, 0, 0], [distance, 0, 0], [0, 1.1, 0]])
        return predict(model, graph(atoms)).energy.item()

    assert energy(4.0 - 1e-6) == pytest.approx(energy(4.0 + 1e-6), abs=1e-10)
    assert abs(energy(1.2) - energy(4.0 + 1e-6)) > 1e-3


def test_angles_matter():
    """Two molecules have the same distances from the center but different angles."""
    torch.manual_seed(0)
    model = build("gemnet-dt", **(SMALL | {"cutoff": 1.5})).double()
    bent, straight = (
        Atoms("HOH", positions=[[1, 0, 0], [0, 0, 0], other]) for other in ([0, 1, 0], [-1, 0, 0])
    )
    energies = [predict(model, from_atoms(a, 1.5, torch.float64)).energy for a in (bent, straight)]
    assert abs(energies[0] - energies[1]) > 1e-4


def test_direct_forces_rotate_with_the_molecule():
    torch.manual_seed(0)
    model = build("gemnet-dt", forces="direct", **SMALL).double()
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=0)
    rotated = atoms.copy()
    rotation = Rotation.from_rotvec([0.4, 1.0, -2.0]).as_matrix()
    rotated.positions = atoms.positions @ rotation.T
    one, other = (predict(model, graph(a)).forces for a in (atoms, rotated))
    assert one.abs().max() > 1e-3
    torch.testing.assert_close(other, one @ torch.from_numpy(rotation).T, rtol=0, atol=1e-10)


def test_reverse_finds_the_reversed_edges():
    made = with_triplets(graph(molecule("H2O")))
    torch.testing.assert_close(reverse(made.edge_vec), -made.edge_vec)


def test_output_activation_changes_only_the_output_blocks():
    torch.manual_seed(0)
    silu = build("gemnet-dt", **SMALL).double()
    mixed = build("gemnet-dt", output_activation="irelu", **SMALL).double()
    assert {type(m).__name__ for m in mixed.interactions.modules()} == {
        type(m).__name__ for m in silu.interactions.modules()
    }
    mixed.load_state_dict(silu.state_dict())
    made = graph(molecule("CH3CH2OH"))
    assert mixed.interactions[0].skip.activation is silu.interactions[0].skip.activation
    assert (predict(mixed, made).energy - predict(silu, made).energy).abs() > 1e-3
