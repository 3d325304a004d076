"""PyTorch Geometric and SchNetPack networks give the same energies in gradpot, and train."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from torch import Tensor, nn

import gradpot
from gradpot.compile.export import exported
from gradpot.graph.graph import Graph, from_atoms, join
from gradpot.models import EXTERNAL, build, specification
from gradpot.potential.potential import Potential, predict
from gradpot.testing import CHECKS
from gradpot.train.config import config, override
from gradpot.train.run import train

CUTOFF = 4.0
SIZES = {"width": 16, "n_layers": 2, "n_radial": 6}
SMALL = {name: SIZES for name in EXTERNAL}
# few spherical functions: PyG derives them with sympy for every model
SMALL["pyg/dimenet++"] = SIZES | {"n_radial": 3, "n_spherical": 2, "output_width": 16}
LIBRARIES = {"pyg": "torch_geometric", "schnetpack": "schnetpack"}


def needs(library: str) -> None:
    """Skip if a package is not installed, without importing it: the adapter must do that."""
    if importlib.util.find_spec(LIBRARIES[library]) is None:
        pytest.skip(f"{LIBRARIES[library]} is not installed; `make test-peers` installs it")


@pytest.fixture(params=EXTERNAL)
def name(request) -> str:
    needs(request.param.partition("/")[0])
    return request.param


@pytest.fixture
def model(name) -> nn.Module:
    torch.manual_seed(0)
    return build(name, cutoff=CUTOFF, **SMALL[name]).double()


@pytest.fixture
def structures(ethanol, crystal) -> list[Atoms]:
    return [ethanol, crystal, Atoms("O"), ethanol[:4]]


def graph(atoms: Atoms) -> Graph:
    return from_atoms(atoms, CUTOFF, torch.float64)


@pytest.mark.parametrize("activation", ["published", "irelu"])
def test_derivatives_are_right_and_do_not_mix_structures(name, structures, activation):
    given = {} if activation == "published" else {"activation": activation}
    torch.manual_seed(0)
    model = build(name, cutoff=CUTOFF, **SMALL[name], **given)
    report = gradpot.check_derivatives(model, structures)
    assert report.ok, report


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check, model):
    check(model)


@pytest.mark.slow
def test_they_can_be_exported_for_dynamics(model, ethanol):
    potential = Potential(model, {1: 0.0, 6: 0.0, 8: 0.0})
    program = exported(potential, torch.float64).module()
    one = graph(ethanol)
    cell = torch.zeros(2, 3, 3, dtype=torch.float64)
    inputs = [one.numbers, one.pair_index.contiguous(), one.pair_vec, one.batch, cell]
    if potential.uses_triplets:
        inputs.append(gradpot.graph.graph.with_triplets(one).triplets)
    expected = potential(one)
    energy, forces, _stress = program(*inputs)
    torch.testing.assert_close(energy[:1], expected.energy)
    torch.testing.assert_close(forces, expected.forces)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the energy of this model has a cone")
def test_trains_saves_loads_and_relaxes(name, tmp_path, ethanol):
    frames = ["data.n_train=20", "data.n_valid=10", "data.n_test=10", "train.valid_every=2"]
    sizes = [f"model.{key}={value}" for key, value in SMALL[name].items()]
    # IReLU overflows in a deep network that is initialized for silu
    activation = "ssp" if name == "pyg/dimenet++" else "irelu"
    keys = [f"model.name={name}", f"model.activation={activation}", "train.epochs=6", "seed=1"]
    keys += ["train.warmup_steps=2", "train.learning_rate=2e-3"]
    results = train(
        config(override({}, [*frames, *sizes, *keys])), tmp_path / "run", say=lambda line: None
    )
    rows = [row["train_loss"] for row in gradpot.train.run.metrics(tmp_path / "run")]
    assert rows[-1] < rows[0]
    assert results["model"]["activation"] == activation
    potential = gradpot.load(tmp_path / "run" / "model.safetensors")
    assert potential.model.spec == results["model"]
    ethanol.calc = gradpot.Calculator(tmp_path / "run" / "model.safetensors", compile=False)
    before = ethanol.get_potential_energy()
    ethanol.positions += 1e-3 * ethanol.get_forces() / np.abs(ethanol.get_forces()).max()
    assert ethanol.get_potential_energy() < before


def test_schnet_equals_pyg(structures):
    needs("pyg")
    model = build("pyg/schnet", cutoff=CUTOFF, **SIZES).double()
    joined = join([graph(atoms) for atoms in structures])
    del model.network.interaction_graph  # torch accepts only a module in its place
    model.network.interaction_graph = lambda *_: (
        joined.edge_index.flip(0),
        joined.edge_vec.norm(dim=-1),
    )
    expected = model.network(joined.numbers, torch.zeros(0, 3), joined.batch)[:, 0]
    torch.testing.assert_close(predict(model, joined).energy, expected)


def test_dimenet_equals_pyg(ethanol, monkeypatch):
    needs("pyg")
    from torch_geometric.nn.models import dimenet

    model = build("pyg/dimenet++", cutoff=CUTOFF, **SMALL["pyg/dimenet++"]).double()
    one = graph(ethanol)
    monkeypatch.setattr(dimenet, "radius_graph", lambda *_, **__: one.edge_index.flip(0))
    monkeypatch.setattr(dimenet, "triplets", slow_triplets)
    positions = torch.from_numpy(ethanol.positions).requires_grad_()
    expected = model.network(one.numbers, positions, one.batch)[:, 0]
    (gradient,) = torch.autograd.grad(expected.sum(), positions)
    out = predict(model, one)
    torch.testing.assert_close(out.energy, expected.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(out.forces, -gradient, rtol=1e-5, atol=1e-5)


def slow_triplets(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, ...]:
    """Triplets k → j → i with k ≠ i, in PyG's order, found by brute force."""
    rows = list(zip(*edge_index.tolist(), strict=True))
    found = [
        (i, j, k, kj, ji)
        for ji, (j, i) in enumerate(rows)
        for kj, (k, to) in enumerate(rows)
        if to == j and k != i
    ]
    j, i = edge_index
    return (i, j, *torch.tensor(found).t())


