"""Conversion of `Graph` to PyTorch Geometric's `Data` and back."""

import pytest
import torch

from gradpot.errors import InputError
from gradpot.graph.graph import Graph, from_atoms, join

pytest.importorskip("torch_geometric")
# import it through the adapter, which silences the warnings of the import
pyg = pytest.importorskip("gradpot.models.external.pyg")


@pytest.fixture
def graph(ethanol, crystal) -> Graph:
    return join([from_atoms(atoms, 4.5) for atoms in (ethanol, crystal, ethanol[:1])])


def test_there_and_back(graph):
    again = pyg.from_pyg(pyg.to_pyg(graph))
    assert again.triplets is None
    for name, tensor in graph._asdict().items():
        assert tensor is None or torch.equal(getattr(again, name), tensor), name


def test_edges_point_from_neighbor_to_center(ethanol):
    data = pyg.to_pyg(from_atoms(ethanol, 4.5, torch.float64))
    source, target = data.edge_index
    positions = torch.from_numpy(ethanol.positions)
    torch.testing.assert_close(data.edge_vec, positions[source] - positions[target])
    assert data.num_nodes == 9
    assert data.num_edges == data.edge_vec.shape[0]
    assert data.validate()


def test_derivatives_pass_through(graph):
    vectors = graph.edge_vec.clone().requires_grad_()
    data = pyg.to_pyg(graph._replace(edge_vec=vectors))
    data.edge_vec.square().sum().backward()
    torch.testing.assert_close(vectors.grad, 2 * graph.edge_vec)


def test_edges_in_any_order_find_their_reverse(graph):
    data = pyg.to_pyg(graph)
    order = torch.randperm(data.num_edges, generator=torch.Generator().manual_seed(0))
    data.edge_index, data.edge_vec = data.edge_index[:, order], data.edge_vec[order]
    again = pyg.from_pyg(data)
    half = again.edge_index.shape[1] // 2
    assert torch.equal(again.edge_index[:, half:], again.edge_index[:, :half].flip(0))
    assert torch.equal(again.edge_vec[half:], -again.edge_vec[:half])
    assert rows(again) == rows(graph)


def rows(graph: Graph) -> list[tuple]:
    return sorted(zip(*graph.edge_index.tolist(), *graph.edge_vec.t().tolist(), strict=True))


def test_molecules_may_have_positions_instead_of_edge_vectors(ethanol):
    from torch_geometric.data import Data

    expected = from_atoms(ethanol, 4.5, torch.float64)
    data = Data(
        z=expected.numbers,
        pos=torch.from_numpy(ethanol.positions),
        edge_index=expected.edge_index.flip(0),
    )
    graph = pyg.from_pyg(data)
    assert torch.equal(graph.edge_vec, expected.edge_vec)
    assert torch.equal(graph.batch, torch.zeros(9, dtype=torch.long))
    assert torch.equal(graph.cell, torch.zeros(1, 3, 3, dtype=torch.float64))


def test_what_is_missing_is_named(graph):
    from torch_geometric.data import Data

    with pytest.raises(InputError, match="no z; it has edge_index"):
        pyg.from_pyg(Data(edge_index=graph.edge_index))
    with pytest.raises(InputError, match="no edge_vec or pos; it has"):
        pyg.from_pyg(Data(z=graph.numbers, edge_index=graph.edge_index))
    data = pyg.to_pyg(graph)
    data.edge_index, data.edge_vec = data.edge_index[:, 1:], data.edge_vec[1:]
    with pytest.raises(InputError, match="an edge has no reverse"):
        pyg.from_pyg(data)
