"""Readers of npz, files that ASE reads and databases, and messages about broken files."""

import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from gradpot.data import source
from gradpot.data.files import (
    StressLabel,
    n_missing,
    read,
    read_structures,
    require,
    stress_label,
)
from gradpot.errors import InputError

KCAL = units.kcal / units.mol
TOLD = {"energy_unit": "kcal/mol", "length_unit": "Ang"}
rng = np.random.default_rng(0)
R = rng.normal(size=(5, 4, 3))
F = rng.normal(size=(5, 4, 3))
E = rng.normal(size=5) - 100
Z = np.array([6, 8, 1, 1])
PADDED = np.array([[6, 8, 1, 1], [8, 1, 1, 0], [1, 0, 0, 0], [6, 8, 1, 1], [1, 1, 0, 0]])
CELL = np.diag([4.0, 5.0, 6.0]) + np.triu(np.full((3, 3), 0.5), 1)
SGDML = {"R": R, "z": Z, "E": E, "F": F}
SAID = {"r_unit": "Ang", "e_unit": "kcal/mol"}


@pytest.fixture
def npz(tmp_path):
    """Write arrays and return the path."""

    def save(**arrays):
        path = tmp_path / "set.npz"
        np.savez(path, **arrays)
        return path

    return save


def molecule(energy=-1.5, extra=None, **results):
    atoms = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1]])
    labels = {"energy": energy, "forces": np.array([[0, 0, 0.25], [0, 0, -0.25]]), **results}
    atoms.calc = SinglePointCalculator(atoms, **labels)
    atoms.info.update(extra or {})
    return atoms


def solid(stress, key="stress", pbc=True):
    atoms = Atoms("NaCl", positions=[[0, 0, 0], [2, 0, 0]], cell=CELL, pbc=pbc)
    if key == "result":
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, stress=np.array(stress))
    else:
        atoms.info[key] = np.array(stress)
    return atoms


def same_stress(frames, voigt):
    xx, yy, zz, yz, xz, xy = voigt
    expected = [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]
    np.testing.assert_allclose(frames.stress[0], expected, rtol=1e-7, atol=1e-12)


# real files


def test_md17_trajectory_needs_units_and_uses_those_given(data):
    path = data / "md17_ethanol_traj" / "md17_ethanol_traj2000.npz"
    with pytest.raises(InputError, match="--energy-unit and --length-unit"):
        read(path)
    frames = read(path, **TOLD)
    assert frames.n_atoms.tolist() == [9] * 2000
    assert frames.energy.mean() == pytest.approx(-97196.866312 * KCAL, abs=1e-4)
    assert np.sqrt((frames.forces**2).mean()) == pytest.approx(21.53009 * KCAL, rel=1e-5)
    assert frames.positions.dtype == frames.energy.dtype == np.float64


def test_units_in_the_file_are_used_and_not_contradicted(data):
    path = data / "md17_ethanol" / "md17_ethanol_2000.npz"
    frames = read(path)
    assert frames.energy.mean() == pytest.approx(-97195.742602 * KCAL, abs=1e-4)
    assert "kcal/mol, Ang" in frames.notices[0]
    assert read(path, energy_unit="Kcal/Mol").energy[0] == frames.energy[0]
    with pytest.raises(InputError, match="'kcal/mol', but --energy-unit says 'eV'"):
        read(path, energy_unit="eV")


def test_physnet_keys(data):
    path = data / "h2co_ccsdt" / "h2co_ccsdt_avtz_4001.npz"
    frames = read(path, energy_unit="eV", length_unit="Ang")
    assert frames.n_atoms.shape == (4001,)
    assert frames.energy.mean() == pytest.approx(-15.924617, abs=1e-5)
    assert "fields not used: D, Q" in frames.notices


def test_padding_is_removed(data):
    frames = read(data / "qm7x_250x10" / "qm7x_250_small.npz", "eV", "Ang")
    assert (frames.n_atoms.min(), frames.n_atoms.max()) == (4, 23)
    assert frames.numbers.min() == 1
    assert frames.numbers.shape[0] == frames.positions.shape[0] == frames.n_atoms.sum()


