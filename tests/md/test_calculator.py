"""The ASE calculator: derivatives, caches, neighbor lists with a skin, wrong inputs."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.md.verlet import VelocityVerlet
from numpy.testing import assert_allclose

from gradpot import Calculator, InputError, Potential, build, save
from gradpot.graph.graph import from_atoms
from gradpot.md.verlet import VerletList
from lj import LennardJones

REFERENCES = {1: -13.0, 6: -1030.0, 8: -2040.0, 11: -4400.0, 17: -12500.0}


@pytest.fixture
def potential() -> Potential:
    torch.manual_seed(0)
    model = build("painn", cutoff=4.0, width=8, n_layers=2, n_radial=6)
    return Potential(model, REFERENCES, scale=2.0).double()


@pytest.fixture
def argon() -> Potential:
    return Potential(LennardJones(0.0104, 3.4, cutoff=6.0), {18: 0.0})


def liquid(temperature_K: float = 300.0) -> Atoms:
    """Argon hot enough for atoms to leave the cell within a short run."""
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.1, seed=1)
    rng = np.random.default_rng(2)
    sigma = np.sqrt(units.kB * temperature_K * atoms.get_masses())
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * sigma[:, None])
    return atoms


def counted(calculator: Calculator) -> list[int]:
    """A list that grows by one with every evaluation of the network."""
    calls = []
    calculator.potential.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_atoms_at_the_same_place_are_named(ethanol):
    model = build("painn", width=8, n_layers=1)
    ethanol.calc = Calculator(Potential(model, dict.fromkeys((1, 6, 8), 0.0)))
    ethanol.positions[7] = ethanol.positions[4]
    with pytest.raises(InputError, match="atoms 4 and 7 are at the same place"):
        ethanol.get_forces()


def test_the_number_of_threads_is_restored(ethanol):
    calculator = Calculator(
        Potential(build("painn", width=8, n_layers=1), {1: 0.0, 6: 0.0, 8: 0.0})
    )
    during = []
    calculator.potential.register_forward_pre_hook(
        lambda *_: during.append(torch.get_num_threads())
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        calculator.get_potential_energy(ethanol)
        assert during == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_forces_are_minus_the_gradient(potential, ethanol, crystal):
    for atoms in (ethanol, crystal):
        atoms.calc = Calculator(potential)
        numerical = calculate_numerical_forces(atoms, eps=1e-5)
        assert_allclose(atoms.get_forces(), numerical, atol=2e-6)


def test_stress_is_the_strain_derivative(potential, crystal):
    crystal.calc = Calculator(potential)
    numerical = calculate_numerical_stress(crystal, eps=1e-5)
    assert_allclose(crystal.get_stress(), numerical, atol=1e-6)


def test_energy_is_float64_and_equals_the_potential(potential, ethanol):
    single = Potential(potential.model, REFERENCES).float()
    ethanol.calc = Calculator(single)
    expected = single(from_atoms(ethanol, single.cutoff)).energy.item()
    assert ethanol.get_potential_energy() == expected
    assert ethanol.get_potential_energy(force_consistent=True) == expected
    assert ethanol.get_forces().dtype == np.float64


def test_all_properties_are_computed_at_once(potential, crystal):
    crystal.calc = Calculator(potential)
    calls = counted(crystal.calc)
    crystal.get_potential_energy(), crystal.get_forces(), crystal.get_stress()
    crystal.get_potential_energy(force_consistent=True)
    crystal.set_momenta(np.ones((len(crystal), 3)))
    crystal.get_forces()
    assert len(calls) == 1


def test_changed_atoms_are_computed_again(potential, crystal):
    crystal.calc = Calculator(potential)
    seen = [crystal.get_potential_energy()]
    crystal.positions[0, 0] += 1e-9
    seen.append(crystal.get_potential_energy())
    crystal.set_cell(crystal.cell.array * 1.01)
    seen.append(crystal.get_potential_energy())
    crystal.pbc = [True, True, False]
    seen.append(crystal.get_potential_energy())
    crystal.numbers[0] = crystal.numbers[1]
    seen.append(crystal.get_potential_energy())
    crystal += Atoms("C", [[0.3, 1.9, 0.2]])
    seen.append(crystal.get_potential_energy())
    assert len(set(seen)) == len(seen)
    assert seen[-1] == pytest.approx(fresh_energy(potential, crystal), abs=1e-9)


def fresh_energy(potential: Potential, atoms: Atoms) -> float:
    return potential(from_atoms(atoms, potential.cutoff, torch.float64)).energy.item()


def test_results_do_not_change_with_the_callers_arrays(potential, ethanol):
    ethanol.calc = Calculator(potential)
    forces = ethanol.get_forces()
    forces[:] = 0.0
    assert np.abs(ethanol.get_forces()).max() > 0
    ethanol.calc.calculate(ethanol, ["energy"], ["positions"])
    ethanol.positions[0] += 0.1
    ethanol.calc.calculate(ethanol, ["energy"], ["positions"])
    assert ethanol.get_potential_energy() == pytest.approx(fresh_energy(potential, ethanol))


def test_one_calculator_for_many_structures(potential, ethanol, crystal):
    calculator = Calculator(potential)
    for atoms in (ethanol, crystal, molecule("H2O"), ethanol, crystal):
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(fresh_energy(potential, atoms))


@pytest.mark.parametrize("pbc", [False, True])
def test_atoms_without_neighbors_have_reference_energies_and_no_forces(potential, pbc):
    for n_atoms in (0, 1, 2):
        atoms = Atoms("H" * n_atoms, [[10.0 * i, 0, 0] for i in range(n_atoms)], pbc=pbc)
        atoms.cell = [30.0, 30.0, 30.0]
        atoms.calc = Calculator(potential)
        alone = fresh_energy(potential, Atoms("H"))
        assert atoms.get_potential_energy() == pytest.approx(n_atoms * alone)
        assert atoms.get_forces().shape == (n_atoms, 3)
        assert not atoms.get_forces().any()


@pytest.mark.parametrize("pbc", [[False] * 3, [True, False, True]])
def test_stress_needs_three_periodic_axes(potential, crystal, pbc):
    crystal.pbc = pbc
    crystal.calc = Calculator(potential)
    crystal.get_forces()
    with pytest.raises(PropertyNotImplementedError):
        crystal.get_stress()


def test_direct_forces_come_without_stress(crystal):
    model = build("forcenet", width=8, n_layers=1, forces="direct")
    direct = Potential(model, {11: 0.0, 17: 0.0})
    crystal.calc = Calculator(direct)
    expected = direct(from_atoms(crystal, 5.0)).forces
    assert_allclose(crystal.get_forces(), expected.numpy(), atol=1e-5)
    with pytest.raises(PropertyNotImplementedError):
        crystal.get_stress()


def test_stress_does_not_outlive_the_cell(potential, crystal):
    crystal.calc = Calculator(potential)
    crystal.get_stress()
    crystal.pbc = False
    with pytest.raises(PropertyNotImplementedError):
        crystal.get_stress()


def test_precision_is_changed_on_a_copy(potential, ethanol, tmp_path):
    before = potential.model.embedding.weight.clone()
    single, double = Calculator(potential, dtype="float32"), Calculator(potential)
    assert potential.dtype == torch.float64
    assert potential.model.embedding.weight.requires_grad
    assert torch.equal(potential.model.embedding.weight, before)
    for calculator in (single, double):
        calculator.calculate(ethanol)
    assert_allclose(single.results["forces"], double.results["forces"], atol=2e-5)
    save(potential, tmp_path / "model.safetensors")
    loaded = Calculator(str(tmp_path / "model.safetensors"), dtype=torch.float32)
    loaded.calculate(ethanol)
    assert_allclose(loaded.results["forces"], single.results["forces"], atol=1e-6)


def test_later_training_does_not_reach_the_calculator(potential, ethanol):
    ethanol.calc = Calculator(potential, skin=0.0)
    before = ethanol.get_potential_energy()
    with torch.no_grad():
        potential.model.embedding.weight.zero_()
    ethanol.calc.reset()
    assert ethanol.get_potential_energy() == before


@pytest.mark.parametrize("skin", [0.0, 0.5, 2.0])
def test_dynamics_do_not_depend_on_the_skin(argon, skin):
    atoms, plain = liquid(), liquid()
    atoms.calc = Calculator(argon, skin=skin)
    dynamics = VelocityVerlet(atoms, 4.0 * units.fs)
    reference = VelocityVerlet(plain, 4.0 * units.fs)
    plain.calc = Calculator(argon, skin=0.0)
    for step in range(60):
        dynamics.run(1), reference.run(1)
        if step % 20 == 19:
            atoms.wrap(), plain.wrap()
        expected = argon(from_atoms(plain, argon.cutoff, torch.float64))
        assert_allclose(atoms.get_forces(), expected.forces, atol=1e-9)
        assert_allclose(atoms.get_potential_energy(), expected.energy.item(), atol=1e-9)
    assert_allclose(atoms.positions, plain.positions, atol=1e-9)
    n_builds = atoms.calc.neighbors.n_builds
    assert n_builds == 61 + 3 if skin == 0.0 else n_builds < 40


def test_wrapping_atoms_keeps_the_energy(argon):
    atoms = liquid()
    atoms.calc = Calculator(argon)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    for shift in ([1, 0, 0], [0, -2, 0], [1, 1, 3]):
        atoms.positions[1] += np.array(shift) @ atoms.cell.array
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-12)
        assert_allclose(atoms.get_forces(), forces, atol=1e-12)


def test_a_kept_list_is_complete_within_the_cutoff():
    rng = np.random.default_rng(7)
    cell, pbc = 6.0 * np.eye(3) + rng.uniform(-1, 1, (3, 3)), np.array([True, False, True])
    neighbors, fresh = VerletList(4.0, 1.0), VerletList(4.0, 0.0)
    positions = rng.uniform(0, 6, (30, 3))
    for _ in range(100):
        positions = positions + rng.uniform(-0.06, 0.06, (30, 3))
        kept, expected = (a.pairs(positions, cell, pbc) for a in (neighbors, fresh))
        assert_allclose(in_order(*kept), in_order(*expected), atol=1e-9)
    assert neighbors.n_builds < 50 < fresh.n_builds


def in_order(edge_index: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    rows = np.column_stack([edge_index.T, vectors])
    return rows[np.lexsort(np.round(rows.T, 6)[::-1])]


def test_small_molecules_never_search_again(potential, ethanol):
    ethanol.calc = Calculator(potential)
    for _ in range(5):
        ethanol.rattle(0.5, seed=3)
        assert ethanol.get_potential_energy() == pytest.approx(fresh_energy(potential, ethanol))
    assert ethanol.calc.neighbors.n_builds == 1


def test_unknown_elements_are_refused(potential):
    atoms = molecule("CH3SH")
    atoms.calc = Calculator(potential)
    with pytest.raises(InputError, match=r"does not know S; it was trained on H, C, O"):
        atoms.get_potential_energy()


def test_positions_must_be_finite_and_a_failure_leaves_no_results(potential, ethanol):
    ethanol.calc = Calculator(potential)
    ethanol.get_potential_energy()
    ethanol.positions[4, 1] = np.nan
    for _ in range(2):
        with pytest.raises(InputError, match="position of atom 4 is"):
            ethanol.get_forces()
    ethanol.positions[4, 1] = 0.0
    assert np.isfinite(ethanol.get_forces()).all()


def test_an_atom_that_flew_away_is_named(potential):
    """Also in molecules small enough to keep all their pairs; at 10 km and 1e300 Å."""
    for n_atoms in (2, 100):
        positions = np.random.default_rng(0).uniform(0, 12, (n_atoms, 3))
        atoms = Atoms("H" * n_atoms, positions, calculator=Calculator(potential))
        near = atoms.get_potential_energy()
        for x in (1e14, 1e300):
            atoms.positions[1, 2] = x
            with pytest.raises(InputError, match=r"position of atom 1 is .* at most 1,000,000 Å"):
                atoms.get_potential_energy()
        atoms.positions[1] = [1e5, 0, 0]
        assert np.isfinite(atoms.get_forces()).all()
        atoms.positions[1] = positions[1]
        assert atoms.get_potential_energy() == near


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([4, 4, 0], "flat along a periodic direction"),
        ([4, np.nan, 4], "lattice vector 1 is .* must be finite"),
        ([4, 4, 1e300], "lattice vector 2 is .* at most 1,000,000 Å"),
        ([0.02, 0.02, 0.02], "so small or so skewed"),
    ],
)
def test_periodic_cells_need_a_volume(potential, cell, message):
    atoms = Atoms("H", cell=np.diag(cell), pbc=True)
    atoms.calc = Calculator(potential)
    with pytest.raises(InputError, match=message):
        atoms.get_potential_energy()


def test_cell_vectors_of_open_axes_do_not_matter(potential, crystal):
    crystal.pbc = [True, True, False]
    other = crystal.copy()
    other.cell[2] = [np.nan, 0.0, 0.0]
    energies = []
    for atoms in (crystal, other):
        atoms.calc = Calculator(potential)
        energies.append(atoms.get_potential_energy())
    assert energies[0] == energies[1]


@pytest.mark.parametrize("skin", [-0.1, np.nan, np.inf])
def test_the_skin_must_be_a_length(potential, skin):
    with pytest.raises(InputError, match="skin is"):
        Calculator(potential, skin=skin)
