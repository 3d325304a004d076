"""Devices by name, refused in one line where they are not there."""

import torch

from gradpot.errors import InputError

# in the order in which "auto" tries them
KINDS = ("cuda", "mps", "cpu")


def device(name: str) -> torch.device:
    """The device of a name: cpu, cuda, cuda:1, mps; auto is the first of cuda, mps, cpu there is.

    Raises:
        InputError: there is no such device.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind in KINDS if there[kind]))
    kind, colon, number = name.partition(":")
    if kind not in there or (colon and not number.isdecimal()):
        raise InputError(f"unknown device {name!r}; known: auto, cpu, cuda, cuda:1 ..., mps")
    if not there[kind]:
        raise InputError(
            f"torch {torch.__version__} sees no {kind} device on this machine; use cpu or auto"
        )
    n_devices = torch.cuda.device_count() if kind == "cuda" else 1
    if colon and int(number) >= n_devices:
        raise InputError(f"there is no device {name}: the last one is {kind}:{n_devices - 1}")
    return torch.device(name)
