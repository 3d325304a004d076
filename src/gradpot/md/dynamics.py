"""Molecular dynamics through ASE, with a log and a trajectory, stopped when it goes wrong.

`run` accepts atoms with any ASE calculator. Its folder holds `md.extxyz` (frames with energy,
forces and momenta), `md.csv` (the log) and `md.json` (settings and summary). Frames and rows are
written one by one, each as a whole, so they survive whatever ends the run.
"""

import io
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from jaxtyping import Float

from gradpot.errors import InputError, RunError
from gradpot.locks import created, locked
from gradpot.md.limits import Limits, too_close
from gradpot.md.settings import ENSEMBLES, Settings, ns_per_day
from gradpot.md.velocities import degrees_of_freedom, thermalize
from gradpot.process import append, check_present, write_json
from gradpot.units import GPA

TRAJECTORY, LOG, SUMMARY = "md.extxyz", "md.csv", "md.json"
COLUMNS = ("time_fs", "potential_eV", "kinetic_eV", "total_eV", "temperature_K")
# the conserved energy includes what thermostat and barostat have taken up
NPT_COLUMNS = ("volume_A3", "pressure_GPa", "conserved_eV")
# of these columns, the summary has the mean
AVERAGED = ("temperature_K", "volume_A3", "pressure_GPa")
# a deleted folder is noticed this soon; looking costs microseconds
LOOK_EVERY_S = 1.0
ADVICE = (
    "What usually helps: a smaller timestep, a lower temperature, a relaxed start, "
    "or training on structures like the last ones of the trajectory"
)


def run(
    atoms: Atoms,
    settings: Settings,
    folder: Path | str,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, row: None,
    stop: Callable[[], int] = lambda: 0,
) -> dict:
    """Run the dynamics of a copy of `atoms`, with their calculator, and return the summary.

    Args:
        atoms: with a calculator; their momenta are used if the settings say so.
        settings: already validated.
        folder: created if needed; must not hold a run.
        on_step: called after every step, with its number and its values for the log.
        stop: called after every step; a result other than 0 (a signal's number) ends the run.

    Raises:
        InputError: the structure, the calculator or the folder cannot be used; nothing was
            written. Dynamics that blow up are no error: see "blow_up" in the summary.
        RunError: the disk is full, or the folder was deleted or moved; what was written is whole.
    """
    atoms, rng = _start(atoms, settings), np.random.default_rng(settings.seed)
    if not (settings.keep_velocities and atoms.has("momenta")):
        thermalize(atoms, settings.temperature_K, settings.ensemble, rng)
    limits = Limits(atoms, settings.temperature_limit_K, settings.max_stretch)
    dynamics = ENSEMBLES[settings.ensemble](atoms, settings, rng)
    folder, problem, failure, began = Path(folder), None, None, time.perf_counter()
    with created(folder), locked(folder):
        check_folder(folder)
        description = {
            "formula": atoms.get_chemical_formula(),
            "n_atoms": len(atoms),
            "compiled": bool(getattr(atoms.calc, "compiled", False)),
            # JSON has neither NaN nor infinity
            "settings": {k: "inf" if v == np.inf else v for k, v in asdict(settings).items()},
            "folder": str(folder),
        }
        try:
            write_json(folder / SUMMARY, description | {"finished": False})
            # `Limits` reports numbers that diverge; numpy need not warn of them
            with Record(folder, settings) as record, np.errstate(all="ignore"):
                problem = _integrate(dynamics, atoms, settings, limits, record, on_step, stop)
        except OSError as error:
            failure = f"cannot write {error.filename or folder / SUMMARY}: {error.strerror}"
        time_fs, seconds = dynamics.nsteps * settings.timestep_fs, time.perf_counter() - began
        summary = description | _statistics(folder, settings, dynamics.nsteps, seconds, len(atoms))
        summary["blow_up"] = problem and f"at {time_fs:g} fs {problem}. {ADVICE}"
        summary["interrupted"] = bool(stop())
        summary["finished"] = not failure and not problem and dynamics.nsteps == settings.n_steps
        try:
            write_json(folder / SUMMARY, summary)  # a disk that is full for a frame may have room
        except OSError as error:
            failure = failure or f"cannot write {folder / SUMMARY}: {error.strerror}"
    if failure:
        kept = "; what it wrote before is whole" if (folder / LOG).exists() else ""
        raise RunError(f"{failure}. The run stopped at {time_fs:g} fs{kept}")
    return summary


