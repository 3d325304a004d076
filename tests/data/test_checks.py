"""Checks of data sets: correct ones pass, and warnings name what is wrong with broken copies."""

import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from gradpot.data import checks
from gradpot.data.consistency import Fit, check_forces, check_stress, fit, judge, near_pairs
from gradpot.data.files import StressLabel, read, require
from gradpot.data.frames import Frames, join

KCAL = units.kcal / units.mol
EV = {"energy_unit": "eV", "length_unit": "Ang"}
SETS = {
    "3bpa/3bpa_train_300K500.npz": {},
    "acac/acac_train_300K_500.npz": {},
    "h2co_ccsdt/h2co_ccsdt_avtz_4001.npz": EV,
    "md17_ethanol/md17_ethanol_2000.npz": {},
    "md17_ethanol_traj/md17_ethanol_traj2000.npz": {
        "energy_unit": "kcal/mol",
        "length_unit": "Ang",
    },
    "mlearn_si/si_training214.npz": {},
    "mlearn_si/si_test25.npz": {},
    "qm7x_250x10/qm7x_250_small.npz": EV,
    "rmd17_aspirin/rmd17_aspirin_train1200.npz": {},
    "rmd17_ethanol/rmd17_ethanol_train1000.npz": {},
    "si64_periodic/sitraj.xyz": {},
    "water_periodic/water192_400.npz": {},
}


def frames_of(structures: list[Atoms]) -> Frames:
    """Structures labeled by their calculators."""
    n = np.array([len(atoms) for atoms in structures])
    return Frames(
        n_atoms=n,
        numbers=np.concatenate([atoms.numbers for atoms in structures]),
        positions=np.concatenate([atoms.positions for atoms in structures]),
        cell=np.array([atoms.cell[:] * atoms.pbc[:, None] for atoms in structures]),
        pbc=np.array([atoms.pbc for atoms in structures]),
        energy=np.array([atoms.get_potential_energy() for atoms in structures]),
        forces=np.concatenate([atoms.get_forces() for atoms in structures]),
        stress=np.array([_stress(atoms) for atoms in structures]),
        charge=np.full(len(n), np.nan),
        spin=np.full(len(n), np.nan),
        isolated=np.zeros(len(n), dtype=bool),
    )


def _stress(atoms: Atoms) -> np.ndarray:
    return atoms.get_stress(voigt=False) if atoms.pbc.all() else np.full((3, 3), np.nan)


def rattled(atoms: Atoms, n: int = 12, size: float = 0.03, rotate: bool = False) -> Frames:
    structures = []
    for seed in range(n):
        copy = atoms.copy()
        copy.rattle(size, seed=seed)
        if rotate:
            copy.rotate(37.0 * seed, (1, seed, 2))
        copy.calc = EMT()
        structures.append(copy)
    return frames_of(structures)


@pytest.fixture(scope="module")
def ethanol() -> Frames:
    """Rattled and rotated, so that frames must be superimposed."""
    return rattled(molecule("CH3CH2OH"), rotate=True)


@pytest.mark.parametrize("name", SETS)
def test_real_sets_are_consistent(data, name):
    frames = read(data / name, **SETS[name])
    summary = checks.inspect(frames)
    assert summary["consistency"]["verdict"] == "consistent"
    assert summary["duplicates"] == 0
    json.dumps(summary, allow_nan=False)
    other = [w for w in summary["warnings"] if "add up to zero" not in w]
    assert ["trajectory" in w for w in other] == [True] * ("traj2000" in name)
    flipped = check_forces(frames._replace(forces=-frames.forces))
    assert flipped["verdict"] == "sign error"
    kcal = check_forces(frames._replace(forces=frames.forces / KCAL))
    assert kcal["verdict"] == "unit error"
    assert "forces look like kcal/mol/Ang while energies are eV" in kcal["text"]


def test_kcal_taken_for_ev_is_noticed_by_its_strong_forces(data):
    frames = read(data / "md17_ethanol_traj" / "md17_ethanol_traj2000.npz", **EV)
    summary = checks.inspect(frames)
    assert summary["consistency"]["verdict"] == "consistent"
    assert any("--energy-unit kcal/mol" in warning for warning in summary["warnings"])


def test_bohr_taken_for_angstrom_is_noticed_by_its_long_bonds(data):
    frames = read(data / "rmd17_ethanol" / "rmd17_ethanol_train1000.npz")
    wide = frames._replace(positions=frames.positions / units.Bohr)
    assert any("bohr" in warning for warning in checks.inspect(wide)["warnings"])


