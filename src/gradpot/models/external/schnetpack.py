"""SchNet and PaiNN of SchNetPack, with its readout.

SchNetPack asks for vectors of edges (`_Rij`), which are those of a `Graph`; what it calls i and j
is center and neighbor here as well.
"""

import typing
import warnings

import torch
import torch.utils.data.dataloader
from jaxtyping import Float
from torch import Tensor, nn

from gradpot.geometry import N_ELEMENTS
from gradpot.graph.graph import Graph
from gradpot.models.base import Model
from gradpot.nn.surgery import swap_activations

if not hasattr(torch.utils.data.dataloader, "T_co"):
    # schnetpack 2.0.4 imports this name, which torch has no more, to write an annotation with it
    torch.utils.data.dataloader.T_co = typing.TypeVar("T_co")  # type: ignore[attr-defined]
with warnings.catch_warnings():
    # of torch.jit.script, which it uses and torch deprecates
    warnings.simplefilter("ignore")
    import schnetpack.nn as snn  # type: ignore[import-not-found]
    from schnetpack import properties as key  # type: ignore[import-not-found]
    from schnetpack import representation  # type: ignore[import-not-found]


def _scatter_add(x: Tensor, idx_i: Tensor, dim_size: int | torch.SymInt, dim: int = 0) -> Tensor:
    shape: list[int | torch.SymInt] = list(x.shape)
    shape[dim] = dim_size
    return x.new_zeros(shape).index_add(dim, idx_i, x)


# the same as a TorchScript function, as it is there, has its sizes frozen when a step is traced
snn.scatter._scatter_add = _scatter_add  # type: ignore[attr-defined]


class SchNet(Model):
    """SchNetPack's SchNet and the readout of its `Atomwise`, without its sum over atoms.

    Args:
        cutoff: in Å.
        width: `n_atom_basis`, and filters.
        n_layers: `n_interactions`.
        n_radial: Gaussians.
        activation: a name of `ACTIVATIONS`; SchNetPack takes `ssp`.
        output_activation: the same, of the readout; SchNetPack takes `silu`.
    """

    def __init__(
        self,
        cutoff: float = 5.0,
        width: int = 128,
        n_layers: int = 6,
        n_radial: int = 50,
        activation: str = "ssp",
        output_activation: str = "silu",
    ):
        super().__init__(cutoff)
        sizes = width, n_layers, n_radial, cutoff
        self.representation = _representation(representation.SchNet, *sizes, activation)
        self.readout = _readout(width, output_activation)

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        return _atom_energy(self.representation, self.readout, graph)


class PaiNN(Model):
    """SchNetPack's PaiNN and the readout of its `Atomwise`, without its sum over atoms.

    Args:
        cutoff: in Å.
        width: `n_atom_basis`.
        n_layers: `n_interactions`.
        n_radial: Gaussians, as in SchNetPack's examples.
        activation: a name of `ACTIVATIONS`; published with `silu`.
        output_activation: the same, of the readout.
    """

    # √(v·v + 1e-8), as published: a cone at symmetric sites, see `models.painn`
    smooth = False

    def __init__(
        self,
        cutoff: float = 5.0,
        width: int = 128,
        n_layers: int = 3,
        n_radial: int = 20,
        activation: str = "silu",
        output_activation: str = "silu",
    ):
        super().__init__(cutoff)
        sizes = width, n_layers, n_radial, cutoff
        self.representation = _representation(representation.PaiNN, *sizes, activation)
        self.readout = _readout(width, output_activation)

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        return _atom_energy(self.representation, self.readout, graph)


def _representation(
    kind: type[nn.Module],
    width: int,
    n_layers: int,
    n_radial: int,
    cutoff: float,
    activation: str,
) -> nn.Module:
    basis, fade = snn.GaussianRBF(n_radial, cutoff), snn.CosineCutoff(cutoff)
    network = kind(width, n_layers, basis, fade, max_z=N_ELEMENTS)
    swap_activations(network, activation)
    return network


def _readout(width: int, activation: str) -> nn.Module:
    network = snn.build_mlp(width, 1)
    swap_activations(network, activation)
    return network


def _atom_energy(network: nn.Module, readout: nn.Module, graph: Graph) -> Tensor:
    center, neighbor = graph.edge_index
    inputs = {key.Z: graph.numbers, key.Rij: graph.edge_vec, key.idx_i: center, key.idx_j: neighbor}
    return readout(network(inputs)["scalar_representation"]).squeeze(-1)
