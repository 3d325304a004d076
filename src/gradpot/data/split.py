"""Which frames are trained on, which decide when to stop, and which are left for the test."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from gradpot.data.frames import Frames
from gradpot.data.overlap import TOO_CLOSE, overlaps
from gradpot.data.raw import frame_names
from gradpot.errors import InputError


class Split(NamedTuple):
    """Indices of frames in their file."""

    train: Int[np.ndarray, "n_train"]
    valid: Int[np.ndarray, "n_valid"]
    test: Int[np.ndarray, "n_test"]


def usable(
    frames: Frames, use: str = "training and tests"
) -> tuple[Bool[np.ndarray, "n_frames"], list[str]]:
    """Which frames can be trained and tested on, and what to say about the others.

    Isolated atoms are reference energies, frames without any label teach nothing, and atoms on top
    of each other have no finite energy.

    Args:
        use: what the others are left out of, for the notices.
    """
    close = np.zeros(frames.n_atoms.shape[0], dtype=bool)
    close[overlaps(frames)[:, 0]] = True
    out = {
        "marked as isolated atoms": frames.isolated,
        "no label": ~frames.labeled & ~frames.isolated,
        f"atoms less than {TOO_CLOSE} Å apart": close & frames.labeled & ~frames.isolated,
    }
    notices = [
        f"left out of {use}: {frame_names(np.flatnonzero(which))} ({why})"
        for why, which in out.items()
        if which.any()
    ]
    return ~np.logical_or.reduce(list(out.values())), notices


def split(
    n_frames: int,
    how: str = "random",
    n_train: int | None = None,
    n_valid: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
    usable: Bool[np.ndarray, "n_frames"] | None = None,
    own_valid: Int[np.ndarray, "n_own_valid"] | None = None,
    own_test: Int[np.ndarray, "n_own_test"] | None = None,
) -> Split:
    """Divide frames; all that are not in the training or validation set are the test set.

    Args:
        how: "random"; "block" for trajectories, whose consecutive frames are nearly equal (the
            first frames train, the next validate, the last test); or a JSON file with lists of
            indices "train", "valid" and, unless it is all the others, "test".
        n_train: 80 % unless given.
        n_valid: 10 % unless given, or a tenth of `n_train` if that is given.
        n_test: keep only this many of the test frames, evenly spaced.
        usable: False for frames that belong to no set, even if a file of indices names them.
        own_valid: frames of a file for validation; the others are trained on or tested on.
        own_test: frames of a file for the test; the others are trained on or validated.

    Raises:
        InputError: there are fewer frames than asked for, or `how` is not such a file.
    """
    every = np.arange(n_frames)
    chosen = every if usable is None else every[usable]
    if how not in ("random", "block"):
        parts = read_split(Path(how), n_frames)
        train, valid, test = (part[np.isin(part, chosen)] for part in parts)
    else:
        given = [part for part in (own_valid, own_test) if part is not None]
        free = chosen[~np.isin(chosen, np.concatenate([np.zeros(0, int), *given]))]
        has_own = own_valid is not None, own_test is not None
        n_train, n_valid = sizes(free.shape[0], n_train, n_valid, *has_own)
        order = np.random.default_rng(seed).permutation(free) if how == "random" else free
        train, valid, test = np.split(order, [n_train, n_train + n_valid])
        valid = valid if own_valid is None else own_valid[np.isin(own_valid, chosen)]
        test = test if own_test is None else own_test[np.isin(own_test, chosen)]
    if n_test is not None and n_test < test.shape[0]:
        test = test[np.linspace(0, test.shape[0] - 1, n_test).round().astype(int)]
    return Split(train, valid, test)


def sizes(
    n_frames: int,
    n_train: int | None,
    n_valid: int | None,
    own_valid: bool = False,
    own_test: bool = False,
) -> tuple[int, int]:
    """Sizes of the training and the validation set, as `split` describes them.

    A tenth of the frames is left for each set that has no frames of its own.
    """
    if own_valid:
        n_valid = 0
    elif n_valid is None:
        n_valid = max(1, (n_frames if n_train is None else n_train) // 10)
    if n_train is None and own_test:
        n_train = n_frames - n_valid
    elif n_train is None:
        share = 0.9 if own_valid else 0.8
        n_train = min(n_frames - n_valid, max(1, round(share * n_frames)))
    if n_frames < 2 and not own_valid:
        raise InputError(
            "training needs at least 2 frames, one of them to validate with; there is "
            f"{n_frames} in the file"
        )
    if n_train < 1 or (n_valid < 1 and not own_valid):
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


def check_how(how: str) -> None:
    """Raise an InputError unless this is a way to split."""
    if how not in ("random", "block") and not Path(how).is_file():
        raise InputError(f"data.split is {how!r}; expected random, block or a JSON file")


def read_split(path: Path, n_frames: int) -> Split:
    """Read a split of `n_frames` frames from a JSON file.

    Raises:
        InputError: it is not such a file, names frames that do not exist, or names one twice.
    """
    check_how(str(path))
    try:
        parts = {key: np.array(value) for key, value in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a split file ({error})") from error
    for key in ("train", "valid", "test"):
        indices = parts.get(key, np.zeros(0))
        is_list = indices.ndim == 1 and (indices.dtype.kind == "i" or indices.size == 0)
        if not is_list or (key != "test" and indices.size == 0):
            raise InputError(f'{path} must hold a list of frame numbers "{key}"')
    train, valid = parts["train"], parts["valid"]
    rest = np.setdiff1d(np.arange(n_frames), np.concatenate([train, valid]))
    test = parts.get("test", rest).astype(int)
    everything = np.concatenate([train, valid, test])
    unknown = everything[(everything < 0) | (everything >= n_frames)]
    if unknown.size:
        raise InputError(
            f"{path} names frame {unknown[0]}; the data has frames 0 to {n_frames - 1}"
        )
    if np.unique(everything).shape[0] < everything.shape[0]:
        raise InputError(f"{path} names a frame twice; train, valid and test must not overlap")
    return Split(train, valid, test)
