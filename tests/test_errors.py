"""What an error says: the value, what it may mean, and where it comes from."""

import re
from pathlib import Path

import pytest

import gradpot
from gradpot import other_names
from gradpot.data.catalog import catalog
from gradpot.errors import InputError, damaged, did_you_mean, unknown
from gradpot.md.settings import ENSEMBLES, Settings
from gradpot.models import EXTERNAL, MODELS, build, specification
from gradpot.nn.activations import ACTIVATIONS, FAMILIES, look_up
from gradpot.train.config import Config, key_hint
from gradpot.units import ENERGY, LENGTH, PRESSURE, energy_factor, force_factor, stress_factor

# what users of other packages type, and what the hint proposes
MEANT = [
    (lambda: look_up("swish"), "silu"),
    (lambda: look_up("SiLU"), "silu"),
    (lambda: look_up("shifted_softplus"), "ssp"),
    (lambda: look_up("leaky_relu"), "leaky_irelu"),
    (lambda: look_up("irellu"), "irelu"),
    (lambda: build("dimenet"), "dimenet++"),
    (lambda: build("DimeNetPP"), "dimenet++"),
    (lambda: build("gemnet"), "gemnet-dt"),
    (lambda: specification("painn", hidden=64), "width"),
    (lambda: specification("painn", r_max=5.0), "cutoff"),
    (lambda: specification("schnet", n_interactions=3), "n_layers"),
    (lambda: specification("schnet", n_rbf=20), "n_radial"),
    (lambda: Settings(ensemble="nvt"), "langevin"),
    (lambda: Settings(ensemble="NPT"), "npt"),
    (lambda: energy_factor("kcal"), "kcal/mol"),
    (lambda: energy_factor("kJ"), "kj/mol"),
    (lambda: energy_factor("Hartrees"), "hartree"),
    (lambda: force_factor("kcal/mol"), "kcal/mol/ang"),
    (lambda: stress_factor("eV/A3"), "ev/ang^3"),
    (lambda: catalog.find("aspirin"), "md17:aspirin"),
    (lambda: catalog.find("rmd17-ethanol"), "rmd17:ethanol"),
]


@pytest.mark.parametrize(("call", "meant"), MEANT, ids=[str(i) for i in range(len(MEANT))])
def test_a_name_of_another_package_brings_ours(call, meant):
    with pytest.raises(InputError, match=re.escape(f"(did you mean {meant}") + r"( or [^ ]+)?\?\)"):
        call()


KEYS = {
    "epochs": "train.epochs",
    "max_minutes": "train.max_minutes",
    "lr": "train.learning_rate",
    "train.lr": "train.learning_rate",
    "learning-rate": "train.learning_rate",
    "batch": "train.batch_size",
    "train.batch": "train.batch_size",
    "max_num_epochs": "train.epochs",
    "r_max": "model.cutoff",
    "train.cutoff": "model.cutoff",
    "hidden_channels": "model.width",
    "num_interactions": "model.n_layers",
    "E0s": "rescale.references",
    "energy_weight": "loss.energy",
    "forces_weight": "loss.forces",
    "loss.force": "loss.forces",
    "ema_decay": "train.ema",
    "data.n_val": "data.n_valid",
    "default_dtype": "train.dtype",
    "train.epoch": "train.epochs",
    "random_seed": "seed",
    "trian": "train",
}


@pytest.mark.parametrize("typed", KEYS)
def test_a_key_of_another_package_or_table_brings_ours(typed):
    assert key_hint(typed) == f" (did you mean {KEYS[typed]}?)"


def test_every_hint_names_something_that_exists():
    keys = {"seed"} | {
        f"{name}.{key}"
        for name, field in Config.model_fields.items()
        for key in getattr(field.annotation, "model_fields", ())
    }
    arguments = {key for name in MODELS for key in specification(name)}
    assert set(other_names.KEYS.values()) <= keys | {f"model.{key}" for key in arguments}
    assert set(other_names.ARGUMENTS.values()) <= arguments | {"name"}
    assert set(other_names.ACTIVATIONS.values()) <= ACTIVATIONS.keys() | FAMILIES.keys()
    assert set(other_names.MODELS.values()) <= MODELS.keys() | EXTERNAL.keys()
    assert set(other_names.ENSEMBLES.values()) <= ENSEMBLES.keys()
    assert set(other_names.UNITS.values()) <= ENERGY.keys() | LENGTH.keys() | PRESSURE.keys()


def test_other_names_are_in_lower_case_and_not_ours():
    tables = {name: t for name, t in vars(other_names).items() if name.isupper()}
    tables["OPTIONS"] = other_names.by_their_name(tables["OPTIONS"])
    for name, table in tables.items():
        assert all(theirs == theirs.lower() for theirs in table), name
    for table, ours in (("ACTIVATIONS", ACTIVATIONS), ("MODELS", MODELS), ("ENSEMBLES", ENSEMBLES)):
        assert not tables[table].keys() & ours.keys()


def test_nothing_close_brings_no_hint():
    assert did_you_mean("xyz", ["painn", "schnet"]) == ""
    assert did_you_mean(3, ["painn"]) == ""
    assert did_you_mean("a" * 10**6, ["painn"]) == ""


def test_a_long_value_is_cut():
    assert len(str(unknown("thing", "x" * 10**6, ["a"]))) < 300


def test_a_parser_that_fails_becomes_one_error_with_its_cause():
    for raised in (RecursionError(), SystemError("bad\nworse"), KeyError("a"), OSError("x" * 999)):
        with pytest.raises(InputError, match="f is damaged") as caught, damaged("f is damaged"):
            raise raised
        assert caught.value.__cause__ is raised
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


def test_what_is_no_damage_passes(tmp_path):
    with pytest.raises(FileNotFoundError), damaged("f is damaged"):
        (tmp_path / "nosuch").read_text()
    with pytest.raises(InputError, match=r"^as it is$"), damaged("f is damaged"):
        raise InputError("as it is")


def test_no_error_hides_its_cause():
    """`gradpot --debug` shows the causes."""
    source = Path(gradpot.__file__).parent
    assert [str(p) for p in source.rglob("*.py") if "from None" in p.read_text()] == []
