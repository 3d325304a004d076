"""The frames of a run: read, or found again; training, validation and test set; references."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradpot.data.catalog.catalog import locate
from gradpot.data.checks import structure_hashes
from gradpot.data.files import n_missing, require
from gradpot.data.frames import Frames, join
from gradpot.data.references import Rescaling, given, isolated, least_squares, rescaling
from gradpot.data.source import read
from gradpot.data.split import Split, check_how, split, usable
from gradpot.errors import InputError
from gradpot.train.config import NAMED, Config, Data, files
from gradpot.train.folder import Parts

# words that `rescale.references` can be
REFERENCES = ("auto", "none", "isolated", "least-squares")


class Counts(NamedTuple):
    """How many frames come from `data.file`, `data.valid_file` and `data.test_file`."""

    file: int
    valid_file: int = 0
    test_file: int = 0


def read_sets(data: Data) -> tuple[Frames, Counts]:
    """All frames of a configuration, first those of `data.file`, and how many are of which file."""
    parts, counts = [], {}
    for role in Counts._fields:
        counts[role] = 0
        for name in files(getattr(data, role)):
            frames = read(name, **data.reading)
            if len(data.every_file) > 1:
                frames = frames._replace(notices=tuple(_of(name, text) for text in frames.notices))
            counts[role] += frames.n_atoms.shape[0]
            parts.append(frames)
    return join(parts), Counts(**counts)


def find_data(data: Data, before: Data, parts: Parts, out: Path) -> tuple[Data, Frames]:
    """The data of a run that goes on, wherever they and the folder are now.

    Args:
        data: as given now.
        before: as in the folder's configuration.

    Returns:
        How to read them, and the frames: the first that have the fingerprint in `parts`.

    Raises:
        InputError: there are none.
    """
    failed: list[Exception] = []
    others: list[str] = []
    for one in _candidates(data, before, parts, out):
        try:
            frames, _ = read_sets(one)
        except (InputError, OSError) as error:
            failed.append(error)
            continue
        if frames.has_fingerprint(parts.data):
            return one, frames
        others.append(" ".join(one.every_file))
    if others:
        raise InputError(f"the frames of {others[0]} are not those that {out} was started with")
    if any(getattr(data, key) != getattr(before, key) for key in NAMED):
        raise failed[0]
    raise InputError(
        f"{out / 'config.json'} names the data {' '.join(before.every_file)}, which cannot be read "
        f"({failed[0]}): give them with --data"
    ) from failed[0]


def check_names(settings: Config) -> None:
    """Refuse a split and references that there are not, before the data are read.

    Raises:
        InputError: one is neither a known name nor a file.
    """
    check_how(settings.data.split)
    source = settings.rescale.references
    if isinstance(source, dict) or source in REFERENCES:
        return
    try:
        locate(source)
    except InputError as error:
        raise InputError(
            f"rescale.references: {error}; besides these, it can be {', '.join(REFERENCES)}, or a "
            "table of atom energies in eV"
        ) from error


def divide(data: Data, frames: Frames, counts: Counts, seed: int) -> tuple[Split, list[str]]:
    """Training, validation and test set, and notices about frames that are in none or in two.

    Raises:
        InputError: there are fewer frames than asked for, or none is left for a set.
    """
    can, notices = usable(frames)
    role = np.repeat(np.arange(3), counts)
    own = [np.flatnonzero(role == k) if counts[k] else None for k in (1, 2)]
    numbers = data.n_train, data.n_valid, data.n_test
    parts = split(can.shape[0], data.split, *numbers, seed, can, *own)
    for name, part in zip(("training", "validation"), parts):
        if not part.size:
            raise InputError(f"no usable frame is left for {name}; {'; '.join(notices)}")
    hashes = np.array(structure_hashes(frames))
    seen = set(hashes[parts.train].tolist())
    for name, part in (("validation", parts.valid), ("test", parts.test)):
        copies = sum(h in seen for h in hashes[part].tolist())
        if copies:
            notices.append(
                f"warning: {copies} of {part.size} {name} frames are in the training set"
            )
    return parts, notices


def check_labels(settings: Config, frames: Frames, parts: Split) -> list[str]:
    """Notices of labels that validation frames lack.

    Raises:
        InputError: no training frame has a label that the loss needs, or validation frames have
            none of them, so that no model could be called the best.
    """
    loss = settings.loss
    wanted = {name: getattr(loss, name) > 0 for name in ("energy", "forces", "stress")}
    require(frames.take(parts.train), **wanted, kind="training ")
    counts = n_missing(frames.take(parts.valid))
    lacking = [name for name in wanted if wanted[name] and counts[name] == parts.valid.shape[0]]
    if len(lacking) == sum(wanted.values()):
        raise InputError(
            f"no validation frame has a label for {', '.join(lacking)}, so the best model cannot "
            "be found; choose another data.split"
        )
    return [f"warning: no validation frame has {label}" for label in lacking]


def rescale(settings: Config, frames: Frames, parts: Split) -> tuple[Rescaling, list[str]]:
    """References and scale from the training frames and isolated atoms, and notices about them.

    Raises:
        InputError: an element has no reference energy, or is in no training frame.
    """
    training, used = frames.take(parts.train), frames.take(np.concatenate(parts))
    elements = np.unique(used.numbers)
    missing = set(elements.tolist()) - set(training.numbers.tolist())
    if missing:
        raise InputError(
            f"no training frame has the elements {sorted(missing)}, which the file has; train on "
            "more frames or choose another split"
        )
    mode, source = settings.rescale.mode, settings.rescale.references
    marked = frames.take(np.flatnonzero(frames.isolated))
    if source == "auto":
        covered = set(elements.tolist()) <= set(marked.numbers[np.isfinite(marked.energy)].tolist())
        fitted = "isolated" if covered else "least-squares"
        source = "none" if mode in ("none", "constant") else fitted
    named = {
        "none": lambda: dict.fromkeys(elements.tolist(), 0.0),
        "least-squares": lambda: least_squares(training),
        "isolated": lambda: isolated(marked if marked.n_atoms.size else frames, elements),
    }
    if isinstance(source, dict):
        references = given(source, elements)
    elif source in named:
        references = named[source]()
    else:
        alone = {"file": source, "valid_file": None, "test_file": None}
        references = isolated(read_sets(settings.data.model_copy(update=alone))[0], elements)
    found = rescaling(training, mode, references, settings.rescale.constant)
    whence = ""
    if marked.n_atoms.size:
        whence = ", not from the frames that are marked as isolated atoms"
        if source == "isolated":
            whence = ": the frames that are marked as isolated atoms"
    notices = [f"references from {source}{whence}", str(found)]
    if source == "least-squares" and training.n_compositions < len(references):
        notices.append(
            "there are fewer compositions than elements, so only sums of these atom energies are "
            "determined: do not compare total energies between molecules"
        )
    return found, notices


def _candidates(data: Data, before: Data, parts: Parts, out: Path) -> list[Data]:
    """Ways to read the data of a run, the most likely first."""
    if any(getattr(data, key) != getattr(before, key) for key in NAMED):
        # the same file by another name, to be read as before; or another file, which is not
        same = [key for key, value in data.reading.items() if value == getattr(before, key)]
        fresh = {key: Data.model_fields[key].default for key in same}
        return [data, data.model_copy(update=fresh)]
    known = parts.places
    ways: list[Callable[[str], str | Path]] = [
        lambda name: known[name].absolute if name in known else name,
        lambda name: out / known[name].from_run if name in known else name,
        lambda name: name,
        lambda name: out.parent / Path(name).name,
        lambda name: out / Path(name).name,
    ]
    found: list[Data] = []
    for way in ways:
        moved = {key: _renamed(getattr(data, key), way) for key in NAMED}
        one = data.model_copy(update=moved)
        there = all(Path(new).exists() for new in one.every_file) or way is ways[2]
        if there and one not in found:
            found.append(one)
    return found


def _renamed(value: Any, way: Callable[[str], str | Path]) -> Any:
    if isinstance(value, str):
        return str(way(value))
    return value and [str(way(name)) for name in value]


def _of(name: str, notice: str) -> str:
    """A notice with the file that it is about, behind the word that makes it a warning."""
    mark = "warning: " * notice.startswith("warning: ")
    return f"{mark}{name}: {notice.removeprefix(mark)}"