@pytest.mark.parametrize("kind", ["schnet", "painn"])
def test_schnetpack_models_equal_schnetpack(kind, structures):
    needs("schnetpack")
    name = f"schnetpack/{kind}"
    model = build(name, cutoff=CUTOFF, **SIZES).double()
    import schnetpack as spk

    theirs = spk.model.NeuralNetworkPotential(
        representation=model.representation,
        output_modules=[spk.atomistic.Atomwise(SIZES["width"], output_key="energy")],
    ).double()
    theirs.output_modules[0].outnet.load_state_dict(model.readout.state_dict())
    joined = join([graph(atoms) for atoms in structures])
    inputs = {
        spk.properties.Z: joined.numbers,
        spk.properties.Rij: joined.edge_vec,
        spk.properties.idx_i: joined.edge_index[0],
        spk.properties.idx_j: joined.edge_index[1],
        spk.properties.idx_m: joined.batch,
    }
    torch.testing.assert_close(predict(model, joined).energy, theirs(inputs)["energy"].detach())


def test_each_activation_argument_changes_the_energy(name):
    published = build(name, **SMALL[name])
    state = published.state_dict()
    one = from_atoms(Atoms("CO", positions=[[0, 0, 0], [1.2, 0, 0]]), 5.0)
    energies = [published(one)]
    changes = [{"activation": "irelu"}]
    changes += [{"output_activation": "irelu"}] if name != "pyg/schnet" else []
    for change in changes:
        other = build(name, **SMALL[name], **change)
        other.load_state_dict(state)
        energies.append(other(one))
    for i, a in enumerate(energies):
        assert all(not torch.allclose(a, b) for b in energies[:i])


def test_the_page_lists_their_arguments(name):
    page = Path(__file__).parents[2] / "docs" / "any-network.md"
    row = next(line for line in page.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    documented = dict(item.split("=") for item in row.split("|")[3].strip(" `").split())
    assert documented == {key: str(value) for key, value in specification(name).items()}


def test_slow_to_compile_models_are_not_compiled_by_default(tmp_path):
    needs("pyg")
    sizes = [f"model.{key}={value}" for key, value in SMALL["pyg/dimenet++"].items()]
    keys = ["model.name=pyg/dimenet++", "train.max_minutes=1000", "train.epochs=1"]
    keys += ["data.n_train=4", "data.n_valid=2", "data.n_test=2"]
    messages: list[str] = []
    train(config(override({}, [*sizes, *keys])), tmp_path / "run", say=messages.append)
    assert any("not compiled: compiling pyg/dimenet++ takes long" in m for m in messages), messages
