"""No holes: what keeps atoms out of where a network knows nothing.

Where no training frame ever was, a network answers anything, and optimizers find the deepest hole
that it has there. Three changes keep them out. The first two begin at the onset b, the shortest
distance of two elements in the training frames; at b and above they are exactly zero, so that
labels and training stay as they are. The third is zero for all training frames, too.

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
3. **The energy of an atom has a floor**, because a network is wrong far more often by distances and
   angles that never occurred together than by a single short distance. If the n atoms of an element
   in all training frames have energies from ε₀ to ε₀ + s, the network's energy ε of such an atom
   becomes

       ε + 2 w (t − g(t)),   t = (f − ε)/w,   f = ε₀ − s/√n,   w = 0.2 s

   below the floor f. This turns upwards at t = 1/2 and is then ε mirrored at f − w/2: the deeper
   the hole, the higher the hill that takes its place. No network energy is below Σ (f − 0.35 w).

All of this has three continuous derivatives. Energy, forces and stress stay one gradient.
"""

from collections.abc import Iterable

import torch
from ase.data import covalent_radii
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradpot.geometry import N_ELEMENTS
from gradpot.graph.graph import Graph, opposite
from gradpot.nn.segment import sum_pairs
from gradpot.potential.header import Repulsion, Seen
from gradpot.units import COULOMB

# The constants below belong to the form "zbl" of a saved model: other values need another name.
# w and w', as a fraction of the onset; w of the floor, as a fraction of the range of energies
FADE, SWITCH, TURN = 0.2, 0.5, 0.2
# φ: factors and exponents of the universal screening function
FACTORS = (0.18175, 0.50986, 0.28022, 0.02817)
EXPONENTS = (3.1998, 0.94229, 0.4029, 0.20162)
# a: Å, and the power of the atomic number
LENGTH, POWER = 0.4685, 0.23

# Times the sum of covalent radii: the onset of elements that were never within the cutoff. Pairs
# with bonds have nearest distances of 0.74 to 0.96 of it in nine data sets.
UNSEEN = 0.8
# eV: a width of the floor, if all atoms of an element have almost the same energy
NARROWEST = 0.02
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
            bond = float(covalent_radii[one] + covalent_radii[other])
            nearest = seen.nearest.get(pair, min(UNSEEN * bond, cutoff))
            onset[pair] = round(nearest - ROUNDING, 4)
    return Repulsion(form="zbl", onset=onset)


def floor_of(
    energies: Float[Tensor, "n_atoms"], numbers: Int[Tensor, "n_atoms"]
) -> dict[str, tuple[float, float]]:
    """`Repulsion.floor` from the energies of all atoms of the training frames, in eV.

    Args:
        energies: of the network, without references.
        numbers: atomic numbers.
    """
    floor = {}
    for z in numbers.unique().tolist():
        own = energies[numbers == z].double()
        lowest, spread = own.min().item(), (own.max() - own.min()).item()
        margin = spread / own.shape[0] ** 0.5  # few atoms hardly know how low an energy can be
        floor[str(z)] = (lowest - margin, max(TURN * spread, NARROWEST))
    return floor


class Wall(nn.Module):
    """What the network sees, what is added to its energies, and their floor.

    Args:
        record: the onset of each pair of elements; other pairs give NaN.
        scale: the unit of energies here, in eV.
    """

    table: Tensor
    floor: Tensor

    def __init__(self, record: Repulsion, scale: float = 1.0):
        super().__init__()
        onset = torch.full((N_ELEMENTS, N_ELEMENTS), torch.nan, dtype=torch.float64)
        for pair, distance in record.onset.items():
            one, other = map(int, pair.split("-"))
            onset[one, other] = onset[other, one] = distance
        z = torch.arange(N_ELEMENTS, dtype=torch.float64)
        charges = COULOMB / scale * z[:, None] * z
        length = LENGTH / (z[:, None] ** POWER + z**POWER)
        # by N_ELEMENTS·Z + Z': onset in Å, numerator in scale · Å, screening length in Å
        rows = torch.stack([onset, charges, length], dim=-1).flatten(0, 1)
        self.register_buffer("table", rows, persistent=False)
        floor = torch.tensor([[-torch.inf, 1.0]], dtype=torch.float64).repeat(N_ELEMENTS, 1)
        for element, values in record.floor.items():
            floor[int(element)] = torch.tensor(values, dtype=torch.float64) / scale
        self.register_buffer("floor", floor, persistent=False)

    def forward(self, graph: Graph) -> tuple[Graph, Float[Tensor, "n_atoms"]]:
        """The graph as the network sees it, and the repulsive energy of each atom.

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

    def lifted(
        self, energy: Float[Tensor, "n_atoms"], numbers: Int[Tensor, "n_atoms"]
    ) -> Float[Tensor, "n_atoms"]:
        """Energies of the network, mirrored where they are below the floor of their element."""
        floor, width = self.floor.index_select(0, numbers).unbind(1)
        return energy + 2.0 * width * missing((floor - energy).clamp(min=0.0) / width)


def missing(t: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """What is added below an onset, in widths: t − g(t), for t that is not negative."""
    inside = t.clamp(max=1.0)
    return (t - inside) + inside.pow(4) * (2.5 - inside * (3.0 - inside))


def below_switch(t: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """S, from 0 at t = 0 to 1 at t = 1 and above, with three continuous derivatives."""
    t = t.clamp(max=1.0)
    return t.pow(4) * (35.0 - t * (84.0 - t * (70.0 - 20.0 * t)))


def screened(
    r: Float[Tensor, "n"], charges: Float[Tensor, "n"], length: Float[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """Energy of two screened nuclei: charges/r times φ(r/length).

    Args:
        charges: Z₁ Z₂ e²/(4πε₀), an energy times Å.
        length: a in Å.
    """
    x = r / length
    terms = [factor * (-k * x).exp() for factor, k in zip(FACTORS, EXPONENTS, strict=True)]
    return charges / r * sum(terms[1:], terms[0])
