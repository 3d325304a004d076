"""Compiled potentials equal eager ones for every size; wrong files are refused in words."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from numpy.testing import assert_allclose
from torch._inductor.exc import InductorError

import gradpot
from gradpot import Calculator, InputError, Potential, save
from gradpot.compile import cache, export, package
from gradpot.compile.export import compile_potential
from gradpot.compile.package import CompiledPotential
from gradpot.compile.step import has_compiler
from gradpot.errors import RunError
from gradpot.graph.graph import Graph, from_atoms, join, with_triplets
from gradpot.potential.header import Repulsion
from lj import LennardJones
from variants import TO_TRACE, VARIANTS, small

CUTOFF = 4.0
REFERENCES = {1: -13.6, 6: -1030.0, 8: -2040.0, 11: -1.0, 17: -2.0}

needs_compiler = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")


# so that all structures here have atoms on either side of it
WALL = Repulsion(
    form="zbl",
    onset={
        f"{one}-{other}": 1.3 if other < 11 else 2.2
        for one in REFERENCES
        for other in REFERENCES
        if one <= other
    },
    floor={"1": (0.0, 0.2), "6": (0.1, 0.1), "17": (0.0, 0.3)},
)
SCHNET = ("schnet", {"filter": "spline"})


def potential_of(variant=SCHNET, n_layers: int = 1, seed: int = 0) -> Potential:
    torch.manual_seed(seed)
    network = small(variant, n_layers=n_layers, cutoff=CUTOFF)
    return Potential(network, REFERENCES, scale=0.7, repulsion=WALL).eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A folder with a model and its package, the only one that the fast tests compile."""
    if not has_compiler():
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("run")
    save(potential_of(), folder / "model.safetensors")
    compile_potential(potential_of(), folder / "model.pt2")
    return folder


@pytest.fixture(scope="module")
def fast(run) -> CompiledPotential:
    return CompiledPotential(run / "model.pt2")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The folder of compiled potentials, in an empty cache instead of the user's."""
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    return tmp_path / "gradpot" / "compiled"


def graph(atoms: Atoms, dtype: torch.dtype = torch.float64) -> Graph:
    return from_atoms(atoms, CUTOFF, dtype)


def assert_same(compiled: Potential, eager: Potential, one: Graph, **tolerance: float) -> None:
    for a, b in zip(compiled(one), eager(one), strict=True):
        torch.testing.assert_close(a, b, equal_nan=True, **tolerance)


def hydrogens(n: int, spacing: float) -> Atoms:
    return Atoms("H" * n, [[spacing * i, 0.1 * i**2, 0.0] for i in range(n)])


@pytest.mark.parametrize(("variant", "n_layers"), TO_TRACE)
def test_exported_equals_eager(variant, n_layers, ethanol, crystal):
    """The input of the C++ compiler, at sizes other than the traced ones."""
    potential = potential_of(variant, n_layers)
    program = export.exported(potential, torch.float64).module()
    for one in (graph(ethanol), graph(crystal), join([graph(ethanol), graph(crystal)])):
        cell = torch.cat([one.cell, one.cell.new_zeros(1, 3, 3)])
        inputs = [one.numbers, one.pair_index, one.pair_vec, one.batch, cell]
        if potential.uses_triplets:
            inputs.append(with_triplets(one).triplets)
        got = program(*inputs)
        expected = potential(one)
        for a, b in zip(got, expected, strict=True):
            a = a if a.shape[0] == b.shape[0] else a[:-1]
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, equal_nan=True)