@pytest.mark.parametrize(
    ("energy", "force", "verdict", "text"),
    [
        (1, 1, "consistent", "agree"),
        (1, -1, "sign error", "gradients"),
        (1, 1 / KCAL, "unit error", "forces look like kcal/mol/Ang while energies are eV"),
        (1, -1 / KCAL, "unit error", "sign is wrong too"),
        (1 / KCAL, 1, "unit error", "energies look like kcal/mol while forces are eV/Ang"),
        (
            1,
            1 / units.Hartree,
            "unit error",
            "energies look like kcal/mol|forces look like hartree",
        ),
        (1 / units.Hartree, 1, "unit error", "energies look like hartree"),
        (1e3, 1, "unit error", "energies look like meV"),
        (1, 1 / units.Hartree * units.Bohr, "unit error", "forces look like hartree/bohr"),
        (1, 17.0, "unit error", "times too large"),
    ],
)
def test_broken_copies_of_a_molecule(ethanol, energy, force, verdict, text):
    broken = ethanol._replace(energy=ethanol.energy * energy, forces=ethanol.forces * force)
    found = check_forces(broken)
    assert found["verdict"] == verdict
    assert any(part in found["text"] for part in text.split("|"))


def test_slope_of_a_molecule_does_not_depend_on_orientation(ethanol):
    still = rattled(molecule("CH3CH2OH"))
    one, other = fit(near_pairs(ethanol)), fit(near_pairs(still))
    assert one is not None
    assert other is not None
    assert one.slope == pytest.approx(other.slope, rel=1e-6)


def test_crystals_use_the_nearest_image():
    frames = rattled(bulk("Cu", cubic=True).repeat(2))
    hops = np.random.default_rng(1).integers(-1, 2, frames.positions.shape)
    hopped = frames._replace(positions=frames.positions + hops @ frames.cell[0])
    for some in (frames, hopped):
        assert check_forces(some)["slope"] == pytest.approx(1, abs=0.05)


@pytest.fixture(scope="module")
def strained() -> Frames:
    """Copper cells, sheared and stretched by a few percent, atoms rattled."""
    structures = []
    for seed in range(16):
        atoms = bulk("Cu", cubic=True)
        strain = 0.02 * np.random.default_rng(seed).normal(size=(3, 3))
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + strain), scale_atoms=True)
        atoms.rattle(0.02, seed=seed)
        atoms.calc = EMT()
        structures.append(atoms)
    return frames_of(structures)


@pytest.mark.parametrize(
    ("factor", "verdict", "text"),
    [
        (1, "consistent", "stress times strain"),
        (-1, "sign error", "--stress-sign"),
        (10, "unit error", "it looks like kbar, but was read as GPa (--stress-unit)"),
        (1e-3, "unit error", "times too small"),
        (1 / 160.2, "unit error", "it looks like eV/Ang^3, but was read as GPa"),
        (1602, "unit error", "it looks like kbar, but was read as eV/Ang^3"),
        (-160.2, "unit error", "times too large"),
    ],
)
def test_stress_against_energies_of_strained_cells(strained, factor, verdict, text):
    found = check_stress(strained._replace(stress=factor * strained.stress))
    assert found is not None
    assert found["verdict"] == verdict
    assert text in found["text"]


def test_stress_of_a_real_set_has_the_sign_that_was_given(data):
    path = data / "mlearn_si" / "si_training214.npz"
    for sign, verdict in (("compression", "consistent"), ("tension", "sign error")):
        label = StressLabel("virial_stress", "kbar", "vasp", sign)
        summary = checks.inspect(read(path, stress=label))
        assert summary["stress_consistency"]["verdict"] == verdict
        assert len(summary["warnings"]) == (verdict == "sign error")


def test_stress_of_one_cell_cannot_be_judged(ethanol):
    found = check_stress(rattled(bulk("Cu", cubic=True)))
    assert found is not None
    assert found["verdict"] == "cannot tell"
    assert check_stress(ethanol) is None


def test_isolated_atoms_are_no_part_of_the_energies():
    structures = [Atoms("Cu"), bulk("Cu"), bulk("Cu", cubic=True)]
    for atoms in structures:
        atoms.calc = EMT()
    frames = frames_of(structures)
    atom = np.array([True, False, False])
    frames = frames._replace(isolated=atom, energy=np.array([-1000.0, -3.0, -12.0]))
    summary = checks.inspect(frames)
    assert summary["energy_eV"]["min"] == -12.0
    assert summary["isolated_atoms"] == 1
    assert summary["energy_without_atoms_std_eV"] == pytest.approx(0.0, abs=1e-9)
    pressed = frames._replace(stress=np.full((3, 3, 3), units.GPa))
    assert checks.inspect(pressed)["stress"] == pytest.approx(
        {"rms_meV_A3": 1e3 * units.GPa, "rms_GPa": 1.0}
    )


def test_slabs_too():
    slab = bulk("Cu", cubic=True).repeat(2)
    slab.pbc = (True, True, False)
    assert check_forces(rattled(slab))["verdict"] == "consistent"


