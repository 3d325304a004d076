"""Molecular dynamics: the ASE calculator, and runs with a log, limits and a summary."""

import importlib

_HOME = {"Settings": "settings", "read_log": "dynamics", "run": "dynamics"}


def __getattr__(name: str):
    """Import a name when it is first used: the help of `gradpot md` needs only the settings."""
    if name not in _HOME:
        raise AttributeError(f"module 'gradpot.md' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gradpot.md.{_HOME[name]}"), name)
