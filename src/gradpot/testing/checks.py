"""The checks, one function for each rule; the docstring of a check is the rule."""

import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import SkipTest

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch.testing import assert_close

from gradpot.compile.step import example_batch, tensors, trace
from gradpot.data.source import read
from gradpot.graph.dataset import Batch, batch, dataset
from gradpot.graph.graph import Properties, from_atoms, join, with_triplets
from gradpot.models.base import Model
from gradpot.potential import checkpoint
from gradpot.potential.potential import Potential, predict
from gradpot.testing.structures import crystal, ethanol, symmetric_sites
from gradpot.train.loss import Weights, penalty, weighted
from gradpot.train.step import gradients
from gradpot.train.weights import flatten

# Å: displacements from sites of high symmetry; phonon programs use 0.01
DISPLACEMENTS = (1e-4, 1e-3, 1e-2, 1e-1)
# largest relative change of a force constant from the first displacement to each of the next two.
# With a smooth energy the change grows as the square of the displacement: networks with random
# weights are stiff, and reach 0.01 and 0.3. With a cone, force constants change tenfold each time
LARGEST_CHANGE = (0.03, 0.5)


def forward_returns_atom_energies(model: Model) -> None:
    """`forward` returns a float64 energy for each atom, which depends on `graph.edge_vec`."""
    assert all(p.dtype == torch.float64 for p in model.parameters()), "call .double() on the model"
    graph = from_atoms(ethanol(), model.cutoff, torch.float64)
    edge_vec = graph.edge_vec.requires_grad_()
    output = model(graph._replace(edge_vec=edge_vec))
    energy = output[0] if isinstance(output, tuple) else output
    shape, n_atoms = list(energy.shape), graph.numbers.shape[0]
    assert shape == [n_atoms], f"forward returned shape {shape}, expected [n_atoms], [{n_atoms}]"
    assert energy.requires_grad, "the energy has no gradient; detached?"
    (gradient,) = torch.autograd.grad(energy.sum(), edge_vec, allow_unused=True)
    assert model.direct or gradient is not None, "edge vectors have no effect on it; detached?"


def forces_are_minus_the_gradient(model: Model) -> None:
    """Forces agree with fourth-order differences of the energy to 1e-7 eV/Å."""
    _require_conservative(model)
    for atoms in (ethanol(), crystal()):
        forces = _properties(model, atoms).forces.numpy()
        assert np.abs(forces).max() > 1e-3, "there are no forces: does the energy depend on edges?"
        for i, axis in np.ndindex(2, 3):

            def energy(x: float, atoms: Atoms = atoms, i: int = i, axis: int = axis) -> float:
                moved = atoms.copy()
                moved.positions[i, axis] += x
                return _energy(model, moved)

            np.testing.assert_allclose(forces[i, axis], -_derivative(energy), rtol=0, atol=1e-7)


def stress_is_the_strain_derivative(model: Model) -> None:
    """All nine components agree with differences of the energy per volume to 1e-8 eV/Å³."""
    _require_conservative(model)
    atoms = crystal()
    expected = np.zeros((3, 3))
    for a, b in np.ndindex(3, 3):

        def energy(x: float, a: int = a, b: int = b) -> float:
            strain = np.eye(3)
            strain[a, b] += x
            strained = atoms.copy()
            strained.set_cell(atoms.cell @ strain.T, scale_atoms=True)
            return _energy(model, strained)

        expected[a, b] = _derivative(energy) / atoms.get_volume()
    if not model.invariant:
        # the energy also changes with the rotation that is part of a strain, which is no stress
        expected = (expected + expected.T) / 2
    stress = _properties(model, atoms).stress[0].numpy()
    np.testing.assert_allclose(stress, expected, rtol=0, atol=1e-8)


def stress_does_not_depend_on_the_order_of_lattice_vectors(model: Model) -> None:
    """A left-handed cell has the stress of the right-handed one; a molecule has none.

    A volume that changes sign with the handedness would flip the stress.
    """
    _require_conservative(model)
    atoms = crystal()
    mirrored = atoms.copy()
    mirrored.set_cell(atoms.cell.array[[1, 0, 2]], scale_atoms=False)
    one, other = (_properties(model, a).stress for a in (atoms, mirrored))
    assert_close(one, other, rtol=0, atol=1e-12)
    assert _properties(model, ethanol()).stress.isnan().all()


