"""Units: names, factors, round trips, and messages about unknown units."""

import pytest
from ase import units as ase_units
from hypothesis import given
from hypothesis import strategies as st

from gradpot import units
from gradpot.errors import InputError

energies = st.sampled_from(sorted(units.ENERGY))
lengths = st.sampled_from(sorted(units.LENGTH))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("eV", 1.0),
        ("meV", 1e-3),
        ("kcal/mol", 0.0433641),
        ("Kcal/Mol", 0.0433641),
        ("kJ/mol", 0.01036427),
        ("Ha", 27.21138),
        ("hartree", 27.21138),
        ("Ry", 13.60569),
        ("au", 27.21138),
    ],
)
def test_energies_in_ev(name, expected):
    assert units.energy_factor(name) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Ang", 1), ("Å", 1), ("\u212b", 1), ("Angstroms", 1), ("bohr", 0.5291772), ("nm", 10)],
)
def test_lengths_in_angstrom(name, expected):
    assert units.length_factor(name) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("eV/Ang", 1.0),
        ("kcal/mol/Ang", 0.0433641),
        ("kcal/(mol*Å)", 0.0433641),
        ("Hartree/Bohr", 51.42207),
        ("kJ/mol/nm", 0.001036427),
    ],
)
def test_forces_in_ev_per_angstrom(name, expected):
    assert units.force_factor(name) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GPa", 1 / 160.21766),
        ("kbar", 1 / 1602.1766),
        ("eV/Ang^3", 1.0),
        ("eV/Å³", 1.0),
        ("Ha/bohr**3", 183.6315),
    ],
)
def test_stresses_in_ev_per_cubic_angstrom(name, expected):
    assert units.stress_factor(name) == pytest.approx(expected, rel=1e-6)


@given(energies, lengths, st.floats(-1e5, 1e5))
def test_force_is_energy_over_length_and_converts_back(energy, length, value):
    to_ev, to_ang, to_force = units.Units(energy, length, f"{energy}/{length}").factors()
    assert to_force == pytest.approx(to_ev / to_ang)
    assert value * to_force / to_force == pytest.approx(value)


@given(energies, lengths)
def test_stress_is_energy_over_volume(energy, length):
    factor = units.stress_factor(f"{energy}/{length}^3")
    assert factor == pytest.approx(units.energy_factor(energy) / units.length_factor(length) ** 3)


@given(energies, energies)
def test_same_compares_units_not_names(one, other):
    assert units.same(one, other, units.energy_factor) == (
        abs(units.ENERGY[one] / units.ENERGY[other] - 1) < 1e-6
    )
    assert units.same(one.upper().replace("MEV", "meV"), one, units.energy_factor)


@pytest.mark.parametrize("name", ["MeV", "MeV/Ang", "MeV/Ang^3"])
def test_mega_is_not_read_as_milli(name):
    for factor in (units.energy_factor, units.force_factor, units.stress_factor):
        with pytest.raises(InputError, match="meV"):
            factor(name)


@pytest.mark.parametrize(
    ("factor", "name"),
    [
        (units.energy_factor, "cal"),
        (units.energy_factor, ""),
        (units.length_factor, "inch"),
        (units.force_factor, "eV"),
        (units.force_factor, "newton"),
        (units.stress_factor, "eV/Ang"),
        (units.stress_factor, "psi"),
    ],
)
def test_unknown_units_are_named(factor, name):
    with pytest.raises(InputError, match=r"unknown .* unit") as error:
        factor(name)
    assert repr(name) in str(error.value)


def test_gpa_equals_ase():
    assert pytest.approx(ase_units.GPa) == units.GPA
