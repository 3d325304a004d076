"""From atom energies to energy, forces and stress by one gradient; `Potential` adds units.

A model maps edge vectors to atom energies. The gradient with respect to the vector of each pair
gives everything: the force on an atom is a sum over its pairs, the virial a sum of outer products.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradpot.errors import InputError
from gradpot.geometry import N_ELEMENTS
from gradpot.graph.graph import Graph, Properties, opposite
from gradpot.models.base import Model
from gradpot.nn.segment import sum_by
from gradpot.potential.header import Repulsion, Seen
from gradpot.potential.repulsion import Wall

NOT_CONSERVATIVE = (
    "the forces of this model are not the gradient of its energy: NVE dynamics will not conserve "
    "energy"
)
NOT_SMOOTH = (
    "the energy of this model has a cone at sites of high symmetry, because it uses the norm of "
    "vector features, as published for PaiNN: phonons and elastic constants from it are wrong; "
    "train a PaiNN with model.vector_norm=smooth, the default, for these"
)


def predict(
    model: Callable[[Graph], Tensor | tuple[Tensor, Tensor]],
    graph: Graph,
    create_graph: bool = False,
    stress: bool = True,
) -> Properties:
    """Energy of each structure, forces and stress, in the model's own unit of energy and Å.

    Args:
        model: maps a graph to atom energies [n_atoms], or to atom energies and forces
            [n_atoms, 3]. Those forces are returned as they are, and the stress, which would be a
            gradient of the energy, is NaN.
        create_graph: keep what is needed to differentiate the forces again, for training.
        stress: whether to compute the stress; otherwise it is NaN.
    """
    n_atoms, n_graphs = graph.numbers.shape[0], graph.cell.shape[0]
    with torch.enable_grad():
        pair_vec = graph.pair_vec.detach().requires_grad_()
        output = model(graph._replace(edge_vec=opposite(pair_vec)))
        atom_energy, forces = output if isinstance(output, tuple) else (output, None)
        if forces is None:
            (gradient,) = torch.autograd.grad(
                atom_energy.sum(), pair_vec, create_graph=create_graph
            )
    center, neighbor = graph.pair_index
    energy = sum_by(atom_energy, graph.batch, n_graphs)
    if not create_graph:
        energy, pair_vec = energy.detach(), pair_vec.detach()
    if forces is not None:
        forces = forces if create_graph else forces.detach()
        return Properties(energy, forces, torch.full_like(graph.cell, torch.nan))
    forces = sum_by(gradient, center, n_atoms) - sum_by(gradient, neighbor, n_atoms)
    if not stress:
        return Properties(energy, forces, torch.full_like(graph.cell, torch.nan))
    outer = pair_vec[:, :, None] * gradient[:, None, :]  # [n_pairs, 3, 3]
    virial = sum_by(outer, graph.batch.index_select(0, center), n_graphs)
    return Properties(energy, forces, virial_stress(virial, graph.cell))


def virial_stress(
    virial: Float[Tensor, "n_graphs 3 3"], cell: Float[Tensor, "n_graphs 3 3"]
) -> Float[Tensor, "n_graphs 3 3"]:
    """Stress in eV/Å³: the symmetric part of the virial per volume; NaN where there is no cell.

    The antisymmetric part is a torque, which vanishes for a model that is invariant.

    Args:
        virial: Σ r_ij ⊗ ∂E/∂r_ij in eV, positive under tension.
        cell: rows are lattice vectors in Å; zeros for a molecule.
    """
    size = volume(cell)[:, None, None]
    periodic = size > 0
    symmetric = 0.5 * (virial + virial.transpose(1, 2))
    return torch.where(periodic, symmetric / torch.where(periodic, size, 1.0), torch.nan)


def volume(cell: Float[Tensor, "n_graphs 3 3"]) -> Float[Tensor, "n_graphs"]:
    """In Å³; also positive for a left-handed cell, and zero unless all three axes are periodic."""
    a, b, c = cell.unbind(1)
    return (torch.linalg.cross(a, b) * c).sum(-1).abs()


class Potential(nn.Module):
    """E = Σ reference(Z) + scale · Σ ε + repulsion, in eV and Å: what is saved and simulated.

    The references stay in float64 whatever the dtype of the weights: at total energies of 1e4 eV,
    float32 resolves only 1 meV.

    Args:
        model: maps a graph to dimensionless atom energies ε.
        references: energy in eV by atomic number; the potential knows only these elements.
        scale: in eV.
        seen: what the training frames were like; None if that is not known.
        repulsion: of atoms at short range; None for none (`potential.repulsion`).

    Raises:
        InputError: the model is not a `gradpot.Model`.
    """

    model: Model
    wall: Wall | None

    def __init__(
        self,
        model: Model,
        references: Mapping[int, float],
        scale: float = 1.0,
        seen: Seen | None = None,
        repulsion: Repulsion | None = None,
    ):
        super().__init__()
        if not isinstance(model, Model):
            raise InputError(
                f"model is a {type(model).__name__} but must be a gradpot.Model: derive its class "
                "from gradpot.Model, which tells graphs and training what it needs"
            )
        self.model = model
        self.references = {int(z): float(e) for z, e in references.items()}
        self.scale = float(scale)
        self.seen = seen
        self.repulsion = repulsion
        self.wall = repulsion and Wall(repulsion, self.scale).to(self.device, self.dtype)
        # a plain attribute, not a buffer: .to(dtype) must not round it
        self.reference_table = torch.full((N_ELEMENTS,), torch.nan, dtype=torch.float64)
        for z, energy in self.references.items():
            self.reference_table[z] = energy

    @property
    def cutoff(self) -> float:
        """Cutoff of the model in Å."""
        return self.model.cutoff

    @property
    def uses_triplets(self) -> bool:
        """Whether graphs need triplets, see `Model`."""
        return self.model.uses_triplets

    @property
    def direct(self) -> bool:
        """Whether forces are not the gradient of the energy, see `Model`."""
        return self.model.direct

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return next((p.dtype for p in self.model.parameters()), torch.float64)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def forward(self, graph: Graph, stress: bool = True) -> Properties:
        """Energy in eV, forces in eV/Å and stress in eV/Å³, detached from the weights.

        The energy is float64 whatever the dtype of the weights; on mps, which has no float64, it
        is returned on the CPU. The stress is NaN unless `stress`
        is true, for structures without a cell, and for models with direct forces.
        """
        raw = predict(self.network, graph, stress=stress)
        exact = "cpu" if graph.numbers.device.type == "mps" else graph.numbers.device
        numbers, batch = graph.numbers.to(exact), graph.batch.to(exact)
        reference = self.reference_energy(numbers, batch, graph.cell.shape[0])
        return Properties(
            energy=reference + self.scale * raw.energy.to(exact).double(),
            forces=self.scale * raw.forces,
            stress=self.scale * raw.stress,
        )

    def network(self, graph: Graph) -> Tensor | tuple[Tensor, Tensor]:
        """Atom energies [n_atoms] of model and repulsion; with direct forces, also the forces.

        Like those of the model, they are in units of the scale, and of the scale per Å.
        """
        wall = self.wall
        if wall is None:
            return self.model(graph)
        seen, repulsive = wall(graph)
        output = self.model(seen)
        if not isinstance(output, tuple):
            return wall.lifted(output, graph.numbers) + repulsive
        own = predict(lambda g: wall(g)[1], graph, stress=False).forces
        return output[0] + repulsive, output[1] + own

    def reference_energy(
        self, numbers: Int[Tensor, "n_atoms"], batch: Int[Tensor, "n_atoms"], n_graphs: int
    ) -> Float[Tensor, "n_graphs"]:
        """Σ reference(Z) of each structure in eV, float64; NaN for an element without one.

        Args:
            numbers: atomic numbers.
            batch: structure of each atom.
            n_graphs: number of structures.
        """
        table = self.reference_table.to(numbers.device)
        return sum_by(table.index_select(0, numbers), batch, n_graphs)

    def check_elements(self, numbers) -> None:
        """Refuse elements that the potential was not trained on.

        Raises:
            InputError: `numbers` has such elements.
        """
        from ase.data import chemical_symbols

        foreign = sorted({int(z) for z in numbers} - self.references.keys())
        if foreign:
            known = ", ".join(chemical_symbols[z] for z in sorted(self.references))
            names = ", ".join(chemical_symbols[z] for z in foreign)
            raise InputError(f"this potential does not know {names}; it was trained on {known}")
