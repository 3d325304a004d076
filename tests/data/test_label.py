"""Labels by a reference calculator: complete, resumable, and never mixed up."""

import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from gradpot.data.files import read, read_structures
from gradpot.data.label import check_state, complete_frames, label, reference
from gradpot.errors import InputError
from gradpot.locks import locked


class FailsOn(Calculator):
    """EMT, except where the first atom is at x = 0."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        if atoms.positions[0, 0] == 0:
            raise CalculationFailed("SCF not converged")
        work = atoms.copy()
        work.calc = EMT()
        self.results = {"energy": work.get_potential_energy(), "forces": work.get_forces()}


def rattled(atoms: Atoms, n: int, size: float = 0.1) -> list[Atoms]:
    frames = [atoms.copy() for _ in range(n)]
    for seed, frame in enumerate(frames):
        frame.rattle(size, seed=seed)
    return frames


def copper(n: int = 8) -> list[Atoms]:
    return rattled(bulk("Cu", cubic=True), n)


def test_energies_keep_all_digits_and_belong_to_the_printed_positions(tmp_path):
    out = tmp_path / "out.xyz"
    done = label(copper(3), EMT(), out)
    assert done == (3, 0, {})
    for frame in ase.io.read(out, ":"):
        again = frame.copy()
        again.calc = EMT()
        assert frame.get_potential_energy() == again.get_potential_energy()
        np.testing.assert_allclose(frame.get_forces(), again.get_forces(), atol=1e-8)
        np.testing.assert_allclose(frame.get_stress(), again.get_stress(), atol=1e-12)


def test_constraints_and_old_labels_do_not_touch_the_forces(tmp_path):
    (atoms,) = copper(1)
    atoms.set_constraint(FixAtoms([0]))
    atoms.arrays["old_forces"] = np.ones((4, 3))
    label([atoms], EMT(), tmp_path / "out.xyz")
    frame = ase.io.read(tmp_path / "out.xyz")
    assert np.abs(frame.get_forces()[0]).max() > 0
    assert set(frame.arrays) == {"numbers", "positions"}
    assert len(atoms.constraints) == 1


@pytest.mark.parametrize("cut", [1, 30, 200, 700, 1100])
def test_a_half_written_frame_is_cut_off_and_done_again(tmp_path, cut):
    whole, part = tmp_path / "whole.xyz", tmp_path / "part.xyz"
    label(copper(), EMT(), whole)
    part.write_bytes(whole.read_bytes()[:-cut])
    done = label(copper(), EMT(), part)
    assert done.n_labeled + done.n_found == 8
    assert done.n_labeled == 1 + cut // (whole.stat().st_size / 8)
    assert part.read_bytes() == whole.read_bytes()
    assert label(copper(), EMT(), part) == (0, 8, {})


def test_a_half_written_frame_of_charged_atoms_is_done_again(tmp_path):
    """Initial charges are input of the calculator, not part of the file."""
    frames = copper(2)
    for atoms in frames:
        atoms.set_initial_charges([1.0, -1.0, 0.0, 0.0])
    out = tmp_path / "out.xyz"
    label(frames, EMT(), out)
    whole = out.read_bytes()
    out.write_bytes(whole[:-30])
    assert label(frames, EMT(), out).n_labeled == 1
    assert out.read_bytes() == whole


def test_frames_of_other_structures_are_refused(tmp_path):
    out = tmp_path / "out.xyz"
    label(copper(3), EMT(), out)
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"frame 0 of .* is not the structure of the input"):
        label(copper(3)[::-1], EMT(), out)
    with pytest.raises(InputError, match="has 3 frames and the input 2"):
        label(copper(2), EMT(), out)
    assert out.read_bytes() == before


def test_methods_are_not_mixed(tmp_path):
    pytest.importorskip("tblite")
    out, water = tmp_path / "out.xyz", rattled(molecule("H2O"), 2)
    label(water[:1], reference("gfn2-xtb"), out)
    before = out.read_bytes()
    with pytest.raises(InputError, match="labeled with GFN2-xTB, not with GFN1-xTB; choose"):
        label(water, reference("gfn1-xtb"), out)
    with pytest.raises(InputError, match="labeled with GFN2-xTB, not with GFN2-xTB charge=1"):
        label(water, reference("gfn2-xtb", charge=1), out)
    assert out.read_bytes() == before
    assert label(water, reference("gfn2-xtb"), out).n_found == 1


def test_charge_is_the_calculators(tmp_path):
    pytest.importorskip("tblite")
    structure = Atoms("OH3", [[0, 0, 0], [0.98, 0, 0], [-0.49, 0.85, 0], [-0.49, -0.85, 0]])
    label([structure], reference("gfn2-xtb", charge=1), tmp_path / "ion.xyz")
    label([structure], reference("gfn2-xtb"), tmp_path / "radical.xyz")
    ion, radical = (ase.io.read(tmp_path / name) for name in ("ion.xyz", "radical.xyz"))
    # taking an electron away costs several eV
    assert ion.get_potential_energy() > radical.get_potential_energy() + 3
    assert ion.info["method"] == "GFN2-xTB charge=1"


def test_an_atom_that_is_not_an_element_is_refused(tmp_path):
    with pytest.raises(InputError, match="has an atom X, which is not an element"):
        label([Atoms("XH", [[0, 0, 0], [1, 0, 0]])], EMT(), tmp_path / "out.xyz")


@pytest.mark.parametrize("name", ["out.xyz", "out.npz"])
def test_a_file_that_another_process_writes_is_refused(tmp_path, name):
    out, frames = tmp_path / name, rattled(Atoms("Cu4", 2.2 * np.eye(4, 3)), 2)
    with locked(out), pytest.raises(InputError, match=rf"{name} is in use by process \d+ on"):
        label(frames, EMT(), out)
    assert list(tmp_path.iterdir()) == []
    assert label(frames, EMT(), out).n_labeled == 2


def test_a_file_of_another_kind_is_not_touched(tmp_path):
    out = tmp_path / "out.xyz"
    out.write_text("my notes\n")
    with pytest.raises(InputError, match="not an extended-XYZ file"):
        label(copper(1), EMT(), out)
    assert out.read_text() == "my notes\n"


def test_a_failure_says_which_and_keeps_those_before(tmp_path):
    frames = copper(4)
    frames[2].positions[0, 0] = 0.0
    out = tmp_path / "out.xyz"
    with pytest.raises(InputError, match=r"structure 2 \(counted from 0\) failed: SCF not conv"):
        label(frames, FailsOn(), out)
    assert len(ase.io.read(out, ":")) == 2


def test_failures_can_be_skipped_and_are_remembered(tmp_path):
    frames = copper(5)
    frames[2].positions[0, 0] = 0.0
    out = tmp_path / "out.xyz"
    done = label(frames[:4], FailsOn(), out, skip_failures=True)
    assert done == (3, 0, {2: "SCF not converged"})
    assert json.loads((tmp_path / "out.xyz.skipped.json").read_text()) == {"2": "SCF not converged"}
    done = label(frames, FailsOn(), out)
    assert done == (1, 3, {2: "SCF not converged"})
    assert len(ase.io.read(out, ":")) == 4


def test_an_energy_that_is_not_finite_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(EMT, "get_potential_energy", lambda *_: np.nan)
    with pytest.raises(InputError, match=r"structure 0 .* failed: energy is not finite"):
        label(copper(1), EMT(), tmp_path / "out.xyz")


def test_positions_that_are_not_finite_are_refused(tmp_path):
    frames = copper(2)
    frames[1].positions[0, 0] = np.nan
    with pytest.raises(InputError, match=r"structure 1 .* has positions that are not finite"):
        label(frames, EMT(), tmp_path / "out.xyz")


def test_a_calculator_without_forces_is_named(tmp_path):
    calculator = FailsOn()
    calculator.implemented_properties = ["energy"]
    with pytest.raises(InputError, match="FailsOn gives no forces"):
        label(copper(1), calculator, tmp_path / "out.xyz")


def test_npz_is_read_back_with_its_units(tmp_path):
    frames = rattled(Atoms("Cu4", 2.2 * np.eye(4, 3)), 3)
    out = tmp_path / "out.npz"
    label(frames, EMT(), out)
    found = read(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]
    work = frames[1].copy()
    work.positions = work.positions.round(8)
    work.calc = EMT()
    assert found.energy[1] == work.get_potential_energy()
    with pytest.raises(InputError, match=r"out.npz exists already"):
        label(frames, EMT(), out)


def test_npz_for_what_does_not_fit_is_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match=r"or is periodic: write .extxyz"):
        label(copper(1), EMT(), tmp_path / "out.npz")
    mixed = [molecule("H2O"), molecule("CH4")]
    with pytest.raises(InputError, match="structure 1 has other atoms"):
        label(mixed, EMT(), tmp_path / "out.npz")
    with pytest.raises(InputError, match=r"must end in .extxyz, .xyz or .npz"):
        label(mixed, EMT(), tmp_path / "out.json")


def test_structures_in_bohr_and_by_index(tmp_path):
    ase.io.write(tmp_path / "in.xyz", copper(6))
    found = read_structures(tmp_path / "in.xyz", "bohr", "1::2")
    assert len(found) == 3
    np.testing.assert_allclose(found[0].cell, copper(2)[1].cell * 0.529177210903, rtol=1e-6)
    assert len(read_structures(tmp_path / "in.xyz", index="3")) == 1


def test_structures_from_npz_need_no_energies(tmp_path):
    np.savez(tmp_path / "in.npz", R=np.zeros((2, 1, 3)), z=[1])
    assert len(read_structures(tmp_path / "in.npz", "Ang")) == 2
    np.savez(tmp_path / "in.npz", R=np.zeros((2, 1, 3)), z=[1], E=np.zeros(2))
    assert len(read_structures(tmp_path / "in.npz", "Ang")) == 2
    with pytest.raises(InputError, match="length"):
        read_structures(tmp_path / "in.npz")


def test_wrong_inputs_are_named(tmp_path):
    (tmp_path / "bad.xyz").write_text("hello\n")
    ase.io.write(tmp_path / "in.xyz", copper(1))
    for path, index, line in (
        ("none.xyz", ":", "no such file"),
        ("bad.xyz", ":", "ASE cannot read"),
        ("in.xyz", "x", "bad index 'x'"),
        ("in.xyz", "5:", "no structures at index"),
    ):
        with pytest.raises(InputError, match=line):
            read_structures(tmp_path / path, index=index)


def test_an_unknown_method_is_named():
    with pytest.raises(InputError, match="unknown reference method 'dft'; known: gfn2-xtb"):
        reference("dft")


def test_without_tblite_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    with pytest.raises(InputError, match=r"pip install gradpot\[label\]"):
        reference("gfn2-xtb")


def test_tblite_makes_no_noise(tmp_path, capfd):
    pytest.importorskip("tblite")
    done = label([molecule("H2O")], reference("GFN2-xTB"), tmp_path / "out.xyz")
    assert done.n_labeled == 1
    bad = Atoms("H2", np.zeros((2, 3)))
    with pytest.raises(InputError, match=r"failed: .*distance"):
        label([bad], reference("gfn1-xtb"), tmp_path / "bad.xyz")
    assert capfd.readouterr() == ("", "")


def start(folder, out: str) -> subprocess.Popen:
    words = [sys.executable, "-W", "error", "-m", "gradpot", "label", str(folder / "in.xyz")]
    return subprocess.Popen(
        [*words, "--with", "gfn2-xtb", "--out", str(folder / out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path):
    pytest.importorskip("tblite")
    ase.io.write(tmp_path / "in.xyz", rattled(molecule("C6H6"), 300))
    killed = tmp_path / "killed.xyz"
    with start(tmp_path, "killed.xyz") as process:
        while not killed.exists() or killed.stat().st_size < 5_000:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    n_before, _ = complete_frames(killed)
    assert 0 < n_before < 300
    with open(killed, "ab") as file:
        file.write(b"12\nProperties=species:S:1:pos:R:3 ener")
    with start(tmp_path, "killed.xyz") as again, start(tmp_path, "whole.xyz") as whole:
        out, err = again.communicate()
        whole.communicate()
    assert (again.returncode, whole.returncode) == (0, 0), err
    assert f"({n_before} were labeled before)" in err
    assert out == ""
    assert killed.read_bytes() == (tmp_path / "whole.xyz").read_bytes()


@pytest.mark.parametrize(
    ("info", "initial", "options", "message"),
    [
        ({}, 0, {}, None),
        ({"charge": 0, "multiplicity": 1}, 0, {}, None),
        ({"charge": 1}, 0, {"charge": 1}, None),
        ({"charge": 1}, 1, {}, None),
        ({"charge": True}, 0, {}, None),  # a word without a value
        ({"charge": 1}, 0, {}, "structure 0 states charge 1"),
        ({"Total_charge": np.int64(-1)}, 0, {}, "give --charge -1"),
        ({"charge": 1}, 0, {"charge": 0}, "states charge 1"),
        ({"multiplicity": 3}, 0, {}, "give --multiplicity 3"),
        ({"multiplicity": 3}, 0, {"multiplicity": 3}, None),
    ],
)
def test_a_stated_charge_or_multiplicity_is_computed_or_refused(info, initial, options, message):
    atoms = molecule("H2O")
    atoms.info.update(info)
    atoms.set_initial_charges([initial, 0, 0])
    with nullcontext() if message is None else pytest.raises(InputError, match=message):
        check_state([atoms], **options)
