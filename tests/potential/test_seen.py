"""A potential knows what it was trained on, and says when a structure is unlike that."""

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from gradpot import Calculator, InputError, Potential, UnseenWarning, build, load, read, save
from gradpot.compile import package
from gradpot.graph.dataset import dataset
from gradpot.potential.header import Seen
from gradpot.potential.seen import (
    LISTED,
    NEARER,
    REFUSED,
    nearest_squared,
    novel_frames,
    seen_in,
    unlike,
)

CUTOFF = 4.0


def frames_of(tmp_path, structures):
    """The structures, read from a file with labels of zero."""
    for atoms in structures:
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((len(atoms), 3)))
    write(tmp_path / "frames.extxyz", structures)
    return read(tmp_path / "frames.extxyz", "eV", "Ang")


def seen_of(tmp_path, structures) -> Seen:
    frames = frames_of(tmp_path, structures)
    return seen_in(frames, dataset(frames, CUTOFF), np.arange(len(structures)))


def rattled(name: str, n: int = 5) -> list[Atoms]:
    found = [molecule(name) for _ in range(n)]
    for seed, atoms in enumerate(found):
        atoms.rattle(0.02, seed=seed)
    return found


def calculator(seen: Seen | None, scale: float = 1.0) -> Calculator:
    torch.manual_seed(0)
    network = build("painn", cutoff=CUTOFF, width=4, n_layers=1, n_radial=4)
    references = dict.fromkeys((1, 6, 8, 11, 17), 0.0)
    return Calculator(Potential(network, references, scale, seen), dtype="float64")


def test_what_was_seen(tmp_path):
    """Distances agree with ASE's; a supercell of NaCl has the composition of NaCl."""
    salt = [bulk("NaCl", "rocksalt", a=5.6), bulk("NaCl", "rocksalt", a=5.7, cubic=True)]
    water = rattled("H2O")
    seen = seen_of(tmp_path, [*water, *salt])
    assert seen.compositions == ["ClNa", "H2O"]
    assert seen.fractions["1"] == (0.0, pytest.approx(2 / 3))
    assert seen.fractions["17"] == (0.0, 0.5)
    assert seen.periodic_directions == [0, 3]
    assert seen.charge is None
    apart = [atoms.get_all_distances() for atoms in water]
    assert seen.nearest == {
        "1-1": pytest.approx(min(d[1, 2] for d in apart), abs=1e-4),
        "1-8": pytest.approx(min(d[0, 1:].min() for d in apart), abs=1e-4),
        "11-11": pytest.approx(5.6 / 2**0.5, abs=1e-4),
        "11-17": pytest.approx(2.8, abs=1e-4),
        "17-17": pytest.approx(5.6 / 2**0.5, abs=1e-4),
    }
    table = nearest_squared(seen)
    assert table[8, 1] == table[1, 8] == seen.nearest["1-8"] ** 2
    assert table[8, 8] == np.inf


def test_only_training_frames_count(tmp_path):
    frames = frames_of(tmp_path, [*rattled("H2O"), molecule("CH3OH")])
    seen = seen_in(frames, dataset(frames, CUTOFF), np.arange(5))
    assert seen.compositions == ["H2O"]
    assert set(seen.nearest) == {"1-1", "1-8"}
    assert set(seen.fractions) == {"1", "8"}


WATER = molecule("H2O")
BOXED = Atoms(WATER, cell=[9, 9, 9], pbc=True)
CHARGED = WATER.copy()
CHARGED.info["charge"] = 1


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (molecule("CH3OH"), r"the composition CH4O \(training: H2O\)"),
        (molecule("CH3OH"), "total energy cannot be compared"),
        (BOXED, "no training frame is periodic, and this structure is"),
        (CHARGED, r"a charge of 1 \(training: 0 to 0\)"),
    ],
)
def test_a_structure_unlike_the_training_frames_is_said_once(tmp_path, atoms, message):
    water = rattled("H2O")
    for one in water:
        one.info["charge"] = 0
    one = calculator(seen_of(tmp_path, water))
    one.calculate(molecule("H2O"))
    with pytest.warns(UnseenWarning, match=message):
        one.novelty.check_system(atoms)
    one.novelty.check_system(atoms)


def test_a_set_of_many_compositions_knows_fractions(tmp_path):
    chains = [
        Atoms("C" * n + "H" * (n + 2), np.eye(3)[0] * 3.0 * np.arange(2 * n + 2)[:, None])
        for n in range(1, LISTED + 2)
    ]
    seen = seen_of(tmp_path, chains)
    assert seen.compositions == []
    one = calculator(seen)
    one.novelty.check_system(Atoms("C30H32", np.zeros((62, 3))))
    with pytest.warns(UnseenWarning, match=r"100% C atoms \(training: 25% to 48%\)"):
        one.novelty.check_system(Atoms("C4", np.zeros((4, 3))))