def test_vasp_stress_of_padded_cells(data):
    path = data / "mlearn_si" / "si_test25.npz"
    left = read(path)
    assert np.isnan(left.stress).all()
    assert any("--stress-key virial_stress" in notice for notice in left.notices)
    with pytest.raises(InputError, match=r"no frame has a label for stress.*found stress fields"):
        require(left, stress=True)
    frames = read(path, stress=StressLabel("virial_stress", "kbar", "vasp", "compression"))
    raw = np.load(path)["virial_stress"][0] * -0.1 * units.GPa
    same_stress(frames, raw[[0, 1, 2, 4, 5, 3]])
    assert frames.pbc.all()


def test_xyz_and_npz_of_the_same_frames_agree(data):
    folder = data / "si64_periodic"
    label = StressLabel("stress", "eV/Ang^3", "matrix", "tension")
    xyz, npz = read(folder / "sitraj.xyz", stress=label), read(folder / "si64_aimd110.npz")
    for name in ("n_atoms", "numbers", "positions", "cell", "pbc", "energy", "forces"):
        np.testing.assert_allclose(getattr(xyz, name), getattr(npz, name), atol=1e-7)
    assert xyz.stress[0, 0, 0] == pytest.approx(-0.0004994777426685017)


def test_frames_without_forces_and_isolated_atoms(data):
    folder = data / "rmd17_ethanol"
    scan = read(folder / "test_H_removal.xyz")
    assert np.isnan(scan.forces).all()
    assert not scan.cell.any()
    atoms = read(folder / "isolated_atoms.xyz")
    assert atoms.n_atoms.tolist() == [1] * atoms.n_atoms.shape[0]
    with pytest.raises(InputError, match=r"no frame has a label for forces.*--forces-key NAME"):
        require(scan)


# npz: forms, optional arrays


def test_the_three_forms_say_the_same(npz):
    expected = read(npz(**SGDML), **TOLD)
    rmd17 = {"coords": R, "nuclear_charges": Z, "energies": E[:, None], "forces": F}
    again = read(npz(**rmd17, old_energies=E, old_forces=F), **TOLD)
    physnet = {"R": R, "Z": np.tile(Z, (5, 1)), "N": np.full(5, 4), "E": E, "F": F, "Q": E}
    third = read(npz(**physnet), **TOLD)
    for frames in (again, third):
        for name in expected._fields[: expected._fields.index("charge")]:
            np.testing.assert_array_equal(getattr(frames, name), getattr(expected, name))
    assert any("old_energies, old_forces" in notice for notice in again.notices)


def test_zero_padding_in_every_form(npz):
    nothing = PADDED[:, :, None] == 0
    blank = {"R": np.where(nothing, 0.0, R), "F": np.where(nothing, np.nan, F)}
    for arrays in ({"z": PADDED, **blank}, {"Z": PADDED, "N": [4, 3, 1, 4, 2], "R": R, "F": F}):
        frames = read(npz(E=E, **arrays), **TOLD)
        assert frames.n_atoms.tolist() == [4, 3, 1, 4, 2]
        np.testing.assert_array_equal(frames.positions[4:7], R[1, :3])
        np.testing.assert_allclose(frames.forces[7], F[2, 0] * KCAL)


@pytest.mark.parametrize("missing", ["E", "F"])
def test_a_missing_label_is_nan_and_a_notice(npz, missing):
    arrays = {key: value for key, value in SGDML.items() if key != missing}
    frames = read(npz(**arrays), **TOLD)
    label, name = (frames.energy, "energies") if missing == "E" else (frames.forces, "forces")
    assert np.isnan(label).all()
    assert any(notice.startswith(f"no {name}") for notice in frames.notices)


def test_units_stored_as_bytes_and_force_unit_of_its_own(npz):
    frames = read(npz(**SGDML, r_unit=b"Ang", e_unit=b"kcal/mol", f_unit=b"eV/Ang"))
    np.testing.assert_allclose(frames.forces, F.reshape(-1, 3))
    np.testing.assert_allclose(frames.energy, E * KCAL)


def test_one_unit_is_not_enough(npz):
    with pytest.raises(
        InputError, match=r"length unit: add --length-unit \(in Python: length_unit="
    ):
        read(npz(**SGDML, e_unit="eV"))
    with pytest.raises(InputError, match="--length-unit"):
        read(npz(**SGDML), energy_unit="eV")
    with pytest.raises(InputError, match="--energy-unit"):
        read(npz(**SGDML), length_unit="Ang")


