"""Interatomic potentials that learn an energy and its derivative.

Reading order, which is the order the data flows: `units`, `data` (files → frames → graphs),
`neighbors`, `graph`, `nn`, `models` (graph → atom energies), `potential` (→ energy, forces,
stress), `train`, `checkpoint`, `calculator`, `md`, `report`, `cli`.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "Calculator": "calculator",
    "Graph": "graph",
    "InputError": "errors",
    "Potential": "potential",
    "Properties": "graph",
    "build": "models",
    "check_derivatives": "derivatives",
    "denormalize": "surgery",
    "load": "checkpoint",
    "predict": "potential",
    "read": "data.source",
    "save": "checkpoint",
    "swap_activations": "surgery",
}
__all__ = [*_HOME, "__version__"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str):
    """Import a public name when it is first used: `gradpot --help` should not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'gradpot' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gradpot.{_HOME[name]}"), name)
