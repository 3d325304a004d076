"""Compiled potentials in the user's own cache: the only machine code that is loaded unasked.

A file with machine code can do whatever its reader can, and its header can be forged. What lies
beside a model may come from anybody. What lies in a folder that only the user can write to was put
there by gradpot, for this user.
"""

import hashlib
import json
import tempfile
import warnings
from pathlib import Path

import torch

import gradpot
from gradpot.compile import export, package
from gradpot.compile.package import SUFFIX, CompiledPotential, fingerprint, fits
from gradpot.compile.private import is_ours, make_private
from gradpot.locks import locked
from gradpot.potential.potential import Potential

# the parts that this one cannot import (tests/test_imports.py): machine code depends on the rest
NOT_COMPILED = {"train", "md", "testing", "cli"}


def compiled_potential(potential: Potential, dtype: torch.dtype) -> CompiledPotential:
    """The potential as machine code, which is compiled now unless the cache has it.

    Warns:
        UserWarning: others can write to the cache, so it is not used.

    Raises:
        InputError, RunError: see `export.compile_potential`.
    """
    with tempfile.TemporaryDirectory(prefix="gradpot-") as folder:
        return CompiledPotential(provide(potential, dtype, Path(folder)))


def provide(potential: Potential, dtype: torch.dtype, otherwise: Path) -> Path:
    """A package of the potential in the cache; it is compiled now unless it is there.

    Args:
        otherwise: folder for the package if it cannot be in the cache.

    Warns, raises: see `compiled_potential`.
    """
    path = cache_file(potential, dtype)  # None: what cannot be saved is not cached
    if path is not None and (problem := make_private(path.parent)):
        warnings.warn(f"what is compiled is not kept: {problem}", stacklevel=3)
        path = None
    path = path or otherwise / f"potential{SUFFIX}"
    # another process may be compiling the same
    with locked(path, wait=True):
        if not is_ours(path) or not fits(path, potential, dtype):
            export.compile_potential(potential, path, dtype)
            path.chmod(0o600)
    return path


def find_compiled(potential: Potential, dtype: torch.dtype) -> CompiledPotential | None:
    """The potential as machine code, if the cache has it; nothing is compiled.

    Warns:
        UserWarning: others can write to the cache, so it is not used.
    """
    path = cache_file(potential, dtype)
    if path is None or not path.exists():
        return None
    if problem := make_private(path.parent):
        warnings.warn(f"the cache of compiled potentials is not used: {problem}", stacklevel=2)
        return None
    return CompiledPotential(path) if is_ours(path) and fits(path, potential, dtype) else None


def cache_file(potential: Potential, dtype: torch.dtype) -> Path | None:
    """Where the package of these weights, this code and this machine is cached.

    None if the potential cannot be saved.
    """
    import pooch

    weights = fingerprint(potential)
    if weights is None:
        return None
    code = code_digest(Path(gradpot.__file__).parent)
    made_from = [weights, str(dtype), package.machine(), code]
    name = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]
    return Path(pooch.os_cache("gradpot")) / "compiled" / f"{name}{SUFFIX}"


def code_digest(home: Path) -> str:
    """Hash of the source files in `home`, the folder of gradpot, that machine code depends on.

    Editing one of them makes the cache stale. The parts in `NOT_COMPILED` are left out.
    """
    digest = hashlib.sha256()
    for path in sorted(home.rglob("*.py")):
        if path.relative_to(home).parts[0] not in NOT_COMPILED:
            digest.update(path.read_bytes())
    return digest.hexdigest()
