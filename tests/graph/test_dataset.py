"""Data sets: a batch taken from the tensors equals graphs built one by one."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from gradpot.data.frames import Frames
from gradpot.data.references import reference_energies
from gradpot.graph.dataset import batch, dataset, random_rotations, rotated
from gradpot.graph.graph import from_atoms, join


def as_frames(structures) -> Frames:
    random = np.random.default_rng(0)
    n_atoms = np.array([len(a) for a in structures])
    return Frames(
        n_atoms=n_atoms,
        numbers=np.concatenate([a.numbers for a in structures]),
        positions=np.concatenate([a.positions for a in structures]),
        cell=np.stack([np.array(a.cell) for a in structures]),
        pbc=np.stack([a.pbc for a in structures]),
        energy=random.normal(size=len(structures)),
        forces=random.normal(size=(n_atoms.sum(), 3)),
        stress=random.normal(size=(len(structures), 3, 3)),
        charge=np.full(len(structures), np.nan),
        spin=np.full(len(structures), np.nan),
        isolated=np.zeros(len(structures), dtype=bool),
    )


@pytest.fixture
def structures(crystal):
    slab = bulk("Si", cubic=True)
    slab.pbc = [True, True, False]
    alone = molecule("CH4")[:1]
    return [
        molecule("H2O"),
        crystal,
        molecule("CH4"),
        alone,
        slab,
        molecule("NH3"),
        crystal.repeat(2),
    ]


def canonical(graph):
    """Edges as a sorted list, because their order does not matter."""
    rows = torch.cat([graph.edge_index.T.double(), graph.edge_vec.double()], dim=1)
    return sorted(tuple(round(x, 6) for x in row) for row in rows.tolist())


def test_batch_equals_joined_graphs(structures):
    frames = as_frames(structures)
    data = dataset(frames, 4.0, dtype=torch.float64)
    index = torch.tensor([6, 0, 3, 1, 4, 2, 5])
    minibatch = batch(data, index)
    expected = join([from_atoms(structures[i], 4.0, torch.float64) for i in index])
    for name in ("numbers", "batch", "cell"):
        torch.testing.assert_close(getattr(minibatch.graph, name), getattr(expected, name))
    assert canonical(minibatch.graph) == canonical(expected)
    parts = [frames.forces[slice(*frames.first[i : i + 2])] for i in index]
    np.testing.assert_array_equal(minibatch.labels.forces, np.concatenate(parts))
    np.testing.assert_array_equal(minibatch.labels.energy, frames.energy[index])
    np.testing.assert_array_equal(minibatch.labels.stress, frames.stress[index])


def test_rotated_batch_equals_the_batch_of_rotated_structures(structures):
    frames = as_frames(structures)
    frames = frames._replace(stress=frames.stress + frames.stress.transpose(0, 2, 1))
    index = torch.tensor([6, 0, 3, 1])
    rotations = random_rotations(4, [0, 1, 2])
    got = rotated(batch(dataset(frames, 4.0, dtype=torch.float64), index), rotations)
    for i, (rotation, atoms) in enumerate(zip(rotations.numpy(), (structures[j] for j in index))):
        one = atoms.copy()
        one.set_cell(atoms.cell @ rotation.T)
        one.positions = atoms.positions @ rotation.T
        expected = from_atoms(one, 4.0, torch.float64)
        mine = got.graph.batch == i
        vectors = got.graph.edge_vec[mine[got.graph.edge_index[0]]]
        rows = [
            sorted(map(tuple, v.round(decimals=6).tolist())) for v in (vectors, expected.edge_vec)
        ]
        assert rows[0] == rows[1]
        torch.testing.assert_close(got.graph.cell[i], expected.cell[0])
        forces = frames.forces[slice(*frames.first[index[i] : index[i] + 2])]
        np.testing.assert_allclose(got.labels.forces[mine], forces @ rotation.T)
        stress = rotation @ frames.stress[index[i]] @ rotation.T
        np.testing.assert_allclose(got.labels.stress[i], stress)
    half = got.graph.pair_vec.shape[0]
    assert torch.equal(got.graph.edge_vec[half:], -got.graph.edge_vec[:half])


def test_random_rotations_are_rotations_and_depend_only_on_the_seed():
    rotations = random_rotations(2000, [3, 1, 0])
    one = torch.eye(3, dtype=torch.float64).expand(2000, 3, 3)
    torch.testing.assert_close(rotations @ rotations.transpose(1, 2), one)
    assert (torch.linalg.det(rotations) > 0).all()
    # all directions are equally likely
    assert rotations.mean(0).abs().max() < 0.06
    assert torch.equal(rotations, random_rotations(2000, [3, 1, 0]))
    assert not torch.equal(rotations, random_rotations(2000, [3, 1, 1]))


def test_batch_of_isolated_atoms():
    frames = as_frames([molecule("CH4")[:1]] * 3)
    minibatch = batch(dataset(frames, 4.0), torch.tensor([2, 0]))
    assert minibatch.graph.edge_vec.shape == (0, 3)
    assert minibatch.graph.batch.tolist() == [0, 1]


def test_references_are_subtracted_in_double_precision(structures):
    frames = as_frames(structures)
    references = dict.fromkeys(np.unique(frames.numbers).tolist(), -1234.5)
    total = frames._replace(energy=frames.energy - 1234.5 * frames.n_atoms)
    data = dataset(total, 4.0, references)
    np.testing.assert_allclose(data.energy, frames.energy, rtol=0, atol=1e-9)
    assert data.energy.dtype == torch.float64


def test_reference_energies(structures):
    frames = as_frames(structures)
    expected = [a.numbers.sum() * 2.0 for a in structures]
    table = {int(z): 2.0 * z for z in np.unique(frames.numbers)}
    np.testing.assert_allclose(reference_energies(frames, table), expected)


def test_take_and_atoms(structures):
    frames = as_frames(structures)
    taken = frames.take(np.array([4, 1]))
    assert taken.n_atoms.tolist() == [8, 2]
    atoms = taken.atoms(1)
    assert atoms == structures[1]
    np.testing.assert_allclose(atoms.get_forces(), frames.forces[slice(*frames.first[1:3])])
    assert atoms.get_potential_energy() == frames.energy[1]
