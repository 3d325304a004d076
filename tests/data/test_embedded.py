"""The data set that ships with the package is what its README says."""

import numpy as np
import pytest

from gradpot.data import catalog
from gradpot.data.files import read

PATH, UNITS = catalog.locate("ethanol")


def test_size_and_precision():
    assert PATH.stat().st_size <= 1_000_000
    with np.load(PATH) as arrays:
        assert arrays["R"].shape == (2000, 9, 3)
        assert arrays["R"].dtype == np.float32
        assert arrays["E"].dtype == np.float64
        assert str(arrays["e_unit"]) == "eV"
        assert str(arrays["r_unit"]) == "Ang"


def test_it_is_read_without_being_told_units():
    assert read(PATH).n_atoms.tolist() == [9] * 2000
    assert read(PATH, **UNITS).energy[0] == read(PATH).energy[0]


def test_ranges_and_net_force():
    frames = read(PATH)
    assert -309.93 < frames.energy.min() < frames.energy.max() < -308.9
    assert np.sqrt((frames.forces**2).mean()) == pytest.approx(0.997, abs=0.001)
    assert np.abs(frames.forces.reshape(2000, 9, 3).sum(1)).max() < 1e-6


def test_energies_are_not_correlated_within_a_walker():
    for energy in read(PATH).energy.reshape(2, 1000):
        centered = energy - energy.mean()
        assert abs(centered[1:] @ centered[:-1] / (centered @ centered)) < 0.1


def test_labels_belong_to_the_positions():
    pytest.importorskip("tblite")
    from gradpot.label import _compute, reference

    frames = read(PATH)
    for i in range(0, 2000, 200):
        atoms = frames.atoms(i)
        again = _compute(atoms, reference("gfn2-xtb"))
        assert again.get_potential_energy() == pytest.approx(frames.energy[i], abs=2e-6)
        np.testing.assert_allclose(again.get_forces(), atoms.get_forces(), atol=2e-5)
