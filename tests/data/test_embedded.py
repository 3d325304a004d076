"""The data set that ships with the package agrees with its README."""

import numpy as np
import pytest

from gradpot.data.catalog import catalog
from gradpot.data.files import read

PATH, UNITS = catalog.locate("ethanol")


def test_size_and_precision():
    assert PATH.stat().st_size <= 1_000_000
    with np.load(PATH) as arrays:
        assert arrays["R"].shape == (1500, 9, 3)
        assert arrays["R"].dtype == np.float32
        assert arrays["E"].dtype == np.float64
        assert str(arrays["e_unit"]) == "eV"
        assert str(arrays["r_unit"]) == "Ang"


def test_it_is_read_without_units_from_the_user():
    assert read(PATH).n_atoms.tolist() == [9] * 1500
    assert read(PATH, **UNITS).energy[0] == read(PATH).energy[0]


def test_ranges_and_net_force():
    frames = read(PATH)
    assert -309.93 < frames.energy.min() < frames.energy.max() < -308.9
    assert np.sqrt((frames.forces**2).mean()) == pytest.approx(1.004, abs=0.001)
    assert np.abs(frames.forces.reshape(1500, 9, 3).sum(1)).max() < 1e-6


def correlation(series: np.ndarray) -> float:
    """Between each frame and the next."""
    centered = series - series.mean()
    return centered[1:] @ centered[:-1] / (centered @ centered)


def test_frames_are_not_correlated_within_a_walker():
    """Energy and the slowest angle, C-C-O-H; 500 independent frames give 0 ± 0.09 (2 sigma)."""
    frames = read(PATH)
    angles = np.radians([frames.atoms(i).get_dihedral(0, 1, 2, 3) for i in range(1500)])
    for series in (frames.energy, np.cos(angles), np.sin(angles)):
        for walker in series.reshape(3, 500):
            assert abs(correlation(walker)) < 0.12


def test_labels_belong_to_the_positions():
    pytest.importorskip("tblite")
    from gradpot.data.label import labeled, reference

    frames = read(PATH)
    for i in range(0, 1500, 200):
        atoms = frames.atoms(i)
        again = labeled(atoms, reference("gfn2-xtb"))
        assert again.get_potential_energy() == pytest.approx(frames.energy[i], abs=2e-6)
        np.testing.assert_allclose(again.get_forces(), atoms.get_forces(), atol=2e-5)
