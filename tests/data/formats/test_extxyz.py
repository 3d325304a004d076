"""Comment lines and columns of extended XYZ: nothing is dropped or taken for another quantity."""

import numpy as np
import pytest
from ase import units

from gradpot.data.checks import inspect, suspicions
from gradpot.data.files import StressLabel, read, read_structures
from gradpot.errors import InputError

COLUMNS = "Properties=species:S:1:pos:R:3"


@pytest.fixture
def xyz(tmp_path):
    """Write frames of one atom, each with its comment line, or whole frames."""

    def save(*heads: str, columns: str = "", line: str = "H 0 0 0"):
        text = "".join(f"1\n{COLUMNS}{columns} {head}\n{line}\n" for head in heads)
        (tmp_path / "a.xyz").write_text(text)
        return tmp_path / "a.xyz"

    return save


@pytest.fixture
def plain(tmp_path):
    """Write one atom with a free comment line."""

    def save(comment: str, line: str = "H 0 0 0"):
        (tmp_path / "a.xyz").write_text(f"1\n{comment}\n{line}\n")
        return tmp_path / "a.xyz"

    return save


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("energy=-1 energy=-2", "both energy=-1 and energy=-2"),
        ("pbc=no", "pbc='no'; expected T or F"),
        ("energy=-1 energy_unit=Ha length_unit=eV", "unknown length unit 'eV'"),
        ("energy=-1 units=atomic", "unknown energy unit 'units=atomic'"),
        ("energy=-1 E_unit=furlong", "unknown energy unit 'furlong'"),
        ("energy=-1,5", "energy of frame 0"),
        ('energy="-1 eV"', "energy of frame 0 is '-1 eV'; expected one number"),
        ('periodic="F F F" Lattice="4 0 0 0 4 0 0 0 4"', "'periodic'.*write it as pbc"),
        ('Cell="4 0 0 0 4 0 0 0 4"', "'Cell'.*write it as Lattice"),
        ("config_type=IsolatedAtom energy=inf", "infinite energy"),
    ],
)
def test_what_is_not_clear_is_refused(xyz, head, message):
    with pytest.raises(InputError, match=message):
        read(xyz(head))


@pytest.mark.parametrize(
    "comment",
    [
        "E = -17.5 Eh",
        "energy=-17.5 hartree",
        "E=-17.5 kcal/mol",
    ],
)
def test_what_may_be_the_unit_of_the_energy_is_asked_for(plain, comment):
    path = plain(comment)
    with pytest.raises(InputError, match=r"unknown energy unit .*--energy-unit"):
        read(path)
    assert read(path, energy_unit="Ha").energy[0] == pytest.approx(-17.5 * units.Hartree)
    assert len(read_structures(path)) == 1  # energies do not matter there


@pytest.mark.parametrize("comment", ["Au cluster, energy=-1", "E=-1 eV", "Ha Long Bay"])
def test_words_that_are_no_unit(plain, comment):
    assert "eV, Ang" in read(plain(comment)).notices[0]


@pytest.mark.parametrize("other", ["energy=-2", "energy=-2 energy_unit=eV"])
def test_a_unit_holds_for_all_frames_or_is_refused(xyz, other):
    for heads in (("energy=-1 energy_unit=Ha", other), (other, "energy=-1 energy_unit=Ha")):
        with pytest.raises(InputError, match="frame 1 states the energy unit"):
            read(xyz(*heads))


def test_units_under_the_names_of_npz_files(xyz):
    found = read(xyz("energy=-1 e_unit=kcal/mol r_unit=nm", line="H 0 0 1"))
    assert read(xyz("positions_units=nm", line="H 0 0 1")).positions[0, 2] == 10
    assert read(xyz("pos_unit=nm", line="H 0 0 1")).positions[0, 2] == 10
    assert found.energy[0] == pytest.approx(-units.kcal / units.mol)
    assert found.positions[0, 2] == 10


def test_a_unit_of_stress_is_not_contradicted(xyz):
    path = xyz('Lattice="4 0 0 0 4 0 0 0 4" stress="1 2 3 0 0 0" stress_unit=kbar')
    label = StressLabel("stress", "kbar", "voigt", "tension")
    assert read(path, stress=label).stress[0, 2, 2] == pytest.approx(0.3 * units.GPa)
    with pytest.raises(InputError, match="its stress unit is 'kbar', but --stress-unit says 'GPa'"):
        read(path, stress=label._replace(unit="GPa"))


def test_columns_without_a_name_are_pointed_out(plain):
    notices = read(plain("energy=-1", "H 0 0 0 1 2 3")).notices
    assert any("frame 0 has 7 columns, of which Properties names 4" in text for text in notices)


@pytest.mark.parametrize("count", ["9" * 30, "9_" * 9 + "9", " " + "9" * 30])
@pytest.mark.parametrize("before", ["", ","])
def test_columns_that_ase_would_count_for_ever_are_refused(plain, before, count):
    columns = f'Properties="species:S:1:pos:R:3:{before}forces:R:{count}"'
    for text in (columns, columns.replace('"', "").replace(" ", "")):
        with pytest.raises(InputError, match=r"Properties with 9[9_]+ columns"):
            read(plain(text, "H 0 0 0"))


