"""Folders of DeePMD-kit, written by dpdata and damaged in many ways."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from gradpot.data.files import StressLabel, read, read_structures
from gradpot.errors import InputError

FILES = Path(__file__).parent / "files"
TENSION = StressLabel("stress", "eV/Ang^3", "matrix", "tension")


@pytest.fixture
def folder(tmp_path):
    """Folders dp_npy, dp_raw and dp_mixed with the frames of copper.extxyz."""
    with tarfile.open(FILES / "deepmd.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def by_position(frames):
    """Indices of the atoms of each frame from left to right."""
    return np.lexsort((frames.positions[:, 0], np.repeat(np.arange(3), frames.n_atoms)))


@pytest.mark.parametrize(
    # dpdata makes one system of each formula, or mixes them and sorts the atoms of each
    ("name", "order"),
    [("dp_npy", [2, 0, 1]), ("dp_raw", [2, 0, 1]), ("dp_mixed", [0, 1, 2])],
)
def test_dpdata_agrees(folder, name, order):
    frames = read(folder / name)
    reference = read(FILES / "copper.extxyz", stress=TENSION).take(np.array(order))
    for key in ("n_atoms", "cell", "pbc", "energy", "stress"):
        np.testing.assert_allclose(getattr(frames, key), getattr(reference, key), atol=2e-6)
    for key in ("numbers", "positions", "forces"):
        one, other = (getattr(f, key)[by_position(f)] for f in (frames, reference))
        np.testing.assert_allclose(one, other, atol=2e-6)
    assert "stress from virial (eV, matrix, compression)" in frames.notices


def test_one_system_or_one_without_a_cell(folder):
    system = folder / "dp_npy" / "Cu4Au0"
    assert read(system).pbc.all()
    (system / "nopbc").touch()
    frames = read(system)
    assert not frames.pbc.any()
    assert np.isnan(frames.stress).all()
    assert len(read_structures(system)) == 2


def test_padding_of_mixed_systems(folder):
    system = folder / "dp_mixed" / "4"
    types = np.load(system / "set.000" / "real_atom_types.npy")
    types[1, 2:] = -1
    np.save(system / "set.000" / "real_atom_types.npy", types)
    whole = np.load(system / "set.000" / "coord.npy").reshape(3, 4, 3)
    frames = read(system)
    assert frames.n_atoms.tolist() == [4, 2, 4]
    np.testing.assert_array_equal(frames.positions[4:6], whole[1, :2])


def test_sets_without_labels_and_other_names(folder):
    part = folder / "dp_npy" / "Cu4Au0" / "set.000"
    (part / "force.npy").rename(part / "my_force.npy")
    (part / "energy.npy").unlink()
    frames = read(folder / "dp_npy")
    assert np.isnan(frames.energy).tolist() == [False, True, True]
    assert np.isnan(frames.forces).any(1).sum() == 8
    named = read(part.parent, forces_key="my_force")
    assert not np.isnan(named.forces).any()
    assert "no energies: the folder has no energy" in named.notices


def save(name, array):
    return lambda system: np.save(system / "set.000" / name, array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: (s / "type_map.raw").unlink(), "has no type_map.raw; write it"),
        (lambda s: (s / "type_map.raw").write_text("Cu Qq"), "has 'Qq', which is no element"),
        (lambda s: (s / "type_map.raw").write_text(""), "has a type 0; type_map.raw names 0"),
        (lambda s: (s / "type.raw").write_text("0 0 0"), "expected numbers in shape"),
        (lambda s: (s / "type.raw").write_text("Cu Cu"), "cannot read"),
        (lambda s: (s / "type.raw").write_text(""), "expected numbers in shape"),
        (lambda s: (s / "type.raw").unlink(), "has sets but no type.raw, .* with dpdata"),
        (lambda s: (s / "set.000" / "coord.npy").unlink(), "a set has no coord.npy"),
        (lambda s: (s / "set.000" / "coord.npy").write_bytes(b"x" * 99), "cannot read"),
        (lambda s: (s / "set.000" / "force.npy").write_bytes(b""), "cannot read"),
        (lambda s: shutil.rmtree(s / "set.000"), "has neither set"),
        (save("coord.npy", np.zeros((2, 11))), r"coord has shape \[2, 11\]"),
        (save("energy.npy", np.zeros(3)), r"energy has shape \[3\]"),
        (save("energy.npy", np.array(["a", "b"])), "expected numbers"),
        (save("force.npy", np.full((2, 12), np.inf)), "has infinite forces"),
        (save("box.npy", np.zeros((2, 6))), r"box has shape \[2, 6\]"),
        (save("box.npy", np.ones((2, 9))), "a cell without volume"),
        (save("virial.npy", np.zeros((2, 6))), r"virial has shape \[2, 6\]"),
        (save("coord.npy", np.array([{}, {}])), "cannot read"),
    ],
)
def test_damaged_folders(folder, change, message):
    system = folder / "dp_npy" / "Cu4Au0"
    change(system)
    with pytest.raises(InputError, match=message) as caught:
        read(system)
    assert "\n" not in str(caught.value)


def test_an_array_that_is_cut_off(folder):
    file = folder / "dp_npy" / "Cu4Au0" / "set.000" / "coord.npy"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"cannot read .*as a folder of DeePMD-kit"):
        read(folder / "dp_npy")
