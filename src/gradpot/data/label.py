"""Label structures with a reference calculator; an interrupted run resumes where it stopped.

Labels are appended to an extended-XYZ file, one complete frame at a time. Positions are rounded
to the eight decimals of such a file *before* they are labeled, so that energies and forces belong
to the positions in the file. Every structure is computed from scratch, so that an interrupted run
that is resumed gives the same file as one that was never interrupted.
"""

import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from tqdm import tqdm

from gradpot.data.raw import CHARGE
from gradpot.errors import InputError, unknown
from gradpot.locks import locked
from gradpot.process import write_bytes, write_json

METHODS = {"gfn2-xtb": "GFN2-xTB", "gfn1-xtb": "GFN1-xTB"}
# of positions in the extended XYZ that ASE writes
DECIMALS = 8
MULTIPLICITY = ("multiplicity", "spin_multiplicity")
# Å; a position may be rounded twice, and cells may come from a file with fewer digits
SAME_POSITION, SAME_CELL = 2 * 10.0**-DECIMALS, 1e-6


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
) -> BaseCalculator:
    """A reference calculator by name, one of `METHODS`.

    Args:
        charge: total charge in e; None uses the sum of the atoms' initial charges, usually 0.
        multiplicity: 2S + 1; None uses the lowest that the number of electrons allows.

    Raises:
        InputError: the name is unknown, or tblite is not installed.
    """
    if name.lower() not in METHODS:
        raise InputError(
            f"{unknown('reference method', name, METHODS)} "
            "(in Python, gradpot.data.label.label accepts any ASE calculator)"
        )
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise InputError(f"{name} needs tblite; install it: pip install gradpot[label]") from error
    options = {"charge": charge, "multiplicity": multiplicity, "verbosity": 0, "cache_api": False}
    return TBLite(method=METHODS[name.lower()], **options)


def check_state(
    structures: Sequence[Atoms], charge: int | None = None, multiplicity: int | None = None
) -> None:
    """Raise an InputError if a structure states another charge or multiplicity than is computed.

    Args:
        structures: what they state is in their `info`.
        charge: as given to `reference`.
        multiplicity: the same.
    """
    for i, atoms in enumerate(structures):
        info = {key.lower(): value for key, value in atoms.info.items()}
        summed = atoms.get_initial_charges().sum().round(DECIMALS)
        for option, names, given in (
            ("charge", CHARGE, summed if charge is None else charge),
            ("multiplicity", MULTIPLICITY, multiplicity),
        ):
            stated = next((info[name] for name in names if name in info), None)
            if isinstance(stated, bool | str | None) or np.size(stated) != 1:
                continue
            # without the option it is 1 or 2, as the number of electrons allows
            if float(stated) != (min(float(stated), 2.0) if given is None else given):
                raise InputError(
                    f"structure {i} states {option} {stated:g}, which would not be computed; give "
                    f"--{option} {stated:g}, and label structures that differ one by one (--index)"
                )


def label(
    structures: Iterable[Atoms],
    calculator: BaseCalculator,
    out: str | Path,
    skip_failures: bool = False,
    progress: bool = False,
) -> Labeled:
    """Compute energy and forces, and stress if all axes are periodic, and write them.

    Args:
        structures: positions in Å; labels and constraints that they have are dropped.
        calculator: any ASE calculator.
        out: .xyz or .extxyz, in eV and Å; or .npz of the sGDML form, for structures that all have
            the same atoms, written at the end from OUT.part.extxyz. If the file holds
            frames of an earlier run, the remaining ones are appended.
        skip_failures: continue after a structure that the calculator cannot label, and list it in
            OUT.skipped.json.
        progress: show a progress bar with the time left on standard error.

    Raises:
        InputError: the frames in `out` do not belong to these structures; another process is
            writing there; or a structure failed (those before it are in `out`).
    """
    for name in ("energy", "forces"):
        if name not in calculator.implemented_properties:
            kind = type(calculator).__name__
            raise InputError(f"{kind} gives no {name}; choose another calculator")
    out, plain = Path(out), [_plain(*pair) for pair in enumerate(structures)]
    with locked(out):
        frames_file = _frames_file(out, plain)
        skipped_file = frames_file.with_name(frames_file.name + ".skipped.json")
        skipped: dict[int, str] = {}
        if skipped_file.exists():
            skipped = {int(i): reason for i, reason in json.loads(skipped_file.read_text()).items()}
        todo = [i for i in range(len(plain)) if i not in skipped]
        n_found = _check_found(frames_file, [plain[i] for i in todo], method(calculator))
        n_labeled = 0
        # None: no bar where there is no terminal
        shown = {"desc": "label", "unit": " structures", "disable": None if progress else True}
        with open(frames_file, "a") as file, tqdm(initial=n_found, total=len(todo), **shown) as bar:
            for i in todo[n_found:]:
                try:
                    frame = labeled(plain[i], calculator)
                except (RuntimeError, ArithmeticError, ValueError) as error:  # ASE: RuntimeError
                    reason = str(error).strip() or type(error).__name__
                    if not skip_failures:
                        raise InputError(
                            f"structure {i} (counted from 0) failed: {reason}; those before it are "
                            f"in {frames_file}. Correct or remove it, or add --skip-failures"
                        ) from error
                    skipped[i] = reason
                    write_json(skipped_file, skipped)
                else:
                    ase.io.write(file, frame, format="extxyz")
                    file.flush()
                    n_labeled += 1
                bar.update()
        if out.suffix == ".npz":
            pack([frames_file], out)
            frames_file.unlink()
    return Labeled(n_labeled, n_found, skipped)


