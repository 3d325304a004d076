"""The settings of a training run: typed, validated; TOML or key=value in, JSON out."""

import json
import tomllib
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from gradpot import other_names
from gradpot.errors import InputError, damaged, did_you_mean, reason, shown


def _not_bool(value: object) -> object:
    """Refuse true and false, which Python counts as 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("bool", "a number")
    return value


def _fits_float32(value: float) -> float:
    """Refuse numbers whose squares or products leave the range of float32, 1e-38 to 3e38."""
    if value and not 1e-30 <= abs(value) <= 1e30:
        raise PydanticCustomError("size", "0 or, but for its sign, between 1e-30 and 1e30")
    return value


# torch and numpy count in 32 bits in places
Count = Annotated[int, Field(ge=1, lt=2**31), BeforeValidator(_not_bool)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(_not_bool)]
Number = Annotated[float, BeforeValidator(_not_bool), AfterValidator(_fits_float32)]
Positive = Annotated[Number, Field(gt=0)]
# torch starts as many as it is told, and the system kills a process with too many
Threads = Annotated[int, Field(ge=1, le=1024), BeforeValidator(_not_bool)]


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
        meant = {theirs: ours for theirs, ours in other_names.CHOICES.items() if ours in known}
        names += did_you_mean(value, known, meant)
        raise PydanticCustomError("unknown_name", "{names}", {"names": names})

    return BeforeValidator(check)


class Section(BaseModel):
    """A table of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


def _files(value: object) -> object:
    """A list of one name is that name, so that both mean the same run."""
    if isinstance(value, list) and len(value) != len(set(map(str, value))):
        raise PydanticCustomError("twice", "names of different files")
    return value[0] if isinstance(value, list) and len(value) == 1 else value


# keys of `data` that name files, and those that say how frames are split; the others say how files
# are read
NAMED = ("file", "valid_file", "test_file")
SPLIT = ("split", "n_train", "n_valid", "n_test")
Names = Annotated[list[str], Field(min_length=1)]
Files = Annotated[str | Names, BeforeValidator(_files)]


def files(names: str | list[str] | None) -> list[str]:
    """The names of `data.file`, `data.valid_file` or `data.test_file` as a list."""
    return [] if names is None else [names] if isinstance(names, str) else names


class Data(Section):
    """Where frames come from and how they are split."""

    file: Files = "ethanol"
    """one name or several"""
    valid_file: Files | None = None
    test_file: Files | None = None
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

    @property
    def every_file(self) -> list[str]:
        """The names of all files, of all sets."""
        return [*files(self.file), *files(self.valid_file), *files(self.test_file)]

    @property
    def reading(self) -> dict[str, Any]:
        """How files are read: keyword arguments of `data.source.read`."""
        return self.model_dump(exclude={*NAMED, *SPLIT})

    @model_validator(mode="after")
    def _sets_have_one_source(self) -> "Data":
        own = [f"data.{role}" for role in ("valid_file", "test_file") if getattr(self, role)]
        if self.valid_file and self.n_valid is not None:
            raise ValueError("data.n_valid and data.valid_file are both set; leave one out")
        if own and self.split not in ("random", "block"):
            raise ValueError(f"data.split={self.split} and {own[0]} are both set; leave one out")
        for name in self.every_file:
            if self.every_file.count(name) > 1:
                raise ValueError(f"{name} has two roles among data.file and {', '.join(own)}")
        return self


