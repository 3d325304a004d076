"""Activations and norms of foreign networks, however these store them."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradpot import InputError, denormalize, swap_activations
from gradpot.nn.activations import ACTIVATIONS, irelu


def power(x: Tensor) -> Tensor:
    return x**3


class Block(nn.Module):
    """Activations stored in every way, and callables that are not activations."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 4))
        self.act = F.silu
        self.acts = [torch.tanh, power]
        self.pair = (F.elu, 2)
        self.by_name = {"out": partial(F.leaky_relu, negative_slope=0.1)}
        self.init, self.kind, self.custom = nn.init.xavier_uniform_, nn.ReLU, power
        self.gate, self.out = nn.Sigmoid(), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x)) * self.gate(self.acts[0](x.sum()))
        return self.custom(self.by_name["out"](self.out(self.pair[0](self.acts[1](x)))))


ALL = ["first.1", "act", "acts.0", "pair.0", "by_name.out"]


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block().double()


def test_every_kind_of_activation_is_replaced_and_nothing_else(block):
    x = torch.randn(5, 3, dtype=torch.float64)
    before, state = block(x), {k: v.clone() for k, v in block.state_dict().items()}
    assert sorted(swap_activations(block, "irelu")) == sorted(ALL)
    assert block.act is irelu
    assert block.acts[0] is irelu
    assert block.acts[1] is power
    assert block.pair == (irelu, 2)
    assert block.by_name["out"] is irelu
    assert block.custom is power
    assert block.kind is nn.ReLU
    assert block.init is nn.init.xavier_uniform_
    assert isinstance(block.gate, nn.Sigmoid)
    torch.testing.assert_close(block.first[1](x), irelu(x))
    after = block.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[key], state[key]) for key in state)
    assert block(x).dtype == torch.float64
    assert not torch.allclose(block(x), before)


def test_activations_can_be_swapped_twice(block):
    first = swap_activations(block, "irelu")
    assert swap_activations(block, "tanh") == first
    assert block.act is torch.tanh


def test_only_and_skip(block):
    assert swap_activations(block, "irelu", only="first.*") == ["first.1"]
    assert block.act is F.silu
    assert swap_activations(block, "irelu", only=["act*"], skip="act") == ["acts.0"]
    # only= replaces a function of any name
    assert swap_activations(block, "irelu", only="acts.1") == ["acts.1"]
    assert block.acts[1] is irelu


@pytest.mark.parametrize("argument", ["only", "skip"])
def test_a_pattern_that_matches_nothing_is_an_error(block, argument):
    with pytest.raises(InputError, match=r"'frist\.\*' matches nothing to replace; there are: act"):
        swap_activations(block, "irelu", **{argument: "frist.*"})
    assert block.act is F.silu


def test_nothing_to_swap_is_an_error():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.out, self.custom = nn.Linear(2, 2), power

        def forward(self, x):
            return F.relu(self.out(x))

    with pytest.raises(
        InputError, match=r"no activation .* in Hidden; there are: custom \(power\)"
    ):
        swap_activations(Hidden(), "irelu")
    with pytest.raises(InputError, match="SiLU is itself an activation"):
        swap_activations(nn.SiLU(), "irelu")
    with pytest.raises(InputError, match="unknown activation 'irleu'"):
        swap_activations(Hidden(), "irleu")


def test_a_shared_block_is_changed_once_and_matches_either_name():
    shared = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    network = nn.ModuleDict({"one": shared, "two": shared})
    assert swap_activations(network, "irelu", only="two.*") == ["one.1"]
    assert network["one"][1] is network["two"][1]


class Trainable(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.slope * x.relu().square()


def test_trainable_activations_belong_to_the_network(block, monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "irelu", Trainable())
    before = dict(block.named_parameters()).keys()
    swap_activations(block.eval(), "irelu", only=["first.1", "act", "acts.0"])
    new = {n: p for n, p in block.named_parameters() if n not in before}
    assert sorted(new) == ["act.slope", "acts_0.slope", "first.1.slope"]
    assert {p.dtype for p in new.values()} == {torch.float64}
    assert not block.acts[0].training
    block(torch.randn(5, 3, dtype=torch.float64)).sum().backward()
    assert all(p.grad is not None for p in new.values())


def test_norms_become_the_identity():
    network = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.LayerNorm(6), nn.GroupNorm(2, 6), nn.Tanh()
    )
    removed = denormalize(network)
    assert list(removed) == ["1", "2", "3"]
    assert removed["2"].startswith("LayerNorm((6,)")
    x = torch.randn(7, 4)
    torch.testing.assert_close(network(x), network[0](x).tanh())
    assert denormalize(network) == {}


def test_norms_can_be_chosen():
    network = nn.Sequential(nn.BatchNorm1d(6), nn.LayerNorm(6))
    assert list(denormalize(network, skip="0")) == ["1"]
    assert isinstance(network[0], nn.BatchNorm1d)
    with pytest.raises(InputError, match="matches nothing to replace"):
        denormalize(network, only="norm*")
    with pytest.raises(InputError, match="is itself a norm"):
        denormalize(nn.LayerNorm(6))


def test_norms_of_pyg_are_called_with_their_graph():
    norm = pytest.importorskip("torch_geometric.nn.norm")
    x, batch = torch.randn(5, 4), torch.tensor([0, 0, 1, 1, 1])
    made = {
        "batch": (norm.BatchNorm(4), (x,)),
        "hetero": (norm.HeteroLayerNorm(4, 2), (x, batch)),
        "layer": (norm.LayerNorm(4), (x, batch)),
        "graph": (norm.GraphNorm(4), (x, batch, 2)),
        "size": (norm.GraphSizeNorm(), (x, batch)),
        "pair": (norm.PairNorm(), (x, batch)),
        "instance": (norm.InstanceNorm(4), (x, batch)),
        "mean": (norm.MeanSubtractionNorm(), (x, batch)),
        "group": (norm.DiffGroupNorm(4, 2), (x,)),
    }
    network = nn.ModuleDict({name: module for name, (module, _) in made.items()})
    assert list(denormalize(network)) == list(made)
    for name, (_, arguments) in made.items():
        assert network[name](*arguments) is x
    # it takes atoms and messages, and passes the messages on
    network = nn.ModuleDict({"message": norm.MessageNorm()})
    denormalize(network)
    assert network["message"](torch.zeros(5, 4), x) is x
