"""Which units a file is in: what it says, what the user says, and what if they differ."""

from collections.abc import Callable
from typing import NamedTuple

from gradpot import units
from gradpot.errors import InputError
from gradpot.units import Units

_FACTOR: dict[str, Callable[[str], float]] = {
    "energy": units.energy_factor,
    "length": units.length_factor,
    "force": units.force_factor,
}


class Declared(NamedTuple):
    """Unit names from one source, a file or a user; None where it says nothing."""

    energy: str | None = None
    length: str | None = None
    force: str | None = None


def settle(
    path: object, file: Declared, user: Declared, has_energy: bool = True, has_forces: bool = True
) -> tuple[Units, str]:
    """The units of a file, and one line on where they come from.

    The unit of force follows from the others unless it is given. Energies need a unit only where
    there are energies, or forces without a unit of their own.

    Raises:
        InputError: nobody says, the two contradict each other, or a name is not known.
    """
    both = [agree(path, kind, *pair) for kind, *pair in zip(Declared._fields, file, user)]
    energy, length, force = both
    needs_energy = has_energy or (has_forces and force is None)
    missing = [kind for kind, unit in (("energy", energy), ("length", length)) if unit is None]
    if length is None or (needs_energy and energy is None):
        raise InputError(_ask(path, missing if needs_energy else ["length"]))
    settled = Units(energy or "eV", length, force or f"{energy or 'eV'}/{length}")
    settled.factors()
    return settled, f"units: {', '.join(settled)} ({_source(file, user)})"


def agree(path: object, kind: str, file: str | None, user: str | None) -> str | None:
    """What file and user say of one quantity; either may be silent."""
    factor = _FACTOR[kind]
    if user is not None:
        factor(user)
    if not file:
        return user
    try:
        factor(file)
    except InputError as error:
        if user is not None:
            return user
        raise InputError(f"{path}: {error}; or say what it is with --{kind}-unit") from None
    if user is not None and not units.same(file, user, factor):
        raise InputError(
            f"{path} says that its {kind} unit is {file!r}, but --{kind}-unit says {user!r}: "
            "leave out the option, or correct the file"
        )
    return file


def _ask(path: object, missing: list[str]) -> str:
    options = " and ".join(f"--{kind}-unit" for kind in missing)
    keywords = ", ".join(f"{kind}_unit=" for kind in missing)
    example = {"energy": "--energy-unit kcal/mol", "length": "--length-unit Ang"}
    return (
        f"{path} does not say its {' and '.join(missing)} unit: add {options} "
        f"(in Python: {keywords}), for example {' '.join(example[kind] for kind in missing)}"
    )


def _source(file: Declared, user: Declared) -> str:
    said = [kind for kind, unit in zip(Declared._fields, file) if unit]
    told = [kind for kind, unit in zip(Declared._fields, user) if unit and kind not in said]
    parts = ((said, "from the file"), (told, "as told"))
    return "; ".join(f"{', '.join(kinds)} {whence}" for kinds, whence in parts if kinds)
