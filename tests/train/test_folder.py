"""A run folder can be moved, keeps its log, and is checked before it goes on."""

import json
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from gradpot.data.catalog.catalog import locate
from gradpot.errors import InputError, RunError
from gradpot.potential.checkpoint import read_tensors, write_tensors
from gradpot.train.config import config, override, read_json
from gradpot.train.folder import metrics
from gradpot.train.run import train

TINY = ["data.n_train=10", "data.n_valid=5", "data.n_test=5", "train.epochs=2", "model.width=8"]
TINY += ["model.n_layers=1", "train.valid_every=1"]


def start(out: Path | str, *keys: str) -> None:
    train(config(override({}, [*TINY, *keys])), out, say=lambda line: None)


def go_on(out: Path, epochs: int = 3, **data: str) -> dict:
    """Resume with the settings of the folder, more epochs, and perhaps other data."""
    before = read_json(out / "config.json")
    changed = {"train": before.train.model_copy(update={"epochs": epochs})}
    changed["data"] = before.data.model_copy(update=data)
    return train(before.model_copy(update=changed), out, True, lambda line: None)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with data and a run on them, started with relative names."""
    home = tmp_path / "project"
    (home / "data").mkdir(parents=True)
    shutil.copy(locate("ethanol")[0], home / "data" / "d.npz")
    monkeypatch.chdir(home)
    (home / "split.json").write_text(json.dumps({"train": list(range(10)), "valid": [10, 11]}))
    start("runs/R", "data.file=data/d.npz", "data.split=split.json")
    return home


def whole_project(home: Path) -> Path:
    return home.rename(home.parent / "moved") / "runs" / "R"


def run_alone(home: Path) -> Path:
    return Path(shutil.move(home / "runs" / "R", home.parent / "R"))


def run_with_its_data(home: Path) -> Path:
    run = Path(shutil.move(home / "runs" / "R", home.parent / "R"))
    shutil.move(home / "data" / "d.npz", run / "d.npz")
    return run


def data_beside_the_run(home: Path) -> Path:
    shutil.move(home / "data" / "d.npz", home / "runs" / "d.npz")
    return home / "runs" / "R"


def another_file_of_that_name(home: Path) -> Path:
    elsewhere = home.parent / "elsewhere"
    (elsewhere / "data").mkdir(parents=True)
    np.savez(elsewhere / "data" / "d.npz", nothing=np.zeros(3))
    os.chdir(elsewhere)
    return home / "runs" / "R"


@pytest.mark.parametrize(
    "move",
    [whole_project, run_alone, run_with_its_data, data_beside_the_run, another_file_of_that_name],
)
def test_a_run_goes_on_wherever_it_is(project, tmp_path, move):
    """The file that gave the split is not needed again."""
    os.chdir(tmp_path)
    run = move(project)
    (project / "split.json").unlink(missing_ok=True)
    assert go_on(run)["epochs"] == 3


def test_data_under_another_name_or_in_another_format(project, tmp_path):
    run = project / "runs" / "R"
    assert go_on(run, 3, file=str(project / "data" / "d.npz"))["epochs"] == 3
    assert read_json(run / "config.json").data.file == str(project / "data" / "d.npz")
    os.chdir(tmp_path)
    with np.load(project / "data" / "d.npz") as full:
        bare = {key: full[key] for key in full.files if "unit" not in key}
    np.savez(tmp_path / "bare.npz", **bare)
    with pytest.raises(InputError, match="unit"):
        go_on(run, 4, file="bare.npz")
    units = {"energy_unit": "eV", "length_unit": "Ang", "force_unit": "eV/Ang"}
    assert go_on(run, 4, file="bare.npz", **units)["epochs"] == 4
    (project / "data" / "d.npz").unlink()
    assert go_on(run, 5)["epochs"] == 5
    assert go_on(run, 6, file="ethanol")["epochs"] == 6  # its units contradict none that are kept


def test_data_that_are_gone_or_others_are_named(project, tmp_path):
    run = project / "runs" / "R"
    (project / "data" / "d.npz").unlink()
    with pytest.raises(InputError, match=r"R/config.json names the data data/d.npz, which cannot"):
        go_on(run)
    with np.load(locate("ethanol")[0]) as full:
        arrays = {key: full[key] for key in full.files}
    np.savez(tmp_path / "other.npz", **arrays | {"E": arrays["E"] + 0.1})
    with pytest.raises(InputError, match=r"frames of .*other.npz are not those that .*R was st"):
        go_on(run, file=str(tmp_path / "other.npz"))


def test_notices_stay_in_a_log(tmp_path):
    said: list[str] = []
    settings = config(override({}, TINY))
    train(settings, tmp_path / "R", say=said.append)
    lines = (tmp_path / "R" / "log.txt").read_text().splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  .+", line) for line in lines)
    assert re.search(r"  gradpot [\d.]+\S*: \S", lines[0])
    assert [line[21:] for line in lines[1:]] == said
    train(settings, tmp_path / "R", True, said.append)
    again = (tmp_path / "R" / "log.txt").read_text().splitlines()
    assert again[: len(lines)] == lines
    resumed = f"resuming {tmp_path / 'R'} at step 4"
    assert any(line.endswith(resumed) for line in again[len(lines) :])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "R"
    start(out)
    return out


def in_json(name: str, change):
    def damage(run: Path) -> None:
        content = json.loads((run / name).read_text())
        change(content)
        (run / name).write_text(json.dumps(content))

    return damage


def in_state(change):
    def damage(run: Path) -> None:
        tensors, header = read_tensors(run / "state.safetensors")
        change(tensors, header)
        write_tensors(run / "state.safetensors", tensors, header)

    return damage


def appended(name: str, text: str):
    return lambda run: (run / name).write_text((run / name).read_text() + text)


def cut(name: str):
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:40])


def counter(name: str, value: object):
    return in_state(lambda t, h: h["counters"].update({name: value}))


def tensors_of(part: str, change):
    return in_state(lambda t, h: t.update({k: change(v) for k, v in t.items() if part in k}))


def without(part: str):
    return in_state(lambda t, h: [t.pop(k) for k in list(t) if k.startswith(part)])


DAMAGES = {
    "row": (
        appended("metrics.jsonl", '{"step": 3, broken\n'),
        "metrics.jsonl is damaged: in row",
    ),
    "row-other": (appended("metrics.jsonl", "[]\n"), "metrics.jsonl is damaged: in row 3"),
    "row-step": (appended("metrics.jsonl", '{"step": "x"}\n'), "in row 3, epoch is missing"),
    "split": (cut("split.json"), "split.json is damaged: it is not JSON"),
    "split-negative": (in_json("split.json", lambda c: c["train"].append(-1)), r"train.10 is -1"),
    "split-word": (in_json("split.json", lambda c: c.update(train="x")), "train is 'x', but"),
    "split-twice": (in_json("split.json", lambda c: c["train"].append(c["valid"][0])), "two sets"),
    "split-far": (in_json("split.json", lambda c: c["test"].append(10**6)), "no frame 1000000"),
    "split-empty": (in_json("split.json", lambda c: c.update(train=[])), "no training frame"),
    "split-data": (in_json("split.json", lambda c: c.pop("data")), "damaged: data is missing"),
    "rescaling": (cut("rescaling.json"), "rescaling.json is damaged: it is not JSON"),
    "rescaling-gone": (lambda run: (run / "rescaling.json").unlink(), "rescaling.json is missing"),
    "rescaling-nan": (
        in_json("rescaling.json", lambda c: c.update(scale=np.nan)),
        "scale is",
    ),
    "rescaling-zero": (in_json("rescaling.json", lambda c: c.update(length=0.0)), "length is 0.0"),
    "config": (cut("config.json"), r"config.json is damaged"),
    "state-cut": (cut("state.safetensors"), "state.safetensors is damaged"),
    "counters": (in_state(lambda t, h: h.pop("counters")), "counters is missing"),
    "format": (in_state(lambda t, h: h.pop("format")), "format is missing"),
    "older": (in_state(lambda t, h: h.update(format=3)), "its format is 3, not 4"),
    "step": (counter("step", "x"), r"counters.step is 'x'"),
    "step-fraction": (counter("step", 1.5), r"counters.step is 1.5"),
    "step-other": (counter("step", 3), "its counters contradict each other"),
    "method": (counter("save", "x"), "'counters.save' is unknown"),
    "loss": (counter("loss_sum", float("nan")), r"counters.loss_sum is nan"),
    "foreign": (in_state(lambda t, h: t.update({"x.y": torch.zeros(1)})), "an unknown x.y"),
    "odd": (
        in_state(lambda t, h: t.update({"optimizer.a": torch.zeros(1)})),
        "unknown opt",
    ),
    "nan": (tensors_of("average.", lambda x: x * torch.nan), r"average\.\S+ is not finite"),
    "dtype": (
        tensors_of("model.", lambda x: x.double()),
        "is torch.float64 .*, not",
    ),
    "shape": (tensors_of("model.", lambda x: x[:1]), r"does not fit this model: model"),
    "moments": (tensors_of("optimizer.1", lambda x: x[..., :1].clone()), "not fit this model: opt"),
    "no-optimizer": (without("optimizer."), r"damaged, .* it lacks optimizer\.0\.0"),
    "no-average": (without("average."), r"it lacks average"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_refused_in_one_line(finished, tmp_path, name):
    damage, message = DAMAGES[name]
    run = tmp_path / "R"
    shutil.copytree(finished, run)
    damage(run)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(InputError, match=message) as error:
        train(config(override({}, [*TINY[:3], *TINY[4:], "train.epochs=3"])), run, True, print)
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_a_row_cut_short_by_a_kill_is_left_out(finished, tmp_path):
    run = tmp_path / "R"
    shutil.copytree(finished, run)
    rows = metrics(run)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "st')
    assert metrics(run) == rows
    assert go_on(run)["epochs"] == 3
    assert [row["epoch"] for row in metrics(run)] == [1, 2, 3]


@pytest.mark.parametrize("all_of_it", [True, False])
def test_a_folder_deleted_meanwhile_is_one_line(tmp_path, capfd, all_of_it):
    out, n_threads = tmp_path / "R", threading.active_count()

    def delete(state, done, row):
        if state.step == 4 and all_of_it:
            shutil.rmtree(out)
        elif state.step == 4:  # the run writes again what was deleted first
            (out / "config.json").unlink()

    settings = config(override({}, [*TINY[:3], *TINY[4:], "train.epochs=50"]))
    with pytest.raises(RunError, match=r"the run folder .*R is gone: it was moved or deleted"):
        train(settings, out, say=lambda line: None, watch=delete)
    assert threading.active_count() == n_threads
    assert capfd.readouterr() == ("", "")
    assert out.exists() != all_of_it
