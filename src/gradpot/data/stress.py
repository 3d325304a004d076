"""Stress labels: the four things that turn numbers in a file into a stress.

They are the key, the unit, the order of the components and the sign. gradpot guesses none of them:
programs differ in all four, and a wrong sign trains a model that expands where it should shrink.

A virial is a stress times the volume. GAP, ACE and MACE files hold the virial −V·stress in eV:
`unit="eV", sign="compression"`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gradpot.errors import InputError, unknown
from gradpot.units import energy_factor, stress_factor

ORDER = {
    # index in the file of each component xx xy xz yx yy yz zx zy zz
    "voigt": [0, 5, 4, 5, 1, 3, 4, 3, 2],
    "vasp": [0, 3, 5, 3, 1, 4, 5, 4, 2],
    "matrix": list(range(9)),
}
SIGN = {"tension": 1.0, "compression": -1.0}


class StressLabel(NamedTuple):
    """How a file writes stress."""

    key: str
    """name of the array or field"""
    unit: str
    """a pressure, an energy per volume, or an energy: then it is a virial, divided by the volume"""
    order: str
    """voigt (xx yy zz yz xz xy), vasp (xx yy zz xy yz zx) or matrix (3 × 3, or nine numbers)"""
    sign: str
    """tension: positive when stretched, as in ASE; compression: the opposite, as VASP prints it"""


def stress_label(
    key: str | None, unit: str | None, order: str | None, sign: str | None
) -> StressLabel | None:
    """A label from options; None if no option is given.

    Raises:
        InputError: only some are given, or a value is unknown.
    """
    label = StressLabel(key, unit, order, sign)  # type: ignore[arg-type]
    if label == (None,) * 4:
        return None
    check(label)
    return label


def check(label: StressLabel) -> None:
    """Raise an InputError unless every part of the label is given and known."""
    missing = [f"--stress-{name}" for name, part in label._asdict().items() if part is None]
    if missing:
        raise InputError(
            "a stress label needs its key, unit, order (voigt, vasp, matrix) and sign "
            f"(tension, compression); missing: {', '.join(missing)}"
        )
    if label.order not in ORDER:
        raise unknown("stress order", label.order, ORDER)
    if label.sign not in SIGN:
        raise unknown("stress sign", label.sign, SIGN)
    _factor(label.unit)


def check_unit(path: object, label: StressLabel, stated: str | None) -> None:
    """Raise an InputError if the file states a unit of stress that is not the label's."""
    if stated is None:
        return
    (own, own_virial), (factor, virial) = _factor(stated), _factor(label.unit)
    if own_virial != virial or abs(own / factor - 1) > 1e-6:
        raise InputError(
            f"{path} says that its stress unit is {stated!r}, but --stress-unit says "
            f"{label.unit!r}: correct one of them"
        )


def to_stress(
    path: object, values: np.ndarray, label: StressLabel, volume: Float[np.ndarray, "n_frames"]
) -> Float[np.ndarray, "n_frames 3 3"]:
    """Numbers of a file as symmetric stresses in eV/Å³, positive under tension.

    Args:
        path: of the file, for messages.
        values: [n_frames, 6], [n_frames, 9] or [n_frames, 3, 3], depending on the label's order.
        label: how to read them.
        volume: of each cell in Å³; if it is 0, there is no cell, and the stress is NaN.

    Raises:
        InputError: the shape does not fit the label's order, or a number is infinite.
    """
    n_frames, size = volume.shape[0], 9 if label.order == "matrix" else 6
    if values.shape[:1] != volume.shape or values[0].size != size:
        raise InputError(
            f"{path}: stress {label.key!r} has shape {list(values.shape)}; expected "
            f"[{n_frames}, {size}] for order {label.order!r} (see --stress-order)"
        )
    flat = values.reshape(n_frames, size).astype(np.float64)
    infinite = np.isinf(flat).any(1)
    if infinite.any():
        raise InputError(
            f"{path}: frame {infinite.argmax()} has infinite stress ({label.key}); "
            "write NaN for a missing label, or leave it out"
        )
    tensor = flat[:, ORDER[label.order]].reshape(-1, 3, 3)
    factor, is_virial = _factor(label.unit)
    volume = np.where(volume > 0, volume, np.nan)
    scale = SIGN[label.sign] * factor / (volume if is_virial else volume / volume)
    return 0.5 * (tensor + tensor.transpose(0, 2, 1)) * scale[:, None, None]


def _factor(unit: str) -> tuple[float, bool]:
    """Factor to eV/Å³ or eV, and whether the label is a virial.

    Raises:
        InputError: the unit is neither one of stress nor one of energy.
    """
    try:
        return stress_factor(unit), False
    except InputError as error:
        try:
            return energy_factor(unit), True
        except InputError:
            raise InputError(f"{error}; or an energy unit for a virial") from error
