"""The configuration: TOML, key=value, and what is said of wrong keys."""

import pytest

from gradpot.errors import InputError
from gradpot.train.config import config, override, read_json, read_toml


def test_defaults_are_complete():
    assert config({}).train.batch_size == 10


def test_toml_then_keys(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("seed = 3\n[train]\nlearning_rate = 1e-3\n[model]\nwidth = 32\n")
    tables = override(read_toml(file), ["train.learning_rate=2e-4", "model.activation=irelu"])
    settings = config(tables)
    assert settings.seed == 3
    assert settings.train.learning_rate == 2e-4
    assert settings.model.model_dump() == {"name": "painn", "width": 32, "activation": "irelu"}


def test_json_round_trip(tmp_path):
    settings = config({"rescale": {"references": {"H": -13.6}}, "model": {"cutoff": 4.5}})
    file = tmp_path / "config.json"
    file.write_text(settings.model_dump_json())
    assert read_json(file) == settings


def test_values_are_typed():
    tables = override({}, ["train.compile=false", "train.epochs=7", "data.file=a=b.npz"])
    assert tables == {"train": {"compile": False, "epochs": 7}, "data": {"file": "a=b.npz"}}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.epoch=5", "unknown key 'train.epoch'; known: epochs, max_minutes"),
        ("trian.epochs=5", "unknown key 'trian'; known: data, model"),
        ("train.epochs=0", r"train.epochs is 0: input should be greater than or equal to 1"),
        ("train.batch_size=ten", "train.batch_size is 'ten': input should be a valid integer"),
        ("loss.penalty=l3", "loss.penalty is 'l3': input should be 'l1', 'l2' or 'huber'"),
        ("seed=-1", "seed is -1"),
        ("epochs", "'epochs' is neither a file nor key=value"),
        ("seed.value=1", "unknown key|seed is"),
    ],
)
def test_wrong_keys(assignment, message):
    with pytest.raises(InputError, match=message):
        config(override({}, [assignment]))


def test_not_toml(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("seed: 3")
    with pytest.raises(InputError, match=r"run\.toml is not TOML"):
        read_toml(file)
