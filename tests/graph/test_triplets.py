"""Triplets: every pair of edges of a center, against a brute-force search."""

from itertools import combinations

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given
from hypothesis import strategies as st

from gradpot.graph.graph import find_triplets, from_atoms, join, with_triplets


def brute_force(center: list[int]) -> set[frozenset[int]]:
    edges = range(len(center))
    return {frozenset((a, b)) for a, b in combinations(edges, 2) if center[a] == center[b]}


@given(st.lists(st.integers(0, 6), max_size=25))
def test_every_pair_of_edges_of_a_center_once(center):
    found = find_triplets(torch.tensor(center, dtype=torch.long), 9)
    pairs = [frozenset(pair) for pair in found.T.tolist()]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == brute_force(center)


@pytest.mark.parametrize("atoms", [molecule("CH3CH2OH"), bulk("Si")], ids=["ethanol", "silicon"])
def test_number_of_triplets(atoms):
    graph = with_triplets(from_atoms(atoms, 4.0))
    degree = graph.edge_index[0].bincount()
    assert graph.triplets.shape == (2, (degree * (degree - 1) // 2).sum())


def test_images_of_one_atom_are_different_edges():
    graph = with_triplets(from_atoms(bulk("Po", "sc", a=3.0), 3.1))
    assert graph.edge_index.shape[1] == 6
    assert graph.triplets.shape[1] == 15
    a, b = graph.edge_vec[graph.triplets]
    right_and_straight = sorted(torch.cosine_similarity(a, b).round().tolist())
    assert right_and_straight == [-1.0] * 3 + [0.0] * 12


def test_structures_do_not_mix():
    graph = with_triplets(join([from_atoms(molecule(name), 5.0) for name in ("H2O", "NH3")]))
    owner = graph.batch[graph.edge_index[0]][graph.triplets]
    assert torch.equal(owner[0], owner[1])
    assert graph.triplets.shape[1] == 3 * 1 + 4 * 3


def test_an_isolated_atom_has_no_triplets():
    assert with_triplets(from_atoms(Atoms("Ar"), 5.0)).triplets.shape == (2, 0)


def test_existing_triplets_are_kept():
    graph = with_triplets(from_atoms(molecule("H2O"), 5.0))
    assert with_triplets(graph) is graph
