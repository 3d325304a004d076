"""Atom references and the scales of the rescaling modes."""

import numpy as np
import pytest

from gradpot.data.frames import Frames
from gradpot.data.references import MODES, given, isolated, least_squares, rescaling
from gradpot.errors import InputError


def frames(compositions: list[list[int]], energies, seed: int = 0) -> Frames:
    random = np.random.default_rng(seed)
    n_atoms = np.array([len(c) for c in compositions])
    total = n_atoms.sum()
    return Frames(
        n_atoms=n_atoms,
        numbers=np.concatenate(compositions),
        positions=random.normal(size=(total, 3)),
        cell=np.zeros((len(n_atoms), 3, 3)),
        pbc=np.zeros((len(n_atoms), 3), dtype=bool),
        energy=np.array(energies, dtype=float),
        forces=random.normal(size=(total, 3)) * 1.5,
        stress=np.full((len(n_atoms), 3, 3), np.nan),
        charge=np.full(len(n_atoms), np.nan),
        spin=np.full(len(n_atoms), np.nan),
        isolated=np.zeros(len(n_atoms), dtype=bool),
    )


MIXED = [[1, 1], [1, 6, 1], [6, 6, 8], [8], [1, 8, 1]]
TRUE = {1: -13.5, 6: -1029.25, 8: -2041.125}


def exact_energies() -> np.ndarray:
    return np.array([sum(TRUE[z] for z in c) for c in MIXED])


def test_least_squares_finds_atom_energies():
    found = least_squares(frames(MIXED, exact_energies()))
    assert found == pytest.approx(TRUE, abs=1e-9)


def test_least_squares_keeps_the_digits_of_total_energies():
    """One composition, energies of −2e5 eV: what is left is exact to 1e-9 eV."""
    rest = np.array([0.1, -0.2, 0.05, 0.05])
    data = frames([[6, 1, 1]] * 4, -2e5 + rest)
    found = least_squares(data)
    total = found[6] + 2 * found[1]
    np.testing.assert_allclose(data.energy - total, rest - rest.mean(), atol=1e-9)


def test_least_squares_ignores_missing_energies():
    energies = exact_energies()
    energies[0] = np.nan
    assert least_squares(frames(MIXED, energies)) == pytest.approx(TRUE, abs=1e-9)
    assert least_squares(frames(MIXED, [np.nan] * 5)) == {1: 0.0, 6: 0.0, 8: 0.0}


def test_isolated_atoms():
    data = frames([[1, 1], [1], [6], [6, 1]], [-30, -13.5, -1029, -1050])
    assert isolated(data, np.array([1, 6])) == {1: -13.5, 6: -1029.0}
    with pytest.raises(InputError, match="no reference energy for O"):
        isolated(data, np.array([1, 8]))


def test_given_references():
    assert given({"H": -13.5, "O": -2041}, np.array([1, 8])) == {1: -13.5, 8: -2041.0}
    with pytest.raises(InputError, match="'Xq', which is not an element"):
        given({"Xq": 1.0}, np.array([1]))
    with pytest.raises(InputError, match="no reference energy for C"):
        given({"H": 1.0}, np.array([1, 6]))


def test_modes():
    data = frames([[6, 1, 1]] * 50, np.random.default_rng(1).normal(-100, 0.3, 50))
    references = least_squares(data)
    modes = {mode: rescaling(data, mode, references, constant=250.0) for mode in MODES}
    assert (modes["none"].scale, modes["none"].length) == (1.0, 1.0)
    assert (modes["offset"].scale, modes["offset"].length) == (1.0, 1.0)
    assert modes["constant"].scale == 250.0
    rms = np.sqrt((data.forces**2).mean())
    assert modes["forces"].scale == pytest.approx(rms)
    natural = modes["natural"]
    assert natural.scale == pytest.approx(data.energy.std())
    # forces in these units have unit variance as well
    assert natural.scale / natural.length == pytest.approx(rms)


def test_wrong_modes():
    data = frames(MIXED, exact_energies())
    with pytest.raises(InputError, match=r"unknown rescale\.mode 'c'"):
        rescaling(data, "c", TRUE)
    with pytest.raises(InputError, match=r"needs rescale\.constant"):
        rescaling(data, "constant", TRUE)
    unlabeled = data._replace(forces=np.full_like(data.forces, np.nan))
    with pytest.raises(InputError, match="needs forces"):
        rescaling(unlabeled, "forces", TRUE)


def test_printed():
    text = str(rescaling(frames(MIXED, exact_energies()), "offset", TRUE))
    assert "offset" in text
    assert "H -13.5000" in text


def test_a_periodic_cell_of_one_atom_is_no_isolated_atom():
    data = frames([[29], [29]], [-96.49, -99.93])
    data.pbc[:] = True
    data.cell[:] = np.eye(3) * np.array([13.0, 2.5])[:, None, None]
    assert isolated(data, np.array([29])) == {29: -96.49}
    data.pbc[:] = False
    with pytest.raises(InputError, match=r"number 29 have the energies -96.49 and -99.93 eV"):
        isolated(data, np.array([29]))
