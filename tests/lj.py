"""Lennard-Jones as one more model: ASE gives its energy, forces and stress."""

import torch
from jaxtyping import Float
from torch import Tensor

from gradpot.graph.graph import Graph
from gradpot.models.base import Model
from gradpot.nn.segment import sum_by


class LennardJones(Model):
    """Each atom gets half of the smoothed pair energy, as in `ase.calculators.lj`, `smooth=True`.

    Args:
        epsilon: well depth in eV.
        sigma: distance of zero energy in Å.
        cutoff: Å; 3 sigma if None.
    """

    def __init__(self, epsilon: float = 1.0, sigma: float = 1.0, cutoff: float | None = None):
        super().__init__(3.0 * sigma if cutoff is None else cutoff)
        self.epsilon, self.sigma = epsilon, sigma

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        squared = graph.edge_vec.square().sum(-1)
        c6 = (self.sigma**2 / squared).pow(3)
        pair = 4.0 * self.epsilon * (c6.square() - c6) * self.switch(squared)
        return 0.5 * sum_by(pair, graph.edge_index[0], graph.numbers.shape[0])

    def switch(self, squared: Tensor) -> Tensor:
        end, onset = self.cutoff**2, (0.66 * self.cutoff) ** 2
        falling = (end - squared).square() * (end + 2 * squared - 3 * onset) / (end - onset) ** 3
        return torch.where(squared < onset, 1.0, torch.where(squared < end, falling, 0.0))
