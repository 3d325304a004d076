"""Splits: disjoint, complete, reproducible; wrong ones refused."""

import json

import numpy as np
import pytest

from gradpot.data.split import split
from gradpot.errors import InputError


@pytest.mark.parametrize("how", ["random", "block"])
def test_every_frame_once(how):
    parts = split(100, how, n_train=60, n_valid=15)
    assert [p.shape[0] for p in parts] == [60, 15, 25]
    assert sorted(np.concatenate(parts)) == list(range(100))


def test_blocks_keep_the_order_of_time():
    parts = split(10, "block", n_train=5, n_valid=2)
    assert [p.tolist() for p in parts] == [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]


def test_defaults():
    assert [p.shape[0] for p in split(2000)] == [1600, 200, 200]
    assert [p.shape[0] for p in split(1000, n_train=500)] == [500, 50, 450]
    assert [p.shape[0] for p in split(2)] == [1, 1, 0]


def test_seed_decides():
    one, same, other = (split(50, seed=s).train.tolist() for s in (0, 0, 1))
    assert one == same
    assert one != other


def test_fewer_test_frames():
    parts = split(100, "block", n_train=10, n_valid=10, n_test=5)
    assert parts.test.tolist() == [20, 40, 60, 79, 99] or len(set(parts.test.tolist())) == 5


def test_given(tmp_path):
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"train": [4, 2], "valid": [0]}))
    parts = split(6, str(file))
    assert [p.tolist() for p in parts] == [[4, 2], [0], [1, 3, 5]]
    file.write_text(json.dumps({"train": [4, 2], "valid": [0], "test": []}))
    assert split(6, str(file)).test.tolist() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": [1, 9], "valid": [0]}', "names frame 9; the data has frames 0 to 5"),
        ('{"train": [1, -1], "valid": [0]}', "names frame -1; the data has frames 0 to 5"),
        ('{"train": [1], "valid": [0], "test": ["a"]}', 'a list of frame numbers "test"'),
        ('{"train": [[1], [2]], "valid": [0]}', 'a list of frame numbers "train"'),
        ('{"train": [1, 2], "valid": [2]}', "names a frame twice"),
        ('{"train": [1, 2]}', 'must hold a list of frame numbers "valid"'),
        ('{"train": [0.5], "valid": [2]}', 'must hold a list of frame numbers "train"'),
        ("[1, 2]", "is not a split file"),
        ("{", "is not a split file"),
    ],
)
def test_wrong_files(tmp_path, content, message):
    file = tmp_path / "split.json"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        split(6, str(file))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_train": 90, "n_valid": 20}, "is more than the 100 frames"),
        ({"how": "rnadom"}, "expected random, block or a JSON file"),
        ({"n_train": 0, "n_valid": 2}, "must be at least 1"),
    ],
)
def test_wrong_sizes(arguments, message):
    with pytest.raises(InputError, match=message):
        split(100, **arguments)


@pytest.mark.parametrize("how", ["random", "block"])
def test_frames_that_are_not_usable_are_in_no_set(how):
    usable = np.arange(20) % 4 != 0
    parts = split(20, how, usable=usable)
    assert sorted(np.concatenate(parts)) == np.flatnonzero(usable).tolist()


@pytest.mark.parametrize(
    ("own", "numbers", "sizes"),
    [
        ({"own_valid": 5}, {}, [86, 5, 9]),  # 95 others: 90 % are trained on
        ({"own_test": 5}, {}, [86, 9, 5]),
        ({"own_valid": 5, "own_test": 10}, {}, [85, 5, 10]),
        ({"own_valid": 5, "own_test": 10}, {"n_train": 20}, [20, 5, 10]),
        ({"own_test": 10}, {"n_test": 3}, [81, 9, 3]),
        ({"own_valid": 5}, {"n_train": 95}, [95, 5, 0]),
    ],
)
def test_sets_from_files_of_their_own(own, numbers, sizes):
    ends = np.cumsum([0, *own.values()])
    given = {name: 99 - np.arange(a, b) for name, a, b in zip(own, ends, ends[1:])}
    parts = split(100, **numbers, **given)
    assert [part.shape[0] for part in parts] == sizes
    for name, part in (("own_valid", parts.valid), ("own_test", parts.test)):
        assert name not in own or set(part.tolist()) <= set(given[name].tolist())
    assert np.unique(np.concatenate(parts)).shape[0] == sum(sizes)