def test_geometries_alone_need_no_energy_unit(npz):
    frames = read(npz(R=R, z=Z), length_unit="nm")
    np.testing.assert_allclose(frames.positions, 10 * R.reshape(-1, 3))


def test_an_unknown_unit_in_the_file_can_be_overridden(npz):
    path = npz(**SGDML, r_unit="parsec", e_unit="eV")
    with pytest.raises(InputError, match=r"'parsec'.*--length-unit"):
        read(path)
    frames = read(path, length_unit="Ang")
    assert frames.positions.shape == (20, 3)
    assert "(energy from the file; length as given)" in frames.notices[0]


@pytest.mark.parametrize("shape", [(3, 3), (5, 3, 3)])
def test_cells_are_rows_and_lattices_columns(npz, shape):
    cell = np.broadcast_to(CELL, shape)
    rows = read(npz(**SGDML, **SAID, cell=cell))
    columns = read(npz(**SGDML, **SAID, lattice=np.swapaxes(cell, -1, -2)))
    np.testing.assert_array_equal(rows.cell, np.broadcast_to(CELL, (5, 3, 3)))
    np.testing.assert_array_equal(columns.cell, rows.cell)
    assert rows.pbc.all()
    assert any("columns" in notice for notice in columns.notices)


def test_pbc_by_axis_and_by_frame(npz):
    frames = read(npz(**SGDML, **SAID, cell=CELL, pbc=[True, True, False]))
    assert frames.pbc.tolist() == [[True, True, False]] * 5
    assert not frames.cell[:, 2].any()
    per_frame = np.eye(5, 3, dtype=bool)
    np.testing.assert_array_equal(
        read(npz(**SGDML, **SAID, cell=CELL, pbc=per_frame)).pbc, per_frame
    )


def test_lengths_of_cells_are_converted(npz):
    frames = read(npz(**SGDML, cell=CELL), energy_unit="hartree", length_unit="bohr")
    np.testing.assert_allclose(frames.cell[0], CELL * units.Bohr)
    np.testing.assert_allclose(frames.forces[0], F[0, 0] * units.Hartree / units.Bohr)


def test_single_precision_energies_are_pointed_out(npz):
    arrays = {**SGDML, "E": (E - 30000).astype(np.float32)}
    frames = read(npz(**arrays), energy_unit="eV", length_unit="Ang")
    assert any("steps of 2 meV" in notice for notice in frames.notices)


def test_loading_is_vectorized(npz):
    n = 50_000
    path = npz(R=np.zeros((n, 9, 3)), z=np.full(9, 6), E=np.zeros(n), F=np.zeros((n, 9, 3)))
    start = time.process_time()
    assert read(path, **TOLD).n_atoms.shape == (n,)
    assert time.process_time() - start < 2.0


# npz: mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"R": R[..., :2]}, r"R has shape \[5, 4, 2\]; expected \[frames, atoms, 3\]"),
        ({"R": R[0]}, r"R has shape \[4, 3\]"),
        ({"E": E[:3]}, r"E has shape \[3\]; expected \[5\] or \[5, 1\] to match R"),
        ({"E": E[None]}, r"E has shape \[1, 5\]"),
        ({"F": F[:3]}, r"F has shape \[3, 4, 3\]; expected \[5, 4, 3\] to match R"),
        ({"z": Z[:3]}, r"z has shape \[3\]"),
        ({"z": [6, 8, 1, 1.5]}, r"with atomic number 1\.5"),
        ({"z": ["C", "O", "H", "H"]}, "must be numbers"),
        ({"R": np.array([R, None], dtype=object)}, "holds Python objects"),
        ({"cell": np.eye(2)}, r"cell has shape \[2, 2\]"),
        ({"cell": CELL, "pbc": [True, True]}, r"pbc has shape \[2\]"),
        ({"e_unit": 3.0}, "must be the name of a unit"),
    ],
)
def test_arrays_that_do_not_fit(npz, changes, message):
    with pytest.raises(InputError, match=message):
        read(npz(**{**SGDML, **SAID, **changes}))


# checks of every format

