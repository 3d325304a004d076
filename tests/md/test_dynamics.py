"""Molecular dynamics: energy, temperature, output files, and every way to stop."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.constraints import FixAtoms
from ase.md.verlet import VelocityVerlet
from numpy.testing import assert_allclose

from gradpot import Calculator, InputError, Model, Potential, build, cli, save
from gradpot.cli import commands  # noqa: F401 (in this order, which is that of the help)
from gradpot.cli.md import _why
from gradpot.errors import RunError
from gradpot.locks import locked
from gradpot.md.dynamics import LOG, SUMMARY, TRAJECTORY, Settings, drift, read_log, run
from gradpot.md.limits import Limits, bonds, too_close
from gradpot.md.velocities import degrees_of_freedom, thermalize
from gradpot.process import signals
from lj import LennardJones


def argon(repeat: int = 2) -> Atoms:
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True).repeat(repeat)
    atoms.rattle(0.05, seed=1)
    atoms.calc = Calculator(Potential(LennardJones(0.0104, 3.4, cutoff=5.0), {18: 0.0}))
    return atoms


def dimer(distance: float = 3.8, symbol: str = "Ar", model: torch.nn.Module | None = None) -> Atoms:
    atoms = Atoms(symbol * 2, [[0, 0, 0], [distance, 0, 0]])
    references = dict.fromkeys((1, 6, 8, 18), 0.0)
    atoms.calc = Calculator(Potential(model or LennardJones(0.0104, 3.4), references))
    return atoms


@pytest.fixture
def model(tmp_path) -> Path:
    """A potential so weak that its molecules hardly move at 1 K."""
    torch.manual_seed(0)
    network = build("painn", cutoff=4.0, width=4, n_layers=1, n_radial=4)
    save(Potential(network, {1: -13.0, 6: -1030.0, 8: -2040.0}, 1e-4), tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_total_energy_is_conserved_and_logged(tmp_path):
    settings = Settings(temperature_K=40.0, time_ps=0.8, timestep_fs=4.0, log_every_fs=8.0)
    summary = run(argon(), settings, tmp_path / "run")
    log = read_log(tmp_path / "run" / LOG)
    assert summary["blow_up"] is None
    assert not summary["interrupted"]
    assert summary["n_steps"] == 200
    assert abs(summary["drift_meV_atom_ps"]) < 0.05
    assert summary["drift_meV_atom_ps"] == pytest.approx(drift(log, 32), abs=1e-9)
    assert_allclose(log["time_fs"], np.arange(0, 801, 8))
    assert_allclose(log["total_eV"], log["potential_eV"] + log["kinetic_eV"], atol=2e-8)
    assert log["temperature_K"][0] == pytest.approx(40, abs=1e-6)
    assert json.loads((tmp_path / "run" / SUMMARY).read_text()) == summary


def test_frames_equal_those_of_ase(tmp_path):
    atoms = argon(1)
    thermalize(atoms, 80.0, "nve", np.random.default_rng(0))
    before = atoms.copy()
    settings = Settings(
        time_ps=0.1, timestep_fs=2.0, save_every_fs=20.0, keep_velocities=True, temperature_K=80.0
    )
    run(atoms, settings, tmp_path)
    frames = ase.io.read(tmp_path / TRAJECTORY, ":")
    assert [frame.info["time_fs"] for frame in frames] == [0, 20, 40, 60, 80, 100]
    assert (atoms.positions == before.positions).all()
    VelocityVerlet(atoms, 2 * units.fs).run(50)
    assert_allclose(frames[-1].positions, atoms.positions, atol=1e-7)
    assert_allclose(frames[-1].get_momenta(), atoms.get_momenta(), atol=1e-7)
    assert_allclose(frames[-1].get_forces(), atoms.get_forces(), atol=1e-7)
    assert_allclose(frames[-1].get_potential_energy(), atoms.get_potential_energy(), atol=1e-7)


def test_a_run_continues_from_its_last_frame(tmp_path):
    whole = Settings(time_ps=0.08, timestep_fs=2.0, temperature_K=50.0)
    half = Settings(time_ps=0.04, timestep_fs=2.0, temperature_K=50.0)
    atoms = argon(1)
    run(atoms, whole, tmp_path / "whole")
    run(atoms, half, tmp_path / "half")
    last = ase.io.read(tmp_path / "half" / TRAJECTORY)
    last.calc = atoms.calc
    again = Settings(**{**vars(half), "keep_velocities": True})
    run(last, again, tmp_path / "again")
    ends = [ase.io.read(tmp_path / name / TRAJECTORY) for name in ("whole", "again")]
    assert_allclose(ends[0].positions, ends[1].positions, atol=1e-6)


@pytest.mark.parametrize("ensemble", ["langevin", "npt"])
def test_thermostats_keep_the_temperature_and_seeds_repeat(tmp_path, ensemble):
    friction = {"friction_per_ps": 20.0} if ensemble == "langevin" else {}
    settings = Settings(60.0, 0.8, 4.0, ensemble, log_every_fs=4.0, seed=3, **friction)
    atoms = argon()
    summary = run(atoms, settings, tmp_path / "one")
    assert summary["drift_meV_atom_ps"] is None
    # half of the kinetic energy became potential energy; the thermostat restores it
    late = read_log(tmp_path / "one" / LOG)["temperature_K"][100:]
    assert 40 < late.mean() < 80
    short = Settings(**{**vars(settings), "time_ps": 0.1})
    other = Settings(**{**vars(short), "seed": 4})
    for name, chosen in (("again", short), ("other", other)):
        run(atoms, chosen, tmp_path / name)
    one, again, other = (
        read_log(tmp_path / name / LOG)["total_eV"][:26] for name in ("one", "again", "other")
    )
    assert (one == again).all()
    assert not (one == other).all()


def test_npt_logs_volume_and_pressure(tmp_path):
    settings = Settings(30.0, 0.4, 4.0, "npt", pressure_GPa=1.0)
    summary = run(argon(), settings, tmp_path)
    log = read_log(tmp_path / LOG)
    assert summary["mean_volume_A3"] == pytest.approx(log["volume_A3"].mean())
    assert summary["mean_pressure_GPa"] == pytest.approx(log["pressure_GPa"].mean())
    assert log["volume_A3"][0] == pytest.approx(8 * 5.4**3)
    assert log["volume_A3"][-1] < log["volume_A3"][0]
    assert log["pressure_GPa"].shape == log["time_fs"].shape
    # the barostat changes the total energy, and the conserved energy accounts for it
    assert np.ptp(log["conserved_eV"]) < 0.1 * np.ptp(log["total_eV"])


@pytest.mark.parametrize(
    ("name", "n_free"), [("CH3CH2OH", 3 * 9 - 6), ("CO2", 3 * 3 - 5), ("H2", 1), ("H", 3)]
)
def test_molecules_start_at_the_temperature_without_drift_or_rotation(name, n_free):
    atoms = molecule(name)
    thermalize(atoms, 300.0, "nve", np.random.default_rng(0))
    assert degrees_of_freedom(atoms, "nve") == n_free
    assert degrees_of_freedom(atoms, "langevin") == 3 * len(atoms)
    assert atoms.get_kinetic_energy() == pytest.approx(0.5 * n_free * units.kB * 300)
    if len(atoms) > 1:
        assert_allclose(atoms.get_momenta().sum(0), 0, atol=1e-12)
        assert_allclose(atoms.get_angular_momentum(), 0, atol=1e-10)


def test_a_drifting_molecule_has_all_degrees_of_freedom():
    atoms = molecule("H2O")
    atoms.set_momenta(np.ones((3, 3)))
    assert degrees_of_freedom(atoms, "nve") == 9
    crystal = argon(1)
    thermalize(crystal, 30.0, "nve", np.random.default_rng(0))
    assert degrees_of_freedom(crystal, "nve") == 3 * 4 - 3


def test_fixed_atoms_do_not_move(tmp_path):
    atoms = argon(1)
    atoms.set_constraint(FixAtoms([0, 2]))
    run(atoms, Settings(50.0, 0.02, 2.0), tmp_path)
    last = ase.io.read(tmp_path / TRAJECTORY)
    moved = np.abs(last.positions - atoms.positions).max(1) > 1e-6
    assert moved.tolist() == [False, True, False, True]
    assert read_log(tmp_path / LOG)["temperature_K"][0] == pytest.approx(50, abs=1e-4)


def fixed(atoms: Atoms) -> Atoms:
    atoms.set_constraint(FixAtoms(range(len(atoms))))
    return atoms


class Cliff(Model):
    """A pair energy that is NaN beyond 4 Å."""

    def forward(self, graph):
        squared = graph.edge_vec.square().sum(-1)
        return torch.zeros(2).double().index_add(0, graph.edge_index[0], (16 - squared).sqrt())


def moving(atoms: Atoms, velocity: float) -> Atoms:
    """Two atoms that move apart at this velocity in Å/fs."""
    atoms.set_velocities(np.array([[-1.0, 0, 0], [1.0, 0, 0]]) * velocity / units.fs / 2)
    return atoms


def stiff(energy: float) -> Atoms:
    """A crystal with far too strong forces, at rest."""
    atoms = argon(1)
    atoms.calc = Calculator(Potential(LennardJones(energy, 3.4, cutoff=5.0), {18: 0.0}))
    return atoms


def without_checks(atoms: Atoms) -> Atoms:
    """With a calculator of ASE, which takes any positions."""
    atoms.calc = AseLennardJones(epsilon=0.0)
    return atoms


FREE = LennardJones(0.0, 3.4)
ANY = {"max_temperature_K": np.inf}
NPT = ANY | {"ensemble": "npt", "keep_velocities": False}


@pytest.mark.parametrize(
    ("atoms", "settings", "message"),
    [
        (lambda: moving(dimer(3.8, model=Cliff(6.0)), 0.01), ANY, r"force on Ar0 is not finite"),
        (lambda: moving(dimer(3.8), 0.2), {}, r"temperature is \d+ K, above the limit of 3300 K"),
        (lambda: moving(dimer(1.5, "C"), 0.01), ANY, r"bond between C0 and C1 is \d+\.\d+ Å long"),
        (lambda: moving(dimer(3.8, model=FREE), -0.1), ANY, r"Ar0 and Ar1 are [01]\.\d+ Å apart"),
        (lambda: moving(dimer(3.8, model=FREE), 1e7), ANY, "position of atom 0 is"),
        (lambda: moving(dimer(3.8, model=FREE), 1e300), ANY, "position of atom 0 is|not finite"),
        (lambda: without_checks(moving(dimer(3.8), 1e7)), ANY, "position of atom 0 is"),
        (argon, NPT | {"pressure_GPa": 1e5}, "atom 0 is .nan"),
        (argon, NPT | {"pressure_GPa": -1e5}, "atom 0 is .nan"),
        (argon, NPT | {"pressure_GPa": 1e300}, "atom 0 is .nan"),
        (lambda: stiff(1e4), NPT, "nan"),
        (lambda: stiff(1e200), NPT, "atom 0 is .nan"),
    ],
)
def test_a_blow_up_stops_the_run_and_is_explained(tmp_path, atoms, settings, message):
    settings = Settings(**{"time_ps": 1.0, "timestep_fs": 1.0, "keep_velocities": True} | settings)
    summary = run(atoms(), settings, tmp_path)
    assert summary["n_steps"] < settings.n_steps
    with pytest.raises(InputError, match=rf"at [\d.]+ fs .*{message}.*What usually helps"):
        raise InputError(summary["blow_up"])
    frames = ase.io.read(tmp_path / TRAJECTORY, ":")
    assert frames[-1].info["time_fs"] == summary["time_fs"]
    log = read_log(tmp_path / LOG)
    assert log["time_fs"][-1] == summary["time_fs"]
    energy = frames[-1].get_potential_energy()
    assert_allclose(energy, log["potential_eV"][-1], rtol=1e-6, atol=1e-6)
    times = [frame.info["time_fs"] for frame in frames]
    assert times == sorted(set(times))
    assert not summary["finished"]
    assert json.loads((tmp_path / SUMMARY).read_text())["blow_up"] == summary["blow_up"]


def test_a_large_volume_change_is_found():
    atoms = argon()
    limits = Limits(atoms, 1e4, 2.0)
    assert limits.check_geometry(atoms) is None
    atoms.set_cell(atoms.cell * 1.5, scale_atoms=True)
    assert "cell volume changed from 1260 to 4252" in str(limits.check_geometry(atoms))


def test_bonds_are_those_of_the_molecule():
    ethanol = molecule("CH3CH2OH")
    assert len(bonds(ethanol)) == 8
    ethanol.cell, ethanol.pbc = [9, 9, 9], True
    assert len(bonds(ethanol)) == 0
    assert too_close(ethanol) is None
    assert too_close(Atoms()) is None


def test_a_signal_ends_the_run_after_the_step(tmp_path):
    seen = []
    stop = lambda: signal.SIGINT if len(seen) >= 7 else 0  # noqa: E731
    settings = Settings(40.0, 10.0, 2.0, log_every_fs=10.0)
    summary = run(argon(1), settings, tmp_path, lambda step, row: seen.append(step), stop)
    assert seen == list(range(8))
    assert summary["interrupted"]
    assert summary["time_fs"] == 14
    assert read_log(tmp_path / LOG)["time_fs"].tolist() == [0, 10, 14]


def test_the_first_signal_asks_and_the_second_interrupts():
    # shells start background processes with SIGINT ignored
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with signals() as stop:
            assert stop() == 0
            signal.raise_signal(signal.SIGINT)
            assert stop() == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outside)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature_K", -1.0),
        ("time_ps", 0.0),
        ("timestep_fs", np.nan),
        ("log_every_fs", np.inf),
        ("ensemble", "nvt"),
        ("pressure_GPa", np.nan),
        ("max_stretch", 1.0),
        ("seed", -1),
    ],
)
def test_settings_name_what_is_wrong(name, value):
    with pytest.raises(InputError, match=f"{name}.*{value}"):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (Atoms, Settings(), "no atoms"),
        (lambda: fixed(dimer()), Settings(), "only fixed atoms"),
        (lambda: dimer(0.4), Settings(), "Ar0 and Ar1 are 0.40 Å apart"),
        (dimer, Settings(ensemble="npt"), "periodic along all three axes"),
        (lambda: dimer(symbol="Ne"), Settings(), "does not know Ne"),
    ],
)
def test_a_bad_start_writes_nothing(tmp_path, make, settings, message):
    with pytest.raises(InputError, match=message):
        run(make(), settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_direct_forces_run_without_stress_and_the_command_says_so(monkeypatch, tmp_path, capsys):
    direct = Potential(build("forcenet", width=8, n_layers=1, forces="direct"), {18: 0.0})
    atoms = argon()
    atoms.calc = Calculator(direct)
    with pytest.raises(InputError, match="npt needs stress"):
        run(atoms, Settings(ensemble="npt"), tmp_path / "npt")
    assert run(atoms, Settings(time_ps=0.002), tmp_path / "nve")["blow_up"] is None
    save(direct, tmp_path / "model.safetensors")
    ase.io.write(tmp_path / "argon.xyz", bulk("Ar", "fcc", a=5.4, cubic=True))
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "model.safetensors", "argon.xyz", "--time-ps", 0.002) == 0
    warnings = [s for s in capsys.readouterr().err.splitlines() if s.startswith("warning:")]
    assert len(warnings) == 1
    assert "NVE dynamics will not conserve energy" in warnings[0]


@contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    """Let no file grow beyond this, as if the disk were full there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_whole(folder: Path) -> None:
    """Frames and rows up to some step can be read, and the last frame can go on."""
    times = [frame.info["time_fs"] for frame in ase.io.read(folder / TRAJECTORY, ":")]
    assert times == list(10.0 * np.arange(len(times)))
    log = read_log(folder / LOG)
    assert_allclose(log["time_fs"], 2.0 * np.arange(log["time_fs"].size))
    assert json.loads((folder / SUMMARY).read_text())["finished"] is False


