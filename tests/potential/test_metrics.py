"""EFwT by hand: which frames are within the thresholds, and which frames count."""

import math
import re

import pytest
import torch

from gradpot.graph.graph import Properties
from gradpot.potential.metrics import Within, efwt, energy_offset, errors

NAN = math.nan
SIZES = torch.tensor([3, 3, 4, 4, 6, 6])
# frames of 1, 2 and 1 atoms
N_ATOMS = torch.tensor([1, 2, 1])


def properties(energy: list[float], forces: list[list[float]]) -> Properties:
    double = torch.float64
    return Properties(
        torch.tensor(energy, dtype=double),
        torch.tensor(forces, dtype=double),
        torch.full((3, 3, 3), NAN, dtype=double),
    )


ZERO = properties([0.0] * 3, [[0.0] * 3] * 4)


@pytest.mark.parametrize(
    ("energy", "forces", "expected"),
    [
        ([0.0, 0.0, 0.0], [[0.0] * 3] * 4, 1.0),
        ([0.0199, -0.0199, 0.0201], [[0.0] * 3] * 4, 2 / 3),
        # the threshold is for the whole structure: two atoms may have no more than one
        ([0.0, 0.03, 0.0], [[0.0] * 3] * 4, 2 / 3),
        ([0.0] * 3, [[0.029, -0.029, 0.029]] * 4, 1.0),
        # one component of one atom of the second frame
        ([0.0] * 3, [[0.0] * 3, [0.0] * 3, [0.0, -0.031, 0.0], [0.0] * 3], 2 / 3),
        ([NAN, 0.0, 0.0], [[0.0] * 3] * 3 + [[NAN, 0.0, 0.0]], 1 / 3),
    ],
)
def test_share_of_frames_within_both_thresholds(energy, forces, expected):
    assert efwt(properties(energy, forces), ZERO, N_ATOMS) == pytest.approx(expected)


def test_a_frame_counts_if_all_its_labels_are_known():
    labels = properties([0.0, 0.0, NAN], [[0.0] * 3, [0.0] * 3, [NAN, 0.0, 0.0], [0.0] * 3])
    assert efwt(ZERO, labels, N_ATOMS) == 1.0
    predicted = properties([1.0, 0.0, 0.0], [[0.0] * 3] * 4)
    assert efwt(predicted, labels, N_ATOMS) == 0.0
    assert efwt(ZERO, labels._replace(energy=torch.full((3,), NAN)), N_ATOMS) is None


def test_thresholds_are_inclusive_and_may_be_chosen():
    predicted = properties([0.5, 0.0, 0.25], [[0.0] * 3, [0.0] * 3, [0.0, 0.0, 0.75], [0.0] * 3])
    assert efwt(predicted, ZERO, N_ATOMS, Within(0.5, 0.75)) == 1.0
    assert efwt(predicted, ZERO, N_ATOMS, Within(0.25, 0.75)) == pytest.approx(2 / 3)
    assert efwt(predicted, ZERO, N_ATOMS, Within(0.5, 0.5)) == pytest.approx(2 / 3)
    result = errors(predicted, ZERO, N_ATOMS, Within(0.25, 0.5))
    assert result["efwt"] == pytest.approx(1 / 3)
    assert (result["efwt_energy_eV"], result["efwt_forces_eV_A"]) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("shift", "text"),
    [
        (-3900.0, r"-3900 eV per structure .* 1 meV"),
        (2.5 * SIZES, r"\+2\.5 eV per atom .* 1 meV"),
    ],
)
def test_one_constant_in_the_energies_is_said(shift, text):
    error = torch.tensor([1e-3, -1e-3, 1e-3, -1e-3, 1e-3, -1e-3], dtype=torch.float64)
    zero = Properties(torch.zeros(6), torch.zeros(26, 3), torch.zeros(6, 3, 3))
    said = energy_offset(zero, zero._replace(energy=shift + error), SIZES)
    assert said is not None
    assert re.search(text, said), said
    assert energy_offset(zero, zero._replace(energy=error), SIZES) is None