def _start(atoms: Atoms, settings: Settings) -> Atoms:
    """A copy, after checking everything that could stop the run."""
    start = atoms.copy()
    start.calc, start.info = atoms.calc, {}
    if len(start) == 0:
        raise InputError("the structure has no atoms")
    if start.get_number_of_degrees_of_freedom() == 0:
        raise InputError("the structure has only fixed atoms; remove some of its constraints")
    if settings.ensemble == "npt":
        if not start.pbc.all():
            raise InputError("npt needs a cell that is periodic along all three axes; use langevin")
        if "stress" not in getattr(atoms.calc, "implemented_properties", ()):
            raise InputError("npt needs stress, but this calculator has none; use langevin")
        if start.constraints:
            raise InputError("npt cannot fix atoms; remove the constraints of the structure")
    if problem := too_close(start):
        raise InputError(f"cannot start from this structure: {problem}")
    start.get_forces()
    return start


def _integrate(
    dynamics: MolecularDynamics,
    atoms: Atoms,
    settings: Settings,
    limits: Limits,
    record: "Record",
    on_step: Callable[[int, dict[str, float]], None],
    stop: Callable[[], int],
) -> str | None:
    """Run all steps and record them; why the dynamics blew up, or None."""
    n_free = degrees_of_freedom(atoms, settings.ensemble)
    good: tuple[int, dict[str, float], Snapshot] | None = None
    try:
        for _ in dynamics.irun(settings.n_steps):
            step = dynamics.nsteps
            row = _observe(dynamics, atoms, step * settings.timestep_fs, n_free)
            good = step, row, snapshot(atoms)
            last = step == settings.n_steps or stop() != 0
            problem = limits.check_step(atoms, row["potential_eV"], row["temperature_K"])
            if not problem and (last or step % record.log_every == 0):
                problem = limits.check_geometry(atoms)
            record.add(step, row, atoms, last or problem is not None)
            on_step(step, row)
            if last or problem:
                return problem
    except InputError as error:  # of the calculator, or of the search for close atoms
        problem = str(error)
    except (ValueError, ArithmeticError):  # of a barostat whose cell exploded
        if np.isfinite(atoms.cell.array).all() and np.isfinite(atoms.positions).all():
            raise
        problem = "positions or the cell are not finite"
    if good:  # the refused step has no energy to write, so the run ends with the step before
        dynamics.nsteps, row, before = good
        record.add(dynamics.nsteps, row, restore(atoms, before), always=True)
    return problem


def _observe(
    dynamics: MolecularDynamics, atoms: Atoms, time_fs: float, n_free: int
) -> dict[str, float]:
    """A row of the log, by the names of its `columns`.

    The pressure includes the kinetic part, and is positive in compression.
    """
    potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
    temperature = 2.0 * kinetic / (n_free * units.kB)
    values = [time_fs, potential, kinetic, potential + kinetic, temperature]
    if isinstance(dynamics, IsotropicMTKNPT):
        stress = atoms.get_stress(include_ideal_gas=True)
        pressure = -stress[:3].mean() / GPA
        values += [atoms.cell.volume, pressure, dynamics.get_conserved_energy()]
    return dict(zip((*COLUMNS, *NPT_COLUMNS), map(float, values), strict=False))


class Snapshot(NamedTuple):
    """A step that was calculated, to be written if the next one is refused."""

    arrays: dict[str, np.ndarray]
    cell: np.ndarray
    results: dict[str, Any]


def snapshot(atoms: Atoms) -> Snapshot:
    """Copies, which takes microseconds: some calculators reuse their arrays."""
    arrays = {name: array.copy() for name, array in atoms.arrays.items()}
    results = {name: np.copy(value) for name, value in getattr(atoms.calc, "results", {}).items()}
    return Snapshot(arrays, atoms.cell.array.copy(), results)


def restore(atoms: Atoms, before: Snapshot) -> Atoms:
    """The atoms as they were, with the results they had."""
    whole = atoms.copy()
    whole.arrays.update(before.arrays)
    whole.set_cell(before.cell)
    known = {k: v[()] for k, v in before.results.items() if k in all_properties}
    whole.calc = SinglePointCalculator(whole, **known)
    return whole


