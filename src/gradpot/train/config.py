"""What a training run is told: typed, validated; TOML or key=value in, JSON out."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gradpot.errors import InputError

# steps are the larger the more weights add up: wider networks diverge at smaller rates
MUON_RATE, ADAM_RATE, RATE_WIDTH = 2.5e-3, 5e-3, 64
# what torch and numpy can count
Count = Annotated[int, Field(ge=1, lt=2**31)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A table of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Data(Section):
    """Where frames come from and how they are divided."""

    file: str = "ethanol"
    energy_unit: str | None = None
    length_unit: str | None = None
    force_unit: str | None = None
    stress_key: str | None = None
    stress_unit: str | None = None
    stress_order: str | None = None
    stress_sign: str | None = None
    split: str = "random"
    n_train: Count | None = None
    n_valid: Count | None = None
    n_test: CountOrZero | None = None


class Model(BaseModel):
    """Name and arguments of a model; which arguments there are, the model's class says."""

    model_config = ConfigDict(extra="allow")

    name: str = "painn"


class Rescale(Section):
    """Atom references and the scale of the labels (`data.references`)."""

    mode: Literal["none", "offset", "constant", "forces", "natural"] = "forces"
    constant: float | None = Field(default=None, gt=0)
    references: str | dict[str, float] = "auto"
    """auto, none, least-squares, isolated (single atoms in the data), a file of isolated atoms,
    or a table of atom energies in eV; auto is none for modes none and constant, else
    least-squares"""


class Loss(Section):
    """Weights of the residuals, in the units that `rescale` chose."""

    energy: float = Field(default=1.0, ge=0)
    """per atom"""
    forces: float = Field(default=1.0, ge=0)
    stress: float = Field(default=0.0, ge=0)
    """stress times volume per atom, an energy"""
    penalty: Literal["l1", "l2", "huber"] = "huber"
    huber_delta: float = Field(default=0.01, gt=0)

    @model_validator(mode="after")
    def _something_is_learned(self) -> "Loss":
        if not (self.energy or self.forces or self.stress):
            raise ValueError("energy, forces and stress all have weight 0; nothing is learned")
        return self


class Train(Section):
    """How the weights are found."""

    epochs: Count | None = None
    max_minutes: float | None = Field(default=None, gt=0)
    max_cpu_minutes: float | None = Field(default=None, gt=0)
    """minutes of processor time, which other programs on the machine do not use up"""
    batch_size: Count = 5
    optimizer: Literal["muon", "adam", "adamw"] = "muon"
    """muon leaves what is no matrix to adamw"""
    learning_rate: float | None = Field(default=None, gt=0)
    """unless given, MUON_RATE, or for Adam the model's `adam_rate` or ADAM_RATE, and beyond
    RATE_WIDTH less by the width of the model"""
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup_steps: CountOrZero = 100
    plateau_patience: Count = 10
    plateau_factor: float = Field(default=0.5, gt=0, lt=1)
    clip_norm: float = Field(default=10.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    early_stop: Count | None = None
    """validations without an improvement"""
    valid_every: Count | None = None
    """epochs; unless given, so many that at least 200 steps lie between"""
    save_every_s: float = Field(default=30.0, ge=0)
    compile: Literal["auto"] | bool = "auto"
    dtype: Literal["float32", "float64"] = "float32"
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
        InputError: names the first wrong key, its value and what was expected.
    """
    try:
        return Config.model_validate(tables)
    except ValidationError as error:
        raise InputError(_explain(error)) from None


def read_toml(path: str | Path) -> dict[str, Any]:
    """Tables of a TOML file."""
    try:
        return tomllib.loads(Path(path).read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = "" if Path(path).suffix == ".toml" else f"; if it holds data: --data {path}"
        raise InputError(f"{path} is not TOML: {error}{hint}") from None


def read_json(path: str | Path) -> Config:
    """The resolved configuration that a run keeps."""
    from gradpot.models import saved_specification

    try:
        tables = json.loads(Path(path).read_text())
        return config({**tables, "model": saved_specification(tables["model"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged, or of another version of gradpot: {error}") from None


def merge(tables: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested tables with `changes` laid over them."""
    merged = dict(tables)
    for key, value in changes.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            value = merge(below, value)
        merged[key] = value
    return merged


def override(tables: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Put `key=value` texts into tables: "train.batch_size=32", "model.activation=irelu".

    A value is read as TOML, and as a plain string where it is none.
    """
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"{text!r} is neither a file nor key=value, such as seed=1")
        put(tables, key.strip(), _value(value.strip()))
    return tables


def put(tables: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one dotted key of nested tables."""
    *path, last = dotted.split(".")
    for name in path:
        tables = tables.setdefault(name, {})
        if not isinstance(tables, dict):
            raise InputError(f"{dotted}: {name} is a value, not a table")
    tables[last] = value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: ValidationError) -> str:
    errors: list[Any] = error.errors()
    first = errors[0]
    if first["type"] == "extra_forbidden":
        key, known = ".".join(map(str, first["loc"])), _section(first["loc"]).model_fields
        return f"unknown key {key!r}; known: {', '.join(known)}"
    key = _key(first["loc"])
    if first["type"] == "value_error":
        return f"{key}: {first['ctx']['error']}"
    # a value that may be of several kinds has an error for each
    expected = " or ".join(_expected(e) for e in errors if _key(e["loc"]) == key)
    return f"{key or 'the configuration'} is {first['input']!r} but must be {expected}"


def _expected(error: dict[str, Any]) -> str:
    if error["type"] == "model_type":
        return "a table"
    return error["msg"].removeprefix("Input should be ")


def _key(location: tuple) -> str:
    """The dotted key of an error, without the members of a union that pydantic adds."""
    return ".".join(location[:2])


def _section(location: tuple) -> type[BaseModel]:
    section: Any = Config
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    return section