def rotation_and_reflection(model: Model) -> None:
    """Energies stay the same; forces and stress rotate with the structure."""
    if not model.invariant:
        raise SkipTest("the model declares that it is not invariant")
    atoms = crystal()
    for sign in (1, -1):
        rotation = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix() * sign
        rotated = atoms.copy()
        rotated.set_cell(atoms.cell @ rotation.T)
        rotated.positions = atoms.positions @ rotation.T
        before, after = _properties(model, atoms), _properties(model, rotated)
        matrix = torch.from_numpy(rotation)
        assert_close(after.energy, before.energy, rtol=0, atol=1e-9)
        assert_close(after.forces, before.forces @ matrix.T, rtol=0, atol=1e-10)
        stress = matrix @ before.stress @ matrix.T
        assert_close(after.stress, stress, rtol=0, atol=1e-10, equal_nan=True)


def translation_and_permutation(model: Model) -> None:
    """Neither a translation, even out of the cell, nor the order of atoms changes the energy."""
    atoms, molecule = crystal(), ethanol()
    moved = atoms.copy()
    moved.translate([0.3, 7.0, -2.0])
    np.testing.assert_allclose(_energy(model, moved), _energy(model, atoms), rtol=0, atol=1e-9)
    order = np.random.default_rng(0).permutation(len(molecule))
    before, after = _properties(model, molecule), _properties(model, molecule[order])
    assert_close(after.energy, before.energy, rtol=0, atol=1e-9)
    assert_close(after.forces, before.forces[order], rtol=0, atol=1e-11)


def batch_equals_single(model: Model) -> None:
    """Structures of a batch do not see each other: molecules, a cell, and an atom alone."""
    structures = [ethanol(), crystal(), Atoms("Ar"), ethanol()[:4]]
    graphs = [from_atoms(atoms, model.cutoff, torch.float64) for atoms in structures]
    whole = _potential(model)(join(graphs))
    single = [_properties(model, atoms) for atoms in structures]
    for field in Properties._fields:
        parts = torch.cat([getattr(p, field) for p in single])
        assert_close(getattr(whole, field), parts, rtol=0, atol=1e-11, equal_nan=True)


def supercell(model: Model) -> None:
    """Eight copies of a cell have eight times its energy, the same forces and the same stress.

    The cell is smaller than twice the cutoff, so atoms interact with images of themselves.
    """
    atoms = crystal()
    one, eight = _properties(model, atoms), _properties(model, atoms.repeat(2))
    assert_close(eight.energy, 8 * one.energy, rtol=0, atol=1e-9)
    assert_close(eight.forces, one.forces.repeat(8, 1), rtol=0, atol=1e-10)
    assert_close(eight.stress, one.stress, rtol=0, atol=1e-11, equal_nan=True)


def smooth_at_the_cutoff(model: Model) -> None:
    """At the cutoff the energy vanishes at least quadratically, the force at least linearly.

    Multiply every message by a function that vanishes there, such as `nn.radial.envelope`.
    """

    def energy_and_force(distance: float) -> tuple[float, float]:
        atoms = Atoms("CH2", positions=[[0, 0, 0], [distance, 0, 0], [0, 1.1, 0]])
        out = _properties(model, atoms)
        return out.energy.item(), out.forces[1, 0].item()

    step = 1e-5
    (e_in, f_in), (e_out, f_out) = (energy_and_force(model.cutoff + s) for s in (-step, step))
    e_far, _ = energy_and_force(model.cutoff + 0.5)
    close = max(abs(energy_and_force(1.2)[1]), 1.0)
    np.testing.assert_allclose(e_in, e_out, rtol=0, atol=1e-8)
    np.testing.assert_allclose(f_in, f_out, rtol=0, atol=1e-3 * close)
    np.testing.assert_allclose([e_out, f_out], [e_far, 0.0], rtol=0, atol=1e-11)


