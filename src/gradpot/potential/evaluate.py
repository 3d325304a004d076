"""Predictions of a potential for many frames, and their errors."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from gradpot.data.checks import suspicions
from gradpot.data.frames import Frames
from gradpot.data.source import read
from gradpot.data.split import usable
from gradpot.errors import InputError
from gradpot.graph.dataset import Dataset, batch, dataset
from gradpot.graph.graph import Properties
from gradpot.potential.checkpoint import load
from gradpot.potential.device import device as find_device
from gradpot.potential.metrics import WITHIN, Within, energy_offset, errors
from gradpot.potential.potential import Potential
from gradpot.potential.predictions import check_out, write_predictions
from gradpot.potential.repulsion import floor_of
from gradpot.potential.seen import novel_frames

# edges in a batch, to bound memory
EDGES_AT_ONCE = 20_000
PLOTS = (".png", ".pdf", ".svg")


def evaluate(
    potential: Potential, data: Dataset, index: Int[Tensor, "n"], stress: bool = True
) -> tuple[Properties, Properties]:
    """Predictions and labels for the frames at `index`, in eV and Å, on the CPU.

    Args:
        data: made with the potential's cutoff and *without* references: its energies are total.
    """
    predicted, labels = [], []
    for part in blocks(data, index):
        graph, known = batch(data, part, potential.device)
        predicted.append(Properties(*(x.cpu() for x in potential(graph, stress=stress))))
        known = Properties(*(label.cpu() for label in known))
        # the batch rounds energies to the dtype of the network; the data set has all digits
        known = known._replace(energy=data.energy[part])
        if potential.direct:  # no stress to compare with
            known = known._replace(stress=torch.full_like(known.stress, torch.nan))
        labels.append(known)
    return Properties(*map(torch.cat, zip(*predicted))), Properties(*map(torch.cat, zip(*labels)))


@torch.no_grad()
def with_floor(potential: Potential, data: Dataset, index: Int[Tensor, "n"]) -> Potential:
    """The potential with the floor of its atom energies (`potential.repulsion`), if it has a wall.

    Args:
        data: made with the potential's cutoff.
        index: all training frames.
    """
    if potential.repulsion is None or potential.direct:
        return potential
    energies, numbers = [], []
    for part in blocks(data, index):
        graph = batch(data, part, potential.device).graph
        energies.append(potential.scale * potential.model(graph))
        numbers.append(graph.numbers)
    record = potential.repulsion.model_copy(
        update={"floor": floor_of(torch.cat(energies), torch.cat(numbers))}
    )
    own = potential.model, potential.references, potential.scale, potential.seen
    return Potential(*own, record).eval()


def errors_of(potential: Potential, data: Dataset, index: Int[Tensor, "n"]) -> dict:
    """`metrics.errors` for the frames at `index`; all None if there are no frames."""
    if index.shape[0] == 0:
        keys = ("energy_mae_meV", "energy_mae_meV_per_atom", "forces_mae_meV_A")
        return {**dict.fromkeys((*keys, "forces_rmse_meV_A", "efwt")), "n_frames": 0}
    predicted, labels = evaluate(potential, data, index)
    return errors(predicted, labels, sizes(data)[index])


def sizes(data: Dataset) -> Int[Tensor, "n_frames"]:
    """Number of atoms in each frame."""
    return data.first_atom.diff()


def blocks(data: Dataset, index: Int[Tensor, "n"]) -> Iterator[Tensor]:
    """Cut `index` into blocks with not many more than `EDGES_AT_ONCE` edges each."""
    total = 2 * data.first_pair.diff()[index].cumsum(0) // EDGES_AT_ONCE
    yield from index.split(torch.unique_consecutive(total, return_counts=True)[1].tolist())


def evaluate_file(
    model: str | Path,
    file: str,
    plot: Path | None = None,
    say: Callable[[str], None] = print,
    within: Within = WITHIN,
    device: str = "cpu",
    out: Path | None = None,
    worst_first: bool = False,
    **reading: Any,
) -> dict:
    """Errors (`metrics.errors`) of a saved potential on a labeled file.

    Args:
        plot: where to write a parity plot.
        say: called with each notice.
        within: thresholds of EFwT.
        device: where to compute, by name, see `potential.device`.
        out: where to write labels, predictions and errors of every frame, also of those without
            labels; see `predictions.write_predictions`.
        worst_first: whether the frames there are sorted by their errors.
        reading: units and stress, see `data.source.read`.

    Raises:
        InputError: there is no such device, the file cannot be read, its units are not known, it
            has no labels and `out` is not given, a file cannot be written, or the model does not
            know an element.
    """
    # now, not after the minutes that an evaluation may take
    if plot and plot.suffix not in PLOTS:
        raise InputError(f"cannot write {plot}; its name must end in {', '.join(PLOTS)}")
    if plot and not plot.parent.is_dir():
        raise InputError(f"--plot {plot}: there is no folder {plot.parent}")
    if out:
        check_out(out)
    potential = load(model, device=find_device(device))
    frames = read(file, **reading)
    for notice in frames.notices:
        say(notice)
    if n_train := _n_trained_on(frames, Path(model)):
        say(f"note: this model was trained on {n_train} of these frames; see results.json")
    can, left_out = usable(frames, "the errors")
    if not out and not can.any():
        raise InputError(
            f"{file} has neither energies nor forces nor stress to compare with: if they are under "
            "other names, add --energy-key NAME --forces-key NAME; --out FILE.extxyz writes the "
            f"predictions ({'; '.join(left_out)})"
        )
    labeled = frames.take(np.flatnonzero(can))
    for notice in (*left_out, *(suspicions(labeled, random_split=False) if can.any() else ())):
        say(notice)
    if not out:
        frames, can = labeled, can[can]
    potential.check_elements(np.unique(frames.numbers))
    data = dataset(
        frames, potential.cutoff, dtype=potential.dtype, triplets=potential.uses_triplets
    )
    if potential.seen:
        for line in novel_frames(potential.seen, frames, data, potential.cutoff):
            say(f"warning: {line}")
    compared = torch.from_numpy(can)
    predicted, labels = evaluate(potential, data, torch.arange(sizes(data).shape[0]))
    if out:
        write_predictions(out, frames, predicted, worst_first)
    atoms, n_atoms = compared.repeat_interleave(sizes(data)), sizes(data)[compared]
    predicted, labels = (
        Properties(some.energy[compared], some.forces[atoms], some.stress[compared])
        for some in (predicted, labels)
    )
    if not can.any():
        say(f"{file} has no labels: there is nothing to compare with")
    elif plot:
        from gradpot.report.figures import parity

        title = f"{type(potential.model).__name__} on {Path(file).name}: {n_atoms.shape[0]} frames"
        parity(predicted, labels, n_atoms, plot, title)
    if offset := energy_offset(predicted, labels, n_atoms):
        say(offset)
    return errors(predicted, labels, n_atoms, within)


def _n_trained_on(frames: Frames, model: Path) -> int:
    """How many of the frames the model was trained on, if it lies in the folder of its run."""
    try:
        parts = json.loads(model.with_name("split.json").read_text())
        return len(parts["train"]) if frames.has_fingerprint(str(parts["data"])) else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0