def test_mirror_images_are_not_superimposed():
    chiral = Atoms(
        "CHNOAl", positions=[[0, 0, 0], [1, 0, 0], [0, 1.2, 0], [0, 0, 1.3], [-1, -1, -1]]
    )
    mirror = chiral.copy()
    mirror.positions[:, 2] *= -1
    for atoms in (chiral, mirror):
        atoms.calc = EMT()
    frames = frames_of([chiral, mirror])
    assert near_pairs(frames._replace(forces=frames.forces)).distance.min() > 0.5


def test_lengths_declared_in_bohr_that_are_in_angstrom_are_noticed(data):
    frames = read(data / "rmd17_ethanol" / "rmd17_ethanol_train1000.npz")
    short = frames._replace(positions=frames.positions * units.Bohr)
    warnings = checks.inspect(short)["warnings"]
    assert any("declared as bohr but actually in Å?" in warning for warning in warnings)


def test_random_labels_cannot_be_judged(ethanol):
    rng = np.random.default_rng(0)
    noise = ethanol._replace(energy=rng.normal(size=ethanol.energy.shape))
    assert check_forces(noise)["verdict"] == "cannot tell"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Fit(1.0, 0.99, 0.01, 3, 0.1), "cannot tell"),
        (Fit(1.0, 0.3, 0.01, 100, 0.1), "cannot tell"),
        (Fit(1.0, 0.99, 2.0, 100, 0.1), "cannot tell"),
        (Fit(0.7, 0.99, 0.01, 100, 0.1), "cannot tell"),
        (Fit(0.53, 0.99, 0.2, 100, 0.1), "cannot tell"),
        (Fit(0.53, 0.99, 0.01, 100, 0.1), "unit error"),
        (Fit(0.0, 0.9, 0.0, 100, 0.1), "cannot tell"),
    ],
)
def test_weak_evidence_is_not_judged(found, verdict):
    assert judge(found)[0] == verdict


def test_missing_labels_leave_nothing_to_compare(ethanol):
    summary = checks.inspect(
        ethanol._replace(
            energy=np.full_like(ethanol.energy, np.nan), forces=np.full_like(ethanol.forces, np.nan)
        )
    )
    assert summary["consistency"]["verdict"] == "cannot tell"
    assert summary["missing"] == {"energy": 12, "forces": 12, "stress": 12}
    assert summary["energy_eV"] is None
    assert summary["forces_eV_A"] is None
    json.dumps(summary, allow_nan=False)


def test_duplicates_and_net_forces(ethanol):
    twice = ethanol.take(np.array([0, 1, 2, 0, 1, 3]))
    twice.forces[:9] += 0.5
    summary = checks.inspect(twice)
    assert summary["duplicates"] == 2
    assert summary["net_force_eV_A"]["frame"] == 0
    assert summary["net_force_eV_A"]["max"] == pytest.approx(9 * 0.5 * np.sqrt(3), rel=1e-6)
    assert len(summary["warnings"]) == 2


def test_mixed_sizes_compositions_and_lone_atoms(ethanol):
    single = Atoms("Ar", positions=[[0, 0, 0]])
    oxygen = molecule("O2")
    for atoms in (single, oxygen):
        atoms.calc = EMT() if "Ar" not in atoms.symbols else None
    other = frames_of([oxygen])
    lone = other._replace(
        n_atoms=np.array([1]),
        numbers=np.array([18]),
        positions=np.zeros((1, 3)),
        forces=np.zeros((1, 3)),
    )
    parts = (ethanol, other, lone)
    summary = checks.inspect(join(parts))
    assert summary["n_atoms"] == {"min": 1, "max": 9}
    assert summary["compositions"] == 3
    assert summary["elements"] == {"H": 72, "C": 24, "O": 14, "Ar": 1}
    assert checks.inspect(lone)["shortest_distance_A"] is None


def test_shortest_distance_includes_periodic_images():
    atoms = Atoms("Cu2", positions=[[0.1, 0, 0], [9.8, 0, 0]], cell=[10, 20, 20], pbc=True)
    atoms.calc = EMT()
    assert checks.shortest_distance(frames_of([atoms])) == pytest.approx(0.3)
    atoms.pbc = False
    assert checks.shortest_distance(frames_of([atoms])) == pytest.approx(9.7)


@pytest.mark.parametrize(
    ("name", "place", "half"),
    [("forces", (1, 0), [0]), ("forces", (5, slice(None)), [2]), ("stress", (1, 0, 0), [1])],
)
def test_labels_that_are_missing_in_part_are_pointed_out(name, place, half):
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [2.5, 0, 0]], cell=[8] * 3, pbc=True)
    atoms.calc = EMT()
    frames = frames_of([atoms] * 3)
    label = getattr(frames, name).copy()
    label[place] = np.nan
    frames = frames._replace(**{name: label})
    summary = checks.inspect(frames)
    assert summary["half_labeled"] == half
    assert any("are missing for some atoms" in text for text in summary["warnings"])
    [line] = require(frames, stress=True)
    assert line.startswith(f"1 of 3 frames have no {name}, wholly or in part")
    assert checks.inspect(frames_of([atoms] * 3))["half_labeled"] == []
