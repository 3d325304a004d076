"""Units of a file: what it states, what the user states, and what happens if they differ."""

from collections.abc import Callable
from typing import NamedTuple

from gradpot import units
from gradpot.errors import InputError
from gradpot.units import Units

FACTOR: dict[str, Callable[[str], float]] = {
    "energy": units.energy_factor,
    "length": units.length_factor,
    "force": units.force_factor,
}


class Declared(NamedTuple):
    """Unit names from one source: a file, a user or a convention; None where it states none."""

    energy: str | None = None
    length: str | None = None
    force: str | None = None


def settle(
    path: object,
    file: Declared,
    user: Declared,
    default: Declared,
    has_energy: bool,
    has_forces: bool,
) -> tuple[Units, str]:
    """The units of a file, and one line that says where they come from.

    The unit of force follows from the others unless it is given. The unit of energy is needed only
    for energies, and for forces without a unit of their own.

    Args:
        path: of the file, for messages.
        file: what it states.
        user: what the user states.
        default: the convention of the format, used if neither states anything.
        has_energy: whether the file has energies.
        has_forces: whether the file has forces.

    Raises:
        InputError: nobody states a unit, file and user contradict each other, or a name is unknown.
    """
    stated = {kind: agree(path, kind, *pair) for kind, *pair in zip(Declared._fields, file, user)}
    energy, length, force = (one or other for one, other in zip(stated.values(), default))
    needs_energy = has_energy or (has_forces and force is None)
    missing = ["energy"] * (needs_energy and energy is None) + ["length"] * (length is None)
    if missing:
        examples = {"energy": "--energy-unit kcal/mol", "length": "--length-unit Ang"}
        raise InputError(
            f"{path} does not say its {' and '.join(missing)} unit: add "
            f"{' and '.join(f'--{kind}-unit' for kind in missing)} "
            f"(in Python: {', '.join(f'{kind}_unit=' for kind in missing)}), "
            f"for example {' '.join(examples[kind] for kind in missing)}"
        )
    settled = Units(energy or "eV", length or "Ang", force or f"{energy or 'eV'}/{length}")
    settled.factors()
    sources: dict[str, list[str]] = {}
    for (kind, unit), in_file, convention in zip(stated.items(), file, default):
        if unit or convention:
            given = "from the file" if unit == in_file else "as given"
            sources.setdefault(given if unit else "by ASE's convention", []).append(kind)
    whence = "; ".join(f"{', '.join(kinds)} {source}" for source, kinds in sources.items())
    return settled, f"units: {', '.join(settled)} ({whence})"


def agree(path: object, kind: str, file: str | None, user: str | None) -> str | None:
    """The unit of one quantity, as the file or the user states it; None if neither does.

    Raises:
        InputError: they contradict each other, or a name is unknown.
    """
    factor = FACTOR[kind]
    if user is not None:
        factor(user)
    if not file:
        return user
    try:
        factor(file)
    except InputError as error:
        if user is not None:
            return user
        raise InputError(f"{path}: {error}; or say what it is with --{kind}-unit") from error
    if user is not None and not units.same(file, user, factor):
        raise InputError(
            f"{path} says that its {kind} unit is {file!r}, but --{kind}-unit says {user!r}: "
            "leave out the option, or correct the file"
        )
    return file
