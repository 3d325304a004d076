"""The JSON header of a model file as one schema: `save` writes what `load` accepts."""

import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from gradpot.errors import InputError
from gradpot.geometry import MAX_Z
from gradpot.process import parse_json

# 2: SchNet's weights do not contain the factors of its filters and branches
FORMAT = 2
# characters; the headers of real models have a few thousand, and parsing a hundred million takes
# seconds and gigabytes
LONGEST_HEADER = 10_000_000


def _atomic_number(z: str) -> str:
    if int(z) > MAX_Z:
        raise ValueError(f"there is no element {z}")
    return z


def _pair(pair: str) -> str:
    one, other = map(int, pair.split("-"))
    if not one <= other <= MAX_Z:
        raise ValueError(f"{pair} is not a pair of elements, the lighter first")
    return pair


Number = Annotated[float, Field(strict=True)]
Positive = Annotated[float, Field(strict=True, gt=0)]
Element = Annotated[
    str, StringConstraints(pattern="^[1-9][0-9]{0,2}$"), AfterValidator(_atomic_number)
]
Pair = Annotated[
    str, StringConstraints(pattern="^[1-9][0-9]{0,2}-[1-9][0-9]{0,2}$"), AfterValidator(_pair)
]
References = Annotated[dict[Element, Number], Field(min_length=1)]
"""energy in eV by atomic number"""


class Section(BaseModel):
    """Part of a header: unknown names, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


Kind = TypeVar("Kind", bound=BaseModel)


class Seen(Section):
    """What the training frames were like, see `potential.seen`."""

    compositions: list[str]
    """their formulas; empty if there are more than a few"""
    fractions: dict[Element, tuple[Number, Number]]
    """smallest and largest fraction of the atoms of each element"""
    periodic_directions: list[Literal[0, 1, 2, 3]]
    """numbers of periodic directions of their cells"""
    charge: tuple[Number, Number] | None
    """smallest and largest total charge in e; None if it is not known"""
    spin: tuple[Number, Number] | None
    """the same for spin or multiplicity, as the file has it"""
    nearest: dict[Pair, Positive]
    """shortest distance in Å of two elements, by atomic numbers: "1-8"; pairs that were never
    within the cutoff are left out"""


class Repulsion(Section):
    """What keeps atoms out of holes of the network, see `potential.repulsion`."""

    form: Literal["zbl"]
    onset: Annotated[dict[Pair, Positive], Field(min_length=1)]
    """distance in Å by atomic numbers, "1-8", for every pair of elements"""
    floor: dict[Element, tuple[Number, Positive]] = {}
    """lowest energy of an atom of each element without its reference, and the width over which it
    turns upwards, both in eV; empty until training ends, and with direct forces"""


class Units(Section):
    """What references, scale and cutoff are in; gradpot writes nothing else."""

    energy: Literal["eV"]
    length: Literal["Ang"]


class Header(Section):
    """The header of a model.safetensors."""

    format: Literal[2]
    model: Annotated[dict[str, Any], Field(min_length=1)]
    """name and arguments, see `models.build`"""
    references: References
    scale: Positive
    """eV"""
    units: Units
    notes: dict[str, Any] = {}
    seen: Seen | None = None
    """None in older files"""
    repulsion: Repulsion | None = None
    """None in older files, and without repulsion"""

    @field_validator("repulsion")
    @classmethod
    def _for_all_elements(cls, repulsion: Repulsion | None, info: Any) -> Repulsion | None:
        """Refuse a record that lacks a pair of the elements of `references`."""
        known = sorted(map(int, info.data.get("references", {})))
        for pair in (f"{one}-{other}" for one in known for other in known if one <= other):
            if repulsion and pair not in repulsion.onset:
                raise ValueError(f"has no onset for {pair}")
        return repulsion


def energies(references: References) -> dict[int, float]:
    """References by atomic number as an integer; JSON has only texts for names."""
    return {int(z): energy for z, energy in references.items()}


def parse_header(text: str, path: str | Path) -> dict[str, Any]:
    """The object that a header's JSON text holds.

    Raises:
        InputError: it is too long, is not JSON, or holds something else.
    """
    if len(text) > LONGEST_HEADER:
        raise InputError(
            f"{path} has a header of {len(text)} characters, more than the {LONGEST_HEADER} that "
            "a model can have: it is damaged"
        )
    try:
        content = parse_json(text)
    except ValueError as error:
        raise InputError(f"{path} is damaged: its header is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: its header is no table but {reprlib.repr(content)}")
    return content


def validated(kind: type[Kind], content: object, path: str | Path) -> Kind:
    """The content of a file's header as an instance of its schema.

    Raises:
        InputError: names the file and the first thing that does not fit.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"{path} is damaged, or of another version of gradpot: in its header, {why(error)}"
        ) from error


def why(error: ValidationError) -> str:
    """The first problem in one line, such as "scale is nan, but must be a finite number"."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "[key]") or "content"
    if first["type"] == "missing":
        return f"{place} is missing"
    if first["type"] == "extra_forbidden":
        return f"{place!r} is unknown"
    problem = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    problem = problem.replace("should ", "must ")
    return f"{place} is {reprlib.repr(first['input'])}, but {problem[0].lower()}{problem[1:]}"