def labeled(atoms: Atoms, calculator: BaseCalculator) -> Atoms:
    """The structure with its labels and the name of the method, nothing else.

    Raises:
        ArithmeticError: a label is not finite; and whatever the calculator raises.
    """
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
    frame.info["method"] = method(calculator)
    frame.calc = SinglePointCalculator(frame, **labels)
    return frame


def method(calculator: BaseCalculator) -> str:
    """What a frame keeps of its calculator: only the name, charge and multiplicity."""
    options = getattr(calculator, "parameters", {})
    name = options.get("method") or type(calculator).__name__
    known = [key for key in ("charge", "multiplicity") if options.get(key) is not None]
    return " ".join([str(name), *(f"{key}={options[key]}" for key in known)])


def complete_frames(path: Path) -> tuple[int, int]:
    """Number of complete frames in an extended-XYZ file, and the byte at which the last one ends.

    Raises:
        InputError: it is another kind of file.
    """
    count = end = 0
    with open(path, "rb") as file:
        while head := file.readline():
            try:
                lines = [file.readline() for _ in range(int(head) + 1)]
            except ValueError as error:
                raise InputError(f"{path} is not an extended-XYZ file; choose another") from error
            if not lines[-1].endswith(b"\n"):
                break
            count, end = count + 1, file.tell()
    return count, end


def _plain(i: int, atoms: Atoms) -> Atoms:
    """Atoms, cell, and initial charges and moments; positions as the file will hold them."""
    if not np.isfinite(atoms.positions).all():
        raise InputError(f"structure {i} (counted from 0) has positions that are not finite")
    if (atoms.numbers < 1).any():
        raise InputError(f"structure {i} (counted from 0) has an atom X, which is not an element")
    plain = atoms.copy()
    plain.set_constraint()
    plain.positions = plain.positions.round(DECIMALS)
    return plain


def _frames_file(out: Path, structures: list[Atoms]) -> Path:
    """The extended-XYZ file that is written frame by frame: `out`, or a part file beside an npz."""
    if out.suffix in (".xyz", ".extxyz"):
        return out
    if out.suffix != ".npz":
        raise InputError(f"cannot write {out}; its name must end in .extxyz, .xyz or .npz")
    if out.exists():
        raise InputError(f"{out} exists already; to label again, delete it")
    for i, atoms in enumerate(structures):
        if not np.array_equal(atoms.numbers, structures[0].numbers) or atoms.pbc.any():
            raise InputError(
                f"structure {i} has other atoms than the first, or is periodic: "
                f"write .extxyz instead of {out.name}"
            )
    return out.with_suffix(".part.extxyz")


def _check_found(path: Path, structures: list[Atoms], name: str) -> int:
    """Compare frames of an earlier run with the input; cut off an unfinished one; count them."""
    if not path.exists():
        return 0
    n_found, end = complete_frames(path)
    if n_found > len(structures):
        raise InputError(
            f"{path} has {n_found} frames and the input {len(structures)}; choose another --out"
        )
    content = path.read_bytes()
    text = io.StringIO(content[:end].decode())
    found = ase.io.iread(text, index=":", format="extxyz") if n_found else ()
    for i, (old, new) in enumerate(zip(found, structures)):
        if not (
            np.array_equal(old.numbers, new.numbers)
            and np.allclose(old.positions, new.positions, rtol=0, atol=SAME_POSITION)
            and np.allclose(old.cell, new.cell, rtol=0, atol=SAME_CELL)
        ):
            raise InputError(
                f"frame {i} of {path} is not the structure of the input; choose another --out, "
                "or delete that file"
            )
        if old.info.get("method", name) != name:
            raise InputError(
                f"frame {i} of {path} was labeled with {old.info['method']}, not with {name}; "
                "choose another --out"
            )
    rest = content[end:].decode(errors="replace").splitlines()
    if rest:
        if n_found == len(structures) or not _begins(rest, structures[n_found]):
            raise InputError(
                f"{path} ends with an unfinished frame that does not belong to the input; "
                "choose another --out"
            )
        os.truncate(path, end)
    return n_found


def _begins(written: list[str], atoms: Atoms) -> bool:
    """Whether `written` begins a frame of these atoms; its last line may be unfinished.

    Neither the labels at the end of each line nor the second line, a comment, is compared.
    """
    text = io.StringIO()
    ase.io.write(text, Atoms(atoms.numbers, atoms.positions), format="extxyz")
    pairs = list(zip(written, text.getvalue().splitlines()))
    *whole, (last, wanted) = pairs[:1] + pairs[2:]
    return all(w.startswith(b) for w, b in whole) and (
        last.startswith(wanted) or wanted.startswith(last)
    )


def pack(parts: Sequence[Path], out: Path, dtype: type = np.float64, **more: Any) -> None:
    """Write labeled frames as one npz of the sGDML form, with its units.

    Args:
        parts: extended-XYZ files, one after the other; all frames have the same atoms.
        out: the npz file.
        dtype: of positions and forces; energies are float64.
        more: texts to keep in the file, such as `theory`.

    Raises:
        InputError: there are no frames.
    """
    frames = [atoms for path in parts for atoms in ase.io.iread(path, ":", format="extxyz")]
    if not frames:
        raise InputError(f"no structure could be labeled, so there is nothing to write to {out}")
    packed = io.BytesIO()
    np.savez_compressed(
        packed,
        R=np.array([atoms.positions for atoms in frames], dtype),
        z=frames[0].numbers.astype(np.uint8),
        E=np.array([atoms.get_potential_energy() for atoms in frames]),
        F=np.array([atoms.get_forces() for atoms in frames], dtype),
        r_unit="Ang",
        e_unit="eV",
        f_unit="eV/Ang",
        name=out.stem,
        **more,
    )
    write_bytes(out, packed.getvalue())
