"""Models by name: other packages are imported only when one of their models is built."""

import subprocess
import sys

import pytest

from gradpot.errors import InputError
from gradpot.models import EXTERNAL, MODELS, build, specification
from gradpot.models.schnet import SchNet

PACKAGES = {"pyg": "torch_geometric", "schnetpack": "schnetpack"}


def test_importing_gradpot_imports_no_other_package():
    code = (
        "import sys, gradpot.models, gradpot.train.run, gradpot.md.calculator; "
        f"print(sorted(set({list(PACKAGES.values())}) & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", EXTERNAL)
def test_the_error_names_a_missing_package_and_its_extra(name, monkeypatch):
    extra = name.partition("/")[0]
    for module in [m for m in sys.modules if m.split(".")[0] == PACKAGES[extra]]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, f"gradpot.models.external.{extra}", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(PACKAGES[extra]), *sys.meta_path])
    with pytest.raises(
        InputError, match=rf'needs {PACKAGES[extra]}.*pip install "gradpot\[{extra}\]"'
    ):
        build(name)


class Absent:
    """An import hook: Python behaves as if a package were not installed."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name: str, *_rest: object) -> None:
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_the_error_of_an_unknown_model_lists_all_names():
    with pytest.raises(
        InputError, match=r"unknown model 'pyg/gin' .*; known: gaunt, schnet, painn.*pyg/schnet"
    ):
        specification("pyg/gin")


def test_names_may_be_in_upper_case():
    """As on the command line, and what is saved has the names of the tables."""
    model = build("PaiNN", activation="SiLU", width=4, n_layers=1, cutoff=4.0)
    assert model.spec == build("painn", activation="silu", width=4, n_layers=1, cutoff=4.0).spec
    assert (model.spec["name"], model.spec["activation"]) == ("painn", "silu")


def test_a_default_of_the_class_is_always_allowed(monkeypatch):
    """A saved model states all arguments, also those that had their defaults."""

    class Own(SchNet):
        def __init__(self, n_layers: int = 0):
            super().__init__(n_layers=n_layers)

    monkeypatch.setitem(MODELS, "own.py:Own", Own)
    assert specification("own.py:Own", n_layers=0) == specification("own.py:Own")
    with pytest.raises(InputError, match="n_layers is -1 but must be at least 1"):
        specification("own.py:Own", n_layers=-1)


def test_a_size_stands_for_arguments_that_others_override():
    small, large = (specification("gaunt", size=size) for size in ("small", "large"))
    assert specification("gaunt", size="medium") == specification("gaunt")
    assert small["width"] < specification("gaunt")["width"] < large["width"]
    assert specification("gaunt", size="small", width=48) == {**small, "width": 48}
    with pytest.raises(InputError, match="unknown size 'huge'; known: small, medium, large"):
        specification("gaunt", size="huge")
    with pytest.raises(InputError, match="unknown argument of painn 'size'"):
        specification("painn", size="small")