def test_atoms_nearer_than_in_training_are_said_once(tmp_path):
    seen = seen_of(tmp_path, rattled("H2O", 1))
    one, atoms = calculator(seen), rattled("H2O", 1)[0]
    one.calculate(atoms)
    atoms.set_distance(0, 1, 1.001 * NEARER * seen.nearest["1-8"], fix=0)
    one.calculate(atoms)
    atoms.set_distance(0, 1, 0.999 * NEARER * seen.nearest["1-8"], fix=0)
    with pytest.warns(UnseenWarning, match=r"O and H are 0\.8. Å apart, and the shortest"):
        one.calculate(atoms)
    atoms.set_distance(0, 1, 1.001 * REFUSED * seen.nearest["1-8"], fix=0)
    one.calculate(atoms)  # not again
    atoms.set_distance(0, 1, 0.999 * REFUSED * seen.nearest["1-8"], fix=0)
    with pytest.raises(InputError, match=r"atoms 0 and 1 are too near: O and H are .* move them"):
        one.calculate(atoms)


@pytest.mark.filterwarnings("ignore::gradpot.UnseenWarning")
def test_an_unseen_pair_does_not_hide_atoms_far_too_near(tmp_path):
    one = calculator(seen_of(tmp_path, [molecule("H2"), *rattled("CO", 1)]))
    atoms = Atoms("HHC", [[0, 0, 0], [0, 0, 0.4], [0, 0, 2]])
    with pytest.raises(InputError, match=r"H and H are 0\.40 Å apart"):
        one.calculate(atoms)


@pytest.mark.filterwarnings("ignore::gradpot.UnseenWarning")
def test_an_unseen_pair_is_refused_when_nearer_than_any(tmp_path):
    one = calculator(seen_of(tmp_path, [molecule("H2"), *rattled("CO", 1)]))
    limit = REFUSED * one.potential.seen.nearest["1-1"]
    one.calculate(Atoms("HC", [[0, 0, 0], [0, 0, 1.001 * limit]]))
    with pytest.raises(InputError, match=r"atoms 0 and 1: H and C are 0\.51 Å apart"):
        one.calculate(Atoms("HC", [[0, 0, 0], [0, 0, 0.99 * limit]]))


def test_elements_never_seen_together_are_said(tmp_path):
    seen = seen_of(tmp_path, [molecule("H2"), *rattled("CO", 1)])
    text = "H and C are 3.90 Å apart, and no training frame has them within 4 Å"
    one = calculator(seen)
    with pytest.warns(UnseenWarning, match=text):
        one.novelty.check_distances(
            np.array([1, 6]), np.array([[0], [1]]), np.array([[3.9, 0.0, 0.0]])
        )


def test_many_frames_are_told_in_one_line_each(tmp_path):
    seen = seen_of(tmp_path, rattled("H2O"))
    squeezed = molecule("H2O")
    squeezed.set_distance(0, 1, 0.6, fix=0)
    frames = frames_of(tmp_path, [*rattled("H2O"), squeezed, molecule("CH3OH"), molecule("CO")])
    lines = novel_frames(seen, frames, dataset(frames, CUTOFF), CUTOFF)
    assert any(
        line.startswith("1 of 8 frames: no training frame has the composition CO") for line in lines
    )
    near = [line for line in lines if "too near" in line]
    assert len(near) == 1
    assert near[0].startswith("1 of 8 frames: two atoms are too near: in frame 5, H and O are 0.60")
    never = [line for line in lines if "never seen" in line]
    assert len(never) == 1
    assert never[0].startswith("2 of 8 frames: two elements were never seen so near")


def test_words_for_cells_and_molecules(tmp_path):
    seen = seen_of(tmp_path, [bulk("Si")])
    composition, periodic = unlike(seen, np.array([14, 14]), np.zeros(3, bool), np.nan, np.nan)
    assert "Si2 (training: Si; formulas of cells are reduced)" in composition
    assert periodic == "all training frames are periodic, and this structure is not"


def test_saved_and_compiled_with_the_model(tmp_path):
    seen = seen_of(tmp_path, rattled("H2O"))
    potential = calculator(seen).potential
    save(potential, tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").seen == seen
    fingerprint = package.fingerprint
    assert fingerprint(potential) != fingerprint(calculator(None).potential)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nearest", {"8-1": 1.0}),
        ("nearest", {"1-119": 1.0}),
        ("nearest", {"1-8": 0.0}),
        ("nearest", {"1-8": float("nan")}),
        ("periodic_directions", [4]),
        ("charge", [0.0]),
        ("fractions", {"H": [0.0, 1.0]}),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, field, value):
    from gradpot.potential.checkpoint import read_tensors, write_tensors

    path = tmp_path / "model.safetensors"
    save(calculator(seen_of(tmp_path, rattled("H2O"))).potential, path)
    tensors, header = read_tensors(path)
    header["seen"][field] = value
    write_tensors(path, tensors, header)
    with pytest.raises(InputError, match=rf"in its header, seen\.{field}"):
        load(path)


def test_without_a_record_nothing_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calculator(None).calculate(molecule("CH3OH"))


def test_predictions_that_are_not_finite_are_refused(ethanol):
    one = calculator(None)
    for parameter in one.potential.parameters():
        parameter.data *= 1e200
    with pytest.raises(InputError, match="the predicted energy is nan eV, the force on"):
        one.get_potential_energy(ethanol)
    assert one.results == {}