SOLID = {
    "R": np.array([[[0.0, 0, 0], [2, 0, 0]], [[0, 0, 0], [2.1, 0, 0]]]),
    "z": np.array([[11, 17], [11, 17]]),
    "E": np.array([-1.0, -2.0]),
    "F": np.zeros((2, 2, 3)),
    "cell": np.array([CELL, CELL]),
    "pbc": np.ones((2, 3), dtype=bool),
    "stress": np.zeros((2, 6)),
}


def second(key, value):
    """The array `key` of SOLID with another value in the second frame."""
    array = SOLID[key].copy()
    array[1] = value
    return {key: array}


@pytest.fixture(params=["npz", "traj", "db"])
def save(request, tmp_path):
    """Write the arrays of SOLID with changes, in each format, and return the path."""

    def as_atoms(i, arrays):
        atoms = Atoms(arrays["z"][i], arrays["R"][i], cell=arrays["cell"][i], pbc=arrays["pbc"][i])
        atoms = atoms[atoms.numbers != 0]
        labels = {"energy": arrays["E"][i], "stress": arrays["stress"][i]}
        forces = arrays["F"][i][: len(atoms)]
        atoms.calc = SinglePointCalculator(atoms, **labels, forces=forces)
        return atoms

    def write_them(**changes):
        path, arrays = tmp_path / f"set.{request.param}", {**SOLID, **changes}
        if request.param == "npz":
            np.savez(path, **arrays, r_unit="Ang", e_unit="eV")
        elif request.param == "traj":
            write(path, [as_atoms(i, arrays) for i in range(len(arrays["R"]))])
        else:
            try:
                with connect(path) as database:
                    for i in range(len(arrays["R"])):
                        database.write(as_atoms(i, arrays))
            except (ValueError, IndexError, RuntimeWarning):
                pytest.skip("ASE refuses to write this into a database")
        return path

    return write_them


def test_a_sound_set_passes_in_every_format(save):
    frames = read(save(), stress=StressLabel("stress", "eV/Ang^3", "voigt", "tension"))
    assert n_missing(frames) == {"energy": 0, "forces": 0, "stress": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({key: array[:0] for key, array in SOLID.items()}, "(holds no structures|cannot read)"),
        (second("z", 0), "frame 1 has no atoms"),
        (
            second("z", [11, 119]),
            "frame 1 has an atom with atomic number 119; expected a whole number, 1",
        ),
        (second("z", [11, -1]), "frame 1 has an atom with atomic number -1"),
        (second("R", np.nan), "frame 1 has positions that are not finite"),
        (second("E", -np.inf), "frame 1 has an infinite energy"),
        (second("F", np.inf), "frame 1 has infinite forces"),
        (second("stress", np.inf), "frame 1 has infinite stress"),
        (second("cell", np.nan), "frame 1 has a cell that is not finite"),
        (second("cell", np.diag([4, 5, 0])), "frame 1 is periodic along an axis without a lattice"),
        (second("cell", np.ones((3, 3))), "frame 1 has a cell without volume"),
        (second("cell", 1e7 * np.eye(3)), "frame 1 has a lattice vector beyond 1,000,000 Å"),
        (second("cell", 1e200 * np.eye(3)), "frame 1 has a lattice vector beyond 1,000,000 Å"),
        (
            second("R", np.full((2, 3), 1e8)),
            "frame 1 has an atom beyond 1,000,000 Å; state the unit",
        ),
        (second("cell", 1e-9 * np.eye(3)), "frame 1 is periodic along an axis without a lattice"),
    ],
)
def test_a_wrong_frame_is_named_in_every_format(save, changes, message):
    path = save(**changes)
    with pytest.raises(InputError, match=message):
        read(path, stress=StressLabel("stress", "eV/Ang^3", "voigt", "tension"))


def test_a_slab_passes_in_every_format(save):
    slab = {"cell": np.array([[4.0, 0, 0], [0, 5, 0], [0, 0, 6]]), "pbc": [True, True, False]}
    assert not read(save(**second("cell", slab["cell"]), **second("pbc", slab["pbc"]))).pbc[1, 2]


def test_periodic_axes_must_not_be_parallel(save):
    flat = np.array([[4.0, 0, 0], [4, 1e-9, 0], [0, 0, 6]])
    with pytest.raises(InputError, match="frame 1 has a cell without volume"):
        read(save(**second("cell", flat), **second("pbc", [True, True, False])))