@pytest.mark.parametrize("n_bytes", np.random.default_rng(0).integers(1500, 25000, 10).tolist())
def test_a_full_disk_leaves_whole_frames_and_rows(tmp_path, n_bytes):
    settings = Settings(20.0, 10.0, 2.0, log_every_fs=2.0)
    with (
        file_size_limit(n_bytes),
        pytest.raises(RunError, match=r"cannot write .*md\.(csv|extxyz): File too large.*is whole"),
    ):
        run(dimer(), settings, tmp_path)
    assert_whole(tmp_path)
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert summary["n_steps"] * 2.0 >= read_log(tmp_path / LOG)["time_fs"][-1]


@pytest.mark.parametrize("n_bytes", [0, 20, 400])
def test_a_disk_that_is_full_at_the_start_is_a_run_error(tmp_path, n_bytes):
    with file_size_limit(n_bytes), pytest.raises(RunError, match=r"cannot write .*md"):
        run(dimer(), Settings(time_ps=0.01), tmp_path)


def test_a_kill_inside_a_frame_leaves_the_frames_before(tmp_path):
    """The bytes of a write that a kill cut off, behind a real trajectory and a real log."""
    run(dimer(), Settings(20.0, 0.05, 2.0, log_every_fs=2.0), tmp_path / "whole")
    trajectory, log = ((tmp_path / "whole" / name).read_bytes() for name in (TRAJECTORY, LOG))
    n_frames = len(ase.io.read(tmp_path / "whole" / TRAJECTORY, ":"))
    last = trajectory[trajectory.rindex(b"\n2\n") + 1 :]
    for cut in (1, 2, 3, 50, len(last) - 1, len(last)):
        (tmp_path / TRAJECTORY).write_bytes(trajectory + b"\n" + last[1:cut])
        frames = ase.io.read(tmp_path / TRAJECTORY, ":")
        assert len(frames) == n_frames
        assert (frames[-1].get_momenta() == ase.io.read(tmp_path / TRAJECTORY).get_momenta()).all()
    row = log.splitlines()[-1]
    for cut in (1, 5, len(row)):
        (tmp_path / LOG).write_bytes(log + b"\n" + row[1:cut])
        assert (read_log(tmp_path / LOG)["time_fs"] == 2.0 * np.arange(26)).all()


