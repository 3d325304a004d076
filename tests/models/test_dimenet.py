"""DimeNet++ against PyTorch Geometric's, with copied weights."""

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from gradpot.graph.graph import from_atoms, join
from gradpot.models import build
from gradpot.potential.potential import predict

CUTOFF = 5.0
SIZES = {"width": 32, "n_layers": 2, "triplet_width": 16, "basis_width": 8, "output_width": 24}
# PyG derives its bases with sympy, which takes seconds; test_angular.py checks all of ours
BASES = [pytest.param((4, 3), id="few"), pytest.param((7, 6), id="all", marks=pytest.mark.slow)]


@pytest.fixture(params=BASES)
def sizes(request) -> dict[str, int]:
    return SIZES | dict(zip(("n_spherical", "n_radial"), request.param))


@pytest.fixture
def theirs(monkeypatch, sizes):
    """PyG's model, with plain torch instead of torch_sparse and torch_cluster."""
    pytest.importorskip("torch_geometric")
    from torch_geometric.nn.models import DimeNetPlusPlus, dimenet

    monkeypatch.setattr(dimenet, "triplets", triplets)
    torch.manual_seed(0)
    model = DimeNetPlusPlus(
        hidden_channels=sizes["width"],
        out_channels=1,
        num_blocks=sizes["n_layers"],
        int_emb_size=sizes["triplet_width"],
        basis_emb_size=sizes["basis_width"],
        out_emb_channels=sizes["output_width"],
        num_spherical=sizes["n_spherical"],
        num_radial=sizes["n_radial"],
        cutoff=CUTOFF,
        output_initializer="glorot_orthogonal",
    ).double()
    # they are zero at the start, which would hide errors
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.2)
    return model


def triplets(edge_index, num_nodes):
    """As in PyG: for k → j → i, atoms i, j, k, then edges k → j and j → i."""
    j, i = edge_index
    follows = (i[:, None] == j[None, :]) & (j[:, None] != i[None, :])
    kj, ji = follows.nonzero().unbind(1)
    return i, j, i[ji], j[ji], j[kj], kj, ji


def copied(theirs, sizes):
    """Our model with their weights."""
    ours = build("dimenet++", cutoff=CUTOFF, **sizes).double()
    width = sizes["width"]
    inner, outer = theirs.interaction_blocks, theirs.output_blocks
    one, two, three = theirs.emb.lin.weight.split(width, dim=1)
    state = {
        "frequencies": theirs.rbf.freq,
        "embedding.weight": torch.zeros_like(ours.embedding.weight),
        "filters.first": theirs.emb.lin_rbf.weight.T,
        "filters.bias": theirs.emb.lin_rbf.bias,
        "filters.reduce": torch.cat([b.lin_rbf1.weight.T for b in inner], dim=1),
        "filters.outer": torch.cat([b.lin_rbf.weight.T for b in outer], dim=1),
        "turns.weight": torch.cat([b.lin_sbf1.weight for b in inner]),
        "first.atoms.weight": torch.cat([one, two]),
        "first.pairs.weight": three,
        "first.pairs.bias": theirs.emb.lin.bias,
        "outputs.up": torch.stack([b.lin_up.weight.T for b in outer]),
        "outputs.last": torch.stack([b.lin.weight.T for b in outer]),
    }
    state["embedding.weight"][:95] = theirs.emb.emb.weight
    for n in range(3):
        state[f"outputs.hidden.{n}"] = torch.stack([b.lins[n].weight.T for b in outer])
        state[f"outputs.biases.{n}"] = torch.stack([b.lins[n].bias[None] for b in outer])
    for n, block in enumerate(inner):
        state[f"filters.expand.{n}"] = block.lin_rbf2.weight.T
        state[f"interactions.{n}.turn"] = block.lin_sbf2.weight.T
        for name in ("weight", "bias"):
            both = [getattr(layer, name) for layer in (block.lin_ji, block.lin_kj)]
            state[f"interactions.{n}.split.{name}"] = torch.cat(both)
        parts = {
            "down": block.lin_down,
            "up": block.lin_up,
            "skip": block.lin,
            "before.0.first": block.layers_before_skip[0].lin1,
            "before.0.second": block.layers_before_skip[0].lin2,
        }
        for k, layer in enumerate(block.layers_after_skip):
            parts |= {f"after.{k}.first": layer.lin1, f"after.{k}.second": layer.lin2}
        for part, layer in parts.items():
            state |= {f"interactions.{n}.{part}.{k}": p for k, p in layer.named_parameters()}
    ours.load_state_dict(state)
    return ours


def test_equals_pyg_with_copied_weights(theirs, sizes, ethanol, monkeypatch):
    from torch_geometric.nn.models import dimenet

    straight = Atoms("CO2", [[0, 0, 0], [0, 0, 1.2], [0, 0, -1.2]])
    structures = [ethanol, straight, molecule("C2H2"), molecule("H2O")]
    graph = join([from_atoms(atoms, CUTOFF, torch.float64) for atoms in structures])
    got = predict(copied(theirs, sizes), graph, stress=False)

    edges = graph.edge_index.flip(0)
    monkeypatch.setattr(dimenet, "radius_graph", lambda *_, **__: edges)
    positions = torch.cat([torch.from_numpy(atoms.positions) for atoms in structures])
    positions.requires_grad_()
    energy = theirs(graph.numbers, positions, graph.batch).squeeze(-1)
    (gradient,) = torch.autograd.grad(energy.sum(), positions)
    assert gradient.abs().max() > 0.1
    torch.testing.assert_close(got.energy, energy.detach(), rtol=1e-6, atol=1e-6)
    scale = gradient.square().mean().sqrt().item()
    torch.testing.assert_close(got.forces, -gradient, rtol=1e-5, atol=1e-5 * scale)