def test_stress_of_a_wrong_shape_or_text(tmp_path, npz):
    label = StressLabel("stress", "eV/Ang^3", "voigt", "tension")
    for number in (1.0, np.ones(5)):
        with pytest.raises(InputError, match=r"stress 'stress' has shape .*expected \[5, 6\]"):
            read(npz(**SGDML, **SAID, cell=CELL, stress=number), stress=label)
    for text in ("abc", '"1 2 3 4 5"'):
        line = f'Lattice="5 0 0 0 5 0 0 0 5" stress={text}'
        (tmp_path / "a.xyz").write_text(f"1\n{line}\nNa 0 0 0\n")
        with pytest.raises(InputError, match=r"stress of frame 0 is .*in shape \[6\]"):
            read(tmp_path / "a.xyz", stress=label)


def test_counts_that_contradict_the_padding(npz):
    with pytest.raises(InputError, match="frame 1 has N = 4 but 3 atoms"):
        read(npz(R=R, E=E, F=F, Z=PADDED, N=[4, 4, 1, 4, 2]), **TOLD)
    with pytest.raises(InputError, match=r"N has shape \[2\]; expected \[5\]"):
        read(npz(R=R, E=E, F=F, Z=PADDED, N=[4, 4]), **TOLD)


def test_other_arrays_are_named(npz):
    with pytest.raises(
        InputError, match=r"has the arrays \['x', 'y'\]; expected one of rMD17: coords"
    ):
        read(npz(x=R, y=Z))


@pytest.mark.parametrize("keep", [0, 20, 700])
def test_truncated_files(npz, keep):
    path = npz(**SGDML)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="damaged"):
        read(path, **TOLD)


def test_damage_inside_an_array(npz):
    path = npz(**SGDML)
    content = bytearray(path.read_bytes())
    content[300:320] = b"x" * 20
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read(path, **TOLD)


def test_no_file_a_folder_and_a_single_array(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read(tmp_path / "none.npz")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)
    with open(tmp_path / "one.npz", "wb") as file:
        np.save(file, R)
    with pytest.raises(InputError, match="single array"):
        read(tmp_path / "one.npz")


# stress

VOIGT = [1.0, 2.0, 3.0, 0.4, 0.5, 0.6]


@pytest.mark.parametrize(
    ("order", "numbers"),
    [
        ("voigt", VOIGT),
        ("vasp", [1.0, 2.0, 3.0, 0.6, 0.4, 0.5]),
        ("matrix", [[1.0, 0.6, 0.5], [0.6, 2.0, 0.4], [0.5, 0.4, 3.0]]),
    ],
)
@pytest.mark.parametrize("form", ["npz", "xyz"])
def test_orders_of_stress(npz, tmp_path, order, numbers, form):
    label = StressLabel("stress", "eV/Ang^3", order, "tension")
    if form == "npz":
        path = npz(
            **SGDML, **SAID, cell=CELL, stress=np.broadcast_to(numbers, (5, *np.shape(numbers)))
        )
    else:
        path = tmp_path / "set.xyz"
        lattice, six_or_nine = (" ".join(map(str, np.ravel(a))) for a in (CELL, numbers))
        path.write_text(f'1\nLattice="{lattice}" pbc="T T T" stress="{six_or_nine}"\nNa 0 0 0\n')
    same_stress(read(path, stress=label), VOIGT)


def test_sign_unit_and_virial(npz):
    values = np.tile(VOIGT, (5, 1))
    path = npz(**SGDML, **SAID, cell=CELL, virial=values)
    pressure = read(path, stress=StressLabel("virial", "GPa", "voigt", "compression"))
    same_stress(pressure, -np.array(VOIGT) * units.GPa)
    virial = read(path, stress=StressLabel("virial", "eV", "voigt", "compression"))
    same_stress(virial, -np.array(VOIGT) / np.linalg.det(CELL))


def test_stress_without_a_full_cell_is_a_missing_label(npz):
    path = npz(**SGDML, **SAID, cell=CELL, pbc=[True, True, False], s=np.ones((5, 6)))
    label = StressLabel("s", "eV/Ang^3", "voigt", "tension")
    assert np.isnan(read(path, stress=label).stress).all()


