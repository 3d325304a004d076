"""The settings of a training run: typed, validated; TOML or key=value in, JSON out."""

import json
import tomllib
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from gradpot.errors import InputError

# torch and numpy count in 32 bits in places
Count = Annotated[int, Field(ge=1, lt=2**31)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31)]


def one_of(table: str) -> BeforeValidator:
    """Accept the names in a dict of gradpot, written "module:DICT".

    The dict is the only list of its names. Its module, which imports torch, is imported when a
    name is checked; defaults are not checked.
    """

    def check(value: object) -> object:
        known = tuple(resolve_name(f"gradpot.{table}"))
        if value in known:
            return value
        names = f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
        raise PydanticCustomError("unknown_name", "{names}", {"names": names})

    return BeforeValidator(check)


class Section(BaseModel):
    """A table of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Data(Section):
    """Where frames come from and how they are split."""

    file: str = "ethanol"
    energy_unit: str | None = None
    length_unit: str | None = None
    force_unit: str | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    unconverged: bool = False
    """read the labels of calculations that did not converge, too"""
    stress_key: str | None = None
    stress_unit: str | None = None
    stress_order: str | None = None
    stress_sign: str | None = None
    split: str = "random"
    n_train: Count | None = None
    n_valid: Count | None = None
    n_test: CountOrZero | None = None


class Model(BaseModel):
    """Name and arguments of a model; its class defines the arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "painn"


class Rescale(Section):
    """Reference energies and the scale of the labels (`data.references`)."""

    mode: Annotated[str, one_of("data.references:MODES")] = "forces"
    constant: float | None = Field(default=None, gt=0)
    references: str | dict[str, float] = "auto"
    """auto, none, least-squares, isolated (single atoms in the data), a file of isolated atoms,
    or a table of atom energies in eV; auto means none for the modes none and constant, and
    least-squares for the others"""


class Loss(Section):
    """Weights of the residuals, in the units that `rescale` sets."""

    energy: float = Field(default=1.0, ge=0)
    """per atom"""
    forces: float = Field(default=1.0, ge=0)
    stress: float = Field(default=0.0, ge=0)
    """stress times volume per atom, an energy"""
    penalty: Annotated[str, one_of("train.loss:PENALTIES")] = "huber"
    huber_delta: float = Field(default=0.01, gt=0)

    @model_validator(mode="after")
    def _something_is_learned(self) -> "Loss":
        if not (self.energy or self.forces or self.stress):
            raise ValueError("energy, forces and stress all have weight 0; nothing is learned")
        return self


class Train(Section):
    """How the network is trained."""

    epochs: Count | None = None
    max_minutes: float | None = Field(default=None, gt=0)
    max_cpu_minutes: float | None = Field(default=None, gt=0)
    """minutes of processor time, which does not depend on other programs on the machine"""
    batch_size: Count = 5
    optimizer: Annotated[str, one_of("train.optimizers:OPTIMIZERS")] = "muon"
    """muon uses adamw for vectors"""
    learning_rate: float | None = Field(default=None, gt=0)
    """the highest; the default depends on optimizer and model (`plan.resolve`)"""
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Annotated[str, one_of("train.schedule:SCHEDULES")] = "cosine"
    warmup_steps: CountOrZero = 100
    plateau_patience: Count = 10
    plateau_factor: float = Field(default=0.5, gt=0, lt=1)
    clip_norm: float = Field(default=10.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    early_stop: Count | None = None
    """validations without an improvement"""
    valid_every: Count | None = None
    """epochs; by default as many as 200 steps need"""
    save_every_s: float = Field(default=30.0, ge=0)
    compile: Literal["auto"] | StrictBool = "auto"
    dtype: Annotated[str, one_of("compile.package:DTYPES")] = "float32"
    threads: Count = 1


class Config(Section):
    """A whole run."""

    data: Data = Data()
    model: Model = Model()
    rescale: Rescale = Rescale()
    loss: Loss = Loss()
    train: Train = Train()
    seed: CountOrZero = 0


def config(tables: Any) -> Config:
    """Validate nested tables.

    Raises:
        InputError: names the first wrong key, its value and what is expected.
    """
    try:
        return Config.model_validate(tables)
    except ValidationError as error:
        raise InputError(_explain(error)) from None


def read_toml(path: str | Path) -> dict[str, Any]:
    """Tables of a TOML file.

    Raises:
        InputError: it is not TOML.
        OSError: it cannot be read.
    """
    try:
        return tomllib.loads(Path(path).read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = "" if Path(path).suffix == ".toml" else f"; if it holds data: --data {path}"
        raise InputError(f"{path} is not TOML: {error}{hint}") from None


def read_json(path: str | Path) -> Config:
    """The configuration in a run's config.json.

    Raises:
        InputError: the file is damaged.
    """
    from gradpot.models import saved_specification

    try:
        tables = json.loads(Path(path).read_text())
        return config({**tables, "model": saved_specification(tables["model"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged, or of another version of gradpot: {error}") from None


def merge(tables: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested tables with `changes` laid over them.

    Tables that are in both are merged in turn; any other value replaces the one before.
    """
    merged = dict(tables)
    for key, value in changes.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            value = merge(below, value)
        merged[key] = value
    return merged


def override(tables: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Put `key=value` texts into tables: "train.batch_size=32", "model.activation=irelu".

    A value is read as TOML, or as a plain string if it is not TOML.
    """
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"{text!r} is neither a file nor key=value, such as seed=1")
        try:
            parsed = tomllib.loads(f"value = {value.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value.strip()
        put(tables, key.strip(), parsed)
    return tables


def put(tables: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one dotted key of nested tables, in place; missing tables are created.

    Raises:
        InputError: a part of the key before the last is a value, not a table.
    """
    *path, last = dotted.split(".")
    for name in path:
        tables = tables.setdefault(name, {})
        if not isinstance(tables, dict):
            raise InputError(f"{dotted}: {name} is a value, not a table")
    tables[last] = value


def _explain(error: ValidationError) -> str:
    """One line about the first error."""
    errors: list[Any] = error.errors()
    first = errors[0]
    if first["type"] == "extra_forbidden":
        section: Any = Config
        for part in first["loc"][:-1]:
            section = section.model_fields[part].annotation
        key, known = ".".join(map(str, first["loc"])), ", ".join(section.model_fields)
        return f"unknown key {key!r}; known: {known}"
    place = first["loc"][:2]  # without the union members that pydantic appends
    key = ".".join(place)
    if first["type"] == "value_error":
        return f"{key}: {first['ctx']['error']}"
    # a union has an error for each of its members
    expected = " or ".join(
        "a table" if e["type"] == "model_type" else e["msg"].removeprefix("Input should be ")
        for e in errors
        if e["loc"][:2] == place
    )
    return f"{key or 'the configuration'} is {first['input']!r} but must be {expected}"