KILLED = """
import sys
from ase.build import bulk
from ase.calculators.lj import LennardJones
from gradpot.md import Settings, run
atoms = bulk("Ar", "fcc", a=5.4, cubic=True).repeat(2)
atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=5.0)
run(atoms, Settings(20.0, 1e4, 2.0, log_every_fs=2.0), sys.argv[1])
"""


@pytest.mark.slow
def test_ten_kills_leave_whole_frames_and_rows(tmp_path):
    for seed in range(10):
        folder = tmp_path / str(seed)
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)])
        while process.poll() is None and not (folder / LOG).exists():
            time.sleep(0.01)
        time.sleep(np.random.default_rng(seed).uniform(0.02, 0.5))
        process.kill()
        process.wait()
        assert_whole(folder)


@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_a_folder_that_is_gone_is_noticed_soon(tmp_path, how):
    def on_step(step: int, row: dict) -> None:
        if step == 3 and how == "deleted":
            shutil.rmtree(tmp_path / "run")
        elif step == 3:
            (tmp_path / "run").rename(tmp_path / "elsewhere")

    began = time.monotonic()
    with pytest.raises(RunError, match=r"md.extxyz: it was deleted or moved.* stopped at \d+ fs$"):
        run(dimer(), Settings(20.0, 1e4, 2.0), tmp_path / "run", on_step)
    assert time.monotonic() - began < 5
    assert (tmp_path / "elsewhere" / LOG).exists() == (how == "moved")