def test_the_parts_of_a_stress_label_are_keywords(data):
    path = data / "mlearn_si" / "si_test25.npz"
    parts = {"key": "virial_stress", "unit": "kbar", "order": "vasp", "sign": "compression"}
    given = source.read(path, **{f"stress_{part}": value for part, value in parts.items()})
    whole = read(path, stress=StressLabel(**parts))
    np.testing.assert_array_equal(given.stress, whole.stress)
    assert (
        repr(whole)
        == "Frames: 25 frames, 1525 atoms, 4 compositions of Si, energies, forces, stress"
    )
    with pytest.raises(InputError, match="missing: --stress-unit"):
        source.read(path, stress_key="virial_stress")


def test_incomplete_and_unknown_stress_labels(npz):
    assert stress_label(None, None, None, None) is None
    with pytest.raises(InputError, match="missing: --stress-unit, --stress-sign"):
        stress_label("s", None, "voigt", None)
    path = npz(**SGDML, **SAID, cell=CELL, s=np.ones((5, 6)))
    for label, message in [
        (("s", "psi", "voigt", "tension"), "unknown stress unit 'psi'.*energy unit for a virial"),
        (("s", "GPa", "mandel", "tension"), "unknown stress order 'mandel'"),
        (("s", "GPa", "voigt", "up"), "unknown stress sign 'up'"),
        (("t", "GPa", "voigt", "tension"), "has no stress 't'; it has"),
        (("s", "GPa", "matrix", "tension"), r"expected \[5, 9\] for order 'matrix'"),
    ]:
        with pytest.raises(InputError, match=message):
            read(path, stress=StressLabel(*label))


def test_stress_in_an_xyz_is_pointed_out_and_in_a_trajectory_known(tmp_path):
    write(tmp_path / "a.xyz", solid(VOIGT))
    write(tmp_path / "b.traj", solid(VOIGT, "result"))
    left = read(tmp_path / "a.xyz")
    assert np.isnan(left.stress).all()
    assert any("--stress-key stress" in notice for notice in left.notices)
    same_stress(read(tmp_path / "b.traj"), VOIGT)


def test_stress_of_a_trajectory_in_other_units_is_not_read(tmp_path):
    write(tmp_path / "b.traj", solid(VOIGT, "result"))
    assert np.isnan(read(tmp_path / "b.traj", energy_unit="hartree").stress).all()


# ASE files


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.traj", "a.json", "a.db", "a@2.xyz"])
def test_files_of_ase(tmp_path, name):
    write(
        tmp_path / name,
        [molecule(), molecule(-2.5)],
        **({"format": "extxyz"} if "@" in name else {}),
    )
    frames = read(tmp_path / name)
    assert frames.energy.tolist() == [-1.5, -2.5]
    assert frames.forces[:2, 2].tolist() == [0.25, -0.25]
    assert "by ASE's convention" in frames.notices[0]
    assert not frames.pbc.any()


def test_xyz_in_other_units(tmp_path):
    write(tmp_path / "a.xyz", molecule())
    frames = read(tmp_path / "a.xyz", energy_unit="kcal/mol")
    assert frames.energy[0] == pytest.approx(-1.5 * KCAL)
    assert frames.forces[0, 2] == pytest.approx(0.25 * KCAL)
    assert frames.positions[1, 2] == 1.1


def test_labels_under_other_names(tmp_path):
    atoms = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1]], info={"REF_energy": -3.0})
    atoms.arrays["REF_forces"] = np.ones((2, 3))
    write(tmp_path / "a.xyz", atoms)
    frames = read(tmp_path / "a.xyz")
    assert frames.energy[0] == -3.0
    assert (frames.forces == 1).all()
    assert "energies from REF_energy" in frames.notices
    write(tmp_path / "b.xyz", molecule(extra={"REF_energy": -3.0}))
    both = read(tmp_path / "b.xyz")
    assert both.energy[0] == -1.5
    assert "energies from energy" in both.notices
    assert "labels not used: REF_energy" in both.notices


