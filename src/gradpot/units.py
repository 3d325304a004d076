"""Units: the only file with conversion factors.

Inside the package everything is in eV, Å, eV/Å and eV/Å³. A quantity is converted once, where it
enters, by one of the factors below.
"""

from typing import NamedTuple

from ase import units as ase_units

from gradpot import other_names
from gradpot.errors import InputError, did_you_mean, shown, unknown

ENERGY = {
    "ev": 1.0,
    "mev": 1e-3,
    "hartree": ase_units.Hartree,
    "ha": ase_units.Hartree,
    "eh": ase_units.Hartree,
    "au": ase_units.Hartree,
    "rydberg": ase_units.Rydberg,
    "ry": ase_units.Rydberg,
    "kcal/mol": ase_units.kcal / ase_units.mol,
    "kj/mol": ase_units.kJ / ase_units.mol,
}
LENGTH = {
    "ang": 1.0,
    "angstrom": 1.0,
    "å": 1.0,
    "a": 1.0,
    "bohr": ase_units.Bohr,
    "a0": ase_units.Bohr,
    "au": ase_units.Bohr,
    "nm": ase_units.nm,
    "pm": 1e-3 * ase_units.nm,
}
PRESSURE = {
    "gpa": ase_units.GPa,
    "kbar": 0.1 * ase_units.GPa,
    "bar": ase_units.bar,
    "mpa": 1e-3 * ase_units.GPa,
    "pa": ase_units.Pascal,
}
GPA = ase_units.GPa
# e²/(4πε₀) in eV Å: the energy of two unit charges 1 Å apart
COULOMB = ase_units.Hartree * ase_units.Bohr


class Units(NamedTuple):
    """Names of the units of a file, such as eV, Ang and eV/Ang."""

    energy: str
    length: str
    force: str

    def factors(self) -> tuple[float, float, float]:
        """Factors to eV, Å and eV/Å."""
        return energy_factor(self.energy), length_factor(self.length), force_factor(self.force)


def energy_factor(unit: str) -> float:
    """Multiply by this to get eV: `energy_factor("kcal/mol")` is 0.0434.

    Raises:
        InputError: the unit is unknown.
    """
    return _look_up("energy", unit, ENERGY)


def length_factor(unit: str) -> float:
    """Multiply by this to get Å: `length_factor("bohr")` is 0.529.

    Raises:
        InputError: the unit is unknown.
    """
    return _look_up("length", unit, LENGTH)


def force_factor(unit: str) -> float:
    """Multiply by this to get eV/Å, for an energy unit over a length unit ("kcal/mol/Ang").

    Raises:
        InputError: the unit is not such a ratio, or one of its parts is unknown.
    """
    energy, slash, length = _plain(unit).rpartition("/")
    if not slash or energy not in ENERGY or length not in LENGTH:
        hint = did_you_mean(unit, [f"{energy}/ang" for energy in ENERGY])
        raise InputError(
            f"unknown force unit {shown(unit)}{hint}; write an energy unit over a length unit, "
            "such as eV/Ang, kcal/mol/Ang or hartree/bohr"
        )
    return ENERGY[energy] * LENGTH[length] ** -1


def stress_factor(unit: str) -> float:
    """Multiply by this to get eV/Å³, for a pressure ("kbar") or energy over length³ ("eV/Ang^3").

    Raises:
        InputError: the unit is neither, or one of its parts is unknown.
    """
    name = _plain(unit).replace("³", "^3").replace("**3", "^3")
    if name in PRESSURE:
        return PRESSURE[name]
    energy, _, length = name.removesuffix("^3").rpartition("/")
    if name.endswith("^3") and energy in ENERGY and length in LENGTH:
        return ENERGY[energy] / LENGTH[length] ** 3
    hint = did_you_mean(unit, [*PRESSURE, *(f"{energy}/ang^3" for energy in ENERGY)])
    raise InputError(
        f"unknown stress unit {shown(unit)}{hint}; known: {', '.join(PRESSURE)}, eV/Ang^3, "
        "hartree/bohr^3 ..."
    )


def same(one: str, other: str, factor) -> bool:
    """Whether two names mean the same unit, as "Ha" and "hartree" do.

    `factor` is the function above that belongs to their quantity.

    Raises:
        InputError: a unit is unknown.
    """
    return abs(factor(one) / factor(other) - 1) < 1e-6


def _look_up(kind: str, unit: str, table: dict[str, float]) -> float:
    name = _plain(unit)
    if name not in table:
        meant = {theirs: ours for theirs, ours in other_names.UNITS.items() if ours in table}
        raise unknown(f"{kind} unit", unit, table, meant)
    return table[name]


def _plain(unit: str) -> str:
    """Turn "kcal/(mol*Å)", "Kcal/mol/Angstroms" and the like into names of the tables.

    Raises:
        InputError: it begins with "MeV", which would become milli in lower case.
    """
    if unit.strip().startswith("MeV"):
        raise InputError(f"unit {unit!r} means mega-electronvolts; for milli, write 'meV'")
    name = unit.strip().lower().replace(" ", "").replace("\u212b", "å")
    name = name.replace("(mol*", "mol/").replace("(mol·", "mol/").replace(")", "")
    return name.replace("angstroms", "angstrom")
