"""HDF5 of groups of conformers, in the layouts of SPICE, ANI-1x, ANI-1, Transition1x and QM7-X."""

import tracemalloc

import h5py
import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.calculators.emt import EMT

from gradpot.data.files import n_missing, read, read_structures
from gradpot.data.formats import boundary
from gradpot.errors import InputError

STEP = 1e-4  # Å


def conformers(name):
    """An ASE molecule in four geometries, two of them a small step apart, with EMT's labels."""
    rng, found = np.random.default_rng(0), []
    for shift in (0.0, 0.1, 0.1 - STEP, 0.1 + STEP):
        atoms = molecule(name)
        atoms.positions[0, 2] += shift
        atoms.positions[1:] += 0.0 if shift else 0.02 * rng.normal(size=(len(atoms) - 1, 3))
        atoms.calc = EMT()
        found.append(atoms)
    return found


MOLECULES = {name: conformers(name) for name in ("CH3OH", "H2O", "N2")}  # in the order of names


@pytest.fixture
def write_groups(tmp_path):
    """Write one group per molecule, from a function of its conformers, and return the path."""

    def save(content, prefix="", name="set.hdf5"):
        with h5py.File(tmp_path / name, "w") as file:
            for molecule_name, frames in MOLECULES.items():
                group = file.create_group(prefix + molecule_name)
                for key, value in content(frames).items():
                    array, unit = value if isinstance(value, tuple) else (value, None)
                    group[key] = array
                    if unit:
                        group[key].attrs["units"] = unit
        return tmp_path / name

    return save


def arrays(frames):
    """Numbers, positions, energies and forces of one molecule, in eV and Å."""
    labels = [(a.positions, a.get_potential_energy(), a.get_forces()) for a in frames]
    return frames[0].numbers.astype(np.int16), *map(np.array, zip(*labels))


def spice(frames):
    numbers, positions, energy, forces = arrays(frames)
    return {
        "atomic_numbers": numbers,
        "smiles": np.array([b"C"]),
        "conformations": (positions / units.Bohr, "bohr"),
        "dft_total_energy": (energy / units.Hartree, "hartree"),
        "dft_total_gradient": (-forces / (units.Hartree / units.Bohr), "hartree/bohr"),
        "formation_energy": (energy / units.Hartree + 40, "hartree"),
    }


def ani1x(frames):
    numbers, positions, energy, forces = arrays(frames)
    missing = np.where(np.arange(4) == 3, np.nan, energy / units.Hartree)
    return {
        "atomic_numbers": numbers,
        "coordinates": positions,
        "wb97x_dz.energy": missing,
        "wb97x_dz.forces": forces / units.Hartree,
        "ccsd(t)_cbs.energy": energy - 1,
    }


HARTREE = {"energy_unit": "hartree", "length_unit": "Ang"}


def agrees(frames):
    """Compare with ASE's calculator, and forces with the slope of the energy."""
    _, positions, energy, forces = zip(*(arrays(one) for one in MOLECULES.values()))
    np.testing.assert_allclose(frames.energy, np.concatenate(energy), rtol=1e-9)
    together = [np.concatenate([x.reshape(-1, 3) for x in part]) for part in (positions, forces)]
    np.testing.assert_allclose(frames.positions, together[0], atol=1e-9)
    np.testing.assert_allclose(frames.forces, together[1], atol=1e-9)
    slope = (frames.energy[3] - frames.energy[2]) / (2 * STEP)
    assert frames.forces[frames.first[1], 2] == pytest.approx(-slope, rel=1e-4)
    assert abs(slope) > 0.1


def test_spice_is_read_with_its_units_and_the_gradient_becomes_forces(write_groups):
    frames = read(write_groups(spice))
    agrees(frames)
    assert frames.n_atoms.tolist() == [6] * 4 + [3] * 4 + [2] * 4
    assert not frames.pbc.any()
    assert (
        "dft_total_gradient is a gradient of the energy: forces are −1 times it" in frames.notices
    )
    assert "hartree, bohr, hartree/bohr (energy, length, force from the file)" in frames.notices[0]


