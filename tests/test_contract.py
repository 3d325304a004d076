"""What every model must keep, in float64: add a model to `MODELS` and it is tested here."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from scipy.spatial.transform import Rotation

from gradpot.graph.graph import Graph, from_atoms, join, with_triplets
from gradpot.potential import checkpoint
from gradpot.potential.potential import Potential, predict
from variants import VARIANTS, small

CUTOFF = 4.0
REFERENCES = {1: -13.6, 6: -1030.0, 8: -2040.0, 11: -1.0, 17: -2.0, 18: 0.0}


@pytest.fixture(params=VARIANTS)
def potential(request) -> Potential:
    torch.manual_seed(0)
    return Potential(small(request.param, cutoff=CUTOFF), REFERENCES, scale=0.7).eval()


@pytest.fixture
def conservative(potential) -> Potential:
    if potential.direct:
        pytest.skip("the model says that its forces are not the gradient of its energy")
    return potential


@pytest.fixture
def invariant(potential) -> Potential:
    if not is_invariant(potential):
        pytest.skip("the model says that it is not invariant")
    return potential


def is_invariant(potential: Potential) -> bool:
    return getattr(potential.model, "invariant", True)


def graph(atoms: Atoms, dtype=torch.float64) -> Graph:
    return from_atoms(atoms, CUTOFF, dtype)


def energy(potential: Potential, atoms: Atoms) -> float:
    return potential(graph(atoms)).energy.item()


def test_forces_are_minus_the_gradient(conservative, ethanol, crystal):
    for atoms in (ethanol, crystal):
        forces = conservative(graph(atoms)).forces.numpy()
        assert np.abs(forces).max() > 1e-2
        for i in range(2):
            for axis in range(3):
                expected = -slope(
                    lambda x, i=i, a=axis, s=atoms: energy(conservative, moved(s, i, a, x))
                )
                assert forces[i, axis] == pytest.approx(expected, abs=1e-7)


def test_stress_is_the_strain_derivative_per_volume(conservative, crystal):
    stress = conservative(graph(crystal)).stress[0].numpy()
    assert np.abs(stress).max() > 1e-4
    expected = np.zeros((3, 3))
    for a in range(3):
        for b in range(3):
            expected[a, b] = slope(
                lambda x, a=a, b=b: energy(conservative, strained(crystal, a, b, x))
            )
    if not is_invariant(conservative):
        # turning the crystal changes this energy, which is no stress
        expected = (expected + expected.T) / 2
    np.testing.assert_allclose(stress, expected / crystal.get_volume(), rtol=0, atol=1e-8)


def test_stress_of_a_left_handed_cell_keeps_its_sign(conservative, crystal):
    mirrored = crystal.copy()
    mirrored.set_cell(crystal.cell[[1, 0, 2]], scale_atoms=False)
    one, other = (conservative(graph(atoms)).stress for atoms in (crystal, mirrored))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_stress_without_a_cell_is_nan(potential, ethanol):
    assert potential(graph(ethanol)).stress.isnan().all()


@pytest.mark.parametrize("reflect", [False, True])
def test_rotation_and_reflection(invariant, crystal, reflect):
    turn = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix() * (-1 if reflect else 1)
    turned = crystal.copy()
    turned.set_cell(crystal.cell @ turn.T)
    turned.positions = crystal.positions @ turn.T
    before, after = invariant(graph(crystal)), invariant(graph(turned))
    turn = torch.from_numpy(turn)
    torch.testing.assert_close(after.energy, before.energy, rtol=0, atol=1e-9)
    torch.testing.assert_close(after.forces, before.forces @ turn.T, rtol=0, atol=1e-10)
    stress = turn @ before.stress @ turn.T
    torch.testing.assert_close(after.stress, stress, rtol=0, atol=1e-10, equal_nan=True)


def test_translation(potential, crystal):
    moved_ = crystal.copy()
    moved_.translate([0.3, 7.0, -2.0])
    assert energy(potential, moved_) == pytest.approx(energy(potential, crystal), abs=1e-9)


def test_permutation(potential, ethanol):
    order = np.random.default_rng(0).permutation(len(ethanol))
    before, after = potential(graph(ethanol)), potential(graph(ethanol[order]))
    torch.testing.assert_close(after.energy, before.energy, rtol=0, atol=1e-9)
    torch.testing.assert_close(after.forces, before.forces[order], rtol=0, atol=1e-11)


def test_batch_equals_single(potential, ethanol, crystal):
    structures = [ethanol, crystal, Atoms("Ar"), ethanol[:4]]
    whole = potential(join([graph(atoms) for atoms in structures]))
    single = [potential(graph(atoms)) for atoms in structures]
    for field in ("energy", "forces", "stress"):
        parts = torch.cat([getattr(p, field) for p in single])
        torch.testing.assert_close(getattr(whole, field), parts, rtol=0, atol=1e-11, equal_nan=True)


def test_supercell(potential, crystal):
    one, eight = potential(graph(crystal)), potential(graph(crystal.repeat(2)))
    torch.testing.assert_close(eight.energy, 8 * one.energy, rtol=0, atol=1e-9)
    torch.testing.assert_close(eight.forces, one.forces.repeat(8, 1), rtol=0, atol=1e-10)
    torch.testing.assert_close(eight.stress, one.stress, rtol=0, atol=1e-11, equal_nan=True)


def test_energy_and_forces_are_smooth_at_the_cutoff(potential):
    def state(distance):
        out = potential(graph(Atoms("CH2", positions=[[0, 0, 0], [distance, 0, 0], [0, 1.1, 0]])))
        return out.energy.item(), out.forces[1, 0].item()

    step = 1e-5
    (e_in, f_in), (e_out, f_out) = state(CUTOFF - step), state(CUTOFF + step)
    far = state(CUTOFF + 0.5)
    # the energy leaves as a square at least, the force linearly at least
    assert e_in == pytest.approx(e_out, abs=1e-8)
    assert f_in == pytest.approx(f_out, abs=1e-3 * max(abs(state(1.2)[1]), 1.0))
    assert (e_out, f_out) == pytest.approx((far[0], 0.0), abs=1e-11)


def test_isolated_atom_has_an_energy_and_no_force(potential):
    out = potential(graph(Atoms("O")))
    assert torch.isfinite(out.energy).all()
    assert (out.forces == 0).all()
    assert out.forces.shape == (1, 3)


def test_structure_without_atoms_in_range(potential):
    far = Atoms("H2", positions=[[0, 0, 0], [0, 0, 3 * CUTOFF]])
    assert energy(potential, far) == pytest.approx(2 * energy(potential, Atoms("H")), abs=1e-10)


def test_gradients_of_forces_are_finite(potential, ethanol):
    # one atom alone, and vectors that are zero by symmetry
    structures = [
        ethanol,
        Atoms("O"),
        Atoms("CO2", positions=[[0, 0, 0], [0, 0, 1.2], [0, 0, -1.2]]),
    ]
    batch = join([graph(atoms) for atoms in structures])
    out = predict(potential.model, batch, create_graph=True)
    loss = out.forces.square().sum() + out.energy.square().sum()
    slopes = torch.autograd.grad(
        loss, list(potential.model.parameters()), allow_unused=True, materialize_grads=True
    )
    assert all(torch.isfinite(g).all() for g in slopes)
    assert sum(float(g.abs().sum()) for g in slopes) > 0


def test_gradients_agree_with_finite_differences(potential, ethanol):
    """The loss's own derivative, through the forces: the double backward."""
    batch = graph(ethanol)
    weight = next(p for n, p in potential.model.named_parameters() if "embedding" in n)

    def loss():
        return predict(potential.model, batch, create_graph=True).forces.square().sum()

    (exact,) = torch.autograd.grad(loss(), weight)

    def shifted(x):
        with torch.no_grad():
            weight[6, 3] += x
            value = loss().item()
            weight[6, 3] -= x
        return value

    assert exact[6, 3].item() == pytest.approx(slope(shifted), rel=1e-6, abs=1e-9)


