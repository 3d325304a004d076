"""Options of several commands: `Reading`, what the user says about a file, and others.

`options` makes options of a command from a dataclass.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from gradpot.errors import InputError

MODEL_SUFFIXES = (".safetensors", ".pt2")
UNITS = "Units, if the file does not state them"
LABELS = "Labels"
STRESS = "Stress labels: give all four or none"

# arguments and options of several commands
ModelFile = Annotated[Path, typer.Argument(help="Model file of a run: model.safetensors")]
DataFile = Annotated[
    str, typer.Argument(help="Labeled structures: a file, or a name from `gradpot data list`")
]
Precision = Annotated[str | None, typer.Option(help="float32 or float64; default: as trained")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto")]


def _option(help: str, panel: str) -> Any:
    return field(default=None, metadata={"help": help, "panel": panel})


@dataclass(frozen=True)
class Reading:
    """What the user says about a file: its units, where its labels are, how stress is written."""

    energy_unit: str | None = _option("Energy unit of the file: eV, kcal/mol, hartree ...", UNITS)
    length_unit: str | None = _option("Length unit of the file: Ang, bohr, nm", UNITS)
    force_unit: str | None = _option("Force unit; default: energy unit over length unit", UNITS)
    energy_key: str | None = _option("Array or field of the file with the energies", LABELS)
    forces_key: str | None = _option("Array or field of the file with the forces", LABELS)
    unconverged: bool | None = _option("Read calculations that did not converge, too", LABELS)
    stress_key: str | None = _option("Array or field of the file with the stress", STRESS)
    stress_unit: str | None = _option("kbar, GPa or eV/Ang^3; eV for a virial", STRESS)
    stress_order: str | None = _option(
        "voigt: xx yy zz yz xz xy; vasp: xx yy zz xy yz zx; matrix: 3 × 3", STRESS
    )
    stress_sign: str | None = _option(
        "tension: positive when stretched (ASE); compression: opposite (VASP)", STRESS
    )

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `data.source.read`.

        Raises:
            InputError: some of the stress options are given, but not all, or one is unknown.
        """
        from gradpot.data.stress import stress_label

        given = dict(vars(self))
        stress = [given.pop(f"stress_{part}") for part in ("key", "unit", "order", "sign")]
        return {**given, "unconverged": bool(self.unconverged), "stress": stress_label(*stress)}


def check_model(path: Path, other: str = "") -> None:
    """Refuse a model file that is not there, before torch is imported, which takes seconds.

    Args:
        other: the next argument, in case the two are swapped.
    """
    if other.endswith(MODEL_SUFFIXES) and not path.name.endswith(MODEL_SUFFIXES):
        raise InputError(f"MODEL comes first: give {other} before {path}")
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected a file, such as its model.safetensors")
    if not path.exists():
        raise InputError(f"no such file: {path}")


def options(group: type, *names: str) -> Callable[[Callable], Callable]:
    """Give a command the fields of a dataclass, or only those named, as options.

    The command has a keyword parameter annotated with the dataclass. The options take its place
    in the help, with the `help` and `panel` of each field's metadata, and the command receives
    one instance.
    """
    chosen = [f for f in fields(group) if f.name in names or not names]
    added = []
    for f in chosen:
        name, help, panel = f.name.replace("_", "-"), f.metadata["help"], f.metadata.get("panel")
        annotation = Annotated[f.type, typer.Option(f"--{name}", help=help, rich_help_panel=panel)]
        kind = inspect.Parameter.KEYWORD_ONLY
        added.append(inspect.Parameter(f.name, kind, default=f.default, annotation=annotation))

    def decorate(command: Callable) -> Callable:
        parameters = list(inspect.signature(command).parameters.values())
        place = [parameter.annotation for parameter in parameters].index(group)
        receiver = parameters[place].name

        @functools.wraps(command)
        def call(**given: Any) -> Any:
            instance = group(**{f.name: given.pop(f.name) for f in chosen})
            return command(**given, **{receiver: instance})

        parameters[place : place + 1] = added
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return call

    return decorate
