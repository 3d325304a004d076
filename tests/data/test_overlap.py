"""Atoms on top of each other are found in every frame, through periodic boundaries too."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from gradpot.data import overlap
from gradpot.data.frames import Frames, join
from gradpot.data.overlap import TOO_CLOSE, overlaps


def frames_of(*structures: Atoms) -> Frames:
    n, numbers = len(structures), np.concatenate([a.numbers for a in structures])
    return Frames(
        n_atoms=np.array([len(a) for a in structures]),
        numbers=numbers,
        positions=np.concatenate([a.positions for a in structures]),
        cell=np.array([a.cell.array * a.pbc[:, None] for a in structures]),
        pbc=np.array([a.pbc for a in structures]),
        energy=np.zeros(n),
        forces=np.zeros((numbers.shape[0], 3)),
        stress=np.full((n, 3, 3), np.nan),
        charge=np.full(n, np.nan),
        spin=np.full(n, np.nan),
        isolated=np.zeros(n, dtype=bool),
    )


SKEWED = [[4, 0, 0], [3.9, 1, 0], [1, 2, 5]]


@pytest.mark.parametrize(
    ("atoms", "found"),
    [
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]), []),
        (Atoms("H3", [[0, 0, 0], [0, 0, 0.7], [0, 0, 0]]), [[1, 0, 2]]),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.09]]), [[1, 0, 1]]),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.11]]), []),
        (Atoms("H2", [[0, 0, 0.04], [0, 0, 4.96]], cell=[5] * 3, pbc=True), [[1, 0, 1]]),
        (Atoms("H2", [[0, 0, 0.04], [0, 0, 4.96]], cell=[5] * 3), []),
        (Atoms("H2", [[0, 0, 0], [4, 0, 0]], cell=SKEWED, pbc=[1, 0, 0]), [[1, 0, 1]]),
        (Atoms("H2", [[0, 0, 0], [4, 0, 0]], cell=SKEWED, pbc=[0, 1, 1]), []),
        (Atoms("H2", [[-7.95, 2, 5], [0.98, 4, 10]], cell=SKEWED, pbc=True), [[1, 0, 1]]),
        (bulk("Cu"), []),
    ],
)
def test_frame_and_atoms_are_named(atoms, found):
    sound = Atoms("CO", [[0, 0, 0], [0, 0, 1.1]])
    assert overlaps(frames_of(sound, atoms, sound)).tolist() == found


def test_the_same_pairs_as_ase_in_random_cells():
    random = np.random.default_rng(0)
    for _ in range(30):
        cell = random.normal(size=(3, 3)) * 0.8 + 3 * np.eye(3)
        pbc = random.random(3) < 0.7
        atoms = Atoms("H6", random.normal(size=(6, 3)) * 2, cell=cell, pbc=pbc)
        atoms.positions[1] = atoms.positions[0] + random.uniform(-0.05, 0.05, size=3)
        atoms.positions[3] = atoms.positions[2] + (pbc * random.integers(-2, 3, 3)) @ cell
        one, other = neighbor_list("ij", atoms, TOO_CLOSE)
        known = {(0, i, j) for i, j in zip(one.tolist(), other.tolist()) if i < j}
        found = {tuple(row) for row in overlaps(frames_of(atoms)).tolist()}
        assert (0, 0, 1) in found
        assert found <= known
        assert {atom for _, *pair in found for atom in pair} == {a for _, *p in known for a in p}


def test_large_sets_are_searched_in_blocks(monkeypatch):
    monkeypatch.setattr(overlap, "AT_ONCE", 7)
    sound, broken = Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]), Atoms("H3", np.zeros((3, 3)))
    frames = join([frames_of(sound, sound, broken)] * 5)
    assert {row[0] for row in overlaps(frames).tolist()} == {2, 5, 8, 11, 14}