def columns(ensemble: str) -> tuple[str, ...]:
    """Names of the columns of the log."""
    return COLUMNS + (NPT_COLUMNS if ensemble == "npt" else ())


class Record(ExitStack):
    """Writes the trajectory and the log: every frame and row whole, or not at all.

    Raises:
        OSError: the disk is full, or a file was deleted or moved; it names the file.
    """

    def __init__(self, folder: Path, settings: Settings):
        super().__init__()
        self.log_every = settings.steps(settings.log_every_fs)
        self.save_every = settings.steps(settings.save_every_fs)
        self._files = [
            self.enter_context(open(folder / name, "xb", buffering=0))  # noqa: SIM115
            for name in (TRAJECTORY, LOG)
        ]
        self._looked = time.monotonic()
        self._framed = self._logged = -1  # the steps that were written last
        append(self._files[1], (",".join(columns(settings.ensemble)) + "\n").encode())

    def add(self, step: int, row: dict[str, float], atoms: Atoms, always: bool) -> None:
        """Write the row and the frame that are due at this step, or `always` both."""
        trajectory, log = self._files
        if always or time.monotonic() - self._looked > LOOK_EVERY_S:
            for file in self._files:
                check_present(file)
            self._looked = time.monotonic()
        if (always or step % self.save_every == 0) and step > self._framed:
            atoms.info["time_fs"] = row["time_fs"]
            frame = io.StringIO()
            write_extxyz(frame, [atoms])
            append(trajectory, frame.getvalue().encode())
            self._framed = step
        if (always or step % self.log_every == 0) and step > self._logged:
            first, *rest = row.values()
            line = f"{first:.12g}," + ",".join(f"{value:.8f}" for value in rest) + "\n"
            append(log, line.encode())
            self._logged = step


def read_log(path: Path | str) -> dict[str, Float[np.ndarray, "n_rows"]]:
    """The columns of `md.csv`, by name; a last row that a kill cut off is left out."""
    lines = Path(path).read_text().splitlines(keepends=True)
    names, *rows = [line.strip().split(",") for line in lines if line.endswith("\n")] or [[""]]
    table = np.array([row for row in rows if row != [""]], dtype=float).reshape(-1, len(names))
    return dict(zip(names, table.T, strict=True))


def drift(log: dict[str, np.ndarray], n_atoms: int) -> float | None:
    """Least-squares slope of the total energy in meV/atom/ps; None for fewer than three rows.

    It measures the integration of nve runs only: thermostats change the total energy.
    """
    if log["time_fs"].shape[0] < 3:
        return None
    slope = np.polyfit(log["time_fs"] / 1000.0, log["total_eV"] * 1000.0, 1)[0]
    return float(slope / n_atoms)


def check_folder(folder: Path | str) -> None:
    """Refuse a folder that already holds a run.

    Raises:
        InputError: it does.
    """
    for name in (TRAJECTORY, LOG, SUMMARY):
        if (Path(folder) / name).exists():
            raise InputError(f"{folder} already holds a run ({name}); choose another --out")


def _statistics(
    folder: Path, settings: Settings, n_steps: int, seconds: float, n_atoms: int
) -> dict[str, Any]:
    """Figures of the log and of the speed; None where there is no finite number."""
    time_fs = n_steps * settings.timestep_fs
    values: dict[str, float | None] = {"time_fs": time_fs, "seconds": seconds}
    values["ns_per_day"] = ns_per_day(time_fs, seconds)
    with suppress(OSError, KeyError):  # the log may be gone, or empty on a full disk
        log = read_log(folder / LOG)
        nve, temperature = settings.ensemble == "nve", log["temperature_K"]
        values["drift_meV_atom_ps"] = drift(log, n_atoms) if nve else None
        for name in [c for c in AVERAGED if c in log]:
            values[f"mean_{name}"] = log[name].mean() if temperature.size else None
        values["max_temperature_K"] = temperature.max() if temperature.size else None
    known = {k: float(v) if v is not None and np.isfinite(v) else None for k, v in values.items()}
    return {"n_steps": n_steps, **known}
