"""What a training run is told: typed, validated; TOML or key=value in, JSON out."""

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gradpot.errors import InputError


class Section(BaseModel):
    """A table of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


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
    n_train: int | None = Field(default=None, ge=1)
    n_valid: int | None = Field(default=None, ge=1)
    n_test: int | None = Field(default=None, ge=0)


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


class Train(Section):
    """How the weights are found."""

    epochs: int | None = Field(default=None, ge=1)
    max_minutes: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=10, ge=1)
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(default=5e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0)
    plateau_patience: int = Field(default=10, ge=1)
    plateau_factor: float = Field(default=0.5, gt=0, lt=1)
    clip_norm: float = Field(default=10.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    early_stop: int | None = Field(default=None, ge=1)
    """validations without an improvement"""
    valid_every: int | None = Field(default=None, ge=1)
    """epochs; unless given, so many that at least 200 steps lie between"""
    save_every_s: float = Field(default=30.0, ge=0)
    compile: Literal["auto"] | bool = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    threads: int = Field(default=1, ge=1)


class Config(Section):
    """A whole run."""

    data: Data = Data()
    model: Model = Model()
    rescale: Rescale = Rescale()
    loss: Loss = Loss()
    train: Train = Train()
    seed: int = Field(default=0, ge=0)


def config(tables: dict[str, Any]) -> Config:
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
        raise InputError(f"{path} is not TOML: {error}") from None


def read_json(path: str | Path) -> Config:
    """The resolved configuration that a run keeps."""
    return config(json.loads(Path(path).read_text()))


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
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}; known: {', '.join(_known(first['loc']))}"
    return f"{key} is {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _known(location: tuple) -> list[str]:
    section: Any = Config
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
