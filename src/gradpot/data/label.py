"""Label structures with a reference calculator, going on where an earlier run stopped.

Labels are appended to an extended-XYZ file, one complete frame at a time. Positions are rounded
to the eight decimals that such a file holds *before* they are labeled, so that energies and
forces belong to the positions in the file. Every structure is computed from scratch, so that a
run that was interrupted and continued gives the same file as one that was not.
"""

import contextlib
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gradpot.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

METHODS = {"gfn2-xtb": "GFN2-xTB", "gfn1-xtb": "GFN1-xTB"}
DECIMALS = 8


class Labeled(NamedTuple):
    """What `label` did."""

    n_labeled: int
    """frames labeled by this call"""
    n_found: int
    """frames that were in the file already"""
    skipped: dict[int, str]
    """structures that failed, in this run or an earlier one, and why"""


def reference(
    name: str, charge: int | None = None, multiplicity: int | None = None
) -> "BaseCalculator":
    """A reference calculator by name, one of `METHODS`.

    Args:
        charge: total charge in e; None takes the sum of the atoms' initial charges, mostly 0.
        multiplicity: 2S + 1; None takes the lowest that the number of electrons allows.

    Raises:
        InputError: the name is not known, or tblite is not installed.
    """
    if name.lower() not in METHODS:
        raise InputError(
            f"unknown reference method {name!r}; known: {', '.join(METHODS)} "
            "(from Python, gradpot.data.label.label takes any ASE calculator)"
        )
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise InputError(f"{name} needs tblite; install it: pip install gradpot[label]") from error
    given = {"charge": charge, "multiplicity": multiplicity}
    told: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    return TBLite(method=METHODS[name.lower()], verbosity=0, cache_api=False, **told)


def label(
    structures: Iterable["Atoms"],
    calculator: "BaseCalculator",
    out: str | Path,
    skip_failures: bool = False,
    progress: bool = False,
) -> Labeled:
    """Compute energy and forces, and stress where all axes are periodic, and write them.

    Args:
        structures: positions in Å; labels and constraints they may have are left out.
        calculator: any ASE calculator.
        out: .xyz or .extxyz, in eV and Å; or .npz of the sGDML form, for structures that have
            all the same atoms, written at the end from OUT.part.extxyz. If it is there from an
            earlier run, the rest is appended.
        skip_failures: go on after a structure that the calculator cannot do, and list it in
            OUT.skipped.json.
        progress: show a progress bar with rate and time left on standard error.

    Raises:
        InputError: what is in `out` does not belong to these structures; or a structure failed
            (those before it are in `out`).
    """
    _check_calculator(calculator)
    out, structures = Path(out), [_plain(*pair) for pair in enumerate(structures)]
    frames_file = _frames_file(out, structures)
    skipped = _read_skipped(frames_file)
    todo = [i for i in range(len(structures)) if i not in skipped]
    n_found = _check_found(frames_file, [structures[i] for i in todo], _method(calculator))
    n_labeled = 0
    with open(frames_file, "a") as file:
        for i in _track(todo[n_found:], todo, progress):
            try:
                frame = _compute(structures[i], calculator)
            except (RuntimeError, ArithmeticError, ValueError) as error:  # RuntimeError: ASE's
                if not skip_failures:
                    raise _failed(i, error, frames_file) from error
                skipped[i] = str(error).strip() or type(error).__name__
                _write_skipped(frames_file, skipped)
                continue
            file.write(_as_text(frame))
            file.flush()
            n_labeled += 1
    if out.suffix == ".npz":
        _pack(frames_file, out)
    return Labeled(n_labeled, n_found, skipped)


