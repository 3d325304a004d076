"""Files that people have and gradpot does not read: what they are, and what to do."""

import re
from pathlib import Path
from typing import NoReturn

from gradpot.data.formats.boundary import CONVERT
from gradpot.errors import InputError

PICKLE = (
    "a pickle, which is not read because it can run code: convert it, where you trust it, to npz "
    "or extended XYZ"
)
ASE_WRITES = "write the structures and labels with ASE as extended XYZ, or as npz"
# by the end of the name
SUFFIXES = {
    ".safetensors .pt2": "weights, such as a gradpot model, not data: give a file of structures",
    ".pt .pth .ckpt .pkl .pickle .joblib .dill": PICKLE,
    ".lmdb-lock": "the lock of an LMDB; give the file beside it",
    ".tar .tar.gz .tgz .tar.xz .tar.bz2 .zip .7z .rar": "an archive: unpack it, and give the file "
    "inside",
    ".csv .tsv .parquet .xlsx .feather": f"a table without structures: {ASE_WRITES}",
    ".npy": "a single array: put positions, atomic numbers and labels together into an npz",
    ".pdbx .mol2 .xtc .trr .dcd .h5md .mdcrd .nc": "structures without energies and forces: "
    "convert them to extended XYZ, and label them with gradpot label",
}
# by what the first HEAD bytes match
CONTENT = {
    r"Psi4: An Open-Source": f"an output of Psi4, which ASE does not read: {ASE_WRITES}",
    r"CP2K\|": "an output of CP2K, which ASE does not read: write FORCES and the trajectory to "
    "files, and join them into extended XYZ (docs/units-and-formats.md)",
    r"\A\s*\d+\s*\n\s*i =\s*\d+,.*E =": "a trajectory of CP2K, which has energies in hartree and "
    "neither cell nor forces: join it with the others into extended XYZ "
    "(docs/units-and-formats.md)",
    r"Welcome to Q-Chem": f"an output of Q-Chem, which ASE does not read: {ASE_WRITES}",
    r"PROGRAM SYSTEM MOLPRO": f"an output of Molpro, which ASE does not read: {ASE_WRITES}",
    r"\|\s+x T B\s+\|": f"an output of xtb, which ASE does not read: {ASE_WRITES}",
    r"\A\x80[\x02-\x05]": PICKLE,
    r"\APK\x03\x04": "a zip archive: unpack it, or name it .npz if NumPy wrote it",
    r"\A\x89HDF": "HDF5: name it .h5",
    r"\ASQLite format 3": "a database: name it .db if ASE wrote it",
}
HEAD = 2**14


def refuse(path: Path) -> None:
    """Raise an InputError that says what a file is, if it is one of these."""
    name = path.name.lower()
    for suffixes, what in SUFFIXES.items():
        if name.endswith(tuple(suffixes.split())):
            raise InputError(f"{path} is {what}")
    with open(path, "rb") as file:
        head = file.read(HEAD).decode("latin-1")
    for pattern, what in CONTENT.items():
        if re.search(pattern, head):
            raise InputError(f"{path} is {what}")


def refuse_folder(path: Path) -> NoReturn:
    """Raise an InputError that says what a folder is, as far as one can see."""
    found = ", ".join(sorted(child.name for child in path.iterdir())[:10])
    raise InputError(
        f"{path} is a folder; expected a file of structures (the folder has {found or 'nothing'}), "
        f"or {CONVERT}"
    )
