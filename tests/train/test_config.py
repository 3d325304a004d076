"""The configuration: TOML, key=value, and the errors for wrong keys and values."""

import subprocess
import sys

import pytest

from gradpot.errors import InputError
from gradpot.train.config import config, merge, override, read_json, read_toml


def test_defaults_are_complete():
    assert config({}).train.batch_size == 5


def test_defaults_do_not_wait_for_torch():
    code = (
        "import sys; from gradpot.train.config import config; config({'train': {'epochs': 3}}); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_toml_then_keys(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("seed = 3\n[train]\nlearning_rate = 1e-3\n[model]\nwidth = 32\n")
    tables = override(read_toml(file), ["train.learning_rate=2e-4", "model.activation=irelu"])
    settings = config(tables)
    assert settings.seed == 3
    assert settings.train.learning_rate == 2e-4
    assert settings.model.model_dump() == {"name": "painn", "width": 32, "activation": "irelu"}


def test_json_round_trip(tmp_path):
    model = {"name": "schnet", "cutoff": 4.5}
    settings = config({"rescale": {"references": {"H": -13.6}}, "model": model})
    file = tmp_path / "config.json"
    file.write_text(settings.model_dump_json())
    assert read_json(file) == settings


def test_damaged_json(tmp_path):
    file = tmp_path / "config.json"
    for text in ("{", "[]", '{"train": {"epoch": 3}}'):
        file.write_text(text)
        with pytest.raises(InputError, match=r"config\.json is damaged, or of another version"):
            read_json(file)


def test_changes_go_over_what_is_there():
    saved = {"train": {"epochs": 3, "ema": 0.9}, "seed": 1}
    assert merge(saved, {"train": {"epochs": 5}, "seed": 2}) == {
        "train": {"epochs": 5, "ema": 0.9},
        "seed": 2,
    }
    assert saved["train"]["epochs"] == 3


def test_models_and_activations_may_be_in_upper_case():
    found = config(override({}, ["model.name=PaiNN", "model.activation=SiLU"])).model
    assert found.model_dump() == {"name": "painn", "activation": "silu"}


def test_values_are_typed():
    tables = override({}, ["train.compile=false", "train.epochs=7", "data.file=a=b.npz"])
    assert tables == {"train": {"compile": False, "epochs": 7}, "data": {"file": "a=b.npz"}}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (
            "train.epoch=5",
            r"unknown key 'train.epoch' \(did you mean train.epochs\?\); known: epochs, ",
        ),
        ("trian.epochs=5", r"unknown key 'trian' \(did you mean train\?\); known: data, model"),
        ("train.epochs=0", r"train.epochs is 0 but must be greater than or equal to 1"),
        ("train.batch_size=ten", "train.batch_size is 'ten' but must be a valid integer"),
        (
            "train.optimizer=sgd",
            "train.optimizer is 'sgd' but must be 'muon', 'soap', 'soap-muon',",
        ),
        ("train.optimizer=[1]", r"is \[1\] but must be 'muon', .*, 'adam' or 'adamw'"),
        ("train.schedule=x", "train.schedule is 'x' but must be 'cosine', 'plateau' or 'constant'"),
        ("train.dtype=float16", "train.dtype is 'float16' but must be 'float32' or 'float64'"),
        ("rescale.mode=x", "rescale.mode is 'x' but must be 'none', 'offset', 'constant', "),
        ("loss.penalty=l3", "loss.penalty is 'l3' but must be 'l1', 'l2' or 'huber'"),
        ("seed=-1", "seed is -1"),
        ("epochs", "'epochs' is neither a file nor key=value"),
        ("seed.value=1", "seed is {'value': 1} but must be a valid integer"),
        ("train=3", "train is 3 but must be a table"),
        ("train.compile=maybe", "train.compile is 'maybe' but must be 'auto' or a valid boolean"),
        ("train.compile=yes", "train.compile is 'yes' but must be 'auto' or a valid boolean"),
        ("train.compile=1", "train.compile is 1 but must be 'auto' or a valid boolean"),
        ("rescale.references=3", "rescale.references is 3 but must be a valid string or"),
        ("rescale.references={H=nan}", "rescale.references is .*finite"),
        ("train.learning_rate=inf", "train.learning_rate is inf but must be a finite number"),
        ("train.batch_size=10000000000", "train.batch_size is 10000000000 but must be less than"),
        ("loss={energy=0,forces=0}", "loss: energy, forces and stress all have weight 0"),
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


def test_a_byte_order_mark_is_read_over(tmp_path):
    """Editors of Windows write one."""
    file = tmp_path / "run.toml"
    file.write_bytes(b"\xef\xbb\xbfseed = 3\r\n[train]\r\nepochs = 2\r\n")
    assert read_toml(file) == {"seed": 3, "train": {"epochs": 2}}
