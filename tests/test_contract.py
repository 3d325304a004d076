"""The contract of `gradpot.testing`, for every variant of our models and for a user's model."""

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from gradpot import Model, build
from gradpot.graph.graph import Graph
from gradpot.nn.activations import ACTIVATIONS, FAMILIES
from gradpot.nn.radial import envelope
from gradpot.nn.segment import sum_by
from gradpot.testing import CHECKS, check_model, force_constants, symmetric_sites
from gradpot.testing.checks import force_constants_are_continuous
from variants import ONE_FORM_EACH, TO_TRACE, VARIANTS, small

CUTOFF = 4.0
# which variants a check takes, if not all
CHOSEN = {"trace_equals_eager": TO_TRACE, "gradients_of_forces_are_right": ONE_FORM_EACH}
CASES = [
    pytest.param(check, *(*case.values, 2)[:2], marks=case.marks, id=f"{check.__name__}-{case.id}")
    for check in CHECKS
    for case in CHOSEN.get(check.__name__, VARIANTS)
]


@pytest.mark.parametrize(("check", "variant", "n_layers"), CASES)
def test_models(check, variant, n_layers):
    torch.manual_seed(0)
    check(small(variant, n_layers=n_layers, cutoff=CUTOFF))


class Morse(Model):
    """A model as a user would write it: pair energies with one depth per element."""

    def __init__(self, cutoff: float):
        super().__init__(cutoff)
        self.depth = torch.nn.Embedding(119, 1)

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        center, neighbor = graph.edge_index
        r = graph.edge_vec.norm(dim=-1)
        depth = self.depth(graph.numbers).squeeze(-1)
        pair = depth[center] * depth[neighbor] * (1 - torch.exp(1.5 - r)).square()
        pair = pair * envelope(r, self.cutoff).squeeze(-1)
        return sum_by(pair, center, graph.numbers.shape[0])


class Cone(Morse):
    """A model with the fault of the published PaiNN: the norm of a vector feature."""

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        center = graph.edge_index[0]
        weight = envelope(graph.edge_vec.norm(dim=-1), self.cutoff)
        vector = sum_by(weight * graph.edge_vec, center, graph.numbers.shape[0])
        return super().forward(graph) + (vector.square().sum(-1) + 1e-8).sqrt()


class NoCutoff(Morse):
    """An energy that jumps when a neighbor leaves."""

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        depth = self.depth(graph.numbers).squeeze(-1)
        pair = depth[graph.edge_index[1]] * graph.edge_vec.square().sum(-1)
        return sum_by(pair, graph.edge_index[0], graph.numbers.shape[0])


class Pointing(Morse):
    """An energy that depends on the orientation."""

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        weight = envelope(graph.edge_vec.norm(dim=-1), self.cutoff)[:, 0]
        heights = graph.edge_vec[:, 2].square() * weight
        return super().forward(graph) + sum_by(heights, graph.edge_index[0], graph.numbers.shape[0])


class Column(Morse):
    """An output of a wrong shape."""

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms 1"]:
        return super().forward(graph)[:, None]


class Detached(Morse):
    """An energy that nobody can differentiate."""

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        return super().forward(graph._replace(edge_vec=graph.edge_vec.detach())).detach()


class DetachedVectors(Morse):
    """An energy that only the weights can change."""

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        return super().forward(graph._replace(edge_vec=graph.edge_vec.detach()))


class Leak(Morse):
    """A model with another fault: each atom sees the whole batch."""

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        energy = super().forward(graph)
        return energy * (1.0 + energy.mean())


def test_a_users_model_passes():
    torch.manual_seed(0)
    skipped = check_model(Morse(CUTOFF).double())
    assert skipped.keys() == {"saved_and_loaded"}


@pytest.mark.parametrize(
    ("model", "check"),
    [
        (Cone, "force_constants_are_continuous: .*no cone"),
        (Leak, "batch_equals_single: Structures of a batch"),
        (NoCutoff, "smooth_at_the_cutoff: .*envelope"),
        (Pointing, "rotation_and_reflection: "),
        (Column, r"forward_returns_atom_energies: .*returned shape \[9, 1\], expected \[n_atoms\]"),
        (Detached, "forward_returns_atom_energies: .*detached"),
        (DetachedVectors, "forward_returns_atom_energies: .*edge vectors have no effect.*detached"),
    ],
)
def test_faulty_models_fail(model, check):
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=f"(?s)^{check}"):
        check_model(model(CUTOFF).double())


def test_a_model_in_single_precision_is_told_so():
    with pytest.raises(AssertionError, match=r"(?s)forward_returns_atom_energies.*call \.double"):
        check_model(Morse(CUTOFF))


def test_the_published_norm_of_painn_is_a_cone():
    """Keeps the fault visible, so that nobody brings it back."""
    torch.manual_seed(0)
    published = build("painn", cutoff=CUTOFF, width=8, n_layers=2, vector_norm="published").double()
    assert not published.smooth
    constants = np.abs(force_constants(published, *symmetric_sites()["CH4"]))
    assert (constants[:, 0] > 5 * constants[:, 3]).all()


SMOOTH = ("silu", "ssp", "softplus", "gelu", "tanh", "mish", "ielu", "tent")
# second derivatives that jump: so do force constants where an input of the activation crosses 0
KINKED = ("irelu", "leaky_irelu", "capped_irelu", "irelu_spline", "squared_relu", "elu")


def test_every_activation_is_listed_as_smooth_or_not():
    assert {*SMOOTH, *KINKED, "relu"} == {*ACTIVATIONS, *FAMILIES}


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("name", ["painn", "schnet"])
def test_smooth_activations(name, activation):
    torch.manual_seed(0)
    sizes = {"width": 16, "n_layers": 2, "activation": activation}
    force_constants_are_continuous(build(name, cutoff=CUTOFF, **sizes).double())


@pytest.mark.parametrize("activation", KINKED)
@pytest.mark.parametrize("name", ["painn", "schnet"])
def test_kinks_change_force_constants_by_a_few_percent(name, activation):
    """Within 1e-3 Å of symmetric sites, relative to the largest force constant."""
    torch.manual_seed(0)
    sizes = {"width": 16, "n_layers": 2, "activation": activation}
    model = build(name, cutoff=CUTOFF, **sizes).double()
    found = np.stack([force_constants(model, *site) for site in symmetric_sites().values()])
    change = np.abs(found[..., 1] - found[..., 0]).max()
    assert change < 0.05 * np.abs(found).max()