def read_structures(
    path: str | Path, length_unit: str | None = None, index: str = ":"
) -> list["Atoms"]:
    """Read structures, labeled or not, from any file ASE reads, or from npz.

    Args:
        path: the file.
        length_unit: of the file; Å unless given, except that npz has to say it or be told.
        index: which frames, as ASE writes it: ":", "::10", "0:500" ...

    Raises:
        InputError: not a file of structures, or a bad index.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected a file of structures")
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    reader = _read_npz if path.suffix == ".npz" else _read_by_ase
    found = reader(path, length_unit)[_as_slice(index)]
    if not found:
        raise InputError(f"{path} has no structures at index {index!r}")
    return found


def _as_slice(index: str) -> slice:
    from ase.io.formats import string2index

    try:
        chosen = string2index(index)
        if isinstance(chosen, slice):
            return chosen
        return slice(int(chosen), int(chosen) + 1 or None)
    except ValueError as error:
        raise InputError(f"bad index {index!r}; write it as in Python: ':', '::10', '3'") from error


def _read_npz(path: Path, length_unit: str | None) -> list["Atoms"]:
    from gradpot.data.files import read

    try:
        frames = read(path, length_unit=length_unit)
    except InputError:  # energies without a unit do not matter here
        frames = read(path, "eV", length_unit)
    return [frames.atoms(i) for i in range(frames.n_atoms.shape[0])]


def _read_by_ase(path: Path, length_unit: str | None) -> list["Atoms"]:
    import ase.io
    from ase.io.formats import filetype

    from gradpot.units import length_factor

    factor = length_factor(length_unit or "Ang")
    try:
        kind = filetype(str(path), guess=False)
        found = list(ase.io.iread(path, ":", kind, do_not_split_by_at_sign=True))
    except Exception as error:  # every format raises its own
        raise InputError(f"ASE cannot read {path} ({type(error).__name__}: {error})") from error
    for atoms in found:
        atoms.set_cell(atoms.cell.array * factor)
        atoms.positions *= factor
    return found


def _check_calculator(calculator: "BaseCalculator") -> None:
    for name in ("energy", "forces"):
        if name not in calculator.implemented_properties:
            raise InputError(
                f"{type(calculator).__name__} gives no {name}; choose another calculator"
            )


def _plain(i: int, atoms: "Atoms") -> "Atoms":
    """Atoms, cell, and initial charges and moments; positions as the file will hold them."""
    if not np.isfinite(atoms.positions).all():
        raise InputError(f"structure {i} (counted from 0) has positions that are not numbers")
    if (atoms.numbers < 1).any():
        raise InputError(f"structure {i} (counted from 0) has an atom X, which is no element")
    plain = atoms.copy()
    plain.set_constraint()
    plain.positions = plain.positions.round(DECIMALS)
    return plain


def _frames_file(out: Path, structures: list["Atoms"]) -> Path:
    if out.suffix in (".xyz", ".extxyz"):
        return out
    if out.suffix != ".npz":
        raise InputError(f"cannot write {out}; its name has to end in .extxyz, .xyz or .npz")
    if out.exists():
        raise InputError(f"{out} exists already; delete it to label anew")
    numbers = structures[0].numbers if structures else []
    for i, atoms in enumerate(structures):
        if not np.array_equal(atoms.numbers, numbers) or atoms.pbc.any():
            raise InputError(
                f"structure {i} has other atoms than the first, or is periodic: "
                f"write .extxyz in place of {out.name}"
            )
    return out.with_suffix(".part.extxyz")


def _compute(atoms: "Atoms", calculator: "BaseCalculator") -> "Atoms":
    """The structure with its labels, nothing else."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    getattr(calculator, "reset", lambda: None)()
    work = atoms.copy()
    work.calc = calculator
    labels = {"energy": float(work.get_potential_energy()), "forces": work.get_forces()}
    if atoms.pbc.all() and "stress" in calculator.implemented_properties:
        labels["stress"] = work.get_stress()
    for name, value in labels.items():
        if not np.isfinite(value).all():
            raise ArithmeticError(f"{name} is not finite")
    frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    frame.info["method"] = _method(calculator)
    frame.calc = SinglePointCalculator(frame, **labels)
    return frame


def _method(calculator: "BaseCalculator") -> str:
    """What a frame keeps of its calculator: the name, charge and multiplicity, no more."""
    told = getattr(calculator, "parameters", {})
    name = told.get("method") or type(calculator).__name__
    known = [key for key in ("charge", "multiplicity") if told.get(key) is not None]
    extra = [f"{key}={told[key]}" for key in known]
    return " ".join([str(name), *extra])


def _as_text(frame: "Atoms") -> str:
    import ase.io

    text = io.StringIO()
    ase.io.write(text, frame, format="extxyz")
    return text.getvalue()


def _failed(i: int, error: Exception, frames_file: Path) -> InputError:
    return InputError(
        f"structure {i} (counted from 0) failed: {error or type(error).__name__}; those before it "
        f"are in {frames_file}. Mend or remove it, or go on with --skip-failures"
    )


