"""What swapping and denormalizing keep and change in networks of other packages."""

import copy
import importlib
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from gradpot import denormalize, swap_activations
from gradpot.graph.graph import from_atoms
from gradpot.models import build

CUTOFF = 5.0
SIZES = {"cutoff": CUTOFF, "width": 16, "n_layers": 2, "n_radial": 3}


def pyg(name: str) -> Callable[..., nn.Module]:
    return getattr(pytest.importorskip("torch_geometric.nn.models"), name)


def schnetpack(name: str) -> nn.Module:
    if importlib.util.find_spec("schnetpack") is None:
        pytest.skip("schnetpack is not installed; `make test-peers` installs it")
    # the adapter repairs the import of schnetpack with current torch
    importlib.import_module("gradpot.models.external.schnetpack")
    import schnetpack as spk

    kind = getattr(spk.representation, name)
    return kind(16, 2, spk.nn.GaussianRBF(3, CUTOFF), spk.nn.CosineCutoff(CUTOFF), max_z=119)


class Peer(NamedTuple):
    make: Callable[[], nn.Module]
    published: str
    names: set[str]


def blocks(*ends: str) -> set[str]:
    return {end.replace("#", i) for end in ends for i in "01"}


PEERS = {
    "pyg/schnet": Peer(
        lambda: pyg("SchNet")(16, 16, 2, 3, CUTOFF),
        "ssp",
        blocks("interactions.#.mlp.1", "interactions.#.act") | {"act"},
    ),
    "pyg/dimenet++": Peer(
        lambda: pyg("DimeNetPlusPlus")(
            16, 1, 2, 64, 8, 256, 2, 3, output_initializer="glorot_orthogonal"
        ),
        "silu",
        blocks(
            "interaction_blocks.#.act",
            "interaction_blocks.#.layers_before_skip.0.act",
            "interaction_blocks.#.layers_after_skip.0.act",
            "interaction_blocks.#.layers_after_skip.1.act",
            "output_blocks.#.act",
        )
        | {"output_blocks.2.act", "emb.act"},
    ),
    "schnetpack/schnet": Peer(
        lambda: schnetpack("SchNet"),
        "ssp",
        blocks("interactions.#.f2out.0.activation", "interactions.#.filter_network.0.activation"),
    ),
    "schnetpack/painn": Peer(
        lambda: schnetpack("PaiNN"),
        "silu",
        blocks(
            "interactions.#.interatomic_context_net.0.activation",
            "mixing.#.intraatomic_context_net.0.activation",
        ),
    ),
}


@pytest.fixture(params=PEERS)
def name(request) -> str:
    return request.param


@pytest.fixture
def network(name) -> nn.Module:
    torch.manual_seed(0)
    return PEERS[name].make().double()


@pytest.fixture
def energy(name, network, ethanol) -> Callable[[], Tensor]:
    """A function that gives the current atom energies of a network, through its adapter."""
    few = {"n_spherical": 3} if name == "pyg/dimenet++" else {}
    adapter = build(name, **SIZES, **few).double()
    setattr(adapter, "representation" if "schnetpack" in name else "network", network)
    graph = from_atoms(ethanol, CUTOFF, torch.float64)
    return lambda: adapter(graph).detach()


def test_every_activation_is_found_and_nothing_else(name, network):
    untouched = {
        key: value
        for owner, module in network.named_modules()
        for key, value in ((f"{owner}.{k}", v) for k, v in vars(module).items())
        if callable(value) and not key.endswith((".act", ".activation"))
    }
    assert set(swap_activations(network, "irelu")) == PEERS[name].names
    for key, value in untouched.items():
        owner, _, attribute = key.rpartition(".")
        assert getattr(network.get_submodule(owner), attribute) is value, key


def test_swapping_to_the_published_activation_changes_nothing(name, network, energy):
    before = energy()
    swap_activations(network, PEERS[name].published)
    # PyG rounds ln 2 in its shifted softplus to float32
    torch.testing.assert_close(energy(), before, rtol=1e-6, atol=1e-7)


def test_parameters_and_their_names_stay_and_outputs_change(network, energy):
    before, state = energy(), copy.deepcopy(network.state_dict())
    first = swap_activations(network, "irelu")
    assert network.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert {p.dtype for p in network.parameters()} == {torch.float64}
    after = energy()
    assert not torch.allclose(after, before)
    # a skipped activation stays as it was
    left = first[-1]
    assert left not in swap_activations(network, "tanh", skip=left)
    assert len(swap_activations(network, "silu", only=left)) == 1


def test_these_have_no_norms_to_remove(network, energy):
    before = energy()
    assert denormalize(network) == {}
    assert torch.equal(energy(), before)


def test_norms_of_a_pyg_network_are_removed_where_it_calls_them_with_a_graph():
    network = pyg("GIN")(4, 8, 2, 1, norm="graph_norm", act="silu").double()
    removed = denormalize(network)
    assert [name for name, was in removed.items() if "GraphNorm(8)" in was], removed
    assert denormalize(network) == {}
    swap_activations(network, "irelu")
    x, edges = torch.randn(5, 4, dtype=torch.float64), torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    batch = torch.tensor([0, 0, 0, 1, 1])
    assert network(x, edges, batch=batch).shape == (5, 1)