def force_constants_are_continuous(model: Model) -> None:
    """Force constants have a limit at sites of high symmetry: the energy has no cone there.

    Without that, phonons and elastic constants are meaningless.
    """
    _require_conservative(model)
    if not model.smooth:
        raise SkipTest("the model declares that its energy is not smooth at symmetric sites")
    for name, site in symmetric_sites().items():
        constants = force_constants(model, *site)
        assert np.isfinite(constants).all(), f"{name}: {constants}"
        change = np.abs(constants - constants[:, :1]).max(0) / np.abs(constants).max()
        found = f"{name}: at {DISPLACEMENTS} Å they are {constants.tolist()} eV/Å²"
        np.testing.assert_array_less(change[1:3], LARGEST_CHANGE, found)


def isolated_atoms(model: Model) -> None:
    """An atom alone has a finite energy and no force at all; atoms out of range do not interact."""
    out = _properties(model, Atoms("O"))
    assert out.forces.shape == (1, 3)
    assert torch.isfinite(out.energy).all()
    assert (out.forces == 0).all()
    far = Atoms("H2", positions=[[0, 0, 0], [0, 0, 3 * model.cutoff]])
    expected = 2 * _energy(model, Atoms("H"))
    np.testing.assert_allclose(_energy(model, far), expected, rtol=0, atol=1e-10)


def gradients_of_forces_are_finite(model: Model) -> None:
    """Training can differentiate forces, even of isolated atoms and of symmetric molecules."""
    co2 = Atoms("CO2", positions=[[0, 0, 0], [0, 0, 1.2], [0, 0, -1.2]])
    graphs = [from_atoms(a, model.cutoff, torch.float64) for a in (ethanol(), Atoms("O"), co2)]
    out = predict(model, join(graphs), create_graph=True)
    loss = out.forces.square().sum() + out.energy.square().sum()
    found = torch.autograd.grad(
        loss, list(model.parameters()), allow_unused=True, materialize_grads=True
    )
    assert all(torch.isfinite(g).all() for g in found), "the gradient of the loss is not finite"
    assert any((g != 0).any() for g in found), "no parameter has a gradient"


def gradients_of_forces_are_right(model: Model) -> None:
    """The gradient of squared forces with respect to weights agrees with finite differences."""
    graph = from_atoms(ethanol(), model.cutoff, torch.float64)
    step = gradients(model, lambda raw, _: raw.forces.square().sum(), stress=False)
    weights, some = flatten(model), Batch(graph, Properties(*3 * (torch.zeros(0),)))
    direction = torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)).double()
    value, gradient = step(weights, some)
    found = _derivative(lambda x: step(weights + x * direction, some)[0].item(), 1e-5)
    scale = max(value.item(), gradient.abs().max().item())
    np.testing.assert_allclose(found, (gradient @ direction).item(), rtol=1e-5, atol=1e-5 * scale)


def float32_agrees_with_float64(model: Model) -> None:
    """Energies agree to 1e-4 eV and forces to 1e-4 eV/Å; total energies stay float64.

    A model that fails has lost digits, for example in a difference of large numbers.
    """
    exact = _properties(model, ethanol())
    rough = _potential(model).float()(from_atoms(ethanol(), model.cutoff, torch.float32))
    assert rough.energy.dtype == torch.float64
    assert_close(rough.energy, exact.energy, rtol=0, atol=1e-4)
    assert_close(rough.forces.double(), exact.forces, rtol=0, atol=1e-4)


def inputs_are_left_alone(model: Model) -> None:
    """A model does not change the graph that it is given, in place or by requires_grad.

    Data sets share tensors between batches, and the calculator between calls.
    """
    graph = from_atoms(ethanol(), model.cutoff, torch.float64)
    graph = with_triplets(graph) if model.uses_triplets else graph
    given = [tensor for tensor in graph if tensor is not None]
    copies = [tensor.clone() for tensor in given]
    _potential(model)(graph)
    assert not graph.edge_vec.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


def elements_matter(model: Model) -> None:
    """CO and CH at one distance have different forces."""
    carbon = [Atoms(f"C{x}", positions=[[0, 0, 0], [0.8, 0.7, 0.5]]) for x in "OH"]
    one, other = (_properties(model, atoms).forces for atoms in carbon)
    assert (one - other).abs().max() > 1e-4, "elements make no difference"


def perfect_crystal_has_no_forces(model: Model) -> None:
    """Forces vanish by symmetry in fcc argon."""
    if model.direct and not model.invariant:
        raise SkipTest("neither a gradient nor a symmetry makes the model's forces vanish")
    forces = _properties(model, bulk("Ar", "fcc", 5.3, cubic=True)).forces
    assert_close(forces, torch.zeros_like(forces), rtol=0, atol=1e-12)


