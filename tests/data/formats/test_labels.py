"""Which numbers of a file are its labels: families of names, keys, convergence, marks."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

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


def frame(head: str, columns: str = "", line: str = "H 0 0 0") -> str:
    """One frame of one atom in extended XYZ."""
    return f"1\nProperties=species:S:1:pos:R:3{columns} {head}\n{line}\n"


def xyz(tmp_path: Path, *frames: str) -> Path:
    path = tmp_path / "a.xyz"
    path.write_text("".join(frames))
    return path


PLAIN = frame("energy=-1", ":forces:R:3", "H 0 0 0 1 1 1")
DFT = frame("dft_energy=-5", ":dft_forces:R:3", "H 0 0 0 5 5 5")
BOTH = frame("energy=-1 dft_energy=-5", ":forces:R:3:dft_forces:R:3", "H 0 0 0 1 1 1 5 5 5")
MODEL = frame("energy=-1 dft_energy=-5", ":dft_forces:R:3", "H 0 0 0 5 5 5")
BARE = frame("energy=-1")


@pytest.mark.parametrize(
    ("frames", "energy", "forces"),
    [
        ([PLAIN, PLAIN], [-1, -1], [1, 1]),
        ([PLAIN, DFT], [-1, -5], [1, 5]),
        ([MODEL, PLAIN], [-5, -1], [5, 1]),  # never the model's energy with the DFT forces
        ([BOTH, PLAIN], [-1, -1], [1, 1]),
        ([BOTH, DFT, DFT], [-5, -5, -5], [5, 5, 5]),  # one family labels all
        ([BOTH, MODEL], [-5, -5], [5, 5]),
        ([DFT, BARE], [-5, -1], [5, np.nan]),
    ],
)
def test_families_are_chosen_frame_by_frame(tmp_path, frames, energy, forces):
    found = read(xyz(tmp_path, *frames))
    np.testing.assert_array_equal(found.energy, energy)
    np.testing.assert_array_equal(found.forces[:, 0], forces)
    warned = any(
        notice.startswith("warning: labels have several names") for notice in found.notices
    )
    assert warned == (len({e for e in energy}) > 1)


@pytest.mark.parametrize(
    ("keys", "energy", "forces", "warned"),
    [
        ({"energy_key": "dft_energy"}, -5, 5, False),  # the other label of the same family
        ({"forces_key": "dft_forces"}, -5, 5, False),
        ({"energy_key": "pbe_energy"}, -7, 7, False),  # ... or of the same spelling
        ({"forces_key": "pbe_forces"}, -7, 7, False),
        ({"energy_key": "toten"}, -9, 1, True),
        ({"energy_key": "toten", "forces_key": "forces"}, -9, 1, False),
    ],
)
def test_one_key_brings_the_other_of_its_source(tmp_path, keys, energy, forces, warned):
    head = "energy=-1 dft_energy=-5 pbe_energy=-7 toten=-9"
    columns = ":forces:R:3:dft_forces:R:3:pbe_forces:R:3"
    path = xyz(tmp_path, frame(head, columns, "H 0 0 0" + 3 * " 1" + 3 * " 5" + 3 * " 7"))
    found = read(path, **keys)
    assert (found.energy[0], found.forces[0, 0]) == (energy, forces)
    assert any("give both --energy-key and --forces-key" in n for n in found.notices) == warned


HOLE, SHORT = np.array([[8, 1, 1], [8, 0, 1]]), np.array([[8, 1, 1], [8, 1, 0]])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": [8, 0, 1]}, "atom 1 of frame 0 has atomic number 0 in z"),
        ({"z": [8, 1, 0]}, "atom 2 of frame 0"),
        ({"z": HOLE}, "atom 1 of frame 1"),
        ({"Z": HOLE}, "atom 1 of frame 1"),
        ({"Z": HOLE, "N": [3, 2]}, "atom 1 of frame 1"),
        ({"Z": HOLE, "N": [3, 3]}, "frame 1 has N = 3 but 2 atoms"),
        ({"z": SHORT}, "atom 2 of frame 1"),  # it has a position, so it is an atom
    ],
)
def test_an_atomic_number_of_zero_among_atoms_is_refused(tmp_path, arrays, message):
    where = 1.0 + np.arange(18).reshape(2, 3, 3)
    np.savez(tmp_path / "a.npz", R=where, E=[-1.0, -2.0], F=where, **arrays)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.npz", "eV", "Ang")


def test_one_atom_at_the_origin_is_no_padding(tmp_path):
    """A trailing zero without a position is the only one that can be padding."""
    where = np.array([[[0.0, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, 0]]])
    np.savez(tmp_path / "a.npz", R=where, z=[[1, 1], [1, 0]], E=[-1.0, -2.0])
    assert read(tmp_path / "a.npz", "eV", "Ang").n_atoms.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("name", "sign"),
    [("dft_gradient", -1), ("grad", -1), ("scf.grads", -1), ("dE_dR", -1), ("gradpot_forces", 1)],
)
def test_a_gradient_is_minus_the_forces(tmp_path, name, sign):
    path = xyz(tmp_path, frame("energy=-1", f":{name}:R:3", "H 0 0 0 1 2 3"))
    np.savez(tmp_path / "a.npz", R=np.zeros((1, 1, 3)), z=[1], **{name: [[[1.0, 2, 3]]]})
    for file in (path, tmp_path / "a.npz"):
        found = read(file, "eV", "Ang", forces_key=name)
        assert found.forces.tolist() == [[sign, 2 * sign, 3 * sign]]
        assert any("is a gradient of the energy" in n for n in found.notices) == (sign < 0)


@pytest.mark.parametrize(
    ("arrays", "charge", "isolated"),
    [
        ({}, [np.nan, np.nan], [False, False]),
        ({"Q": [0.0, 1.0]}, [0, 1], [False, False]),
        ({"total_charge": 2}, [2, 2], [False, False]),
        ({"charge": np.zeros((2, 1))}, [0, 0], [False, False]),
        ({"Q": np.zeros((2, 3))}, [np.nan, np.nan], [False, False]),  # one for each atom
        ({"config_type": ["IsolatedAtom", "md"]}, [np.nan, np.nan], [True, False]),
    ],
)
def test_charges_and_marks_of_npz_files(tmp_path, arrays, charge, isolated):
    where = np.ones((2, 1, 3))
    np.savez(tmp_path / "a.npz", R=where, z=[1], E=[-1.0, -2.0], **arrays)
    found = read(tmp_path / "a.npz", "eV", "Ang")
    np.testing.assert_array_equal(found.charge, charge)
    assert found.isolated.tolist() == isolated


@pytest.mark.parametrize(("metadata", "energy"), [({}, -1.5), ({"_distance_unit": "Ang"}, None)])
def test_what_an_author_added_does_not_override_a_result(tmp_path, metadata, energy):
    atoms = Atoms("H", info={"energy": -7.0})
    atoms.calc = SinglePointCalculator(atoms, energy=-1.5)
    with connect(tmp_path / "a.db") as database:
        database.metadata = metadata
        database.write(atoms, data={"energy": -7.0})
    if energy is None:  # units of the data are SchNetPack's, and not stated here
        with pytest.raises(InputError, match="--energy-unit"):
            read(tmp_path / "a.db")
    else:
        assert read(tmp_path / "a.db").energy.tolist() == [energy]


@pytest.mark.parametrize("name", ["a.db", "a.json"])
def test_databases_in_every_form_have_key_value_pairs(tmp_path, name):
    connect(tmp_path / name).write(Atoms("H"), dft_energy=-5.0, net_charge=1)
    found = read(tmp_path / name)
    assert (found.energy[0], found.charge[0]) == (-5, 1)
