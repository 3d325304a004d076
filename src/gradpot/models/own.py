"""A network of the user's own, by its file and class: `shells.py:Shells`.

Naming it runs its code. Nothing but the caller's own words may do that: a model file or a run
folder keeps the name, and whoever loads it must say it again (`--model FILE.py:CLASS`).
"""

import importlib.util
import inspect
import sys
from pathlib import Path

from gradpot.errors import InputError
from gradpot.models import MODELS, OWN
from gradpot.models.base import Model


def add_own(name: str) -> str:
    """Import the class that `FILE.py:CLASS` names, and add it to `MODELS`.

    Returns:
        Its name there, without the folder; any other name is returned as it is.

    Raises:
        InputError: there is no such file or class, the class is not a `gradpot.Model`, or the file
            cannot be imported.
    """
    file, mark, kind = name.rpartition(OWN)
    if not mark:
        return name
    path = Path(file + ".py").expanduser()
    if not path.is_file():
        raise InputError(f"--model {name}: there is no file {path}")
    module_name = f"gradpot_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # dataclasses and pickle look there
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    # the file can raise anything
    except Exception as error:
        raise InputError(
            f"--model {name}: {path} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    found = getattr(module, kind, None)
    if not (inspect.isclass(found) and issubclass(found, Model)) or inspect.isabstract(found):
        classes = (x for x in vars(module).values() if inspect.isclass(x) and issubclass(x, Model))
        known = ", ".join(x.__name__ for x in classes if not inspect.isabstract(x)) or "none"
        raise InputError(
            f"--model {name}: {path} has no class {kind} derived from gradpot.Model; it has {known}"
        )
    own = f"{path.name}:{kind}"
    MODELS[own] = found
    return own