@pytest.mark.parametrize(
    ("fields", "energy", "force"),
    [
        ("energy=-7 dft_energy=-31", -31.0, 0.5),  # a model's energy beside the labels
        ("energy=-7", np.nan, 0.5),  # of another family than the forces: no label
        ("dft_energy=-31 REF_energy=-30", -31.0, 0.5),
    ],
)
def test_energies_and_forces_come_from_one_family(tmp_path, fields, energy, force):
    columns = "Properties=species:S:1:pos:R:3:dft_force:R:3"
    (tmp_path / "a.xyz").write_text(f"1\n{columns} {fields}\nH 0 0 0 0 0 0.5\n")
    frames = read(tmp_path / "a.xyz")
    np.testing.assert_array_equal(frames.energy, [energy])
    assert frames.forces[0, 2] == force
    assert any(notice.startswith("labels not used: ") for notice in frames.notices)


def test_free_energy_is_not_the_energy(tmp_path):
    write(tmp_path / "a.traj", [molecule(free_energy=-1.6)])
    frames = read(tmp_path / "a.traj")
    assert frames.energy[0] == -1.5
    assert any("free_energy differs from energy by up to 0.1" in n for n in frames.notices)


def test_labels_in_some_frames_only(tmp_path):
    bare = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.2]])
    write(tmp_path / "a.xyz", [molecule(), bare, Atoms("H", positions=[[0, 0, 0]])])
    frames = read(tmp_path / "a.xyz")
    assert n_missing(frames) == {"energy": 2, "forces": 2, "stress": 3}
    assert require(frames) == (
        "2 of 3 frames have no energy; the loss of energy leaves them out",
        "2 of 3 frames have no forces; the loss of forces leaves them out",
    )
    with pytest.raises(InputError, match="no frame has a label for stress"):
        require(frames, stress=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read"),
        (
            f"1\nProperties=species:S:1:pos:R:{'9' * 30}\nC 0 0 0\n",
            "Properties with 999999999999999999 columns",
        ),
        ("3\n\nC 0 0 0\n", "frame 0 ends after 1 of 3 atoms"),
        ("1\nenergy=abc\nC 0 0 0\n", "energy of frame 0 is 'abc'; expected one number"),
        ("1\n\nC 0 0 nan\n", "frame 0 has positions that are not finite"),
        ('1\nProperties=species:S:1:pos:R:3 pbc="T T T"\nC 0 0 0\n', "without a lattice vector"),
        ("1\n\nQq 0 0 0\n", "cannot read"),
        ("1\n\nX 0 0 0\n", "atomic number 0"),
    ],
)
def test_broken_xyz(tmp_path, text, message):
    path = tmp_path / "a.xyz"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read(path)


def test_a_file_of_no_known_kind(tmp_path):
    (tmp_path / "notes.txt").write_text("hello\n")
    with pytest.raises(InputError, match=r"cannot read .*notes.txt"):
        read(tmp_path / "notes.txt")
    (tmp_path / "bad.db").write_text("this is not sqlite, but long enough to look at it" * 30)
    with pytest.raises(InputError, match="as an ASE database"):
        read(tmp_path / "bad.db")


def schnetpack_database(path, metadata):
    with connect(path) as database:
        database.metadata = metadata
        for shift in (0.0, 1.0):
            atoms = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1]])
            data = {"energy": np.array([-3.0 + shift]), "forces": np.ones((1, 2, 3)), "dipole": [0]}
            database.write(atoms, data=data)
    return path


def test_schnetpack_database(tmp_path):
    metadata = {
        "_distance_unit": "nm",
        "_property_unit_dict": {"energy": "kcal/mol", "forces": "kcal/mol/nm", "dipole": "Debye"},
    }
    path = schnetpack_database(tmp_path / "a.db", metadata)
    frames = read(path)
    np.testing.assert_allclose(frames.energy, np.array([-3.0, -2.0]) * KCAL)
    np.testing.assert_allclose(frames.forces, KCAL / 10)
    assert frames.positions[1, 2] == 11.0
    assert "from the file" in frames.notices[0]
    with pytest.raises(InputError, match="'kcal/mol', but --energy-unit says 'eV'"):
        read(path, energy_unit="eV")


def test_schnetpack_database_that_states_only_one_unit(tmp_path):
    path = schnetpack_database(tmp_path / "a.db", {"_distance_unit": "Ang"})
    with pytest.raises(InputError, match="--energy-unit"):
        read(path)
    assert read(path, energy_unit="eV").energy.tolist() == [-3.0, -2.0]


