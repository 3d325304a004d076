"""Energy, forces and stress of a Lennard-Jones potential, compared with ASE."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.cluster import Icosahedron
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.testing import assert_allclose

from gradpot import Calculator, InputError, Model, Potential
from gradpot.graph.graph import from_atoms, join
from lj import LennardJones

EPSILON, SIGMA = 0.0104, 3.4


@pytest.fixture
def argon() -> Potential:
    return Potential(LennardJones(EPSILON, SIGMA), {11: 0.0, 17: 0.0, 18: 0.0})


def reference(atoms: Atoms) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = AseLennardJones(epsilon=EPSILON, sigma=SIGMA, smooth=True)
    return atoms


def triclinic() -> Atoms:
    atoms = bulk("Ar", "fcc", a=5.3).repeat((2, 1, 2))
    shear = np.array([[0.02, 0.05, -0.03], [0.0, -0.04, 0.06], [0.01, 0.0, 0.03]])
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + shear), scale_atoms=True)
    atoms.rattle(0.2, seed=4)
    return atoms


def salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=7.4)
    atoms.rattle(0.2, seed=5)
    atoms.set_cell(atoms.cell.array[[1, 0, 2]], scale_atoms=False)  # left-handed
    return atoms


def cluster() -> Atoms:
    atoms = Icosahedron("Ar", 2, latticeconstant=5.3)
    atoms.rattle(0.2, seed=6)
    atoms.pbc, atoms.cell = False, None
    return atoms


def wire() -> Atoms:
    """Periodic along one axis only."""
    atoms = triclinic()
    atoms.pbc = [False, True, False]
    return atoms


@pytest.mark.parametrize("make", [triclinic, salt, cluster, wire])
def test_energy_and_forces_equal_ase(make, argon):
    atoms = make()
    properties = argon(from_atoms(atoms, argon.cutoff, torch.float64))
    assert_allclose(properties.energy.item(), reference(atoms).get_potential_energy(), rtol=1e-10)
    assert_allclose(properties.forces, reference(atoms).get_forces(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [triclinic, salt])
def test_stress_equals_ase(make, argon):
    atoms = make()
    stress = argon(from_atoms(atoms, argon.cutoff, torch.float64)).stress[0].numpy()
    expected = reference(atoms).get_stress()
    assert_allclose(full_3x3_to_voigt_6_stress(stress), expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("make", [cluster, wire])
def test_stress_is_nan_without_a_cell(make, argon):
    assert argon(from_atoms(make(), argon.cutoff, torch.float64)).stress.isnan().all()


@pytest.mark.parametrize("make", [triclinic, salt, cluster, wire])
def test_calculator_gives_the_same(make, argon):
    atoms, expected = make(), reference(make())
    atoms.calc = Calculator(argon)
    assert_allclose(atoms.get_potential_energy(), expected.get_potential_energy(), rtol=1e-10)
    assert_allclose(atoms.get_forces(), expected.get_forces(), rtol=1e-9, atol=1e-12)
    if atoms.pbc.all():
        assert_allclose(atoms.get_stress(), expected.get_stress(), rtol=1e-9, atol=1e-13)


def test_a_batch_equals_its_structures_one_by_one(argon):
    graphs = [from_atoms(make(), argon.cutoff, torch.float64) for make in (salt, cluster, wire)]
    together, apart = argon(join(graphs)), [argon(graph) for graph in graphs]
    assert_allclose(together.energy, torch.cat([p.energy for p in apart]), rtol=1e-12)
    assert_allclose(together.forces, torch.cat([p.forces for p in apart]), atol=1e-14)
    assert_allclose(together.stress, torch.cat([p.stress for p in apart]), atol=1e-14)


def test_references_and_scale_are_applied_in_float64():
    potential = Potential(LennardJones(EPSILON, SIGMA), {18: -14000.123456789}, scale=2.0)
    plain = Potential(LennardJones(EPSILON, SIGMA), {18: 0.0})
    graph = from_atoms(triclinic(), plain.cutoff, torch.float64)
    expected = 2.0 * plain(graph).energy + 4 * -14000.123456789
    assert potential(graph).energy.dtype == torch.float64
    assert_allclose(potential(graph).energy, expected, rtol=1e-15)
    assert_allclose(potential(graph).forces, 2.0 * plain(graph).forces, rtol=1e-12)
    assert potential.to(torch.float32).reference_table[18] == -14000.123456789


def test_direct_forces_are_passed_on_without_stress():
    class Direct(Model):
        direct = True

        def forward(self, graph):
            n_atoms = graph.numbers.shape[0]
            forces = torch.arange(3.0 * n_atoms, dtype=torch.float64).view(n_atoms, 3)
            return LennardJones(EPSILON, SIGMA)(graph), forces

    graph = from_atoms(triclinic(), 3 * SIGMA, torch.float64)
    direct, plain = (
        Potential(model, {18: -3.0}, scale=2.0)
        for model in (Direct(3 * SIGMA), LennardJones(EPSILON, SIGMA))
    )
    assert direct.direct
    assert not plain.direct
    got = direct(graph)
    assert_allclose(got.energy, plain(graph).energy, rtol=1e-14)
    assert_allclose(got.forces, 2.0 * torch.arange(12.0, dtype=torch.float64).view(4, 3))
    assert got.stress.isnan().all()
    assert not any(tensor.requires_grad for tensor in got)


def test_unknown_elements_are_named(argon):
    with pytest.raises(InputError, match="does not know H, O; it was trained on Na, Cl, Ar"):
        argon.check_elements([1, 8, 18])
