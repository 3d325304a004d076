"""Run a potential over many frames."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from gradpot.data.files import n_missing
from gradpot.data.frames import Frames
from gradpot.data.source import read
from gradpot.errors import InputError
from gradpot.graph.dataset import Dataset, batch, dataset
from gradpot.graph.graph import Properties
from gradpot.potential.checkpoint import load
from gradpot.potential.metrics import WITHIN, Within, errors
from gradpot.potential.potential import Potential

EDGES_AT_ONCE = 20_000
PLOTS = (".png", ".pdf", ".svg")


def evaluate(
    potential: Potential, data: Dataset, index: Int[Tensor, "n"], stress: bool = True
) -> tuple[Properties, Properties]:
    """Predictions and labels for the frames at `index`, in eV and Å.

    Args:
        data: built with the potential's cutoff and *without* references: its energies are total.
    """
    predicted, labels = [], []
    for part in blocks(data, index):
        piece = batch(data, part)
        predicted.append(potential(piece.graph, stress=stress))
        # the batch rounds energies to the type of the network; the labels keep all digits
        known = piece.labels._replace(energy=data.energy[part])
        if potential.direct:  # no stress to compare with
            known = known._replace(stress=torch.full_like(known.stress, torch.nan))
        labels.append(known)
    return _join(predicted), _join(labels)


def test_errors(potential: Potential, data: Dataset, index: Int[Tensor, "n"]) -> dict:
    """`metrics.errors` over the frames at `index`; nothing but the count for no frames."""
    if index.shape[0] == 0:
        keys = ("energy_mae_meV", "energy_mae_meV_per_atom", "forces_mae_meV_A")
        return {**dict.fromkeys((*keys, "forces_rmse_meV_A", "efwt")), "n_frames": 0}
    predicted, labels = evaluate(potential, data, index)
    return errors(predicted, labels, sizes(data)[index])


def sizes(data: Dataset) -> Int[Tensor, "n_frames"]:
    """Atoms of each frame."""
    return data.first_atom.diff()


def blocks(data: Dataset, index: Int[Tensor, "n"]) -> Iterator[Tensor]:
    """Cut `index` so that no piece has many more than `EDGES_AT_ONCE` edges."""
    total = 2 * data.first_pair.diff()[index].cumsum(0) // EDGES_AT_ONCE
    yield from index.split(torch.unique_consecutive(total, return_counts=True)[1].tolist())


def _join(parts: list[Properties]) -> Properties:
    return Properties(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def evaluate_file(
    model: str | Path,
    file: str,
    plot: Path | None = None,
    say: Callable[[str], None] = print,
    within: Within = WITHIN,
    **reading: Any,
) -> dict:
    """Errors (`metrics.errors`) of a saved potential on a labeled file.

    Args:
        plot: where to write a parity plot.
        say: takes the reader's notices.
        within: thresholds of EFwT.
        reading: units and stress, see `data.source.read`.

    Raises:
        InputError: wrong file, units that are not known, no labels, or elements that the model
            does not know.
    """
    if plot:
        _check_plot(plot)
    potential = load(model)
    frames = read(file, **reading)
    for notice in frames.notices:
        say(notice)
    _tell_what_was_trained_on(Path(model).with_name("split.json"), frames, say)
    if all(count == frames.n_atoms.shape[0] for count in n_missing(frames).values()):
        raise InputError(f"{file} has neither energies nor forces nor stress to compare with")
    potential.check_elements(np.unique(frames.numbers))
    data = dataset(
        frames, potential.cutoff, dtype=potential.dtype, triplets=potential.uses_triplets
    )
    predicted, labels = evaluate(potential, data, torch.arange(sizes(data).shape[0]))
    if plot:
        from gradpot.report.figures import parity

        parity(predicted, labels, sizes(data), plot)
    return errors(predicted, labels, sizes(data), within)


def _tell_what_was_trained_on(split: Path, frames: Frames, say: Callable[[str], None]) -> None:
    """Compare the frames with those of the run that the model lies in."""
    try:
        parts = json.loads(split.read_text())
        same, n_train = parts["data"] == frames.fingerprint(), len(parts["train"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if same:
        say(f"note: {n_train} of these frames are what this model was trained on; see results.json")


def _check_plot(path: Path) -> None:
    """Before the minutes that an evaluation may take."""
    if path.suffix not in PLOTS:
        raise InputError(f"cannot write {path}; its name has to end in {', '.join(PLOTS)}")
    if not path.parent.is_dir():
        raise InputError(f"--plot {path}: there is no folder {path.parent}")