def test_compiled_equals_eager(fast, ethanol, crystal):
    eager = potential_of()
    graphs = [graph(ethanol), graph(crystal), graph(molecule("H2O")), graph(crystal * (2, 2, 1))]
    for one in (*graphs, join(graphs)):
        assert_same(fast, eager, one, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("spacing", [0.9, 3.9, 10.0])
@pytest.mark.parametrize("n_atoms", [0, 1, 2, 3])
def test_few_atoms_and_no_pairs(fast, n_atoms, spacing):
    """Sizes that the compiler would take for constants."""
    one = graph(hydrogens(n_atoms, spacing))
    assert_same(fast, potential_of(), one, rtol=1e-12, atol=1e-12)
    assert fast(one).forces.shape == (n_atoms, 3)


def test_one_pair_in_a_cell(fast):
    """An atom that sees only its own image, and one that sees nothing."""
    for length in (3.9, 9.0):
        chain = Atoms("H", cell=[length, 9.0, 9.0], pbc=True)
        assert_same(fast, potential_of(), graph(chain), rtol=1e-12, atol=1e-12)


def test_systems_that_grow(run, ethanol, crystal):
    """One calculator for structures of all sizes."""
    compiled = Calculator(run / "model.pt2")
    assert compiled.compiled
    eager = Calculator(potential_of(), compile=False)
    atoms = [hydrogens(n, 0.9) for n in (1, 2, 3, 2, 1, 0)]
    for structure in (*atoms, ethanol, crystal, crystal * (2, 1, 1), ethanol, hydrogens(1, 1.0)):
        for calculator in (compiled, eager):
            calculator.calculate(structure)
        assert compiled.results.keys() == eager.results.keys()
        for name, value in eager.results.items():
            assert_allclose(compiled.results[name], value, rtol=1e-12, atol=1e-10)


def test_moving_atoms(run, ethanol, crystal):
    """Pairs come and go, cell and numbers change: nothing old is used."""
    compiled, eager = Calculator(run / "model.pt2"), Calculator(potential_of(), compile=False)
    rng = np.random.default_rng(0)
    for atoms in (ethanol, crystal * (2, 2, 2)):
        for step in range(12):
            atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
            if step == 5:
                atoms.set_cell(atoms.cell.array * 1.02, scale_atoms=True)
            if step == 8:
                atoms.numbers[0] = 17
            forces, energy = compiled.get_forces(atoms), compiled.get_potential_energy(atoms)
            assert_allclose(forces, eager.get_forces(atoms), rtol=1e-11, atol=1e-10)
            assert energy == pytest.approx(eager.get_potential_energy(atoms), abs=1e-9)


def test_stress_only_where_asked_for(fast, crystal):
    one = graph(crystal)
    assert fast(one, stress=False).stress.isnan().all()
    assert fast(one).stress.isfinite().all()


def test_what_a_package_knows(fast, run):
    assert (fast.cutoff, fast.scale, fast.dtype) == (CUTOFF, 0.7, torch.float64)
    assert fast.references == REFERENCES
    assert fast.header.torch in torch.__version__
    assert fast.header.fingerprint == package.fingerprint(potential_of())
    with pytest.raises(InputError, match="does not know S; it was trained on H, C, O"):
        Calculator(run / "model.pt2").get_potential_energy(molecule("CH3SH"))


def test_loading_needs_no_compiler(run, ethanol, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    expected = Calculator(potential_of(), compile=False).get_potential_energy(ethanol)
    ethanol.calc = Calculator(run / "model.pt2")
    assert ethanol.get_potential_energy() == pytest.approx(expected, abs=1e-9)


def in_the_cache(run, potential: Potential | None = None) -> Path:
    """Put the package of `run` where that of a potential is looked for."""
    path = cache.cache_file(potential or potential_of(), torch.float64)
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "model.pt2", path)
    return path


def test_auto_takes_the_package_of_these_weights_only(run, tmp_path):
    model = tmp_path / "model.safetensors"
    shutil.copy(run / "model.safetensors", model)
    assert not Calculator(model).compiled
    in_the_cache(run)
    assert Calculator(model).compiled
    assert not Calculator(model, compile=False).compiled
    assert not Calculator(model, dtype=torch.float32).compiled
    save(potential_of(seed=1), model)
    assert not Calculator(model).compiled
    in_the_cache(run, potential_of(seed=1))  # its header names other weights
    assert not Calculator(model).compiled


@pytest.mark.parametrize("spoil", ["cut", "torch", "foreign"])
def test_auto_ignores_packages_that_cannot_be_used(run, tmp_path, monkeypatch, spoil):
    shutil.copy(run / "model.safetensors", tmp_path)
    if spoil == "torch":
        of_another_torch(monkeypatch)
    path = in_the_cache(run)
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    if spoil == "foreign":
        path.write_text("another program's")
    assert not Calculator(tmp_path / "model.safetensors").compiled


def of_another_torch(monkeypatch) -> None:
    here = package.machine()
    monkeypatch.setattr(package, "machine", lambda: {**here, "torch": "99.1.0"})


def test_a_potential_in_memory_is_not_compiled_unasked(ethanol):
    assert not Calculator(potential_of()).compiled


def compile_by_copying(monkeypatch, run) -> list[Path]:
    """Copy the package of the same weights instead of compiling; returns a list of the copies."""
    made: list[Path] = []

    def copied(potential, path, dtype=None):
        made.append(Path(path))
        shutil.copy(run / "model.pt2", path)

    monkeypatch.setattr(export, "compile_potential", copied)
    return made


def test_compiled_once_and_kept_in_the_cache(run, folder, monkeypatch, ethanol):
    made = compile_by_copying(monkeypatch, run)
    for source in (potential_of(), run / "model.safetensors", potential_of()):
        calculator = Calculator(source, compile=True)
        assert calculator.compiled
        assert np.isfinite(calculator.get_potential_energy(ethanol))
    assert len(made) <= 1
    assert all(path.parent == folder for path in made)


def test_what_is_damaged_in_the_cache_is_made_again(run, monkeypatch):
    made = compile_by_copying(monkeypatch, run)
    Calculator(potential_of(), compile=True)
    made[0].write_bytes(b"half")
    assert Calculator(potential_of(), compile=True).compiled
    assert made == [made[0]] * 2


def test_other_weights_are_another_package(run):
    base = package.fingerprint(potential_of())
    assert base == package.fingerprint(potential_of().requires_grad_(False))
    assert base != package.fingerprint(potential_of(seed=1))
    assert base != package.fingerprint(potential_of(("painn", {})))
    model = potential_of().model
    assert base == package.fingerprint(Potential(model, REFERENCES, 0.7, repulsion=WALL))
    assert base != package.fingerprint(Potential(model, REFERENCES, 0.7))
    assert base != package.fingerprint(Potential(model, REFERENCES, 0.8, repulsion=WALL))
    assert base != package.fingerprint(
        Potential(model, {**REFERENCES, 1: 0.0}, 0.7, repulsion=WALL)
    )
    assert package.fingerprint(Potential(LennardJones(), {18: 0.0})) is None


def test_the_cache_depends_on_all_code_that_is_compiled(tmp_path):
    """Editing a file changes the key; so it does for every module that the compiler imports."""
    home = tmp_path / "gradpot"
    shutil.copytree(Path(gradpot.__file__).parent, home, ignore=shutil.ignore_patterns("__pyc*"))
    before = cache.code_digest(home)
    for name, changes in (("compile/export.py", True), ("nn/norm.py", True), ("cli/md.py", False)):
        text = (home / name).read_text()
        (home / name).write_text(text + "\n")
        assert (cache.code_digest(home) != before) == changes
        (home / name).write_text(text)
    assert cache.code_digest(home) == before
    code = (
        "import sys, gradpot.compile.cache, gradpot.models; "
        "print(*(name for name in sys.modules if name.startswith('gradpot.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name.split(".")[1] for name in done.stdout.split()}
    assert not imported & cache.NOT_COMPILED


def damaged(folder: Path, content: bytes) -> Path:
    (folder / "bad.pt2").write_bytes(content)
    return folder / "bad.pt2"


def test_damaged_files(run, tmp_path):
    whole = (run / "model.pt2").read_bytes()
    middle = len(whole) // 2
    for content in (
        b"",
        b"text",
        whole[:middle],
        whole[:-1000],
        whole[:middle] + b"damaged!" + whole[middle + 8 :],
    ):
        with pytest.raises(InputError, match=r"bad\.pt2 is damaged or not a compiled potential"):
            Calculator(damaged(tmp_path, content))


def test_files_of_others(run, tmp_path):
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("model/metadata.json", json.dumps({"by": "somebody else"}))
    with pytest.raises(InputError, match=r"other\.pt2 was not written by gradpot compile"):
        Calculator(tmp_path / "other.pt2")
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.pt2"):
        Calculator(tmp_path / "none.pt2")


def test_another_torch(run, monkeypatch):
    of_another_torch(monkeypatch)
    with pytest.raises(InputError, match=r"compiled for torch .*, and this is torch 99\.1\.0"):
        Calculator(run / "model.pt2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.float32}, "computes in float64, not float32"),
        ({"compile": False}, "compile is False, but the potential is compiled"),
        ({"device": "meta"}, "runs on the CPU, not on meta"),
    ],
)
def test_options_that_a_package_cannot_follow(run, options, message):
    with pytest.raises(InputError, match=message):
        Calculator(run / "model.pt2", **options)


def test_without_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="needs a C\\+\\+ compiler: install g\\+\\+"):
        Calculator(potential_of(), compile=True)
    with pytest.raises(InputError, match="needs a C\\+\\+ compiler"):
        compile_potential(potential_of(), tmp_path / "new.pt2")
    assert not list(tmp_path.rglob("*.pt2"))


