"""The frames of a run: several files, sets of their own, isolated atoms, unusable frames."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from gradpot.data.source import read
from gradpot.errors import InputError
from gradpot.train.config import config, override
from gradpot.train.run import train
from gradpot.train.sets import Counts, divide, read_sets, rescale

TINY = ["train.epochs=2", "model.width=8", "model.n_layers=1", "train.compile=false"]


def labeled(atoms: Atoms, **info) -> Atoms:
    atoms.calc = EMT()
    labels = {"energy": atoms.get_potential_energy() - 100.0, "forces": atoms.get_forces()}
    copy = atoms.copy()
    copy.info.update(info)
    copy.calc = SinglePointCalculator(copy, **labels)
    return copy


def copper(n: int, seed: int = 0) -> list[Atoms]:
    found = []
    for i in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.08, seed=1000 * seed + i)
        found.append(labeled(atoms))
    return found


def alone(symbol: str = "Cu", mark: str = "IsolatedAtom") -> Atoms:
    return labeled(Atoms(symbol, cell=[2.5] * 3, pbc=True), config_type=mark)


def settings(*keys: str):
    return config(override({}, [*TINY, *keys]))


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed, (name, n) in enumerate([("a", 10), ("b", 8), ("c", 5), ("d", 6)]):
        write(f"{name}.traj", copper(n, seed))
    return tmp_path


@pytest.mark.parametrize(
    ("keys", "sizes"),
    [
        (['data.file=["a.traj", "b.traj"]'], [14, 1, 3]),
        (["data.file=a.traj", "data.valid_file=c.traj", "data.test_file=d.traj"], [10, 5, 6]),
        (["data.file=a.traj", "data.valid_file=c.traj"], [9, 5, 1]),
        (["data.file=a.traj", 'data.test_file=["c.traj", "d.traj"]', "data.n_test=4"], [9, 1, 4]),
    ],
)
def test_sets_of_several_files(files, keys, sizes):
    wanted = settings(*keys).data
    frames, counts = read_sets(wanted)
    parts, notices = divide(wanted, frames, counts, seed=0)
    assert [part.shape[0] for part in parts] == sizes
    assert notices == []
    assert sum(counts) == frames.n_atoms.shape[0] == frames.energy.shape[0]
    assert frames.notices[0].startswith("a.traj: units: eV")


def test_one_file_given_as_a_list_is_the_same_run(files):
    assert settings('data.file=["a.traj"]') == settings("data.file=a.traj")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["data.valid_file=c.traj", "data.n_valid=3"], "data.n_valid and data.valid_file are both"),
        (["data.test_file=d.traj", "data.split=parts.json"], "data.split=parts.json and data.test"),
        (["data.file=a.traj", "data.valid_file=a.traj"], "a.traj has two roles"),
        (['data.file=["a.traj", "a.traj"]'], "names of different files"),
        (["data.file=[]"], "data.file is"),
    ],
)
def test_sets_that_contradict_each_other(keys, message):
    with pytest.raises(InputError, match=message):
        settings(*keys)


def test_copies_of_training_frames_are_pointed_out(files):
    write("e.traj", [*copper(2, seed=0), *copper(1, seed=9)])
    wanted = settings("data.file=a.traj", "data.valid_file=c.traj", "data.test_file=e.traj").data
    _, notices = divide(wanted, *read_sets(wanted), seed=0)
    assert notices == ["warning: 2 of 3 test frames are in the training set"]


@pytest.mark.parametrize("mark", ["IsolatedAtom", "isolatedatom", "isolated_atom"])
def test_marked_isolated_atoms_are_references_and_in_no_set(files, mark):
    write("e.extxyz", [*copper(4), alone(mark=mark), *copper(6, seed=5)])
    frames = read("e.extxyz")
    run = settings("data.n_train=8", "data.n_valid=2")
    parts, notices = divide(run.data, frames, Counts(11), run.seed)
    assert sorted(np.concatenate(parts)) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert notices == ["left out of training and tests: frame 4 (marked as isolated atoms)"]
    found, said = rescale(run, frames, parts)
    assert found.references == {29: pytest.approx(frames.energy[4])}
    assert said[0] == "references from isolated: the frames that are marked as isolated atoms"


def test_marks_that_do_not_cover_all_elements_are_not_used(files):
    write("e.extxyz", [*copper(8), alone("Au")])
    frames = read("e.extxyz")
    parts, _ = divide(settings().data, frames, Counts(9), 0)
    found, said = rescale(settings(), frames, parts)
    assert list(found.references) == [29]  # gold is no element of the training
    assert said[0].startswith("references from least-squares, not from")
    with pytest.raises(InputError, match="no reference energy for Cu"):
        rescale(settings("rescale.references=isolated"), frames, parts)


def test_frames_of_a_file_of_indices_that_cannot_be_used_are_left_out(files):
    write("e.extxyz", [alone(), *copper(6)])
    Path("parts.json").write_text(json.dumps({"train": [0, 1, 2], "valid": [3], "test": [4]}))
    parts, _ = divide(settings("data.split=parts.json").data, read("e.extxyz"), Counts(7), 0)
    assert parts.train.tolist() == [1, 2]  # indices of the file
    Path("parts.json").write_text(json.dumps({"train": [0], "valid": [3]}))
    with pytest.raises(InputError, match=r"no usable frame is left for training.*isolated"):
        divide(settings("data.split=parts.json").data, read("e.extxyz"), Counts(7), 0)


def test_a_run_with_broken_frames_ends_with_numbers(files):
    """Atoms on top of each other ended it at step 1 with a loss that was not finite."""
    broken, silent = copper(1)[0], bulk("Cu", cubic=True)
    broken.positions[2] = broken.positions[0]
    write("e.extxyz", [broken, silent, alone(), *copper(8)])
    said = []
    results = train(settings("data.file=e.extxyz"), "R", say=said.append)
    assert np.isfinite(results["test"]["forces_mae_meV_A"])
    assert "left out of training and tests: frame 0 (atoms less than 0.1 Å apart)" in said
    assert "left out of training and tests: frame 1 (no label)" in said
    parts = json.loads(Path("R/split.json").read_text())
    assert sorted(parts["train"] + parts["valid"] + parts["test"]) == list(range(3, 11))


def test_a_run_of_several_files_goes_on(files):
    keys = ['data.file=["a.traj", "b.traj"]', "data.valid_file=c.traj"]
    train(settings(*keys), "R", say=lambda line: None)
    more = config(override({}, [*TINY[1:], *keys, "train.epochs=3"]))
    assert train(more, "R", resume=True, say=lambda line: None)["epochs"] == 3
    write("c.traj", copper(5, seed=7))
    with pytest.raises(InputError, match="not those that R was started with"):
        train(more, "R", resume=True, say=lambda line: None)
