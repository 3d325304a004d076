"""`Frames`: labeled structures as arrays, in eV and Å, whatever file they come from."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.formula import Formula
from ase.stress import full_3x3_to_voigt_6_stress
from jaxtyping import Bool, Float, Int

from gradpot.errors import InputError
from gradpot.geometry import neighbor_list


class Frames(NamedTuple):
    """Labeled structures, one after the other; the atoms of all frames in one array.

    Labels that the file does not have are NaN. Everything is float64: reference energies
    are subtracted from total energies later, and that needs all digits.
    """

    n_atoms: Int[np.ndarray, "n_frames"]
    numbers: Int[np.ndarray, "total"]
    positions: Float[np.ndarray, "total 3"]
    cell: Float[np.ndarray, "n_frames 3 3"]
    """rows are lattice vectors; zero rows for axes that are not periodic"""
    pbc: Bool[np.ndarray, "n_frames 3"]
    energy: Float[np.ndarray, "n_frames"]
    forces: Float[np.ndarray, "total 3"]
    stress: Float[np.ndarray, "n_frames 3 3"]
    """eV/Å³, positive under tension (ASE's sign)"""
    charge: Float[np.ndarray, "n_frames"]
    """total charge in e; NaN if it is not known. Networks do not see it"""
    spin: Float[np.ndarray, "n_frames"]
    """spin or multiplicity, as the file has it; NaN if it is not known. Networks do not see it"""
    isolated: Bool[np.ndarray, "n_frames"]
    """True for a frame that its file marks as an isolated atom, a reference energy"""
    notices: tuple[str, ...] = ()
    """what the user should know: which units were used, which fields were not read"""

    def __repr__(self) -> str:
        """One line instead of all arrays: what there is, and which labels."""
        what = f"{self.n_compositions} compositions of {', '.join(self.symbols)}"
        if self.n_compositions == 1:
            what = self.formulas[0]
        labels = {"energies": self.energy, "forces": self.forces, "stress": self.stress}
        known = [name for name, values in labels.items() if np.isfinite(values).any()]
        size = f"{self.n_atoms.shape[0]} frames, {self.numbers.shape[0]} atoms"
        return f"Frames: {size}, {what}, {', '.join(known) or 'no labels'}"

    @property
    def first(self) -> Int[np.ndarray, "n_frames_plus_1"]:
        """Index of the first atom of each frame, followed by the total number of atoms."""
        return np.concatenate([[0], np.cumsum(self.n_atoms)])

    def take(self, index: Int[np.ndarray, "n_taken"]) -> "Frames":
        """The frames with these indices, in this order."""
        index = np.asarray(index, dtype=np.int64)
        counts = self.n_atoms[index]
        offset = np.repeat(self.first[:-1][index] - np.cumsum(counts) + counts, counts)
        atoms = np.arange(counts.sum()) + offset
        of_atom = {key: getattr(self, key)[atoms] for key in ("numbers", "positions", "forces")}
        of_frame = {
            key: getattr(self, key)[index] for key in self._fields[3:-1] if key not in of_atom
        }
        return self._replace(n_atoms=counts, **of_atom, **of_frame)

    def neighbors(
        self, i: int, cutoff: float
    ) -> tuple[Int[np.ndarray, "2 n_edges"], Int[np.ndarray, "n_edges 3"]]:
        """Edges and shifts of frame `i` by `geometry.neighbor_list`; errors name the frame."""
        part = slice(*self.first[i : i + 2])
        try:
            return neighbor_list(self.positions[part], self.cell[i], self.pbc[i], cutoff)
        except InputError as error:
            raise InputError(f"frame {i}: {error}") from error

    @property
    def labeled(self) -> Bool[np.ndarray, "n_frames"]:
        """Whether a frame has any label: its energy, its stress, or the force on some atom."""
        forces = np.logical_or.reduceat(np.isfinite(self.forces).any(1), self.first[:-1])
        return np.isfinite(self.energy) | forces | np.isfinite(self.stress).any((1, 2))

    def without_labels(self, index: Int[np.ndarray, "n_chosen"]) -> "Frames":
        """The same frames; all labels of those with these indices are NaN."""
        chosen = np.isin(np.arange(self.n_atoms.shape[0]), index)
        return self._replace(
            energy=np.where(chosen, np.nan, self.energy),
            forces=np.where(np.repeat(chosen, self.n_atoms)[:, None], np.nan, self.forces),
            stress=np.where(chosen[:, None, None], np.nan, self.stress),
        )

    @property
    def composition(self) -> Int[np.ndarray, "n_frames n_elements"]:
        """Atoms of each element in each frame; the columns are `np.unique(numbers)`."""
        elements, column = np.unique(self.numbers, return_inverse=True)
        shape = self.n_atoms.shape[0], elements.shape[0]
        row = np.repeat(np.arange(shape[0]), self.n_atoms)
        return np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1]).reshape(shape)

    @property
    def n_compositions(self) -> int:
        """How many different chemical formulas there are."""
        return np.unique(self.composition, axis=0).shape[0]

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols of the columns of `composition`."""
        return [chemical_symbols[z] for z in np.unique(self.numbers).tolist()]

    @property
    def formulas(self) -> list[str]:
        """The different chemical formulas, each in Hill order, such as C2H6O."""
        kinds = np.unique(self.composition, axis=0).tolist()
        counts = [{s: n for s, n in zip(self.symbols, kind) if n} for kind in kinds]
        return sorted(Formula.from_dict(count).format("hill") for count in counts)

    def fingerprint(self) -> str:
        """A hash of structures and labels: equal for equal data in any format."""
        names = ("n_atoms", "numbers", "positions", "energy", "forces", "cell", "pbc", "stress")
        return f"2:{self._hash(names)}"

    def has_fingerprint(self, fingerprint: str) -> bool:
        """Whether these are the frames with this fingerprint, also one of an older version.

        Older fingerprints have no "2:" and do not cover cells and stress.
        """
        older = ("n_atoms", "numbers", "positions", "energy", "forces")
        return fingerprint in (self.fingerprint(), self._hash(older))

    def _hash(self, names: tuple[str, ...]) -> str:
        digest = hashlib.sha256()
        for name in names:
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()

    def atoms(self, i: int) -> Atoms:
        """Frame `i` as an ASE structure with its labels in a `SinglePointCalculator`.

        A known charge or spin is in `info`.
        """
        part = slice(*self.first[i : i + 2])
        atoms = Atoms(self.numbers[part], self.positions[part], cell=self.cell[i], pbc=self.pbc[i])
        labels = {
            "energy": float(self.energy[i]),
            "forces": self.forces[part],
            "stress": full_3x3_to_voigt_6_stress(self.stress[i]),
        }
        known = {key: value for key, value in labels.items() if not np.isnan(value).any()}
        atoms.calc = SinglePointCalculator(atoms, **known)
        state = {"charge": float(self.charge[i]), "spin": float(self.spin[i])}
        atoms.info.update({key: value for key, value in state.items() if not np.isnan(value)})
        return atoms


def join(parts: Sequence[Frames]) -> Frames:
    """All frames, one part after the other; each notice is kept once."""
    names = [name for name in Frames._fields if name != "notices"]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    notices = dict.fromkeys(text for part in parts for text in part.notices)
    return Frames(**arrays, notices=tuple(notices))
