"""Neighbor lists, edge vectors, minimum images and volumes, compared with ASE."""

import time

import numpy as np
import pytest
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import find_mic
from ase.neighborlist import neighbor_list as ase_neighbor_list
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from gradpot import InputError
from gradpot.geometry import (
    ALL_PAIRS_BELOW,
    MAX_Z,
    N_ELEMENTS,
    edge_vectors,
    full_cell,
    minimum_image,
    neighbor_list,
    volume,
)


def pairs(atoms: Atoms, cutoff: float) -> np.ndarray:
    """Sorted rows of i, j, shift."""
    edge_index, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    return sorted_rows(np.column_stack([edge_index.T, shifts]))


def pairs_of_ase(atoms: Atoms, cutoff: float) -> np.ndarray:
    i, j, shifts = ase_neighbor_list("ijS", atoms, cutoff)
    return sorted_rows(np.column_stack([i, j, shifts]))


def sorted_rows(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.T[::-1])]


@st.composite
def structures(draw) -> tuple[Atoms, float]:
    """Triclinic cells, any axes periodic, atoms inside, outside and far apart; and a cutoff."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_atoms = draw(st.integers(1, 12))
    pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    cell = draw(st.floats(2.0, 6.0)) * (np.eye(3) + rng.uniform(-0.4, 0.4, (3, 3)))
    if draw(st.booleans()):
        cell[0] *= -1  # left-handed
    cell *= np.array(draw(st.tuples(*[st.sampled_from([1.0, 1.0, 12.0])] * 3)))[:, None]
    spread = draw(st.sampled_from([1.0, 3.0, 20.0]))
    scaled = rng.uniform(-spread + 1.0, spread, (n_atoms, 3))
    atoms = Atoms("H" * n_atoms, scaled @ cell, cell=cell, pbc=pbc)
    return atoms, draw(st.floats(0.5, 9.0))


@settings(max_examples=150, deadline=None)
@given(structures())
def test_pairs_equal_ase(case):
    atoms, cutoff = case
    distances = ase_neighbor_list("d", atoms, cutoff + 1e-6)
    # a pair exactly at the cutoff may or may not be listed
    assume(not (np.abs(distances - cutoff) < 1e-6).any())
    expected = pairs_of_ase(atoms, cutoff)
    np.testing.assert_array_equal(pairs(atoms, cutoff), expected)


CUBE = np.random.default_rng(0).uniform(0, 12, (100, 3))


def with_one(*position: float) -> np.ndarray:
    """A hundred atoms, the first of them far from the others."""
    return np.vstack([[position], CUBE[1:]])


@pytest.mark.parametrize(
    ("positions", "cell", "pbc"),
    [
        (with_one(1e6, 0, 0), [0, 0, 0], [0, 0, 0]),
        (with_one(-1e6, 1e6, 0), [0, 0, 0], [0, 0, 0]),
        (with_one(0, 0, 1e5), [12, 12, 0], [1, 1, 0]),
        (with_one(5, 0, 9e5), [12, 0, 0], [1, 0, 0]),
        (CUBE, [1e6, 1e6, 1e6], [1, 1, 1]),
        (CUBE, [12, 12, 1e6], [1, 1, 1]),
        (CUBE, [12, 1e6, 12], [1, 0, 1]),
        (1e3 * CUBE, [1.2e4, 1.2e4, 1.2e4], [1, 1, 1]),
        (1e3 * CUBE, [0, 0, 0], [0, 0, 0]),
        (CUBE[:1], [1e4, 1e4, 1e4], [1, 1, 1]),
        (CUBE[:2] + 1e5, [2, 2, 2], [1, 1, 1]),
        (1e4 * CUBE[:2], [2, 2, 2], [1, 1, 1]),
    ],
)
def test_empty_space_costs_nothing(positions, cell, pbc):
    """The pairs are those of the same atoms moved together by empty space; in well under 1 s."""
    box, pbc = np.diag(cell).astype(float), np.array(pbc, dtype=bool)
    began = time.process_time()
    edge_index, shifts = neighbor_list(positions, box, pbc, 3.0)
    assert time.process_time() - began < 0.5
    vectors = edge_vectors(positions, box, edge_index, shifts)
    # all images within one cell of the wrapped atoms, pair by pair
    full = np.where(pbc, cell, 1.0)
    wrapped = positions - np.floor(positions / full) * pbc * full
    steps = [np.arange(-2, 3) if p and c < 20 else np.array([-1, 0, 1] if p else [0])
             for p, c in zip(pbc, cell)]  # fmt: skip
    images = np.stack(np.meshgrid(*steps), axis=-1).reshape(-1, 3) * full
    apart = wrapped[None, :, None] + images - wrapped[:, None, None]
    lengths = np.linalg.norm(apart, axis=-1)
    near = (lengths < 3.0) & (lengths > 0)
    assert_allclose(np.sort(np.linalg.norm(vectors, axis=1)), np.sort(lengths[near]), atol=1e-9)
    assert shifts.shape[0] == near.sum()


def test_a_wide_sheet_has_pairs():
    """Atoms on the diagonal of a wide sheet: vesin alone would divide by zero and end us."""
    n = 1000
    place = 2.0 * np.arange(n)[:, None] * [1.0, 1.0, 0.0]
    cell, pbc = 2.0 * n * np.diag([1.0, 1.0, 0.0]), np.array([True, True, False])
    edge_index, shifts = neighbor_list(place, cell, pbc, 2.9)
    assert (np.bincount(edge_index[0]) == 2).all()
    lengths = np.linalg.norm(edge_vectors(place, cell, edge_index, shifts), axis=1)
    assert_allclose(lengths, 2 * np.sqrt(2))


@pytest.mark.parametrize(
    ("positions", "cell", "pbc", "cutoff", "message"),
    [
        (with_one(1e7, 0, 0), [0, 0, 0], [0, 0, 0], 5.5, r"atom 0 is \[10000000.0, 0.0, 0.0\]"),
        (CUBE[:2] * [[1], [1e300]], [0, 0, 0], [0, 0, 0], 5.5, r"position of atom 1 is"),
        (with_one(0, 0, 1e8), [12, 12, 0], [1, 1, 0], 5.5, "at most 1,000,000 Å"),
        (with_one(np.nan, 0, 0), [12, 12, 12], [1, 1, 1], 5.5, "atom 0 .* must be finite"),
        (with_one(np.inf, 0, 0), [0, 0, 0], [0, 0, 0], 5.5, "atom 0 .* must be finite"),
        (CUBE, [12, 1e300, 12], [1, 1, 1], 5.5, r"lattice vector 1 is \[0.0, 1e\+300, 0.0\]"),
        (CUBE, [12, 12, np.nan], [1, 1, 1], 5.5, "lattice vector 2 is .* must be finite"),
        (CUBE[:1], [5e-324, 5e-324, 5e-324], [1, 1, 1], 5.5, "flat along an axis"),
        (CUBE[:1], [0.05, 0.05, 0.05], [1, 1, 1], 5.5, "about 1e.07 images near the cutoff of 5.5"),
        (CUBE[:1], [2.7, 2.7, 2.7], [1, 1, 1], 1000.0, "near the cutoff of 1000 Å"),
        (CUBE[:1], [[3, 0, 0], [9e5, 3, 0], [0, 0, 3]], [1, 1, 1], 5.5, "so small or so skewed"),
        (CUBE, [[3, 0, 0], [6, 0, 0], [0, 0, 3]], [1, 1, 1], 5.5, "flat along an axis"),
        (CUBE, [[3, 0, 0], [6, 0, 0], [0, 0, 0]], [1, 1, 0], 5.5, "flat along an axis"),
        (CUBE, [0, 6, 0], [1, 0, 0], 5.5, "flat along an axis"),
        (CUBE, [0, 0, 0], [1, 1, 1], 5.5, "flat along an axis"),
    ],
)
def test_impossible_lengths_are_named(positions, cell, pbc, cutoff, message):
    cell = np.array(cell, dtype=float)
    cell = np.diag(cell) if cell.ndim == 1 else cell
    with pytest.raises(InputError, match=message):
        neighbor_list(positions, cell, np.array(pbc, dtype=bool), cutoff)


@settings(max_examples=30, deadline=None)
@given(structures())
def test_every_pair_has_its_reverse(case):
    atoms, cutoff = case
    forward = pairs(atoms, cutoff)
    backward = sorted_rows(np.column_stack([forward[:, [1, 0]], -forward[:, 2:]]))
    np.testing.assert_array_equal(forward, backward)


@pytest.mark.parametrize("axes_without_cell", [[], [2], [1, 2]])
def test_axes_that_are_not_periodic_may_lack_a_cell_vector(axes_without_cell):
    cell = np.array([[3.0, 0.2, 0.1], [0.3, 3.2, 0.0], [0.0, 0.4, 3.5]])
    cell[axes_without_cell] = 0.0
    atoms = Atoms("H4", np.random.default_rng(0).uniform(-4, 4, (4, 3)), cell=cell)
    atoms.pbc = [axis not in axes_without_cell for axis in range(3)]
    np.testing.assert_array_equal(pairs(atoms, 4.1), pairs_of_ase(atoms, 4.1))


@pytest.mark.parametrize("n_atoms", [ALL_PAIRS_BELOW - 1, ALL_PAIRS_BELOW])
def test_both_algorithms_for_molecules_agree_with_ase(n_atoms):
    positions = np.random.default_rng(n_atoms).uniform(0, 9, (n_atoms, 3))
    atoms = Atoms("H" * n_atoms, positions)
    np.testing.assert_array_equal(pairs(atoms, 3.3), pairs_of_ase(atoms, 3.3))


def test_cutoff_larger_than_the_cell_sees_the_same_atom_many_times():
    atoms = Atoms("H", cell=np.eye(3), pbc=True)
    edge_index, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 1.5)
    assert (edge_index == 0).all()
    # 6 images at distance 1 and 12 at √2; the atom itself is not listed
    assert shifts.shape == (18, 3)
    assert np.abs(shifts).sum(1).min() == 1


@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.parametrize("n_atoms", [0, 1, 2])
def test_no_neighbors_in_range(n_atoms, pbc):
    positions = np.arange(3.0 * n_atoms).reshape(-1, 3) * 5
    periodic = np.array([pbc] * 3)
    edge_index, shifts = neighbor_list(positions, 50.0 * np.eye(3), periodic, 5.0)
    assert edge_index.shape == (2, 0)
    assert shifts.shape == (0, 3)
    assert edge_index.dtype == shifts.dtype == np.int64


def test_the_second_half_is_the_first_reversed_and_inputs_are_unchanged():
    rng = np.random.default_rng(3)
    positions, cell, pbc = rng.uniform(-5, 9, (20, 3)), 4.0 * np.eye(3), np.ones(3, dtype=bool)
    before = positions.copy(), cell.copy(), pbc.copy()
    edge_index, shifts = neighbor_list(positions, cell, pbc, 3.0)
    n_pairs = shifts.shape[0] // 2
    assert (np.diff(edge_index[0, :n_pairs]) >= 0).all()
    assert np.array_equal(edge_index[:, n_pairs:], edge_index[::-1, :n_pairs])
    assert np.array_equal(shifts[n_pairs:], -shifts[:n_pairs])
    vectors = positions[edge_index[1]] + shifts @ cell - positions[edge_index[0]]
    assert np.linalg.norm(vectors, axis=1).max() < 3.0
    for now, then in zip((positions, cell, pbc), before, strict=True):
        assert_allclose(now, then, rtol=0, atol=0)


@settings(max_examples=30, deadline=None)
@given(structures())
def test_edge_vectors_equal_ase(case):
    atoms, cutoff = case
    edge_index, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    vectors = edge_vectors(atoms.positions, atoms.cell.array, edge_index, shifts)
    rows = sorted_rows(np.column_stack([edge_index.T, shifts, vectors]))
    i, j, images, expected = ase_neighbor_list("ijSD", atoms, cutoff)
    assume(rows.shape[0] == i.shape[0])
    assert_allclose(rows[:, 5:], sorted_rows(np.column_stack([i, j, images, expected]))[:, 5:])


def test_edge_vectors_use_the_cell_of_their_own_frame():
    rng = np.random.default_rng(0)
    positions, cells = rng.uniform(0, 4, (7, 3)), 4 * np.eye(3) + rng.uniform(0, 1, (2, 3, 3))
    pbc, first = np.ones(3, dtype=bool), [0, 3, 7]
    parts = [slice(*first[k : k + 2]) for k in range(2)]
    lists = [neighbor_list(positions[p], cell, pbc, 3.0) for p, cell in zip(parts, cells)]
    together = edge_vectors(
        positions,
        cells,
        np.concatenate([pairs + start for (pairs, _), start in zip(lists, first)], axis=1),
        np.concatenate([shifts for _, shifts in lists]),
        np.repeat([0, 1], [shifts.shape[0] for _, shifts in lists]),
    )
    alone = [edge_vectors(positions[p], c, *found) for p, c, found in zip(parts, cells, lists)]
    assert_allclose(together, np.concatenate(alone), atol=1e-12)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
def test_minimum_image_equals_ase(pbc):
    rng = np.random.default_rng(1)
    periodic = np.array(pbc)
    cell = (8 * np.eye(3) + rng.uniform(-1, 1, (3, 3))) * periodic[:, None]
    short = rng.uniform(-1.8, 1.8, (4, 5, 3))
    vectors = short + rng.integers(-3, 4, (4, 5, 3)) @ cell
    found = minimum_image(vectors, cell, periodic)
    assert_allclose(found, short, atol=1e-12)
    expected, _ = find_mic(vectors.reshape(-1, 3), full_cell(cell, periodic), periodic)
    assert_allclose(found.reshape(-1, 3), expected, atol=1e-12)


def test_volumes_of_left_handed_and_incomplete_cells():
    cells = np.stack([np.diag([2.0, 3, 4]), np.diag([-2.0, 3, 4]), np.diag([2.0, 3, 0])])
    assert_allclose(volume(cells), [24, 24, 0])
    assert_allclose(volume(cells[0]), 24)


def test_n_elements_covers_the_periodic_table():
    assert len(chemical_symbols) == N_ELEMENTS == MAX_Z + 1
    assert chemical_symbols[MAX_Z] == "Og"
