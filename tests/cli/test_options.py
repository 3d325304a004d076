"""Options that are the fields of a dataclass: `Reading` and the settings of dynamics."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

import typer
from typer.testing import CliRunner

from gradpot.cli.reading import Reading, options
from gradpot.md.settings import Settings
from gradpot.train.config import Data


@dataclass(frozen=True)
class Point:
    x_A: float = field(default=1.5, metadata={"help": "First coordinate"})
    fixed: bool = field(default=False, metadata={"help": "Keep it there", "panel": "Limits"})


def test_a_command_receives_one_instance_and_its_help_has_every_field():
    app, received = typer.Typer(), []

    @app.command()
    @options(Point)
    @options(Reading, "length_unit")
    def command(
        name: Annotated[str, typer.Argument()], *, point: Point, reading: Reading, last: int = 0
    ):
        received.append((name, point, reading, last))

    given = ["a", "--x-A", "2", "--fixed", "--length-unit", "nm"]
    assert CliRunner().invoke(app, given).exit_code == 0
    assert CliRunner().invoke(app, ["b", "--last", "3"]).exit_code == 0
    assert received == [
        ("a", Point(2.0, True), Reading(length_unit="nm"), 0),
        ("b", Point(), Reading(), 3),
    ]
    words = CliRunner().invoke(app, ["--help"]).output.split()
    found = [w for w in words if w in ("--x-A", "--last", "Limits", "--fixed", "--length-unit")]
    assert found == ["--x-A", "--last", "Limits", "--fixed", "--length-unit"]
    assert "--energy-unit" not in words


def test_every_reading_option_is_a_configuration_key():
    assert {f.name for f in fields(Reading)} < Data.model_fields.keys()


def test_stress_options_become_one_label():
    stress = {"key": "s", "unit": "kbar", "order": "vasp", "sign": "compression"}
    given = {f"stress_{part}": value for part, value in stress.items()}
    options = Reading(energy_unit="eV", unconverged=True, **given).arguments()
    assert options.pop("stress")._asdict() == stress
    said = {name: value for name, value in options.items() if value}
    assert said == {"energy_unit": "eV", "unconverged": True}
    assert Reading().arguments()["stress"] is None


def test_the_page_on_dynamics_has_every_setting():
    page = (Path(__file__).parents[2] / "docs" / "dynamics.md").read_text()
    for setting in fields(Settings):
        assert f"| `--{setting.name.replace('_', '-')}` |" in page
