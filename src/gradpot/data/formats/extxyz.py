"""What the text of an extended XYZ file says, beyond what ASE makes of it.

ASE drops a cell that is spelled otherwise, the first of two values of one name, columns without a
name, and units; none of them may be lost without a word.
"""

import re
import sys
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from gradpot.data.declared import Declared
from gradpot.data.formats.labels import ENERGIES
from gradpot.errors import InputError
from gradpot.other_names import by_their_name

# what ASE calls fields that people spell in other ways, in lower case
SPELLING = by_their_name(
    {"Lattice": "lattice cell", "pbc": "pbc periodic", "Properties": "properties"}
)
# prefix of names that ASE would otherwise treat in its own way
MASK = "_as_written_"
# words that may be the unit of an energy in the same line; Au may be gold, and eV is the default
ENERGY_WORDS = {"Eh", "Ha", "au", "a.u.", "hartree", "Hartree", "Ry", "Rydberg", "meV"}
ENERGY_WORDS |= {"kcal/mol", "kJ/mol"}
# names of units, as people write them before "unit"
QUANTITY = by_their_name(
    {
        "energy": "energy e",
        "length": "length distance position pos r",
        "force": "force f",
        "stress": "stress virial",
    }
)
VALUE = re.compile(r"""([^\s="'{}\[\]]+)\s*=\s*("[^"]*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|[^\s,]+)""")
# digits; a longer number of atoms does not fit into 64 bits
LONGEST_COUNT = 18
# of the number of columns of one property; ASE makes a name for each column
COLUMN_DIGITS = 4
# columns of a line of an atom if Properties does not name them: symbol, x, y, z
N_COLUMNS = 4


def comment_line(line: str) -> dict[str, Any]:
    """A comment line as ASE reads it; nine numbers of a stress stay as they are.

    Raises:
        InputError: a name has two values, pbc is a word that is neither true nor false, or
            Properties has too many columns, which ASE would count one by one.
    """
    from ase.io.extxyz import key_val_str_to_dict

    values: dict[str, str] = {}
    for name, value in VALUE.findall(line):
        if values.setdefault(name, value) != value:
            raise InputError(f"a comment line has both {name}={values[name]} and {name}={value}")
    properties = values.get("Properties", "").strip("\"'").split(":")
    line = re.sub(r"(?<![\w-])(stress|virial)(?=\s*=)", MASK + r"\1", line)
    if {"species", "Z"} <= set(properties):
        line = line.replace(":Z:", f":{MASK}Z:")
    found = key_val_str_to_dict(line)
    for n in str(found.get("Properties", "")).split(":")[2::3]:
        if len(n.strip()) > COLUMN_DIGITS:
            columns = n.strip()[:LONGEST_COUNT]
            raise InputError(f"a comment line has Properties with {columns} columns")
    if isinstance(found.get("pbc"), str):
        raise InputError(f"a comment line has pbc={found['pbc']!r}; expected T or F for each axis")
    return found


def check_counts(path: Path) -> None:
    """Raise an InputError if the file ends within a frame: ASE counts up to any number of atoms."""
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "r") as file:
        for i, head in enumerate(iter(file.readline, "")):
            if not head.strip().isdecimal():
                return  # ASE says what is wrong
            text = head.strip()
            n_atoms = int(text) if len(text) < LONGEST_COUNT else sys.maxsize - 1
            found = sum(1 for _ in islice(file, n_atoms + 1)) - 1
            if found < n_atoms:
                raise InputError(
                    f"frame {i} ends after {max(found, 0)} of {text[:LONGEST_COUNT]} atoms"
                )


def check_fields(
    path: Path, i: int, fields: dict[str, Any], numbers: Int[np.ndarray, "n_atoms"]
) -> None:
    """Raise an InputError if frame `i` has a cell that ASE ignores, or columns that contradict."""
    for key in fields:
        if key.lower() in SPELLING:
            raise InputError(
                f"{path}: frame {i} has a field {key!r}, which ASE does not read; write it as "
                f"{SPELLING[key.lower()]}"
            )
    if (fields.get(MASK + "Z", numbers) != numbers).any():
        raise InputError(f"{path}: frame {i} has columns species and Z that are not the same atoms")


def is_unit(key: str) -> bool:
    """Whether a field states a unit that `stated_units` reads."""
    return _quantity(key) is not None


def stated_units(path: Path, frames: Sequence[dict[str, Any]]) -> tuple[Declared, str | None]:
    """Units that the comment lines state, and that of stress: `energy-unit=hartree`.

    What may be a unit but has no clear meaning (`units=atomic`, the bare word Eh)
    becomes a unit with an unknown name, so that the user is asked.

    Raises:
        InputError: frames state different units, or only some frames state one.
    """
    stated = [_units_of(frame) for frame in frames]
    for i, own in enumerate(stated):
        for quantity in sorted(own.keys() | stated[0].keys()):
            if own.get(quantity) != stated[0].get(quantity):
                here, before = own.get(quantity, "none"), stated[0].get(quantity, "none")
                raise InputError(
                    f"{path}: frame {i} states the {quantity} unit {here}, and frames before it "
                    f"{before}; write all in one unit, and state it in each frame"
                )
    found = dict(stated[0]) if stated else {}
    stress = found.pop("stress", None)
    return Declared(**found), stress


def unnamed_columns(path: Path) -> list[str]:
    """A notice if atoms have more columns than `Properties` names; ASE drops the others."""
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "r") as file:
        for i, head in enumerate(iter(file.readline, "")):
            line = file.readline()
            try:
                n_atoms = int(head.split()[0])
                properties = dict(VALUE.findall(line)).get("Properties", "").strip("\"'")
                named = sum(map(int, properties.split(":")[2::3])) if properties else N_COLUMNS
            except (ValueError, IndexError):
                return []  # ASE's own way of writing a cell, or a damaged file
            first = file.readline().split()
            if n_atoms and len(first) > named:
                return [
                    f"not read: frame {i} has {len(first)} columns, of which Properties names "
                    f"{named}; to read forces, write Properties=species:S:1:pos:R:3:forces:R:3"
                ]
            for _ in islice(file, max(n_atoms - 1, 0)):
                pass
    return []


@cache
def _quantity(key: str) -> str | None:
    """Of which quantity a field states the unit; "" if it does not say."""
    name = re.fullmatch(r"(?:(.+)[-_ ])?units?", key.lower())
    if name is None or name[1] is None:
        return None if name is None else ""
    return QUANTITY.get(name[1], QUANTITY.get(name[1].removesuffix("s")))


def _units_of(frame: dict[str, Any]) -> dict[str, str]:
    """Unit of each quantity that a frame states."""
    found: dict[str, str] = {}
    for key, value in frame.items():
        quantity = _quantity(key)
        if quantity:
            found[quantity] = str(value)
        elif quantity == "" and isinstance(value, str):
            found |= {"energy": f"{key}={value}", "length": f"{key}={value}"}
        elif value is True and key in ENERGY_WORDS and not frame.keys().isdisjoint(ENERGIES):
            found["energy"] = f"the word {key}"
    return found
