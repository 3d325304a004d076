"""The JSON of MPtrj: an id of the Materials Project → a frame id → a structure of pymatgen, labels.

The whole set has 12 GB, so one member of the outermost object is in memory at a time. Lengths are
Å and energies eV; stress is in kbar, as VASP prints it.
"""

import json
import re
from collections.abc import Iterator
from io import TextIOBase
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from gradpot.data.declared import Declared
from gradpot.data.formats.boundary import CONVERT, check_size, reading
from gradpot.data.raw import Keys, Raw
from gradpot.data.stress import StressLabel
from gradpot.errors import InputError

STRESS = StressLabel("stress", "kbar", "matrix", "compression")
# total energies. The forces are the gradient of the first; the second adds a number per composition
ENERGIES = ("uncorrected_total_energy", "corrected_total_energy")
# fields of a frame by which MPtrj is recognized
FIELDS = {"structure", *ENERGIES, "energy_per_atom"}
# characters read at once, and the largest member of the outermost object; MPtrj's have up to 20 MB
CHUNK, LARGEST = 2**22, 2**30


def is_mptrj(path: Path) -> bool:
    """Whether the first member of the outermost object has frames with fields of MPtrj."""
    with open(path, encoding="utf-8", errors="replace") as file:
        try:
            _, frames = next(members(file))
            frame = next(iter(frames.values()))
            return bool(FIELDS & frame.keys())
        except (ValueError, AttributeError, StopIteration, RecursionError):
            return False


def read_mptrj(path: Path, wanted: Keys) -> Raw:
    """What MPtrj's JSON holds: the uncorrected energies of DFT, which belong to the forces.

    Raises:
        InputError: the file is damaged, or a frame has no structure or arrays of wrong sizes.
    """
    energy = wanted.energy or ENERGIES[0]
    if "per_atom" in energy:
        raise InputError(f"{energy!r} is no total energy; MPtrj has {' and '.join(ENERGIES)}")
    rows, keys, total = [], set(), 0
    with reading(path, "MPtrj's JSON"), open(path, encoding="utf-8") as file:
        for outer, frames in members(file):
            for name, frame in frames.items():
                if "structure" not in frame:
                    raise InputError(
                        f"{path}: {outer}/{name} has no structure; add it, or {CONVERT}"
                    )
                keys |= frame.keys()
                rows.append(_frame(f"{path}: {outer}/{name}", frame, energy, wanted.forces))
                total += rows[-1][0].shape[0]
                check_size(path, total)
        wanted.check(path, keys)
        numbers, positions, forces, cell, pbc, energies, stress = zip(*rows)
    return Raw(
        n_atoms=np.array([n.shape[0] for n in numbers]),
        numbers=np.concatenate(numbers),
        positions=np.concatenate(positions),
        cell=np.array(cell),
        pbc=np.array(pbc),
        energy=np.array(energies),
        forces=np.concatenate(forces),
        keys=keys,
        field=lambda key: {"stress": np.array(stress)}[key],
        units=Declared("eV", "Ang"),
        forces_key=wanted.forces,
        stress=STRESS if "stress" in keys else None,
        unused=tuple(keys - {"structure", energy, wanted.forces or "force", "stress"}),
        notices=(f"energies from {energy}",),
    )


def members(file: TextIOBase) -> Iterator[tuple[str, Any]]:
    """Name and value of each member of the outermost object, one at a time.

    Raises:
        ValueError: this is not an object of JSON, or is cut off.
    """
    text, place, before = file.read(CHUNK), 0, "{"
    while True:
        try:
            name, value, place = _member(text, place, before)
        except ValueError:
            if re.compile(r"\s*\}\s*").fullmatch(text, place) and before == ",":
                return
            more = file.read(max(CHUNK, len(text) - place))  # twice as much: few retries
            if not more or len(text) - place > LARGEST:
                raise
            text, place = text[place:] + more, 0
            continue
        yield name, value
        before = ","


def _member(text: str, place: int, before: str) -> tuple[str, Any, int]:
    """Name and value of the member after this place, which has `before` first, and their end.

    Raises:
        ValueError: it is not JSON, or is not complete.
    """
    decode = json.JSONDecoder().raw_decode

    def skip(sign: str, place: int) -> int:
        found = re.compile(rf"\s*{sign}\s*").match(text, place)
        if found is None:
            raise ValueError(f"expected {sign!r} at {text[place : place + 20]!r}")
        return found.end()

    name, place = decode(text, skip(re.escape(before), place))
    if not isinstance(name, str):
        raise ValueError(f"expected a name, not {name!r}")
    value, place = decode(text, skip(":", place))
    skip("[,}]", place)
    return name, value, place


def _frame(where: str, frame: dict, energy: str, forces: str | None) -> tuple:
    """Numbers, positions, forces, cell, pbc, energy and stress of one frame; NaN if missing.

    Raises:
        InputError: forces or stress have a wrong size.
    """
    numbers, positions, cell, pbc = structure(where, frame["structure"])
    n_atoms = numbers.shape[0]
    found = []
    for key, shape in ((forces or "force", (n_atoms, 3)), (energy, ()), ("stress", (9,))):
        value = frame.get(key)
        array = np.array(np.full(shape, np.nan) if value is None else value, dtype=np.float64)
        if array.size != int(np.prod(shape)):
            raise InputError(f"{where} has {key} in shape {list(array.shape)} for {n_atoms} atoms")
        found.append(array.reshape(shape))
    return numbers, positions, found[0], cell, pbc, float(found[1]), found[2]


def structure(where: str, stored: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers, positions in Å, cell in rows and pbc of a structure of pymatgen.

    Raises:
        InputError: there is no lattice, pbc is no list of three truth values, or a site has several
            elements, a part of one, or none.
    """
    if missing := {"lattice", "sites"} - stored.keys():
        raise InputError(f"{where} has a structure without {' and '.join(sorted(missing))}")
    cell = np.array(stored["lattice"]["matrix"], dtype=np.float64).reshape(3, 3)
    symbols, inside = [], []
    for site in stored["sites"]:
        (species, *others) = site["species"]
        symbol = species["element"]
        if others or species.get("occu", 1) != 1 or symbol not in atomic_numbers:
            raise InputError(f"{where} has a site with {site['species']}; expected one element")
        symbols.append(atomic_numbers[symbol])
        inside.append(site["abc"])
    positions = np.array(inside, dtype=np.float64).reshape(len(symbols), 3) @ cell
    pbc = stored["lattice"].get("pbc", [True, True, True])
    if not (isinstance(pbc, list) and len(pbc) == 3 and all(type(axis) is bool for axis in pbc)):
        raise InputError(f"{where} has pbc={pbc!r}; expected true or false for each axis")
    return np.array(symbols, dtype=int), positions, cell, np.array(pbc)