class Model(BaseModel):
    """Name and arguments of a model; its class defines the arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "painn"

    @model_validator(mode="before")
    @classmethod
    def _in_lower_case(cls, values: Any) -> Any:
        return other_names.in_lower_case(values) if isinstance(values, dict) else values


class Rescale(Section):
    """Reference energies and the scale of the labels (`data.references`)."""

    mode: Annotated[str, one_of("data.references:MODES")] = "forces"
    constant: Positive | None = None
    references: str | dict[str, Number] = "auto"
    """auto, none, least-squares, isolated (single atoms in the data), a file of isolated atoms,
    or a table of atom energies in eV; auto means none for the modes none and constant, and
    least-squares for the others"""


class Loss(Section):
    """Weights of the residuals, in the units that `rescale` sets."""

    energy: Number = Field(default=1.0, ge=0)
    """per atom"""
    forces: Number = Field(default=1.0, ge=0)
    stress: Number = Field(default=0.0, ge=0)
    """stress times volume per atom, an energy"""
    penalty: Annotated[str, one_of("train.loss:PENALTIES")] = "huber"
    huber_delta: Positive = 0.01

    @model_validator(mode="after")
    def _something_is_learned(self) -> "Loss":
        if not (self.energy or self.forces or self.stress):
            raise ValueError("energy, forces and stress all have weight 0; nothing is learned")
        return self


class Train(Section):
    """How the network is trained."""

    epochs: Count | None = None
    max_minutes: Positive | None = None
    max_cpu_minutes: Positive | None = None
    """minutes of processor time, which does not depend on other programs on the machine"""
    repulsion: Literal["zbl", "none"] = "zbl"
    """of atoms that are nearer than in any training frame"""
    batch_size: Count = 5
    optimizer: Annotated[str, one_of("train.optimizers:OPTIMIZERS")] = "muon"
    """muon uses adamw for vectors"""
    learning_rate: Positive | None = None
    """the highest; the default depends on optimizer and model (`plan.resolve`)"""
    weight_decay: Number = Field(default=0.0, ge=0)
    schedule: Annotated[str, one_of("train.schedule:SCHEDULES")] = "cosine"
    warmup_steps: CountOrZero = 100
    plateau_patience: Count = 10
    plateau_factor: Number = Field(default=0.5, gt=0, lt=1)
    clip_norm: Positive = 10.0
    ema: Number = Field(default=0.999, ge=0, lt=1)
    early_stop: Count | None = None
    """validations without an improvement"""
    valid_every: Count | None = None
    """epochs; by default as many as 200 steps need"""
    save_every_s: Number = Field(default=30.0, ge=0)
    compile: Literal["auto"] | StrictBool = "auto"
    dtype: Annotated[str, one_of("compile.package:DTYPES")] = "float32"
    device: str = "cpu"
    """cpu, cuda, cuda:1 ..., mps, or auto: a GPU if there is one"""
    threads: Threads = 1


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
        raise InputError(_explain(error)) from error


def read_toml(path: str | Path) -> dict[str, Any]:
    """Tables of a TOML file.

    Raises:
        InputError: it is not TOML.
        OSError: it cannot be read.
    """
    hint = "" if Path(path).suffix == ".toml" else f"; if it holds data: --data {path}"
    if Path(path).suffix.lower() in (".yaml", ".yml", ".json", ".ini", ".cfg"):
        hint = "; write the settings in TOML, or as KEY=VALUE"
    try:
        # editors of Windows put a byte order mark in front
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError:
        raise
    except Exception as error:  # also those of deep nesting and of long numbers
        raise InputError(f"{path} is not TOML: {reason(error)}{hint}") from error


def read_json(path: str | Path) -> Config:
    """The configuration in a run's config.json.

    Raises:
        InputError: the file is damaged.
    """
    from gradpot.models import saved_specification

    with damaged(f"{path} is damaged, or of another version of gradpot"):
        tables = json.loads(Path(path).read_text(encoding="utf-8"))
        try:
            # older runs have none
            train = {"repulsion": "none", **tables["train"]}
            own = {"model": saved_specification(tables["model"]), "train": train}
            return config({**tables, **own})
        except InputError as error:
            raise ValueError(error) from error


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
    given = set()
    for text in assignments:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise InputError(
                f"{shown(text)} is neither a file nor key=value, such as seed=1{key_hint(key)}"
            )
        if key in given:
            raise InputError(f"{key} is given twice; leave one out")
        given.add(key)
        parsed: Any = value
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            pass
        except Exception as error:  # deep nesting, thousands of digits
            why = reason(error)
            raise InputError(f"{key} cannot be read from {shown(value)}: {why}") from error
        put(tables, key, parsed)
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


def key_hint(typed: str) -> str:
    """A question that names the key that may be meant, in the same table or else in any."""
    table, _, last = typed.rpartition(".")
    keys = {name: name for name in Config.model_fields}
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            own = {key: f"{name}.{key}" for key in field.annotation.model_fields}
            if name == table and (hint := did_you_mean(last, (), own)):
                return hint
            keys |= own
    return did_you_mean(last, (), {**other_names.KEYS, **keys})


def _explain(error: ValidationError) -> str:
    """One line about the first error."""
    errors: list[Any] = error.errors()
    first = errors[0]
    place = tuple(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        section: Any = Config
        for part in place[:-1]:
            section = section.model_fields[part].annotation
        key, known = ".".join(place), ", ".join(section.model_fields)
        return f"unknown key {shown(key)}{key_hint(key)}; known: {known}"
    place = place[:2]  # without the union members that pydantic appends
    key = ".".join(place)
    if first["type"] == "value_error":
        return f"{key}: {first['ctx']['error']}"
    # a union has an error for each of its members
    expected = " or ".join(
        "a table" if e["type"] == "model_type" else e["msg"].removeprefix("Input should be ")
        for e in errors
        if tuple(map(str, e["loc"]))[:2] == place
    )
    return f"{key or 'the configuration'} is {shown(first['input'])} but must be {expected}"
