"""Errors over many frames: blocks equal the whole; a notice counts training frames."""

import json

import numpy as np
import pytest
import torch
from ase.io import write

from gradpot import InputError
from gradpot.data.frames import Frames
from gradpot.data.source import read
from gradpot.graph.dataset import dataset
from gradpot.models import build
from gradpot.potential import checkpoint
from gradpot.potential.evaluate import blocks, errors_of, evaluate, evaluate_file, sizes
from gradpot.potential.metrics import Within
from gradpot.potential.potential import Potential


@pytest.fixture
def potential() -> Potential:
    torch.manual_seed(0)
    return Potential(build("painn", width=8, n_layers=1), {1: -10.0, 6: -100.0, 8: -200.0})


def test_blocks_equal_the_whole(potential, monkeypatch):
    data = dataset(read("ethanol").take(np.arange(30)), 5.0)
    index = torch.tensor([5, 3, 29, 0, 7])
    whole, labels = evaluate(potential, data, index)
    monkeypatch.setattr("gradpot.potential.evaluate.EDGES_AT_ONCE", 100)
    assert len(list(blocks(data, index))) > 2
    cut, _ = evaluate(potential, data, index)
    torch.testing.assert_close(cut.energy, whole.energy, rtol=0, atol=1e-6)
    torch.testing.assert_close(cut.forces, whole.forces, rtol=0, atol=5e-6)
    assert labels.energy.dtype == torch.float64
    np.testing.assert_array_equal(labels.energy, data.energy[index])
    assert sizes(data).tolist() == [9] * 30


def test_direct_forces_have_no_stress_errors(crystal):
    torch.manual_seed(0)
    model = build("forcenet", width=8, n_layers=1, forces="direct")
    frames = Frames(
        n_atoms=np.array([2]),
        numbers=crystal.numbers,
        positions=crystal.positions,
        cell=crystal.cell.array[None],
        pbc=crystal.pbc[None],
        energy=np.array([-1.0]),
        forces=np.zeros((2, 3)),
        stress=np.zeros((1, 3, 3)),
        charge=np.full(1, np.nan),
        spin=np.full(1, np.nan),
        isolated=np.zeros(1, dtype=bool),
    )
    data = dataset(frames, 5.0)
    direct = errors_of(Potential(model, {11: 0.0, 17: 0.0}), data, torch.arange(1))
    assert np.isfinite(direct["forces_mae_meV_A"])
    assert "stress_mae_meV_A3" not in direct
    gradient = build("forcenet", width=8, n_layers=1)
    both = errors_of(Potential(gradient, {11: 0.0, 17: 0.0}), data, torch.arange(1))
    assert np.isfinite(both["stress_mae_meV_A3"])


def test_no_frames_no_errors(potential):
    data = dataset(read("ethanol").take(np.arange(3)), 5.0)
    assert errors_of(potential, data, torch.zeros(0, dtype=torch.long))["n_frames"] == 0


def test_it_says_which_frames_were_trained_on(potential, tmp_path):
    checkpoint.save(potential, tmp_path / "model.safetensors")
    split = {"data": read("ethanol").fingerprint(), "train": [0, 1, 2], "valid": [3]}
    messages: list[str] = []
    for data, expected in ((split["data"], True), ("another", False)):
        (tmp_path / "split.json").write_text(json.dumps(split | {"data": data}))
        messages.clear()
        evaluate_file(tmp_path / "model.safetensors", "ethanol", say=messages.append)
        assert any("this model was trained on 3 of these frames" in m for m in messages) == expected


def test_it_warns_of_wrong_units_and_names_frames_without_labels(potential, tmp_path):
    some = read("ethanol").take(np.arange(20))
    structures = [some.atoms(i) for i in range(20)]
    structures[0].calc = None
    write(tmp_path / "some.extxyz", structures)
    checkpoint.save(potential, tmp_path / "model.safetensors")
    messages: list[str] = []
    arguments = tmp_path / "model.safetensors", str(tmp_path / "some.extxyz"), None, messages.append
    evaluate_file(*arguments)
    assert "left out of the errors: frame 0 (no label)" in messages
    assert not any(text.startswith("warning") for text in messages)
    evaluate_file(*arguments, energy_unit="hartree", length_unit="Ang")
    assert any(text.startswith("warning: the rms force is") for text in messages)


def test_thresholds_reach_the_evaluation_of_a_file(potential, tmp_path):
    checkpoint.save(potential, tmp_path / "model.safetensors")
    shares = [
        evaluate_file(tmp_path / "model.safetensors", "ethanol", within=within)["efwt"]
        for within in (Within(0.0, 0.0), Within(1e9, 1e9))
    ]
    assert shares == [0.0, 1.0]


def test_a_compiled_potential_is_refused(tmp_path):
    (tmp_path / "some.pt2").write_text("")
    with pytest.raises(InputError, match=r"is a compiled potential, .* give the model\.safet"):
        evaluate_file(tmp_path / "some.pt2", "ethanol")
