"""Output of successful commands: JSON and nothing else on request, help, the version."""

import json
import resource
import subprocess
import sys

import pytest
from commands import TINY, gradpot

import gradpot as package

KEYS = (
    "data.n_train data.n_valid model.width model.n_layers model.cutoff model.filter train.epochs "
    "train.max_minutes train.batch_size train.learning_rate train.compile seed"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    (folder / "h2.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    return folder


MD = "--time-ps 0.0001 --timestep-fs 0.01 --max-temperature-K 1e9"
# in this order: later commands need the model of the first
JSON = [
    (f"train {TINY} --out run --json", {"test", "valid", "n_parameters", "train_cpu_s", "seed"}),
    ("train --out run --resume train.epochs=2 --json", {"test", "epochs", "steps", "out"}),
    ("eval run/model.safetensors ethanol --json", {"energy_mae_meV", "forces_mae_meV_A", "efwt"}),
    (f"md run/model.safetensors CH3CH2OH {MD} --json", {"formula", "n_steps", "blow_up"}),
    ("label h2.xyz --with gfn2-xtb --out labeled.xyz --json", {"out", "n_labeled", "skipped"}),
    ("data info ethanol --json", {"frames", "elements", "consistency", "warnings"}),
    ("data fetch ethanol --json", {"name", "path", "energy_unit", "citation"}),
]


def test_json_and_nothing_else(monkeypatch, capfd, place):
    monkeypatch.chdir(place)
    for line, keys in JSON:
        said = gradpot(monkeypatch, capfd, line.split())
        assert said.code == 0, (line, said.err)
        assert keys <= json.loads(said.out, parse_constant=_no_number).keys(), line
    assert json.loads((place / "run" / "results.json").read_text())["epochs"] == 2


def test_json_of_the_catalog(monkeypatch, capfd):
    said = gradpot(monkeypatch, capfd, ["data", "list", "--json"])
    names = {entry["name"] for entry in json.loads(said.out)}
    assert {"ethanol", "md17:aspirin", "rmd17:ethanol"} <= names
    assert said.err == ""


def test_a_run_that_time_ended_too_soon_has_its_own_exit_code(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    line = f"train {TINY} --out run train.compile=false".replace("train.epochs=1", "")
    said = gradpot(monkeypatch, capfd, [*line.split(), "train.max_minutes=1e-4"])
    assert said.code == 3
    assert "warning: the time was up after 1 steps" in said.err
    assert "Everything is in run" in said.out
    said = gradpot(monkeypatch, capfd, ["train", "--out", "run", "--resume", "train.epochs=1"])
    assert said.code == 3  # the time was used up before
    words = ["train", "--out", "run", "--resume", "train.epochs=2", "train.max_minutes=100"]
    assert gradpot(monkeypatch, capfd, words).code == 0


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def test_brackets_in_a_name_are_not_markup(monkeypatch, capfd, place):
    monkeypatch.chdir(place)
    (place / "[red]a[b].xyz").write_text((place / "h2.xyz").read_text())
    said = gradpot(monkeypatch, capfd, ["data", "info", "[red]a[b].xyz"])
    assert said.code == 0
    assert "[red]a[b].xyz" in said.out


def test_version(monkeypatch, capfd):
    said = gradpot(monkeypatch, capfd, ["--version"])
    assert said == (0, f"gradpot {package.__version__}\n", "")


def test_help_is_a_table_of_contents(monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "80")
    said = gradpot(monkeypatch, capfd, ["--help"])
    lines = [line.strip(" │") for line in said.out.splitlines()]
    commands = [line.split()[0] for line in lines if line and line.split()[0].isalpha()]
    known = ["train", "eval", "md", "compile", "label", "data"]
    assert [word for word in commands if word in known] == known
    assert said.code == 0


@pytest.mark.parametrize(
    "command", ["train", "eval", "md", "compile", "label", "data info", "data fetch"]
)
def test_help_fits_eighty_columns(monkeypatch, capfd, command):
    monkeypatch.setenv("COLUMNS", "80")
    said = gradpot(monkeypatch, capfd, [*command.split(), "--help"])
    assert said.code == 0
    assert max(len(line.rstrip()) for line in said.out.splitlines()) <= 80
    if command == "train":
        assert all(key in said.out for key in KEYS.split())


@pytest.mark.parametrize("command", ["", "train", "data", "data list"])
def test_h_is_help(monkeypatch, capfd, command):
    said = gradpot(monkeypatch, capfd, [*command.split(), "-h"])
    assert said.code == 0
    assert said == gradpot(monkeypatch, capfd, [*command.split(), "--help"])


def test_help_is_quick():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "gradpot", "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


SWALLOWS = """
import os, signal, sys
from gradpot.cli import main

class Swallows:
    def find_spec(self, name, path=None, target=None):
        if name == "gradpot.data.catalog.catalog":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                os.getpid()
            except KeyboardInterrupt:
                pass

sys.meta_path.insert(0, Swallows())
sys.argv = ["gradpot", "data", "list"]
main()
"""


def test_ctrl_c_is_not_lost_in_an_import():
    """Large libraries can swallow KeyboardInterrupt while they are imported."""
    done = subprocess.run([sys.executable, "-c", SWALLOWS], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert "interrupted: the command did not finish" in done.stderr