def _check_found(path: Path, structures: list["Atoms"], method: str) -> int:
    """Compare what is there; cut off a frame that was not finished; say how many there are."""
    import ase.io

    if not path.exists():
        return 0
    n_found, end = _complete_frames(path)
    if n_found > len(structures):
        raise InputError(
            f"{path} has {n_found} frames and the input {len(structures)}; choose another --out"
        )
    whole = io.StringIO(path.read_bytes()[:end].decode())
    found = ase.io.iread(whole, index=":", format="extxyz") if n_found else ()
    for i, (old, new) in enumerate(zip(found, structures)):
        if not _same(old, new):
            raise InputError(
                f"frame {i} of {path} is not the structure of the input; choose another --out, "
                "or delete that file"
            )
        if old.info.get("method", method) != method:
            raise InputError(
                f"frame {i} of {path} was labeled with {old.info['method']}, not with {method}; "
                "choose another --out"
            )
    _cut(path, end, structures[n_found : n_found + 1])
    return n_found


def _cut(path: Path, end: int, todo: list["Atoms"]) -> None:
    """Take off a frame that was not finished, if it is the one to come: else it is not ours."""
    rest = path.read_bytes()[end:].decode(errors="replace").splitlines()
    if not rest:
        return
    if not todo or not _begins(rest, _as_text(todo[0]).splitlines()):
        raise InputError(
            f"{path} ends with a frame that is not finished and not one of the input; "
            "choose another --out"
        )
    os.truncate(path, end)


def _begins(written: list[str], bare: list[str]) -> bool:
    """Whether the lines, but for their labels, are the first of the structure without labels."""
    pairs = [(w, b) for i, (w, b) in enumerate(zip(written, bare)) if i != 1]
    whole, (last, wanted) = pairs[:-1], pairs[-1]
    return all(w.startswith(b) for w, b in whole) and (
        last.startswith(wanted) or wanted.startswith(last)
    )


def _complete_frames(path: Path) -> tuple[int, int]:
    """Number of complete frames, and the byte at which the last of them ends."""
    count = end = 0
    with open(path, "rb") as file:
        while head := file.readline():
            try:
                lines = [file.readline() for _ in range(int(head) + 1)]
            except ValueError as error:
                raise InputError(f"{path} is not an extended-XYZ file; choose another") from error
            if not (head.endswith(b"\n") and lines[-1].endswith(b"\n")):
                break
            count, end = count + 1, file.tell()
    return count, end


def _same(old: "Atoms", new: "Atoms") -> bool:
    return (
        np.array_equal(old.numbers, new.numbers)
        and np.allclose(old.positions, new.positions, rtol=0, atol=2 * 10.0**-DECIMALS)
        and np.allclose(old.cell, new.cell, rtol=0, atol=1e-6)
    )


def _skipped_file(frames_file: Path) -> Path:
    return frames_file.with_name(frames_file.name + ".skipped.json")


def _read_skipped(frames_file: Path) -> dict[int, str]:
    path = _skipped_file(frames_file)
    if not path.exists():
        return {}
    return {int(i): reason for i, reason in json.loads(path.read_text()).items()}


def _write_skipped(frames_file: Path, skipped: dict[int, str]) -> None:
    path = _skipped_file(frames_file)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(skipped, indent=1))
    part.replace(path)


def _track(rest: list[int], todo: list[int], progress: bool):
    """Pass on `rest`, with a bar that counts from what was done before."""
    if not progress:
        yield from rest
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        *("label", bars.BarColumn(), bars.MofNCompleteColumn()),
        bars.TextColumn("{task.fields[rate]}"),
        *(bars.TimeRemainingColumn(), bars.TimeElapsedColumn()),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=len(todo), completed=len(todo) - len(rest), rate="")
        for i in rest:
            yield i
            speed = bar.tasks[0].speed
            bar.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "")


def _pack(frames_file: Path, out: Path) -> None:
    """Write labeled frames as sGDML-form npz with its units, and remove the working file."""
    import ase.io

    frames = list(ase.io.iread(frames_file, index=":", format="extxyz"))
    if not frames:
        raise InputError(f"no structure could be labeled, so there is nothing to write to {out}")
    part = out.with_suffix(".part.npz")
    np.savez_compressed(
        part,
        R=np.stack([atoms.positions for atoms in frames]),
        z=frames[0].numbers.astype(np.uint8),
        E=np.array([atoms.get_potential_energy() for atoms in frames]),
        F=np.stack([atoms.get_forces() for atoms in frames]),
        r_unit="Ang",
        e_unit="eV",
        f_unit="eV/Ang",
        name=out.stem,
    )
    part.replace(out)
    with contextlib.suppress(FileNotFoundError):
        frames_file.unlink()