def test_frames_go_back_to_ase(tmp_path):
    write(tmp_path / "a.traj", [molecule()])
    atoms = read(tmp_path / "a.traj").atoms(0)
    assert atoms.get_potential_energy() == -1.5
    assert atoms.get_forces()[1, 2] == -0.25


def xyz(path: Path, *heads: str) -> Path:
    """An extended XYZ file of two hydrogen atoms per comment line."""
    atoms = "H 0 0 0 0 0 0.02\nH 0 0 0.8 0 0 -0.02\n"
    columns = "Properties=species:S:1:pos:R:3:force:R:3"
    path.write_text("".join(f"2\n{columns} {head}\n{atoms}" for head in heads))
    return path


def test_a_word_without_a_value_is_no_energy(tmp_path):
    """ASE reads "E -76.357", as ORCA writes it, as E=True, which is 1.0."""
    path = tmp_path / "orca.xyz"
    path.write_text("1\nCoordinates from ORCA-job x E -76.357\nO 0 0 0\n")
    frames = read(path)
    assert np.isnan(frames.energy).all()
    assert "not read: E has no value; write NAME=VALUE" in frames.notices


def test_units_in_the_comment_line_are_used(tmp_path):
    frames = read(
        xyz(tmp_path / "a.xyz", "energy=-1.17 energy-unit=hartree force_units=hartree/bohr")
    )
    np.testing.assert_allclose(frames.energy, -1.17 * 27.211386, rtol=1e-7)
    np.testing.assert_allclose(frames.forces[0, 2], 0.02 * 51.422067, rtol=1e-7)
    with pytest.raises(InputError, match="its energy unit is 'hartree', but --energy-unit"):
        read(tmp_path / "a.xyz", energy_unit="eV")
    with pytest.raises(
        InputError, match="frame 1 states the energy unit eV, and frames before it Ha"
    ):
        read(xyz(tmp_path / "b.xyz", "energy=-1 energy_unit=Ha", "energy=-1 energy_unit=eV"))


@pytest.mark.parametrize(
    "head",
    [
        'lattice="4 0 0 0 4 0 0 0 4"',
        'cell="4 0 0 0 4 0 0 0 4"',
        'Lattice="4 0 0 0 4 0 0 0 4" PBC="F F F"',
    ],
)
def test_cells_that_ase_ignores_are_refused(tmp_path, head):
    with pytest.raises(InputError, match=r"ASE does not read; write it as (Lattice|pbc)"):
        read(xyz(tmp_path / "a.xyz", head))


def test_stress_that_an_author_added_to_a_database_needs_a_label(tmp_path):
    """ASE has converted what its calculators computed, and nothing else."""
    from ase.build import bulk
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.db import connect

    stress = np.array([-0.07, -0.07, -0.07, 0.0, 0.0, 0.0])
    for name, results in (("both", {"stress": stress}), ("data", {})):
        atoms = bulk("Cu", cubic=True)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, **results)
        connect(tmp_path / f"{name}.db").write(atoms, data={"stress": 1602.0 * stress})
    assert read(tmp_path / "both.db").stress[0, 0, 0] == pytest.approx(-0.07)
    assert np.isnan(read(tmp_path / "data.db").stress).all()


def test_stress_that_an_author_added_to_a_trajectory_needs_a_label(tmp_path):
    """The same as in a database: `info` is not a result of a calculator."""
    atoms = Atoms("Cu", cell=[2.5] * 3, pbc=True, info={"stress": np.full(6, 119.0)})
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    write(tmp_path / "a.traj", [atoms])
    frames = read(tmp_path / "a.traj")
    assert np.isnan(frames.stress).all()
    assert any("found stress fields but did not read" in notice for notice in frames.notices)


def test_structures_for_dynamics_are_read_with_the_same_care(tmp_path):
    path = xyz(tmp_path / "a.xyz", 'lattice="4 0 0 0 4 0 0 0 4"')
    with pytest.raises(InputError, match="ASE does not read; write it as Lattice"):
        read_structures(path)
    [atoms] = read_structures(xyz(tmp_path / "b.xyz", "length_unit=bohr energy_unit=Ha energy=-1"))
    assert atoms.positions[1, 2] == pytest.approx(0.8 * units.Bohr)
    np.testing.assert_allclose(atoms.positions, read(tmp_path / "b.xyz").positions)