def test_infinite_limits_are_valid_json(tmp_path):
    summary = run(dimer(), Settings(time_ps=0.002, max_stretch=np.inf), tmp_path)
    assert summary["settings"]["max_stretch"] == "inf"
    json.loads((tmp_path / SUMMARY).read_text(), parse_constant=lambda name: pytest.fail(name))


def test_a_folder_with_a_run_is_not_touched(tmp_path):
    run(dimer(), Settings(time_ps=0.002), tmp_path)
    content = (tmp_path / TRAJECTORY).read_bytes()
    with pytest.raises(InputError, match=r"already holds a run \(md.extxyz\)"):
        run(dimer(), Settings(time_ps=0.002), tmp_path)
    assert (tmp_path / TRAJECTORY).read_bytes() == content
    with pytest.raises(InputError, match="is a file"):
        run(dimer(), Settings(time_ps=0.002), tmp_path / TRAJECTORY)


def test_a_folder_in_use_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
        run(dimer(), Settings(time_ps=0.002), tmp_path)
    assert list(tmp_path.iterdir()) == []


def command(monkeypatch, *arguments: object) -> int | str | None:
    """Exit code of `gradpot md`."""
    monkeypatch.setattr(sys, "argv", ["gradpot", "md", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_command_runs_a_molecule_into_the_next_free_folder(monkeypatch, tmp_path, model, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "md-1").mkdir()
    code = command(
        monkeypatch, model, "CH3CH2OH", "--temperature-K", 1, "--time-ps", 0.01, "--json"
    )
    summary = json.loads(capsys.readouterr().out)
    assert code == 0
    assert summary["folder"] == "md-2"
    assert summary["n_steps"] == 20
    assert {path.name for path in Path("md-2").iterdir()} == {
        "md.extxyz",
        "md.csv",
        "md.json",
        "md.png",
    }


def test_command_reads_the_last_frame_or_the_one_asked_for(monkeypatch, tmp_path, model, capsys):
    frames = [molecule("H2O"), molecule("CH3OH")]
    frames[1].set_momenta(np.full((6, 3), 0.1))
    ase.io.write(tmp_path / "two.extxyz", frames)
    options = ["--time-ps", 0.002, "--temperature-K", 1, "--json", "--max-temperature-K", "inf"]
    for more, formula in ((["--keep-velocities"], "CH4O"), (["--index", "0"], "H2O")):
        out = tmp_path / formula
        code = command(monkeypatch, model, tmp_path / "two.extxyz", *options, "--out", out, *more)
        assert code == 0
        assert json.loads(capsys.readouterr().out)["formula"] == formula
    first = ase.io.read(tmp_path / "CH4O" / TRAJECTORY, 0)
    assert_allclose(first.get_momenta(), 0.1)


@pytest.mark.parametrize(
    ("settings", "mean_K", "time_fs", "words"),
    [
        (Settings(), 200.0, 1e3, "half of the kinetic energy of a relaxed start"),
        (Settings(), 486.0, 1e3, "potential energy of a start that is not relaxed"),
        (Settings(), 310.0, 1e3, ""),
        (Settings(keep_velocities=True), 486.0, 1e3, ""),
        (
            Settings(ensemble="npt"),
            187.0,
            500.0,
            "10 times the thermostat's relaxation time of 0.05",
        ),
        (Settings(ensemble="langevin"), 254.0, 500.0, "5 times the thermostat's relaxation"),
        (Settings(ensemble="langevin"), 254.0, 2000.0, ""),
        (Settings(ensemble="langevin"), 299.0, 500.0, ""),
    ],
)
def test_a_mean_temperature_far_from_the_target_is_explained(settings, mean_K, time_fs, words):
    said = _why(mean_K, {"time_fs": time_fs}, settings)
    assert words in said
    assert bool(words) == bool(said)


def test_numbers_of_an_explosion_are_short():
    atoms = moving(dimer(), 1e30)
    said = str(Limits(atoms, 300.0, 2.0).check_step(atoms, 0.0, 1.94825e52))
    assert "the temperature is 1.9e52 K, above the limit of 300 K" in said
    assert len(said) < 130


def test_command_says_that_the_dynamics_blew_up(monkeypatch, tmp_path, model, capsys):
    code = command(monkeypatch, model, "H2O", "--time-ps", 1, "--out", tmp_path / "run")
    said = capsys.readouterr()
    assert code == 1
    assert said.err.count("\n") == 1
    assert "error: the dynamics blew up: at " in said.err
    assert "Everything is in" in said.out
    assert "mean temperature" not in said.out
    assert (tmp_path / "run" / "md.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CH3SH"], "does not know S"),
        (["no-such-molecule"], "no file 'no-such-molecule'"),
        (
            ["CH3CH2OH", "--dtype", "float16"],
            "unknown dtype 'float16' (did you mean float64?); known: float32, float64",
        ),
        (["CH3CH2OH", "--ensemble", "npt"], "periodic along all three axes"),
        (["CH3CH2OH", "--device", "nowhere"], "unknown device 'nowhere'; known: auto, cpu, cuda"),
        (["CH3CH2OH", "--keep-velocities"], "has no momenta"),
        (["CH3CH2OH", "--timestep-fs", "0"], "timestep_fs is 0.0 but must be positive"),
        (["H2O", "--time-ps", "0.0001"], "time_ps is 0.0001, less than one step of 0.5 fs"),
        (
            ["H2O", "--friction-per-ps", "1"],
            "--friction-per-ps is for --ensemble langevin, not nve",
        ),
        (["H2O", "--pressure-GPa", "1"], "--pressure-GPa is for --ensemble npt, not nve"),
    ],
)
def test_command_refuses_in_one_line(monkeypatch, tmp_path, model, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, model, *arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not said.out
    assert not Path("md-1").exists()


def test_sigterm_ends_a_run_cleanly(tmp_path, model):
    options = ["--temperature-K", "1", "--time-ps", "10000", "--out", str(tmp_path / "r")]
    options += ["--compile", "false"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gradpot", "md", str(model), "CH3CH2OH", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        log = tmp_path / "r" / LOG
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 3):
            time.sleep(0.05)
        process.terminate()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "interrupted" in out
    again = f"gradpot md {model} {tmp_path / 'r'}/md.extxyz --keep-velocities --temperature-K 1.0 "
    left = 10000 - read_log(log)["time_fs"][-1] / 1000
    assert f"to go on: {again}--time-ps {left:.10g} --compile false\n" in out
    summary = json.loads((tmp_path / "r" / SUMMARY).read_text())
    assert summary["interrupted"]
    assert read_log(log)["time_fs"][-1] == summary["time_fs"]
    assert ase.io.read(tmp_path / "r" / TRAJECTORY).info["time_fs"] == summary["time_fs"]