def test_columns_in_lower_case_are_not_dropped(plain):
    """GPUMD writes keywords in any case; ASE reads only one."""
    with pytest.raises(InputError, match=r"'properties'.*write it as Properties"):
        read(plain(f"{COLUMNS.lower()}:forces:R:3 energy=-1", "H 0 0 0 1 2 3"))


def test_two_columns_of_elements_must_agree(plain):
    columns = "Properties=species:S:1:Z:I:1:pos:R:3"
    assert read(plain(columns, "C 6 0 0 0")).numbers.tolist() == [6]
    with pytest.raises(InputError, match="columns species and Z that are not the same atoms"):
        read(plain(columns, "C 7 0 0 0"))


@pytest.mark.parametrize(
    ("head", "columns", "line", "named"),
    [
        ("charge=1 spin=2", "", "H 0 0 0", "charge, spin"),
        ('dipole="0 0 1" E0=-3', "", "H 0 0 0", "E0, dipole"),
        ("", ":magmoms:R:1", "H 0 0 0 2", "magmoms"),
        ("", ":charge:R:1", "H 0 0 0 0.5", "charges"),
        ("gap_energy=-3", ":gap_force:R:3", "H 0 0 0 1 2 3", "gap_energy, gap_force"),
        ("ENERGY=-3", "", "H 0 0 0", "ENERGY"),
    ],
)
def test_fields_that_are_not_used_are_named(xyz, head, columns, line, named):
    notices = read(xyz(f"energy=-1 {head}", columns=columns, line=line)).notices
    assert f"fields not used: {named}" in notices


@pytest.mark.parametrize(
    ("head", "charge", "spin"),
    [
        ("charge=-1", -1, np.nan),
        ("total_charge=2 multiplicity=3", 2, 3),
        ("Charge=0 spin=1", 0, 1),
        ('charge="0.5 0.5"', np.nan, np.nan),
        ("charge", np.nan, np.nan),  # a word
    ],
)
def test_charge_and_spin(xyz, head, charge, spin):
    found = read(xyz(f"energy=-1 {head}"))
    np.testing.assert_array_equal([found.charge[0], found.spin[0]], [charge, spin])


def test_charge_from_initial_charges(xyz):
    columns, line = ":initial_charges:R:1", "H 0 0 0 1.0"
    assert read(xyz("energy=-1", columns=columns, line=line)).charge.tolist() == [1]


def test_frames_that_differ_in_charge_are_no_copies(xyz):
    summary = inspect(read(xyz("energy=-1 charge=0", "energy=-2 charge=1", "energy=-1 charge=0")))
    assert summary["duplicates"] == 1
    assert any("2 different charges or spins" in text for text in summary["warnings"])
    alike = inspect(read(xyz("energy=-1 charge=1", "energy=-2 charge=1")))
    assert not any("charges" in text for text in alike["warnings"])


def test_several_sources_of_labels_are_a_warning(xyz):
    frames = read(xyz("energy=-1", "energy=-1", "dft_energy=-5"))
    summary = inspect(frames)
    assert any("energies from energy (2 frames (0, 1))" in text for text in summary["warnings"])
    assert not any(text.startswith("warning") for text in summary["notices"])
    # a run says the notices itself, and then what else is suspicious
    [copies] = suspicions(frames, random_split=True)
    assert copies.startswith("warning: 2 frames are copies")


@pytest.mark.parametrize("name", ["mass", "masses", "Mass"])
def test_masses_under_any_name(xyz, name):
    [atoms] = read_structures(xyz("", columns=f":{name}:R:1", line="H 0 0 0 2.5"))
    assert atoms.get_masses().tolist() == [2.5]


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "POSCAR"])
def test_deuterium_and_tritium_are_hydrogen_with_a_mass(tmp_path, name):
    atoms = "O 0 0 0\nD 0 0 0.96\nT 0.92 0 -0.24\n"
    text = f"3\n{COLUMNS} energy=-3\n{atoms}"
    if name == "POSCAR":
        text = "water\n1.0\n5 0 0\n0 5 0\n0 0 5\nO D T\n1 1 1\nCartesian\n0 0 0\n0 0 1\n1 0 0\n"
    (tmp_path / name).write_text(text)
    if name != "POSCAR":  # it has no labels
        assert read(tmp_path / name).numbers.tolist() == [8, 1, 1]
    [found] = read_structures(tmp_path / name)
    assert list(found.symbols) == ["O", "H", "H"]
    assert found.get_masses().tolist() == [15.999, 2.014, 3.016]


def test_other_letters_are_still_no_element(tmp_path):
    (tmp_path / "a.xyz").write_text("1\n\nQ 0 0 0\n")
    with pytest.raises(InputError, match="cannot read"):
        read(tmp_path / "a.xyz")
    from ase.data import atomic_numbers

    assert "D" not in atomic_numbers  # only while ASE reads


@pytest.mark.parametrize("stress", ["1 2 3 0 0 0", "1 0 0 0 2 0 0 0 3", "not converged", "None"])
def test_dynamics_read_what_training_reads(xyz, stress):
    path = xyz(f'energy=-3 Lattice="0 2 2 2 0 2 2 2 0" stress="{stress}"')
    assert read(path).energy.tolist() == [-3]
    [atoms] = read_structures(path)
    np.testing.assert_array_equal(atoms.cell.array, read(path).cell[0])
    assert atoms.pbc.all()
