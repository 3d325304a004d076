"""Models, states and run folders of earlier versions still load, evaluate and resume."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import gradpot
from gradpot.testing.structures import ethanol
from gradpot.train.config import read_json
from gradpot.train.run import train

GOLDEN = Path(__file__).parent / "golden"
MODELS = json.loads((GOLDEN / "expected.json").read_text())


@pytest.mark.parametrize("name", MODELS)
def test_models_give_the_same_energies_and_forces(name):
    with warnings.catch_warnings():
        # the warning of PaiNN's cone is tested below
        warnings.simplefilter("ignore")
        calculator = gradpot.Calculator(GOLDEN / name, dtype="float64")
    atoms = ethanol()
    atoms.calc = calculator
    expected = MODELS[name]
    assert atoms.get_potential_energy() == pytest.approx(expected["energy"], abs=1e-8)
    np.testing.assert_allclose(atoms.get_forces(), expected["forces"], rtol=0, atol=1e-8)


def test_an_old_painn_keeps_its_cone_and_warns():
    with pytest.warns(UserWarning, match="cone at sites of high symmetry"):
        potential = gradpot.load(GOLDEN / "painn.safetensors")
    assert not potential.model.smooth
    assert potential.model.spec["vector_norm"] == "published"


@pytest.mark.filterwarnings("ignore:the energy of this model has a cone")
@pytest.mark.parametrize("name", ["run-muon", "run-adam"])
def test_a_run_resumes_where_it_stopped(name, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(GOLDEN / name, run)
    expected = json.loads((run / "expected.json").read_text())
    threads = torch.get_num_threads()
    results = train(read_json(run / "config.json"), run, resume=True, say=lambda line: None)
    torch.set_num_threads(threads)
    assert results["steps"] == expected["steps"] == 16
    for key in ("energy_mae_meV", "forces_mae_meV_A"):
        assert results["test"][key] == pytest.approx(expected["test"][key], rel=1e-4)