@needs_compiler
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    def fails(*_arguments, **_options):
        raise InductorError(OSError("no space left"), None)

    monkeypatch.setattr(export, "exported", lambda *_: None)
    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", fails)
    (tmp_path / "model.pt2").write_text("the old one")
    with pytest.raises(RunError, match=r"compiling failed: .*no space left"):
        compile_potential(potential_of(), tmp_path / "model.pt2")
    assert (tmp_path / "model.pt2").read_text() == "the old one"
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]


@needs_compiler
@pytest.mark.slow
def test_angles_compiled_for_every_size(ethanol, crystal, tmp_path):
    """No, one or many triplets; the compiler has seen none of these sizes."""
    potential = potential_of(("dimenet++", {}))
    compile_potential(potential, tmp_path / "model.pt2", torch.float32)
    compiled = Calculator(tmp_path / "model.pt2")
    eager = Calculator(potential, dtype=torch.float32, compile=False)
    few = [hydrogens(n, spacing) for n in (1, 2, 3) for spacing in (0.9, 2.5, 10.0)]
    for atoms in (*few, ethanol, crystal, crystal * (2, 1, 1), molecule("H2O"), few[0]):
        assert_allclose(compiled.get_forces(atoms), eager.get_forces(atoms), rtol=2e-6, atol=1e-5)
        energy = eager.get_potential_energy(atoms)
        assert compiled.get_potential_energy(atoms) == pytest.approx(energy, abs=1e-5)
    assert np.abs(eager.get_forces(ethanol)).max() > 0.1


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_model_in_both_precisions(variant, ethanol, crystal, tmp_path):
    potential = potential_of(variant, n_layers=3)
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5}
    for dtype, within in tolerance.items():
        path = tmp_path / f"{package.dtype_name(dtype)}.pt2"
        compile_potential(potential, path, dtype)
        compiled = Calculator(path)
        for atoms in (ethanol, crystal, hydrogens(1, 1.0)):
            eager = Calculator(potential, dtype=dtype, compile=False)
            forces = eager.get_forces(atoms)
            # of the largest force: some untrained networks have 60 eV/Å
            bound = within * max(1.0, np.abs(forces).max())
            assert_allclose(compiled.get_forces(atoms), forces, atol=bound)
            if atoms.pbc.all() and not potential.direct:
                assert_allclose(compiled.get_stress(atoms), eager.get_stress(atoms), atol=bound)
    assert potential.dtype == torch.float64
