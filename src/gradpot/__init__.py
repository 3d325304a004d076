"""Interatomic potentials that learn energies and their derivatives.

Reading order, in which each part imports only what stands before it: `errors`, `units`,
`process`, `geometry`, `data` (files → frames), `graph` (frames → graphs), `report`, `nn`, `models`
(graph → atom energies), `potential` (→ energy, forces, stress), `compile`, `train`, `md`,
`testing`, `cli`.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "Calculator": "md.calculator",
    "Graph": "graph.graph",
    "InputError": "errors",
    "Model": "models.base",
    "Potential": "potential.potential",
    "Properties": "graph.graph",
    "UnseenWarning": "potential.seen",
    "build": "models",
    "check_derivatives": "potential.derivatives",
    "denormalize": "nn.surgery",
    "load": "potential.checkpoint",
    "predict": "potential.potential",
    "read": "data.source",
    "save": "potential.checkpoint",
    "swap_activations": "nn.surgery",
}
__all__ = [*_HOME, "__version__"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str):
    """Import a public name when it is first used: `gradpot --help` should not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'gradpot' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gradpot.{_HOME[name]}"), name)
