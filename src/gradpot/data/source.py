"""Read what a user gives as `--data`: a file, or the name of a public data set."""

from pathlib import Path
from typing import Any

from gradpot.data import files
from gradpot.data.catalog.catalog import locate
from gradpot.data.declared import agree
from gradpot.data.frames import Frames
from gradpot.data.stress import StressLabel, stress_label


def read(
    source: str | Path,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    force_unit: str | None = None,
    stress: StressLabel | None = None,
    stress_key: str | None = None,
    stress_unit: str | None = None,
    stress_order: str | None = None,
    stress_sign: str | None = None,
    **reading: Any,
) -> Frames:
    """Labeled structures of a file or a named set, in eV and Å.

    Units come from the catalog for a named set, from the file, or from the arguments. If two of
    these contradict each other, that is an error.

    Args:
        source: a path, or a name of the catalog.
        energy_unit, length_unit, force_unit: see `files.read`.
        stress: how stress is written, instead of the next four.
        stress_key, stress_unit, stress_order, stress_sign: the parts of a `StressLabel`; all four
            or none.
        reading: the other arguments of `files.read`.

    Raises:
        InputError: the source is neither a file nor a name, the file cannot be read, nobody states
            its units, or only some parts of the stress label are given.
    """
    stress = stress or stress_label(stress_key, stress_unit, stress_order, stress_sign)
    path, known = locate(source)
    given = {"energy": energy_unit, "length": length_unit, "force": force_unit}
    settled = {
        f"{kind}_unit": agree(source, kind, known.get(f"{kind}_unit"), unit)
        for kind, unit in given.items()
    }
    return files.read(path, **settled, stress=stress, **reading)
