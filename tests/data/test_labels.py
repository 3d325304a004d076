"""Which numbers of a file are its labels: families of names, keys, convergence, marks."""

from pathlib import Path

import numpy as np
import pytest

from gradpot.data.declared import Declared
from gradpot.data.files import read
from gradpot.data.raw import Raw, to_frames
from gradpot.errors import InputError

FILE = Path("OUTCAR")


def raw(**changes) -> Raw:
    """Three frames of two hydrogen atoms, of which the second did not converge."""
    arrays = {
        "n_atoms": np.array([2, 2, 2]),
        "numbers": np.ones(6, dtype=int),
        "positions": np.arange(18.0).reshape(6, 3),
        "cell": np.array([np.eye(3)] * 3) * 9,
        "pbc": np.ones((3, 3), dtype=bool),
        "energy": np.array([-1.0, -2.0, -3.0]),
        "forces": np.ones((6, 3)),
        "keys": ["energy", "forces"],
        "field": lambda key: np.zeros((3, 6)),
        "units": Declared("eV", "Ang"),
        "converged": np.array([True, False, True]),
    }
    return Raw(**{**arrays, **changes})


def test_labels_of_frames_that_did_not_converge_are_not_read():
    frames = to_frames(FILE, raw(), Declared())
    np.testing.assert_array_equal(frames.energy, [-1, np.nan, -3])
    assert np.isnan(frames.forces[2:4]).all()
    assert frames.labeled.tolist() == [True, False, True]
    said = "not converged: frame 1; their labels are not read; --unconverged reads them"
    assert said in frames.notices


def test_frames_that_did_not_converge_are_read_when_asked_for():
    frames = to_frames(FILE, raw(), Declared(), unconverged=True)
    assert frames.energy.tolist() == [-1, -2, -3]
    assert any(notice.startswith("not converged: frame 1") for notice in frames.notices)


@pytest.mark.parametrize("converged", [None, np.ones(3, dtype=bool)])
def test_nothing_is_said_of_frames_that_converged_or_are_not_known(converged):
    frames = to_frames(FILE, raw(converged=converged), Declared())
    assert frames.labeled.all()
    assert not any("converged" in notice for notice in frames.notices)


@pytest.mark.parametrize("form", ["npz", "xyz"])
def test_labels_of_any_name_are_read_by_it(tmp_path, form):
    path = tmp_path / f"a.{form}"
    if form == "npz":
        z, where = np.array([1, 1]), np.array([[[0.0, 0, 0], [0, 0, 0.8]]])
        labels = {"U": [-3.0], "pull": np.full((1, 2, 3), 0.5), "E": [-7.0]}
        np.savez(path, R=where, z=z, **labels, e_unit="eV", r_unit="Ang")
    else:
        columns = "Properties=species:S:1:pos:R:3:pull:R:3"
        path.write_text(f"1\n{columns} U=-3 energy=-7\nH 0 0 0 0.5 0.5 0.5\n")
    frames = read(path, energy_key="U", forces_key="pull")
    assert frames.energy.tolist() == [-3]
    assert (frames.forces == 0.5).all()
    with pytest.raises(InputError, match=r"has no field 'V' \(--energy-key\); it has .*U.*pull"):
        read(path, energy_key="V")
