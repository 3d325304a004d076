"""Devices by name; and, without a GPU, that nothing in a training step mixes devices.

torch's fake tensors have a shape and a device, but no memory. On the device "meta" they are refused
by every operation that a GPU would refuse for mixing devices.
"""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gradpot.data.source import read
from gradpot.errors import InputError
from gradpot.graph.dataset import Batch, batch, dataset
from gradpot.graph.graph import Graph, Properties
from gradpot.potential.device import device
from gradpot.potential.potential import Potential
from gradpot.train.loss import PENALTIES, Weights, penalty, rescaled, weighted
from gradpot.train.muon import Muon
from gradpot.train.step import gradients
from gradpot.train.weights import flatten, layout, stacks
from variants import ONE_FORM_EACH, small

NOWHERE = "meta"
MIXED = "Expected all tensors to be on the same device"


def moved(tensors: tuple) -> list:
    """Fake tensors like these, elsewhere."""
    make = partial(torch.empty, device=NOWHERE)
    return [None if t is None else make(t.shape, dtype=t.dtype) for t in tensors]


def four(model: nn.Module) -> Batch:
    """Four molecules."""
    frames = read("ethanol").take(np.arange(4))
    data = dataset(frames, model.cutoff, dtype=torch.float64, triplets=model.uses_triplets)
    return batch(data, torch.arange(4))


def elsewhere(one: Batch) -> Batch:
    """The same as fake tensors."""
    return Batch(Graph(*moved(one.graph)), Properties(*moved(one.labels)))


@pytest.mark.parametrize("variant", ONE_FORM_EACH)
def test_a_training_step_stays_on_its_device(variant):
    model = small(variant)
    here, stress = four(model), not model.direct
    loss = partial(weighted, weights=Weights(1, 1, 1.0 * stress), length=1.0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        weights = flatten(model.to_empty(device=NOWHERE))
        one = rescaled(elsewhere(here), 2.0)
        step = gradients(model, partial(loss, penalty=penalty("huber", 0.01)), stress)
        value, gradient = step(weights, one)
        _, matrices = stacks(weights, layout(model))
        _, of_matrices = stacks(gradient, layout(model))
        for stack, its_gradient in zip(matrices, of_matrices, strict=True):
            stack.grad = its_gradient
        Muon(matrices, 1e-6).step()  # those of torch are torch's to test
        whole = Potential(model, {1: -13.6, 6: -1029.0, 8: -2040.0})(one.graph)
    for tensor in (value, gradient, weights, *whole):
        assert tensor.device.type == NOWHERE


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_stay_on_their_device(name):
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert penalty(name, 0.01)(torch.empty(3, device=NOWHERE)).device.type == NOWHERE


class Forgetful(nn.Module):
    """Makes a tensor where the others are not."""

    def __init__(self, wrong: Tensor):
        super().__init__()
        self.cutoff, self.uses_triplets, self.wrong = 4.0, False, wrong

    def forward(self, graph: Graph) -> Tensor:
        bond = graph.pair_vec.norm(dim=1)
        sums = bond.new_zeros(graph.numbers.shape[0]).index_add(0, graph.pair_index[0], bond)
        return sums * self.wrong


def test_mixed_devices_would_be_noticed():
    model = Forgetful(torch.ones(4 * 9, dtype=torch.float64))
    here = four(model)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(RuntimeError, match=MIXED):
        model(elsewhere(here).graph)


def test_names_of_devices(monkeypatch):
    assert device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(InputError, match=rf"sees no {name[:3]}\w* device on this machine; use"):
            device(name)
    for name in ("gpu", "cuda:x", "cuda:", ""):
        with pytest.raises(InputError, match=f"unknown device '{name}'; known: auto, cpu, cuda"):
            device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device("auto") == torch.device("cuda")
    assert device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match=r"no device cuda:2: the last one is cuda:1"):
        device("cuda:2")
