"""Which frames are trained on, which decide when to stop, and which are left to test."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from gradpot.errors import InputError


class Split(NamedTuple):
    """Positions of frames in their file."""

    train: Int[np.ndarray, "n_train"]
    valid: Int[np.ndarray, "n_valid"]
    test: Int[np.ndarray, "n_test"]


def split(
    n_frames: int,
    how: str = "random",
    n_train: int | None = None,
    n_valid: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
) -> Split:
    """Divide frames; what is neither trained on nor validated is the test set.

    Args:
        how: "random"; "block" for trajectories, whose neighbors in time are nearly equal (the
            first frames train, the next validate, the last test); or a JSON file with lists of
            positions "train", "valid" and, if they are not all the rest, "test".
        n_train: 80 % unless given.
        n_valid: 10 % unless given, or a tenth of `n_train` where that is given.
        n_test: keep only so many of the test frames (spread evenly).

    Raises:
        InputError: more frames are asked for than there are, or the file is not such a file.
    """
    if how not in ("random", "block"):
        return _given(Path(how), n_frames, n_test)
    n_train, n_valid = _sizes(n_frames, n_train, n_valid)
    order = np.arange(n_frames)
    if how == "random":
        order = np.random.default_rng(seed).permutation(n_frames)
    train, valid, test = np.split(order, [n_train, n_train + n_valid])
    return Split(train, valid, _thin(test, n_test))


def _sizes(n_frames: int, n_train: int | None, n_valid: int | None) -> tuple[int, int]:
    if n_valid is None:
        n_valid = max(1, (n_frames if n_train is None else n_train) // 10)
    if n_train is None:
        n_train = min(n_frames - n_valid, max(1, round(0.8 * n_frames)))
    if n_train < 1 or n_valid < 1:
        raise InputError(
            f"data.n_train={n_train} and data.n_valid={n_valid}: both must be at least 1 "
            f"({n_frames} frames in the file)"
        )
    if n_train + n_valid > n_frames:
        raise InputError(
            f"data.n_train={n_train} + data.n_valid={n_valid} is more than "
            f"the {n_frames} frames in the file"
        )
    return n_train, n_valid


def _thin(test: np.ndarray, n_test: int | None) -> np.ndarray:
    if n_test is None or n_test >= test.shape[0]:
        return test
    return test[np.linspace(0, test.shape[0] - 1, n_test).round().astype(int)]


def _given(path: Path, n_frames: int, n_test: int | None) -> Split:
    parts = _read(path)
    train, valid = parts["train"], parts["valid"]
    rest = np.setdiff1d(np.arange(n_frames), np.concatenate([train, valid]))
    test = parts.get("test", rest)
    everything = np.concatenate([train, valid, test])
    if everything.min() < 0 or everything.max() >= n_frames:
        raise InputError(
            f"{path} names frame {everything.max()}; the data has frames 0 to {n_frames - 1}"
        )
    if np.unique(everything).shape[0] < everything.shape[0]:
        raise InputError(f"{path} names a frame twice; train, valid and test must not overlap")
    return Split(train, valid, _thin(test, n_test))


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"data.split is {str(path)!r}; expected random, block or a JSON file")
    try:
        parts = {key: np.array(value) for key, value in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a split file ({error})") from None
    for key in ("train", "valid"):
        if key not in parts or parts[key].size == 0 or parts[key].dtype.kind != "i":
            raise InputError(f'{path} must hold a list of frame numbers "{key}"')
    wanted = ("train", "valid", "test")
    return {key: value.astype(int) for key, value in parts.items() if key in wanted}