def test_float32_agrees_with_float64(potential, ethanol):
    exact = potential(graph(ethanol))
    rough = potential.float()(graph(ethanol, torch.float32))
    assert rough.energy.dtype == torch.float64
    torch.testing.assert_close(rough.energy, exact.energy, rtol=0, atol=1e-4)
    torch.testing.assert_close(rough.forces.double(), exact.forces, rtol=0, atol=1e-4)


def test_inputs_are_left_alone(potential, ethanol):
    batch = graph(ethanol)
    batch = with_triplets(batch) if potential.uses_triplets else batch
    tensors = [tensor for tensor in batch if tensor is not None]
    copies = [tensor.clone() for tensor in tensors]
    potential(batch)
    assert not batch.edge_vec.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(tensors, copies, strict=True))


def test_saved_and_loaded_to_the_bit(potential, ethanol, tmp_path):
    checkpoint.save(potential, tmp_path / "model.safetensors", {"author": "a test"})
    again = checkpoint.load(tmp_path / "model.safetensors")
    one, other = potential(graph(ethanol)), again(graph(ethanol))
    assert torch.equal(one.energy, other.energy)
    assert torch.equal(one.forces, other.forces)
    assert again.references == potential.references
    assert checkpoint.notes(tmp_path / "model.safetensors") == {"author": "a test"}


def test_elements_matter(potential):
    a, b = (Atoms(f"C{x}", positions=[[0, 0, 0], [1.2, 0, 0]]) for x in "OH")
    difference = potential(graph(a)).forces - potential(graph(b)).forces
    assert difference.abs().max() > 1e-3


def test_perfect_crystal_has_no_forces(potential):
    if potential.direct and not is_invariant(potential):
        pytest.skip("without a gradient or a symmetry nothing says so")
    forces = potential(graph(bulk("Ar", "fcc", 5.3, cubic=True))).forces
    torch.testing.assert_close(forces, torch.zeros_like(forces), rtol=0, atol=1e-12)


def slope(function, step: float = 1e-4) -> float:
    """Central difference of fourth order."""
    near = function(step) - function(-step)
    far = function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def moved(atoms: Atoms, i: int, axis: int, x: float) -> Atoms:
    atoms = atoms.copy()
    atoms.positions[i, axis] += x
    return atoms


def strained(atoms: Atoms, a: int, b: int, x: float) -> Atoms:
    strain = np.eye(3)
    strain[a, b] += x
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell @ strain.T, scale_atoms=True)
    return atoms
