"""The pages agree with the code on keys and defaults, and quote only measured numbers."""

import inspect
import re
import tomllib
from pathlib import Path

import pytest

from gradpot import __version__
from gradpot.data.references import MODES
from gradpot.models import MODELS
from gradpot.train.config import Config, config, override
from gradpot.train.folder import FILES

ROOT = Path(__file__).parents[1]
TRAINING = (ROOT / "docs" / "training.md").read_text()
UNSET = "—"


def table(heading: str) -> list[list[str]]:
    """Rows of all tables whose first column has this heading; cells come without backticks."""
    rows, inside = [], False
    for line in TRAINING.splitlines():
        inside = line.startswith("|") and (inside or line.startswith(f"| {heading} |"))
        if inside and not line.startswith(("|---", f"| {heading} |")):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            rows.append([cell.strip().strip("`") for cell in cells])
    return rows


def defaults() -> dict[str, object]:
    """The default of every key of the configuration, except the arguments of the model."""
    tables = Config().model_dump()
    seed = {"seed": tables.pop("seed")}
    return seed | {f"{s}.{key}": value for s, keys in tables.items() for key, value in keys.items()}


def value_of(key: str, text: str) -> object:
    """The value that the code reads from `key=text`."""
    tables = config(override({}, [f"{key}={text}"])).model_dump()
    section, _, name = key.rpartition(".")
    return (tables[section] if section else tables)[name]


def test_every_key_has_a_row():
    documented = {row[0] for row in table("key")}
    assert documented == defaults().keys() - {"model.name"}
    assert "`model.name` (default `painn`)" in TRAINING


@pytest.mark.parametrize(("key", "default"), [row[:2] for row in table("key")])
def test_defaults_match_the_code(key, default):
    assert (None if default == UNSET else value_of(key, default)) == defaults()[key]


@pytest.mark.parametrize("name", MODELS)
def test_model_arguments_match_the_code(name):
    heading = next(line for line in TRAINING.splitlines() if line.startswith("| argument |"))
    column = [cell.strip(" `") for cell in heading.split("|")[1:-1]].index(name)
    documented = {row[0].removeprefix("model."): row[column] for row in table("argument")}
    parameters = inspect.signature(MODELS[name]).parameters
    assert {k: v for k, v in documented.items() if v != UNSET} == {
        key: str(parameter.default) for key, parameter in parameters.items()
    }


def test_modes_and_files_match_the_code():
    assert tuple(row[0] for row in table("mode")) == tuple(MODES)
    assert {row[0] for row in table("file")} == {*FILES, "log.txt", "tensorboard/"}


def test_the_citation_has_the_current_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_example_is_valid():
    example = re.search(r"```toml\n(.*?)```", TRAINING, re.DOTALL)
    assert example
    assert config(tomllib.loads(example[1])).train.max_minutes == 10


@pytest.mark.parametrize("page", ["README.md", "docs/activations.md", "docs/speed.md"])
def test_quoted_numbers_were_measured(page):
    """Every number in a table of errors or times, to the last digit."""
    measured = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.md"))
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("| ")]
    numbers = {n for row in rows for n in re.findall(r"(?<![\d.])\d+\.\d\d?(?![\d.])", row)}
    assert numbers
    assert {n for n in numbers if not re.search(rf"(?<![\d.]){n}(?![\d.])", measured)} == set()