def trace_equals_eager(model: Model) -> None:
    """A traced training step equals the eager one for batches of every size: it can be compiled."""
    molecules = read("ethanol").take(np.arange(40))
    data = dataset(molecules, model.cutoff, dtype=torch.float64, triplets=model.uses_triplets)
    loss = partial(weighted, weights=Weights(1, 1, 0), length=1.0, penalty=penalty("huber", 0.1))
    step = gradients(model.train(), loss, stress=False)
    weights = flatten(model)
    traced = trace(step, weights, example_batch(data, model))
    for n_graphs in (3, 8, 12):
        some = batch(data, torch.arange(n_graphs) + 10)
        for got, expected in zip(traced(weights, *tensors(some)), step(weights, some), strict=True):
            assert_close(got, expected, rtol=1e-10, atol=1e-12)


def saved_and_loaded(model: Model) -> None:
    """A saved and loaded potential gives the same bits."""
    if model.spec is None:
        raise SkipTest("the model was not made by gradpot.build, so it cannot be saved")
    graph = from_atoms(ethanol(), model.cutoff, torch.float64)
    potential = _potential(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        checkpoint.save(potential, path, {"author": "a test"})
        with warnings.catch_warnings():
            # that the energy is not smooth is another check's matter
            warnings.simplefilter("ignore")
            again = checkpoint.load(path)
        assert checkpoint.notes(path) == {"author": "a test"}
    one, other = potential(graph), again(graph)
    assert torch.equal(one.energy, other.energy)
    assert torch.equal(one.forces, other.forces)
    assert again.references == potential.references


CHECKS: tuple[Callable[[Model], None], ...] = (
    *(forward_returns_atom_energies, translation_and_permutation, rotation_and_reflection),
    *(batch_equals_single, isolated_atoms, elements_matter, smooth_at_the_cutoff),
    *(forces_are_minus_the_gradient, stress_is_the_strain_derivative),
    *(stress_does_not_depend_on_the_order_of_lattice_vectors, supercell),
    *(perfect_crystal_has_no_forces, force_constants_are_continuous, inputs_are_left_alone),
    *(gradients_of_forces_are_finite, gradients_of_forces_are_right, float32_agrees_with_float64),
    *(trace_equals_eager, saved_and_loaded),
)


def force_constants(model: Model, atoms: Atoms, i: int) -> Float[np.ndarray, "2 n_displacements"]:
    """−(F(x) − F(−x))/2x of atom `i` in eV/Å², along z and xy, for each of `DISPLACEMENTS`."""
    potential = _potential(model)
    directions = np.array([[0.0, 0.0, 1.0], [0.5**0.5, 0.5**0.5, 0.0]])
    found = np.zeros((2, len(DISPLACEMENTS)))
    for (row, column), _ in np.ndenumerate(found):
        pair = []
        for x in (DISPLACEMENTS[column], -DISPLACEMENTS[column]):
            moved = atoms.copy()
            moved.positions[i] += x * directions[row]
            pair.append(from_atoms(moved, model.cutoff, torch.float64))
        plus, minus = potential(join(pair), stress=False).forces.view(2, -1, 3)[:, i].numpy()
        along = (plus - minus) @ directions[row]
        found[row, column] = -along / (2 * DISPLACEMENTS[column])
    return found


def _potential(model: Model) -> Potential:
    """A potential with some references for the elements used here, which cancel in differences."""
    references = {1: -13.6, 6: -1030.0, 8: -2040.0, 11: -1.0, 13: -3.0, 17: -2.0, 18: 0.0}
    return Potential(model, references, scale=0.7).eval()


def _properties(model: Model, atoms: Atoms) -> Properties:
    return _potential(model)(from_atoms(atoms, model.cutoff, torch.float64))


def _energy(model: Model, atoms: Atoms) -> float:
    return _properties(model, atoms).energy.item()


def _derivative(function: Callable[[float], float], step: float = 1e-4) -> float:
    """Central difference of fourth order."""
    near = function(step) - function(-step)
    far = function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def _require_conservative(model: Model) -> None:
    if model.direct:
        raise SkipTest("the model declares that its forces are not the gradient of its energy")