def test_ani1x_needs_units_and_nan_is_a_missing_label(write_groups):
    path = write_groups(ani1x)
    with pytest.raises(InputError, match="does not say its energy and length unit"):
        read(path)
    frames = read(path, **HARTREE)
    assert n_missing(frames) == {"energy": 3, "forces": 0, "stress": 12}
    assert frames.energy[0] == pytest.approx(MOLECULES["CH3OH"][0].get_potential_energy())
    np.testing.assert_allclose(frames.forces[:6], MOLECULES["CH3OH"][0].get_forces(), atol=1e-9)
    assert "energies from wb97x_dz.energy" in frames.notices


def test_several_levels_of_theory_must_be_told_apart(write_groups):
    def two(frames):
        return {
            **ani1x(frames),
            "wb97x_tz.energy": np.ones(4),
            "wb97x_tz.forces": np.zeros((4, len(frames[0]), 3)),
        }

    path = write_groups(two)
    with pytest.raises(InputError, match=r"several levels of theory; choose one: --energy-key 'wb"):
        read(path, **HARTREE)
    one = read(path, **HARTREE, energy_key="wb97x_tz.energy")
    assert (one.forces == 0).all()  # of the same level
    mixed = {"energy_key": "ccsd(t)_cbs.energy", "forces_key": "wb97x_dz.forces"}
    assert read(path, **HARTREE, **mixed).energy[0] == pytest.approx(
        (MOLECULES["CH3OH"][0].get_potential_energy() - 1) * units.Hartree
    )


def test_a_level_without_forces_is_not_paired_with_forces_of_another(write_groups):
    frames = read(write_groups(ani1x), **HARTREE, energy_key="ccsd(t)_cbs.energy")
    assert np.isnan(frames.forces).all()
    assert any(notice.startswith("no forces") for notice in frames.notices)


def test_any_other_energy_can_be_named(write_groups):
    path = write_groups(spice)
    shift = read(path, energy_key="formation_energy").energy - read(path).energy
    np.testing.assert_allclose(shift, 40 * units.Hartree)
    with pytest.raises(InputError, match=r"no field 'energies' .*; it has dft_total_energy, dft_"):
        read(path, energy_key="energies")


@pytest.mark.parametrize(
    ("prefix", "names", "symbols"),
    [
        ("gdb11_s01/", ("species", "coordinates", "energies", "forces"), True),  # ANI-1
        ("", ("species", "coordinates", "energy", "forces"), False),  # torchani
        ("data/C2/rxn1/", ("atomic_numbers", "positions", "w.energy", "w.forces"), False),
    ],
)
def test_other_layouts(write_groups, prefix, names, symbols):
    def content(frames):
        numbers, *rest = arrays(frames)
        if symbols:
            numbers = np.array([s.encode() for s in frames[0].get_chemical_symbols()])
        return dict(zip(names, (numbers, *rest)))

    agrees(read(write_groups(content, prefix), energy_unit="eV", length_unit="Ang"))


def test_one_conformer_per_group_as_in_qm7x(write_groups):
    def content(frames):
        numbers, positions, energy, forces = (array[:1] for array in arrays(frames))
        numbers = frames[0].numbers
        return {"atNUM": numbers, "atXYZ": positions[0], "ePBE0+MBD": energy, "totFOR": forces[0]}

    frames = read(write_groups(content, name="set.h5"), energy_unit="eV", length_unit="Ang")
    assert frames.n_atoms.tolist() == [6, 3, 2]
    np.testing.assert_allclose(frames.forces[:6], MOLECULES["CH3OH"][0].get_forces(), atol=1e-9)


