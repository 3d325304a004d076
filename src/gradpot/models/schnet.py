"""SchNet: continuous-filter convolutions (Schütt et al., NeurIPS 2017, arXiv 1706.08566)."""

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradpot.geometry import N_ELEMENTS
from gradpot.graph.graph import Graph
from gradpot.models.base import Model
from gradpot.nn.activations import Activation, gain
from gradpot.nn.activations import activation as activation_by_name
from gradpot.nn.initialize import MLP, branch_scale, linear, unit_moments
from gradpot.nn.radial import FILTERS, GaussianBasis
from gradpot.nn.segment import sum_pairs

# factor of filters, which have unit second moment: a sum over sixteen neighbors keeps it
FILTER_SCALE = 0.25


class SchNet(Model):
    """Atom energies from invariant features and radial filters.

    Filters and branches are made small by factors, not by small weights. Adam moves every weight by
    about the learning rate, which is a large part of a small weight: with the factors in the
    weights, features grew without bound after some thousand steps at a rate of 5e-3.

    Args:
        cutoff: in Å.
        width: features of an atom, and of a filter.
        n_layers: interaction blocks.
        n_radial: Gaussians from 0 to the cutoff.
        activation: see `nn.activations.activation`; published with `ssp`.
        filter: "mlp" as published, or "spline" for the same filter interpolated (`nn.radial`).
    """

    def __init__(
        self,
        cutoff: float = 5.0,
        width: int = 128,
        n_layers: int = 6,
        n_radial: int = 50,
        activation: str = "ssp",
        filter: str = "spline",
    ):
        super().__init__(cutoff)
        phi = activation_by_name(activation)
        self.embedding = nn.Embedding(N_ELEMENTS, width)
        basis = GaussianBasis(n_radial, cutoff)
        r = torch.linspace(0.0, cutoff, 64)
        networks = [
            unit_moments(MLP([n_radial, width, width], phi), basis(r)) for _ in range(n_layers)
        ]
        self.filters = FILTERS[filter](basis, networks, width, cutoff)
        scale = branch_scale(n_layers)
        self.interactions = nn.ModuleList(Interaction(width, phi, scale) for _ in range(n_layers))
        self.readout = MLP([width, width // 2, 1], phi)

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        filters = self.filters(graph.pair_vec.norm(dim=-1))  # n_layers of ([n_pairs, width],)
        x = self.embedding(graph.numbers)  # [n_atoms, width]
        for interaction, (weight,) in zip(self.interactions, filters, strict=True):
            x = x + interaction(x, weight, graph.pair_index)
        return self.readout(x).squeeze(-1)


class Interaction(nn.Module):
    """Figure 2 of the paper, middle: atom-wise, convolution, atom-wise, activation, atom-wise.

    Args:
        scale: factor of the branch.
    """

    def __init__(self, width: int, activation: Activation, scale: float):
        super().__init__()
        self.scale = scale
        self.before = linear(width, width, bias=False)
        self.after = linear(width, width)
        self.out = linear(width, width, gain(activation))
        self.activation = deepcopy(activation)

    def forward(
        self,
        x: Float[Tensor, "n_atoms width"],
        weight: Float[Tensor, "n_pairs width"],
        pair_index: Tensor,
    ) -> Float[Tensor, "n_atoms width"]:
        center, neighbor = pair_index
        before = FILTER_SCALE * self.before(x)
        to_center = before.index_select(0, neighbor) * weight
        to_neighbor = before.index_select(0, center) * weight
        total = sum_pairs(to_center, to_neighbor, pair_index, x.shape[0])
        return self.scale * self.out(self.activation(self.after(total)))
