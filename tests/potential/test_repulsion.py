"""No holes at short range: the repulsion is exact everywhere and zero for all training frames."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.data import covalent_radii
from numpy.testing import assert_allclose

from gradpot import Calculator, InputError, Potential, UnseenWarning, load, predict, read, save
from gradpot.graph.dataset import batch, dataset
from gradpot.graph.graph import Graph, from_atoms, join
from gradpot.potential.checkpoint import read_tensors, write_tensors
from gradpot.potential.evaluate import errors_of
from gradpot.potential.header import Repulsion, Seen
from gradpot.potential.repulsion import (
    FADE,
    SWITCH,
    UNSEEN,
    Wall,
    below_switch,
    missing,
    repulsion_below,
)
from gradpot.potential.seen import seen_in
from gradpot.train.config import config
from gradpot.train.run import train
from variants import ONE_FORM_EACH, small

CUTOFF = 4.0
ONSET = {"1-1": 1.5, "1-6": 1.0, "1-8": 0.9, "6-6": 1.4, "6-8": 1.3, "8-8": 1.2}
RECORD = Repulsion(form="zbl", onset=ONSET)
REFERENCES = {1: -13.6, 6: -1030.0, 8: -2040.0}
PAINN = ("painn", {})


def potential_of(variant=PAINN, record=RECORD, scale=0.7, seen=None) -> Potential:
    torch.manual_seed(0)
    network = small(variant, cutoff=CUTOFF).eval()
    return Potential(network, REFERENCES, scale, seen, record).eval()


def floored(variant=PAINN) -> Potential:
    """With a floor in the midst of the energies of `squeezed`, if it has conservative forces."""
    potential, one = potential_of(variant), graph(squeezed())
    if potential.direct:
        return potential
    energies = 0.7 * potential.model(potential.wall(one)[0]).detach()
    floor = {str(z): (energies[one.numbers == z].mean().item() + 0.02, 0.3) for z in (1, 6, 8)}
    above = energies > torch.tensor([floor[str(z)][0] for z in one.numbers.tolist()])
    assert above.any()
    assert not above.all()
    return potential_of(variant, RECORD.model_copy(update={"floor": floor}))


def squeezed(seed: int = 0) -> Atoms:
    """Atoms in every region: C–H in the fade, far inside and at the onset, O–H near the core."""
    places = [
        [0, 0, 0],
        [0.93, 0, 0],
        [0, 0.7, 0.1],
        [-1.0, 0, 0],
        [0.3, -0.4, 1.2],
        [0.35, -0.2, 1.45],
    ]
    atoms = Atoms("CHHHOH", places)
    atoms.rattle(0.01, seed=seed)
    return atoms


def graph(atoms: Atoms, dtype: torch.dtype = torch.float64) -> Graph:
    return from_atoms(atoms, CUTOFF, dtype)


def dimer(pair: str, distance: float) -> Atoms:
    return Atoms(pair, [[0, 0, 0], [0.6 * distance, 0, 0.8 * distance]])


def published(one: int, other: int, r: float) -> float:
    """The universal potential in atomic units, from the formulas of Ziegler et al."""
    x = (r / units.Bohr) / (0.8854 / (one**0.23 + other**0.23))
    phi = np.array([0.1818, 0.5099, 0.2802, 0.02817]) @ np.exp(
        -x * np.array([3.2, 0.9423, 0.4029, 0.2016])
    )
    return units.Hartree * one * other / (r / units.Bohr) * phi


@pytest.mark.parametrize(("pair", "one", "other"), [("HH", 1, 1), ("CO", 6, 8), ("OO", 8, 8)])
def test_well_below_the_onset_it_is_the_universal_potential(pair, one, other):
    onset = ONSET[f"{one}-{other}"]
    for r in (0.05, 0.2, (1 - SWITCH) * onset):
        energy = Wall(RECORD).double()(graph(dimer(pair, r)))[1].sum().item()
        assert energy == pytest.approx(published(one, other, r), rel=1e-3)


@pytest.mark.parametrize("function", [missing, below_switch])
def test_three_derivatives_are_continuous(function):
    """At both ends of each region; they vanish where it begins."""
    for place, n_zero in ((0.0, 4), (1.0, 0)):
        sides = []
        for t in (place - 1e-9, place + 1e-9):
            t = torch.tensor([max(t, 0.0)], dtype=torch.float64, requires_grad=True)
            values = [function(t)]
            for _ in range(3):
                values += torch.autograd.grad(values[-1], t, create_graph=True)
            sides.append([value.item() for value in values])
        assert_allclose(*sides, rtol=0, atol=1e-6)
        assert_allclose(sides[1][:n_zero], 0, atol=1e-6)
    t = torch.linspace(0, 3, 301, dtype=torch.float64)
    assert (function(t).diff() >= 0).all()


def test_the_network_sees_no_distance_below_its_fade():
    for r in (1e-3, 0.5, 0.999 * (1 - FADE) * 1.4):
        seen, _ = Wall(RECORD).double()(graph(dimer("CC", r)))
        assert seen.edge_vec.norm(dim=1).tolist() == pytest.approx([(1 - FADE / 2) * 1.4] * 2)
        assert_allclose(seen.edge_vec[0] / seen.edge_vec[0].norm(), [0.6, 0, 0.8], atol=1e-12)


def structure(variant) -> Atoms:
    """Near atoms in a cell in which an atom is near its own image; direct forces have no stress."""
    atoms = squeezed()
    atoms.set_cell([[2.5, 0.1, 0], [0, 1.45, 0.2], [0.3, 0, 3.0]])
    atoms.pbc = True
    return atoms


@pytest.mark.parametrize("variant", ONE_FORM_EACH)
def test_forces_and_stress_are_derivatives(variant):
    """Along random directions, by differences of fourth order; regions are all occupied."""
    potential, atoms, rng = floored(variant), structure(variant), np.random.default_rng(0)
    found = potential(graph(atoms))
    below = [ONSET[p] for p in ("1-1", "1-6", "1-8")]
    assert graph(atoms).pair_vec.norm(dim=1).min() < 0.5 * min(below)

    def energy(x: float, shift: np.ndarray, strain: np.ndarray) -> float:
        moved = atoms.copy()
        moved.positions += x * shift
        moved.set_cell(moved.cell.array @ (np.eye(3) + x * strain), scale_atoms=True)
        return potential(graph(moved)).energy.item()

    for _ in range(3):
        shift, strain = rng.normal(size=(len(atoms), 3)), rng.normal(size=(3, 3))
        strain = strain + strain.T
        for s, e, expected in (
            (shift, 0 * strain, -(found.forces.numpy() * shift).sum()),
            (0 * shift, strain, atoms.get_volume() * (found.stress[0].numpy() * strain).sum()),
        ):
            near, far = (energy(x, s, e) - energy(-x, s, e) for x in (1e-5, 2e-5))
            assert (8 * near - far) / 12e-5 == pytest.approx(expected, rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("variant", ONE_FORM_EACH)
def test_second_derivatives(variant):
    """The gradient of the forces, by differentiating twice, against differences of forces."""
    potential, atoms = floored(variant), squeezed()
    one, shift = graph(atoms), np.random.default_rng(1).normal(size=(len(atoms), 3))
    direction = torch.from_numpy(shift)
    center, neighbor = one.pair_index
    vectors = one.pair_vec.clone().requires_grad_()
    pairs = torch.cat([vectors, -vectors])

    energy = potential.network(one._replace(edge_vec=pairs)).sum()
    (first,) = torch.autograd.grad(energy, vectors, create_graph=True)
    along = direction[neighbor] - direction[center]
    (second,) = torch.autograd.grad((first * along).sum(), vectors)
    curvature = 0.7 * (second * along).sum().item()

    def slope(x: float) -> float:
        moved = atoms.copy()
        moved.positions += x * shift
        return -(potential(graph(moved)).forces.numpy() * shift).sum()

    near, far = (slope(x) - slope(-x) for x in (1e-5, 2e-5))
    assert (8 * near - far) / 12e-5 == pytest.approx(curvature, rel=1e-6, abs=1e-3)


def test_the_floor_turns_holes_into_hills():
    """Exact values: at the turn, far below, above, and for an element without a floor."""
    floor = {"1": (-2.0, 0.4)}
    wall = Wall(RECORD.model_copy(update={"floor": floor}), scale=0.5).double()
    energies = torch.tensor([-1.9, -2.0, -2.2, -1e9, -1e9], dtype=torch.float64)
    lifted = 0.5 * wall.lifted(energies / 0.5, torch.tensor([1, 1, 1, 1, 6]))
    turn = -2.2 + 0.8 * 0.5**4 * (2.5 - 0.5 * 2.5)
    assert_allclose(lifted, [-1.9, -2.0, turn, 1e9 - 4.4, -1e9], rtol=1e-12)
    below = torch.linspace(-3, -1, 2001, dtype=torch.float64)
    lifted = 0.5 * wall.lifted(below / 0.5, torch.ones(2001, dtype=torch.long))
    assert lifted.min() == pytest.approx(turn, abs=1e-6)


def test_direct_forces_get_the_forces_of_the_repulsion():
    potential = potential_of(("forcenet", {"forces": "direct"}))
    atoms = squeezed()
    seen, _ = potential.wall(graph(atoms))
    own = potential(graph(atoms)).forces - 0.7 * predict(potential.model, seen).forces
    exact = np.zeros((len(atoms), 3))
    for i, k in np.ndindex(*exact.shape):
        energies = []
        for x in (1e-5, -1e-5):
            moved = atoms.copy()
            moved.positions[i, k] += x
            energies.append(0.7 * potential.wall(graph(moved))[1].sum().item())
        exact[i, k] = -(energies[0] - energies[1]) / 2e-5
    assert_allclose(own, exact, rtol=1e-6, atol=1e-5)
    assert abs(exact).max() > 10


def test_batches_cells_and_images():
    """A batch is its structures, and a supercell is so many cells, also across near images."""
    potential, one, other = floored(), squeezed(0), structure(PAINN)
    both = potential(join([graph(one), graph(other)]))
    alone = [potential(graph(atoms)) for atoms in (one, other)]
    assert_allclose(both.energy, torch.cat([a.energy for a in alone]), rtol=1e-12)
    assert_allclose(both.forces, torch.cat([a.forces for a in alone]), rtol=0, atol=1e-8)
    large = potential(graph(other * (1, 3, 2)))
    assert large.energy.item() == pytest.approx(6 * alone[1].energy.item(), rel=1e-12)
    assert_allclose(large.stress, alone[1].stress, rtol=1e-9)
    chain = Atoms("H", cell=[0.6, 20, 20], pbc=[True, False, False])
    energy = Wall(RECORD).double()(graph(chain))[1].item()
    images = [Wall(RECORD).double()(graph(dimer("HH", 0.6 * n)))[1].sum().item() for n in (1, 2)]
    assert energy == pytest.approx(sum(images), rel=1e-12)


@pytest.mark.parametrize("variant", ONE_FORM_EACH)
def test_float32_agrees_and_is_finite(variant):
    exact, rough = floored(variant), floored(variant).float()
    assert rough.wall.table.dtype == torch.float32
    one, other = exact(graph(squeezed())), rough(graph(squeezed(), torch.float32))
    assert_allclose(other.energy, one.energy, rtol=0, atol=2e-3)
    assert_allclose(other.forces, one.forces, rtol=1e-4, atol=2e-3)
    for r in (1e-6, 1e-3, 0.1, 0.5, 1.3):
        crowd = graph(Atoms("COH", [[0, 0, 0], [r, 0, 0], [0, 0, r]]), torch.float32)
        assert all(x.isfinite().all() for x in rough(crowd)[:2])


def test_atoms_at_one_place_stay_an_error():
    atoms = Atoms("CO", np.zeros((2, 3)))
    with pytest.raises(InputError, match="atoms 0 and 1 are at the same place"):
        Calculator(potential_of()).get_potential_energy(atoms)


def test_isolated_pairs_have_no_hole():
    """Below the fade of the network, energies rise all the way in, whatever the network is."""
    for scale in (1.0, 100.0):
        potential = potential_of(scale=scale)
        for pair, onset in (("HH", 1.5), ("CH", 1.0), ("CC", 1.4), ("CO", 1.3)):
            apart = np.arange(0.02, (1 - FADE) * onset, 0.02)
            energies = potential(join([graph(dimer(pair, r)) for r in apart])).energy
            assert (energies.diff() < 0).all()


@pytest.fixture(scope="module")
def frames():
    return read("ethanol")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_training_frames_do_not_feel_it(frames, dtype):
    """So labels need no change: zero energy, the same edges, and the same predictions, to a bit."""
    data = dataset(frames, CUTOFF, dtype=dtype)
    seen = seen_in(frames, data, np.arange(frames.n_atoms.shape[0]))
    record = repulsion_below(seen, REFERENCES, CUTOFF)
    everything = batch(data, torch.arange(frames.n_atoms.shape[0])).graph
    unchanged, energy = Wall(record).to(dtype)(everything)
    assert torch.equal(unchanged.edge_vec, everything.edge_vec)
    assert not energy.any()
    assert all(0 < near - record.onset[pair] < 2e-4 for pair, near in seen.nearest.items())
    with_it, without = (potential_of(record=r, seen=seen).to(dtype) for r in (record, None))
    one = graph(frames.atoms(0), dtype)
    assert torch.equal(with_it(one).forces, without(one).forces)
    assert torch.equal(with_it(one).energy, without(one).energy)


def test_elements_never_seen_together_repel_within_bonds():
    seen = Seen(
        compositions=[],
        fractions={},
        periodic_directions=[0],
        charge=None,
        spin=None,
        nearest={"1-1": 0.7},
    )
    record = repulsion_below(seen, [8, 1], 4.0)
    assert record.onset.keys() == {"1-1", "1-8", "8-8"}
    assert record.onset["1-8"] == pytest.approx(
        UNSEEN * (covalent_radii[1] + covalent_radii[8]), abs=2e-4
    )
    assert max(repulsion_below(seen, [8, 1], 1.0).onset.values()) < 1.0


def test_saved_and_loaded(tmp_path):
    potential, one = floored(), graph(squeezed())
    save(potential, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert again.repulsion == potential.repulsion
    assert torch.equal(again(one).forces, potential(one).forces)
    assert torch.equal(again(one).energy, potential(one).energy)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"form": "hard", "onset": ONSET}, r"repulsion\.form is 'hard', but must be 'zbl'"),
        ({"form": "zbl", "onset": {}}, r"repulsion\.onset is {}"),
        ({"form": "zbl", "onset": {"6-1": 1.0}}, "the lighter first"),
        ({"form": "zbl", "onset": {"1-6": 0.0}}, "must be greater than 0"),
        ({"form": "zbl", "onset": {"1-6": 1.0}}, "has no onset for 1-1"),
        ({"form": "zbl", "onset": ONSET, "floor": {"1": [0.0, 0.0]}}, r"floor\.1\.1 is 0\.0"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, value, message):
    path = tmp_path / "m.safetensors"
    save(potential_of(), path)
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, {**header, "repulsion": value})
    with pytest.raises(InputError, match=message):
        load(path)


def test_near_atoms_are_said_but_not_refused(frames):
    """Without repulsion they are refused, as before."""
    data = dataset(frames, CUTOFF)
    seen = seen_in(frames, data, np.arange(frames.n_atoms.shape[0]))
    near = frames.atoms(0)
    near.set_distance(0, 3, 0.5, fix=0)
    record = repulsion_below(seen, REFERENCES, CUTOFF)
    with pytest.warns(UnseenWarning, match="are too near"):
        force = Calculator(potential_of(record=record, seen=seen)).get_forces(near)[3]
    assert force @ (near.positions[3] - near.positions[0]) > 10
    with pytest.raises(InputError, match="are too near"):
        Calculator(potential_of(record=None, seen=seen)).get_forces(near)


@pytest.mark.filterwarnings("ignore:too few to learn from")
@pytest.mark.parametrize("repulsion", ["zbl", "none"])
def test_a_trained_model_has_it_unless_asked_not_to(tmp_path, frames, repulsion):
    """Validation feels the repulsion, because distances are below all those of training."""
    nearest = [frames.atoms(i).get_all_distances()[np.triu_indices(9, 1)].min() for i in range(60)]
    order = np.argsort(nearest)
    parts = {
        "train": order[30:].tolist(),
        "valid": order[:10].tolist(),
        "test": order[10:12].tolist(),
    }
    (tmp_path / "split.json").write_text(json.dumps(parts))
    model = {"width": 8, "n_layers": 1, "n_radial": 4, "cutoff": CUTOFF}
    how = {"epochs": 2, "compile": False, "repulsion": repulsion}
    settings = config(
        {"data": {"split": str(tmp_path / "split.json")}, "model": model, "train": how}
    )
    threads = torch.get_num_threads()
    train(settings, tmp_path / "run", say=lambda line: None)
    torch.set_num_threads(threads)
    potential = load(tmp_path / "run" / "model.safetensors")
    assert (potential.repulsion is not None) == (repulsion == "zbl")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = list(map(json.loads, lines))
    best = [row["valid"] for row in rows if row["best"]][-1]
    record = repulsion_below(potential.seen, potential.references, CUTOFF)
    own = potential.model, potential.references, potential.scale, potential.seen
    validated = Potential(*own, record if potential.repulsion else None)
    data = dataset(frames, CUTOFF)
    found = errors_of(validated, data, torch.tensor(parts["valid"]))
    for key in ("energy_mae_meV", "forces_mae_meV_A"):
        assert best[key] == pytest.approx(found[key], rel=1e-5)
    if potential.repulsion:
        training = batch(data, torch.tensor(parts["train"])).graph
        energies = potential.scale * potential.model(training)
        for z in (1, 6, 8):
            own = energies[training.numbers == z].detach().numpy()
            floor = own.min() - np.ptp(own) / len(own) ** 0.5
            assert potential.repulsion.floor[str(z)][0] == pytest.approx(floor, abs=1e-5)
        bare = Potential(potential.model, potential.references, potential.scale)
        assert torch.equal(potential(training).forces, bare(training).forces)
        assert torch.equal(potential(training).energy, bare(training).energy)
        near = [frames.atoms(i) for i in parts["valid"]]
        assert sum(potential.wall(graph(one, torch.float32))[1].sum() for one in near) > 0
