"""SchNet and PaiNN of SchNetPack, with its readout.

SchNetPack needs edge vectors (`_Rij`), which are those of a `Graph`. Its i and j are our center and
neighbor.
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
    # schnetpack 2.0.4 imports this name for an annotation; newer versions of torch lack it
    torch.utils.data.dataloader.T_co = typing.TypeVar("T_co")  # type: ignore[attr-defined]
with warnings.catch_warnings():
    # SchNetPack uses torch.jit.script, which torch deprecates
    warnings.simplefilter("ignore")
    import schnetpack.nn as snn  # type: ignore[import-not-found]
    from schnetpack import properties as key  # type: ignore[import-not-found]
    from schnetpack import representation  # type: ignore[import-not-found]


def _scatter_add(x: Tensor, idx_i: Tensor, dim_size: int | torch.SymInt, dim: int = 0) -> Tensor:
    shape: list[int | torch.SymInt] = list(x.shape)
    shape[dim] = dim_size
    return x.new_zeros(shape).index_add(dim, idx_i, x)


# SchNetPack's own is a TorchScript function, whose sizes are frozen when a step is traced
snn.scatter._scatter_add = _scatter_add  # type: ignore[attr-defined]


class Adapter(Model):
    """A representation of SchNetPack and the readout of its `Atomwise`, without its sum over atoms.

    Args:
        representation: the class.
        sizes: width, number of layers, number of Gaussians.
    """

    def __init__(
        self,
        representation: type[nn.Module],
        cutoff: float,
        sizes: tuple[int, int, int],
        activation: str,
        output_activation: str,
    ):
        super().__init__(cutoff)
        width, n_layers, n_radial = sizes
        basis, envelope = snn.GaussianRBF(n_radial, cutoff), snn.CosineCutoff(cutoff)
        network = representation(width, n_layers, basis, envelope, max_z=N_ELEMENTS)
        self.representation, self.readout = network, snn.build_mlp(width, 1)
        swap_activations(self.representation, activation)
        swap_activations(self.readout, output_activation)

    def forward(self, graph: Graph) -> Float[Tensor, "n_atoms"]:
        center, neighbor = graph.edge_index
        inputs = {key.Z: graph.numbers, key.Rij: graph.edge_vec}
        inputs |= {key.idx_i: center, key.idx_j: neighbor}
        return self.readout(self.representation(inputs)["scalar_representation"]).squeeze(-1)


class SchNet(Adapter):
    """SchNetPack's SchNet.

    Args:
        cutoff: in Å.
        width: `n_atom_basis`, also of filters.
        n_layers: `n_interactions`.
        n_radial: Gaussians.
        activation: a name of `ACTIVATIONS`; SchNetPack uses `ssp`.
        output_activation: the same for the readout; SchNetPack uses `silu`.
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
        sizes = (width, n_layers, n_radial)
        super().__init__(representation.SchNet, cutoff, sizes, activation, output_activation)


class PaiNN(Adapter):
    """SchNetPack's PaiNN.

    Args:
        cutoff: in Å.
        width: `n_atom_basis`.
        n_layers: `n_interactions`.
        n_radial: Gaussians, as in SchNetPack's examples.
        activation: a name of `ACTIVATIONS`; published with `silu`.
        output_activation: the same for the readout.
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
        sizes = (width, n_layers, n_radial)
        super().__init__(representation.PaiNN, cutoff, sizes, activation, output_activation)