def test_cells_are_rows_and_other_names_of_cells_are_refused(write_groups):
    cell = np.diag([9.0, 9, 9]) + np.triu(np.ones((3, 3)), 1)

    def content(frames, name="cell"):
        return {**spice(frames), name: cell}

    frames = read(write_groups(content))
    np.testing.assert_allclose(frames.cell[-1], cell * units.Bohr)
    assert frames.pbc.all()
    with pytest.raises(InputError, match="has 'lattice', which is not read as a cell; name it"):
        read(write_groups(lambda frames: content(frames, "lattice")))


def test_structures_without_labels_for_dynamics(write_groups):
    frames = read_structures(write_groups(spice), index="4:6")
    assert [str(atoms.symbols) for atoms in frames] == ["OH2", "OH2"]
    np.testing.assert_allclose(frames[0].positions, MOLECULES["H2O"][0].positions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conformations": np.zeros((4, 3))}, r"conformations has shape \[4, 3\]; expected \[conf"),
        ({"conformations": np.zeros((4, 6, 2))}, r"shape \[4, 6, 2\]"),
        (
            {"atomic_numbers": np.zeros((3, 6))},
            r"atomic_numbers has shape \[3, 6\]; expected \[6\]",
        ),
        ({"atomic_numbers": np.array([b"Q"] * 6)}, "has an element 'Q'"),
        (
            {"atomic_numbers": np.array([6, 8, 1, 1, 0, 1])},
            "frame 0 has an atom with atomic number 0",
        ),
        ({"dft_total_energy": (np.zeros(3), "hartree")}, r"has shape \[3\] of float64; expected"),
        ({"dft_total_energy": np.array([b"-1"] * 4)}, "expected numbers"),
        (
            {"dft_total_energy": (np.zeros(4), "eV")},
            "is in hartree, and groups before it are in eV",
        ),
        ({"dft_total_gradient": np.zeros((4, 6))}, r"has shape \[4, 6\]"),
        ({"conformations": (np.full((4, 6, 3), np.nan), "bohr")}, "positions that are not finite"),
    ],
)
def test_arrays_that_do_not_fit(write_groups, change, message):
    def content(frames):
        return {**spice(frames), **(change if len(frames[0]) == 6 else {})}

    with pytest.raises(InputError, match=message):
        read(write_groups(content))


def test_no_structures_says_what_is_there(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["particles/all/position"] = np.zeros(3)
    with pytest.raises(InputError, match=r"no group with positions .*it has all, particles, posit"):
        read(tmp_path / "a.h5")


@pytest.mark.parametrize("keep", [0, 9, 500, 3000, 6000])
def test_truncated_files(write_groups, keep):
    path = write_groups(spice)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"cannot read .*xyz|cannot read .*extended XYZ") as caught:
        read(path)
    assert isinstance(caught.value.__cause__, Exception)


def test_links_to_other_files_are_not_followed(write_groups, tmp_path):
    path = write_groups(spice)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["other"] = h5py.ExternalLink(path.name, "/H2O")
    with pytest.raises(InputError, match="no group with positions"):
        read(tmp_path / "link.h5")


def test_arrays_that_claim_more_than_the_memory_are_refused_before_they_are_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["m/atomic_numbers"] = np.ones(1000)
        file.create_dataset("m/coordinates", (10**9, 1000, 3), "f4", chunks=(1, 1000, 3))
    with pytest.raises(InputError, match=r"has 1e\+12 atoms in all frames, which take about"):
        read(tmp_path / "a.h5")


def test_memory_per_atom_is_what_reading_takes(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["m/atomic_numbers"] = np.ones(50)
        file["m/positions"] = rng.normal(size=(2000, 50, 3))
        file["m/forces"] = rng.normal(size=(2000, 50, 3))
    tracemalloc.start()
    frames = read(tmp_path / "a.h5", energy_unit="hartree", length_unit="bohr")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.5 < peak / (frames.numbers.shape[0] * boundary.PER_ATOM) < 1.0
