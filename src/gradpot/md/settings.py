"""What to run: `Settings`, whose fields are also the options of `gradpot md`, and `ENSEMBLES`.

ASE is imported where it is used, so that the help of the command line does not wait for it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from gradpot import other_names
from gradpot.errors import InputError, unknown

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from ase.md.md import MolecularDynamics


# relaxation times of npt, in steps, as ASE's documentation suggests
THERMOSTAT_STEPS, BAROSTAT_STEPS = 100, 1000
# the ensemble that uses each of these settings
ONLY_FOR = {"pressure_GPa": "npt", "friction_per_ps": "langevin"}


class Bound(NamedTuple):
    """What a number must be, for the message and as a test."""

    text: str
    holds: Callable[[float], bool]


POSITIVE = Bound("be positive", lambda x: 0 < x < math.inf)
NOT_NEGATIVE = Bound("not be negative", lambda x: 0 <= x < math.inf)
FINITE = Bound("be finite", math.isfinite)
MORE_THAN_ONE = Bound("be more than 1", lambda x: x > 1)


def _setting(default: object, help: str, bound: Bound | None = None) -> Any:
    return field(default=default, metadata={"help": help, "bound": bound})


@dataclass(frozen=True)
class Settings:
    """What to run; each field's help text is that of `gradpot md --help`.

    Times between rows and frames are rounded to whole steps.

    Raises:
        InputError: a value is out of bounds, or is not for this ensemble; the message names it.
    """

    temperature_K: float = _setting(
        300.0, "Temperature of the start and the thermostat, K", NOT_NEGATIVE
    )
    time_ps: float = _setting(1.0, "Length of the run, ps", POSITIVE)
    timestep_fs: float = _setting(0.5, "Time step, fs", POSITIVE)
    ensemble: str = _setting("nve", "nve, langevin (constant temperature) or npt (and pressure)")
    pressure_GPa: float = _setting(0.0, "Pressure, for npt, GPa", FINITE)
    friction_per_ps: float = _setting(10.0, "Friction, for langevin, 1/ps", POSITIVE)
    seed: int = _setting(0, "Seed of velocities and thermostat", NOT_NEGATIVE)
    log_every_fs: float = _setting(5.0, "Time between rows of the log, fs", POSITIVE)
    save_every_fs: float = _setting(10.0, "Time between frames of the trajectory, fs", POSITIVE)
    keep_velocities: bool = _setting(False, "Start with the momenta of the structure")
    max_temperature_K: float | None = _setting(
        None, "Stop above this temperature, K; default: max(10 T, T + 3000)"
    )
    max_stretch: float = _setting(
        2.0, "Stop when a bond is stretched by this factor; inf: never", MORE_THAN_ONE
    )

    def __post_init__(self):
        if self.ensemble not in ENSEMBLES:
            raise unknown("ensemble", self.ensemble, ENSEMBLES, other_names.ENSEMBLES)
        for name, bound in ((f.name, f.metadata["bound"]) for f in fields(self)):
            if bound and not bound.holds(getattr(self, name)):
                raise InputError(f"{name} is {getattr(self, name)} but must {bound.text}")
        for name, ensemble in ONLY_FOR.items():
            default = type(self).__dataclass_fields__[name].default
            if self.ensemble != ensemble and getattr(self, name) != default:
                option = name.replace("_", "-")
                raise InputError(f"--{option} is for --ensemble {ensemble}, not {self.ensemble}")
        if round(1000.0 * self.time_ps / self.timestep_fs, 6) < 1:
            raise InputError(
                f"time_ps is {self.time_ps:g}, less than one step of {self.timestep_fs:g} fs"
            )
        if not self.temperature_limit_K > self.temperature_K:
            raise InputError(
                f"max_temperature_K is {self.max_temperature_K} but must be above the "
                f"temperature, {self.temperature_K}"
            )
        if self.ensemble == "npt" and self.temperature_K == 0:
            raise InputError("temperature_K is 0, but npt needs a positive temperature")

    @property
    def n_steps(self) -> int:
        """Number of steps of the whole run."""
        return self.steps(1000.0 * self.time_ps)

    def steps(self, fs: float) -> int:
        """Number of steps nearest to this time, at least one."""
        return max(1, round(fs / self.timestep_fs))

    @property
    def relaxation_ps(self) -> float:
        """Time in which the thermostat acts; infinite without one."""
        npt_ps = THERMOSTAT_STEPS * self.timestep_fs / 1000.0
        return {"langevin": 1.0 / self.friction_per_ps, "npt": npt_ps}.get(self.ensemble, math.inf)

    @property
    def temperature_limit_K(self) -> float:
        """Temperature above which a run stops."""
        if self.max_temperature_K is not None:
            return self.max_temperature_K
        # far above the fluctuations of a few atoms and the heat from relaxing a poor start
        return max(10.0 * self.temperature_K, self.temperature_K + 3000.0)


def nve(atoms: "Atoms", settings: Settings, rng: "np.random.Generator") -> "MolecularDynamics":
    """Velocity Verlet."""
    from ase import units
    from ase.md.verlet import VelocityVerlet

    return VelocityVerlet(atoms, settings.timestep_fs * units.fs)


def langevin(atoms: "Atoms", settings: Settings, rng: "np.random.Generator") -> "MolecularDynamics":
    """A Langevin thermostat on every atom; the center of mass is not held."""
    from ase import units
    from ase.md.langevin import Langevin

    return Langevin(
        atoms,
        settings.timestep_fs * units.fs,
        temperature_K=settings.temperature_K,
        friction=settings.friction_per_ps / (1000.0 * units.fs),
        fixcm=False,
        rng=rng,
    )


def npt(atoms: "Atoms", settings: Settings, rng: "np.random.Generator") -> "MolecularDynamics":
    """Isotropic Martyna-Tobias-Klein: the cell keeps its shape."""
    from ase import units
    from ase.md.nose_hoover_chain import IsotropicMTKNPT

    from gradpot.units import GPA

    timestep = settings.timestep_fs * units.fs
    return IsotropicMTKNPT(
        atoms,
        timestep,
        temperature_K=settings.temperature_K,
        pressure_au=settings.pressure_GPa * GPA,
        tdamp=THERMOSTAT_STEPS * timestep,
        pdamp=BAROSTAT_STEPS * timestep,
    )


ENSEMBLES = {"nve": nve, "langevin": langevin, "npt": npt}


def ns_per_day(time_fs: float, seconds: float) -> float:
    """Simulated nanoseconds per day of wall time."""
    return time_fs * 1e-6 / (seconds / 86400.0)
