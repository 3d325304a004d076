"""`Model`: what a network owes the rest of the package, in one place."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from gradpot.graph.graph import Graph


class Model(nn.Module, ABC):
    """A network that maps a `Graph` to the energy of each atom.

    Forces, stress, units, training, dynamics and compiled code follow from that one function: they
    differentiate it with respect to `graph.edge_vec`. To write a model, subclass `Model`, pass the
    cutoff to its constructor and implement `forward`:

    - Use `graph.numbers`, `graph.edge_index` and `graph.edge_vec`. A graph holds many structures,
      but edges never connect two of them, so `forward` needs no loop over structures.
    - Every pair of atoms within the cutoff is two edges, stored in two halves: edge `n_pairs + p`
      is edge `p` reversed. `graph.pair_index` and `graph.pair_vec` are the first half. What is
      the same in both directions, such as a filter of the distance, is computed once per pair.
    - A message must vanish at the cutoff together with its derivative (`nn.radial.envelope`).
    - Energies are dimensionless. `Potential` multiplies them by its scale in eV and adds the
      reference energies of the elements.
    - Do not read a tensor's values in Python, branch on a size or call `len` on a tensor: training
      steps and potentials are traced with open sizes. Use `x.shape[0]`.
    - The energy must be twice differentiable wherever atoms may sit. √(v·v) is not where v
      vanishes, which happens at every site of high symmetry; see `PaiNN`.

    `gradpot.testing.check_model` tests all of this. The class attributes below describe
    exceptions; override them in the class, or in the constructor where they depend on arguments.

    Args:
        cutoff: in Å; the graphs that the model gets contain all pairs that are closer.
    """

    cutoff: float
    """Å"""
    uses_triplets: bool = False
    """whether `forward` needs `graph.triplets`, the pairs of edges at each atom (for angles)"""
    direct: bool = False
    """whether `forward` also returns forces, [n_atoms, 3], which are then not the gradient of the
    energy; such a model has no stress"""
    invariant: bool = True
    """whether a rotation leaves the energy unchanged; if not, training rotates every structure at
    random"""
    smooth: bool = True
    """whether the energy is twice differentiable at sites of high symmetry; if not, force
    constants there mean nothing: no phonons, no elastic constants"""
    slow_to_compile: bool = False
    """whether `train.compile=auto` should leave the model alone"""
    adam_rate: float = 5e-3
    """default learning rate of Adam and AdamW up to a width of 64"""
    sizes: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    """arguments by the name of a size, for `model.size`; other arguments of the user come first"""
    spec: dict[str, Any] | None = None
    """name and arguments, set by `gradpot.build`; only models that have it can be saved"""

    def __init__(self, cutoff: float):
        super().__init__()
        self.cutoff = cutoff

    @abstractmethod
    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"] | tuple[Tensor, Tensor]:
        """Energy of each atom in a unit of the model; with `direct`, also forces in it per Å."""
