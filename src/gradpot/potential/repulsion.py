"""No holes at short range: atoms that are nearer than any two in the training data repel.

Between two atoms that never came so near in training, a network answers anything, and optimizers
find the deepest hole that it has there. Two changes keep them out. Both begin at the onset b, the
shortest distance of the two elements in the training frames; at b and above they are exactly zero,
so that labels and training stay as they are.

1. **The network sees no shorter distances.** It gets each edge vector r̂ r as r̂ ρ(r), with

       ρ(r) = b − w g(t),   t = (b − r)/w,   g(t) = t − 5/2 t⁴ + 3 t⁵ − t⁶,   w = 0.2 b

   for b − w < r < b, where g′ = 1 − t³(10 − 15 t + 6 t²) falls smoothly from 1 to 0, and the
   constant ρ = b − w/2 below. So no energy of the network depends on distances below 0.8 b.
2. **The screened repulsion of two nuclei is added** (J. F. Ziegler, J. P. Biersack, U. Littmark,
   The Stopping and Range of Ions in Solids, Pergamon 1985), in eV and Å,

       V(r) = S(r) Z₁ Z₂ e²/(4πε₀ r) φ(r/a),   a = 0.4685 / (Z₁^0.23 + Z₂^0.23),
       φ(x) = 0.18175 e^(−3.1998 x) + 0.50986 e^(−0.94229 x) + 0.28022 e^(−0.4029 x)
              + 0.02817 e^(−0.20162 x)

   with the switch S = t⁴ (35 − 84 t + 70 t² − 20 t³), t = (b − r)/w', which is 0 at b and 1 below
   b − w', w' = 0.5 b.

Energy and forces have three continuous derivatives of ρ and S. Energy, forces and stress stay one
gradient.
"""

from collections.abc import Iterable

import torch
from ase.data import covalent_radii
from jaxtyping import Float
from torch import Tensor, nn

from gradpot.geometry import N_ELEMENTS
from gradpot.graph.graph import Graph, opposite
from gradpot.nn.segment import sum_pairs
from gradpot.potential.header import Repulsion, Seen
from gradpot.units import COULOMB

# The constants below belong to the form "zbl" of a saved model: other values need another name.
# w and w', as a fraction of the onset
FADE, SWITCH = 0.2, 0.5
# φ: factors and exponents of the universal screening function
FACTORS = (0.18175, 0.50986, 0.28022, 0.02817)
EXPONENTS = (3.1998, 0.94229, 0.4029, 0.20162)
# a: Å, and the power of the atomic number
LENGTH, POWER = 0.4685, 0.23

# Times the sum of covalent radii: the onset of elements that were never within the cutoff. Pairs
# with bonds have nearest distances of 0.74 to 0.96 of it in nine data sets.
UNSEEN = 0.8
# Å: `Seen.nearest` has four digits, and float32 rounds distances
ROUNDING = 1e-4


def repulsion_below(seen: Seen, elements: Iterable[int], cutoff: float) -> Repulsion:
    """The repulsion that is exactly zero for all training frames.

    Args:
        seen: what they were like.
        elements: atomic numbers that the potential knows.
        cutoff: of the model, in Å; elements never seen together do not repel beyond it.
    """
    known, onset = sorted(elements), {}
    for one in known:
        for other in (z for z in known if z >= one):
            pair = f"{one}-{other}"
            bond = covalent_radii[[one, other]].sum().item()
            nearest = seen.nearest.get(pair, min(UNSEEN * bond, cutoff))
            onset[pair] = round(nearest - ROUNDING, 4)
    return Repulsion(form="zbl", onset=onset)


class ZBL(nn.Module):
    """The repulsion of a potential, and what the network sees instead of near atoms.

    Args:
        record: the onset of each pair of elements; other pairs give NaN.
    """

    table: Tensor

    def __init__(self, record: Repulsion):
        super().__init__()
        onset = torch.full((N_ELEMENTS, N_ELEMENTS), torch.nan, dtype=torch.float64)
        for pair, distance in record.onset.items():
            one, other = map(int, pair.split("-"))
            onset[one, other] = onset[other, one] = distance
        z = torch.arange(N_ELEMENTS, dtype=torch.float64)
        charges = COULOMB * z[:, None] * z
        length = LENGTH / (z[:, None] ** POWER + z**POWER)
        # by N_ELEMENTS·Z + Z': onset in Å, numerator in eV Å, screening length in Å
        rows = torch.stack([onset, charges, length], dim=-1).flatten(0, 1)
        self.register_buffer("table", rows, persistent=False)

    def forward(self, graph: Graph) -> tuple[Graph, Float[Tensor, "n_atoms"]]:
        """The graph as the network sees it, and the repulsive energy of each atom in eV.

        Atoms at the same place give NaN.
        """
        center, neighbor = (graph.numbers.index_select(0, atoms) for atoms in graph.pair_index)
        onset, charges, length = self.table.index_select(0, N_ELEMENTS * center + neighbor).unbind(
            1
        )
        r = graph.pair_vec.norm(dim=-1)
        # exactly 0 for every pair of the training frames
        below = onset - torch.minimum(r, onset)
        half = 0.5 * below_switch(below / (SWITCH * onset)) * screened(r, charges, length)
        energy = sum_pairs(half, half, graph.pair_index, graph.numbers.shape[0])
        longer = FADE * onset * missing(below / (FADE * onset)) / r  # ρ/r − 1
        seen = graph.pair_vec * (1.0 + longer)[:, None]
        return graph._replace(edge_vec=opposite(seen)), energy


def missing(t: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """By how many widths the network sees a pair too far away, t − g(t); t is not negative."""
    inside = t.clamp(max=1.0)
    return (t - inside) + inside.pow(4) * (2.5 - inside * (3.0 - inside))


def below_switch(t: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """S, from 0 at t = 0 to 1 at t = 1 and above, with three continuous derivatives."""
    t = t.clamp(max=1.0)
    return t.pow(4) * (35.0 - t * (84.0 - t * (70.0 - 20.0 * t)))


def screened(
    r: Float[Tensor, "n"], charges: Float[Tensor, "n"], length: Float[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """Energy of two screened nuclei in eV: charges/r times φ(r/length).

    Args:
        charges: Z₁ Z₂ e²/(4πε₀) in eV Å.
        length: a in Å.
    """
    x = r / length
    terms = [factor * (-k * x).exp() for factor, k in zip(FACTORS, EXPONENTS, strict=True)]
    return charges / r * sum(terms[1:], terms[0])
