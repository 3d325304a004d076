"""From atom energies to energy, forces and stress, by one gradient; and `Potential`, with units.

A model maps edge vectors to atom energies. Its one gradient with respect to the vector of each
pair holds everything: the force on an atom is a sum over its pairs, the virial an outer product.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradpot.errors import InputError
from gradpot.graph.graph import Graph, Properties, opposite
from gradpot.nn.segment import sum_by

MAX_Z = 118
NOT_CONSERVATIVE = (
    "forces of this model are not the gradient of its energy: NVE dynamics will not conserve energy"
)


def predict(
    model: Callable[[Graph], Tensor | tuple[Tensor, Tensor]],
    graph: Graph,
    create_graph: bool = False,
    stress: bool = True,
) -> Properties:
    """Energy of each structure, forces and stress, in the model's own unit of energy and Å.

    Args:
        model: maps a graph to atom energies [n_atoms], or to these and forces [n_atoms, 3], which
            are then passed on; stress is a gradient, and such a model has none: NaN.
        create_graph: keep what is needed to differentiate the forces again (for training).
        stress: without it the stress is NaN.
    """
    n_atoms, n_graphs = graph.numbers.shape[0], graph.cell.shape[0]
    with torch.enable_grad():
        pair_vec = graph.pair_vec.detach().requires_grad_()
        output = model(graph._replace(edge_vec=opposite(pair_vec)))
        if isinstance(output, tuple):
            return _direct(*output, graph, create_graph)
        atom_energy = output
        (pull,) = torch.autograd.grad(atom_energy.sum(), pair_vec, create_graph=create_graph)
    center, neighbor = graph.pair_index
    forces = sum_by(pull, center, n_atoms) - sum_by(pull, neighbor, n_atoms)
    energy = sum_by(atom_energy, graph.batch, n_graphs)
    if not create_graph:
        energy, pair_vec = energy.detach(), pair_vec.detach()
    if not stress:
        return Properties(energy, forces, torch.full_like(graph.cell, torch.nan))
    outer = pair_vec[:, :, None] * pull[:, None, :]
    virial = sum_by(outer, graph.batch.index_select(0, center), n_graphs)
    return Properties(energy, forces, virial_stress(virial, graph.cell))


def _direct(atom_energy: Tensor, forces: Tensor, graph: Graph, create_graph: bool) -> Properties:
    """Properties from a model that gives forces itself."""
    if not create_graph:
        atom_energy, forces = atom_energy.detach(), forces.detach()
    energy = sum_by(atom_energy, graph.batch, graph.cell.shape[0])
    return Properties(energy, forces, torch.full_like(graph.cell, torch.nan))


def virial_stress(
    virial: Float[Tensor, "n_graphs 3 3"], cell: Float[Tensor, "n_graphs 3 3"]
) -> Float[Tensor, "n_graphs 3 3"]:
    """Symmetric virial per volume; NaN where there is no cell."""
    size = volume(cell)[:, None, None]
    periodic = size > 0
    symmetric = 0.5 * (virial + virial.transpose(1, 2))
    return torch.where(periodic, symmetric / torch.where(periodic, size, 1.0), torch.nan)


def volume(cell: Float[Tensor, "n_graphs 3 3"]) -> Float[Tensor, "n_graphs"]:
    """In Å³; positive for a left-handed cell too, zero where not all three axes are periodic."""
    a, b, c = cell.unbind(1)
    return (torch.linalg.cross(a, b) * c).sum(-1).abs()


class Potential(nn.Module):
    """E = Σ reference(Z) + scale · Σ ε, in eV and Å: what is saved, loaded and simulated with.

    Args:
        model: maps a graph to dimensionless atom energies ε; its `.cutoff` is in Å. A model that
            looks at angles has `.uses_triplets`.
        references: energy of an atom of each element in eV. Its keys are the elements that the
            potential knows.
        scale: eV.

    The references stay in float64 whatever the type of the weights: total energies of 1e4 eV
    leave 2 meV of float32.
    """

    def __init__(self, model: nn.Module, references: Mapping[int, float], scale: float = 1.0):
        super().__init__()
        self.model = model
        self.references = {int(z): float(e) for z, e in references.items()}
        self.scale = float(scale)
        # plain attribute, not a buffer: .to(dtype) must not round it
        self.reference_table = torch.full((MAX_Z + 1,), torch.nan, dtype=torch.float64)
        for z, energy in self.references.items():
            self.reference_table[z] = energy

    @property
    def cutoff(self) -> float:
        """Å."""
        return self.model.cutoff  # type: ignore[return-value]

    @property
    def uses_triplets(self) -> bool:
        """Whether the model looks at angles, so that its graphs need triplets."""
        return getattr(self.model, "uses_triplets", False)

    @property
    def direct(self) -> bool:
        """Whether forces are predicted by themselves: `NOT_CONSERVATIVE`, and without stress."""
        return getattr(self.model, "direct", False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next((p.dtype for p in self.model.parameters()), torch.float64)

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def forward(self, graph: Graph, stress: bool = True) -> Properties:
        """Energy (float64) in eV, forces in eV/Å, stress in eV/Å³; nothing to differentiate."""
        raw = predict(self.model, graph, stress=stress)
        reference = self.reference_energy(graph.numbers, graph.batch, graph.cell.shape[0])
        return Properties(
            energy=reference + self.scale * raw.energy.double(),
            forces=self.scale * raw.forces,
            stress=self.scale * raw.stress,
        )

    def reference_energy(
        self, numbers: Int[Tensor, "n_atoms"], batch: Int[Tensor, "n_atoms"], n_graphs: int
    ) -> Float[Tensor, "n_graphs"]:
        """Σ reference(Z) of each structure, in eV and float64."""
        table = self.reference_table.to(numbers.device)
        return sum_by(table.index_select(0, numbers), batch, n_graphs)

    def check_elements(self, numbers) -> None:
        """Refuse atoms that the potential was not trained on.

        Raises:
            InputError: names the elements, and those that are known.
        """
        from ase.data import chemical_symbols

        foreign = sorted({int(z) for z in numbers} - self.references.keys())
        if foreign:
            known = ", ".join(chemical_symbols[z] for z in sorted(self.references))
            names = ", ".join(chemical_symbols[z] for z in foreign)
            raise InputError(f"this potential does not know {names}; it was trained on {known}")
