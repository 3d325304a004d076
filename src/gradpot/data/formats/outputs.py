"""What ASE does not tell about outputs of programs: convergence, and labels of other geometries.

ASE converts units and signs. Its `energy` of VASP is extrapolated to zero smearing; `free_energy`
belongs to the forces. Of Quantum ESPRESSO both are the energy that belongs to the forces.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from ase import Atoms
from ase.units import Hartree, create_units
from jaxtyping import Bool

from gradpot.errors import InputError

NUMBER = r"([-+]?\d+\.\d*(?:[DEde][-+]?\d+)?)"
# relative; energies that ASE converted differ by this much from ours, because programs use several
# values of the constants of nature
SAME_ENERGY = 1e-7


class Output(NamedTuple):
    """What is usable in an output, and what the user should know."""

    structures: list[Atoms]
    converged: Bool[np.ndarray, "n_frames"] | None = None
    notices: tuple[str, ...] = ()


def examine(path: Path, kind: str, structures: list[Atoms]) -> Output:
    """The structures of an output that have labels of their own, and which of them converged.

    Args:
        path: of the output.
        kind: ASE's name of the format.
        structures: what ASE read.

    Raises:
        InputError: ASE misreads the energies, or pairs positions and forces in different
            orientations.
    """
    return PROGRAMS[kind](path, structures) if kind in PROGRAMS else Output(structures)


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of an output, which may be compressed as ASE allows."""
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "rb") as file:
        yield from cast(Iterable[bytes], file)


def read_text(path: Path) -> str:
    """The whole text of an output."""
    return b"".join(read_lines(path)).decode(errors="replace")


def outcar(path: Path, structures: list[Atoms]) -> Output:
    """A step converged if VASP says so, or needed fewer iterations than NELM."""
    limit, count, reached, converged = 0, 0, False, []
    for line in read_lines(path):
        if found := re.match(rb"\s*NELM\s*=\s*(\d+)", line):
            limit = int(found[1])
        count += bool(re.search(rb"Iteration\s+\d+\(", line))
        reached |= b"EDIFF is reached" in line
        if b"FREE ENERGIE OF THE ION-ELECTRON SYSTEM" in line:
            converged.append(reached or count < limit)
            count, reached = 0, False
    return Output(structures, np.array(converged[: len(structures)], dtype=bool))


def vasprun(path: Path, structures: list[Atoms]) -> Output:
    """A step converged if it needed fewer iterations than NELM."""
    limit, counts = 0, []
    for line in read_lines(path):
        if found := re.search(rb'<i type="int" name="NELM">\s*(\d+)', line):
            limit = int(found[1])
        if b"<calculation>" in line:
            counts.append(0)
        if b"<scstep>" in line and counts:
            counts[-1] += 1
    if len(counts) < len(structures):  # a file that is cut off before the first step
        return Output(structures)
    return Output(structures, np.array(counts[: len(structures)]) < (limit or np.inf))


def espresso(path: Path, structures: list[Atoms]) -> Output:
    """A step converged if its estimated accuracy is below the threshold of the input.

    With scf_must_converge=.false., version 6.7 prints "convergence has been achieved" always.
    """
    text = read_text(path)
    if "EXX: now go back to refine exchange" in text:
        raise InputError(
            f"{path} is of a hybrid functional, for which ASE reads the energy before the exchange "
            "converged: take the energies of lines that begin with !!, and write extended XYZ"
        )
    limit = re.search(rf"convergence threshold\s*=\s*{NUMBER}", text)
    step = rf"!\s+total energy\s*=\s*{NUMBER} Ry(.*?)(?=Forces acting|!\s+total energy|\Z)"
    bad = []
    for energy, rest in re.findall(step, text, re.DOTALL):
        accuracy = re.search(rf"estimated scf accuracy\s*<\s*{NUMBER}", rest)
        coarse = accuracy and limit and float(accuracy[1]) > float(limit[1])
        if coarse or "convergence NOT achieved" in rest:
            bad.append(float(energy) * create_units("2006")["Ry"])
    return Output(structures, _differ(structures, bad))


def nwchem(path: Path, structures: list[Atoms]) -> Output:
    """ASE pairs energies of line searches, whose geometry is not printed, with the next geometry.

    They have no forces.
    """
    found = re.findall(rf"failed to converge.*?Total \S+ energy =\s*{NUMBER}", read_text(path), 16)
    own = [atoms for atoms in structures if _result(atoms, "forces") is not None] or structures
    lost = len(structures) - len(own)
    notice = f"{lost} energies without forces, of line searches, are not read"
    converged = _differ(own, [float(energy) * Hartree for energy in found])
    return Output(own, converged, (notice,) * (lost > 0))


def orca(path: Path, structures: list[Atoms]) -> Output:
    """ASE gives NaN for an energy that ORCA marks as not converged."""
    energies = [_result(atoms, "energy") for atoms in structures]
    return Output(structures, np.array([e is None or bool(np.isfinite(e)) for e in energies]))


def gaussian(path: Path, structures: list[Atoms]) -> Output:
    """Gaussian prints forces in the input orientation, and may print only the standard one."""
    text = read_text(path)
    if "Forces (Hartrees/Bohr)" in text and not re.search(r"(Input|Z-Matrix) orientation:", text):
        raise InputError(
            f"{path} has its forces in the input orientation, but its positions only in the "
            "standard orientation: run Gaussian again with NoSymm"
        )
    found = re.findall(rf"Convergence criterion not met.*?SCF Done:[^=]*=\s*{NUMBER}", text, 16)
    found += re.findall(rf"SCF Done:[^=]*=\s*{NUMBER}[^\n]*\n[^\n]*Convergence failure", text)
    return Output(structures, _differ(structures, [float(e) * Hartree for e in found]))


def _differ(structures: Sequence[Atoms], bad: list[float]) -> Bool[np.ndarray, "n_frames"]:
    """Whether the energy of each structure is none of those, in eV, that did not converge."""
    energy = np.array([_result(atoms, "energy") or np.nan for atoms in structures], dtype=float)
    close = np.abs(energy[:, None] - np.array(bad)) < SAME_ENERGY * np.abs(energy[:, None])
    return np.logical_not(close.any(1))


def _result(atoms: Atoms, key: str):
    return getattr(atoms.calc, "results", {}).get(key)


# by ASE's name of the format
PROGRAMS: dict[str, Callable[[Path, list[Atoms]], Output]] = {
    "vasp-out": outcar,
    "vasp-xml": vasprun,
    "espresso-out": espresso,
    "nwchem-out": nwchem,
    "orca-output": orca,
    "gaussian-out": gaussian,
}
