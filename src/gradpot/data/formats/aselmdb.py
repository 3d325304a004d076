"""ASE databases in LMDB, as fairchem writes them (.aselmdb): one file, or a folder of them.

A row is zlib-compressed JSON. Other LMDB files hold pickles, which are programs: they are refused.
"""

import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from gradpot.data.formats.ase_files import Loaded, of_rows, with_labels
from gradpot.data.formats.boundary import CONVERT, check_size, needed, reading
from gradpot.data.raw import Keys, Raw
from gradpot.errors import InputError

# bytes of JSON of one row; 10,000 atoms with labels take 3 MiB
LARGEST_ROW = 256 * 2**20
# first byte of what zlib, and pickle since 2001, write
ZLIB, PICKLE = 0x78, 0x80
# LMDB maps a file into memory, and a damaged one ends the process that reads it. So it is read by
# another process, which writes the lengths of key and value, and then both
CHILD = """
import struct, sys
sys.path.append(sys.argv[1])
import lmdb
with lmdb.open(sys.argv[2], subdir=False, readonly=True, lock=False) as environment:
    with environment.begin(buffers=True) as transaction:
        for key, value in transaction.cursor():
            sys.stdout.buffer.write(struct.pack("<QQ", len(key), len(value)))
            sys.stdout.buffer.write(key)
            sys.stdout.buffer.write(value)
"""


def read_aselmdb(path: Path, wanted: Keys) -> Raw:
    """What an ASE database in LMDB holds, in the units of SchNetPack's metadata or in ASE's.

    Raises:
        InputError: see `load_aselmdb`; or a label has a wrong shape.
    """
    return with_labels(path, load_aselmdb(path), wanted)


def load_aselmdb(path: Path) -> Loaded:
    """All structures of an ASE database in LMDB.

    Args:
        path: the file; or a folder of .aselmdb files, which are read in the order of their names.

    Raises:
        InputError: lmdb is not installed, the file is damaged, or it holds pickles.
    """
    from ase.db.row import AtomsRow
    from ase.io.jsonio import decode

    files = (sorted(path.glob("*.aselmdb")) or [path / "data.mdb"]) if path.is_dir() else [path]
    rows: list[AtomsRow] = []
    metadata: dict[str, Any] = {}
    n_atoms = 0
    for file in files:
        found: dict[int, AtomsRow] = {}
        with reading(file, "an ASE database in LMDB"):
            for key, value in records(file):
                if key.isdigit() or key == b"metadata":
                    content = cast(dict[str, Any], decode(_inflate(file, value)))
                    if key == b"metadata":
                        metadata.update(content)
                        continue
                    found[int(key)] = row = AtomsRow({**content, "id": int(key)})
                    n_atoms += row.natoms
                    check_size(path, n_atoms)
        rows += [found[key] for key in sorted(found)]
    return of_rows(path, rows, metadata)


def records(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of an LMDB file.

    Raises:
        InputError: lmdb is not installed, or the file is damaged.
    """
    home = str(Path(needed(path, "lmdb").__file__).parents[1])
    command = [sys.executable, "-I", "-c", CHILD, home, str(path.absolute())]
    left = path.stat().st_size
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            while lengths := child.stdout.read(16):
                sizes = struct.unpack("<QQ", lengths)
                left -= 16 + sum(sizes)
                if left < 0:  # a damaged tree of pages can have circles
                    raise InputError(
                        f"{path} holds more than its size; copy it again, or {CONVERT}"
                    )
                yield child.stdout.read(sizes[0]), child.stdout.read(sizes[1])
            reason = child.stderr.read().decode(errors="replace").strip().splitlines()
        finally:
            child.kill()
    if child.returncode:
        why = reason[-1] if reason else f"reading it ended with signal {-child.returncode}"
        raise InputError(f"{path} is damaged or not LMDB ({why}); copy it again, or {CONVERT}")


def _inflate(path: Path, stored: Any) -> str:
    """The text of a row.

    Raises:
        InputError: it is a pickle, something else, or too large.
    """
    first = stored[0] if len(stored) else -1
    if first == PICKLE:
        raise InputError(
            f"{path} holds pickles (OC20 and other sets of the old fairchem), which are not read "
            "because they can run code: take the set as extended XYZ, or convert it to an ASE "
            "database with fairchem if you trust it"
        )
    if first != ZLIB:
        raise InputError(
            f"{path} is LMDB, but holds no ASE database; convert it to extended XYZ or npz"
        )
    inflate = zlib.decompressobj()
    text = inflate.decompress(stored, LARGEST_ROW)
    if not inflate.eof:
        raise InputError(f"{path} has a row that is cut off or larger than {LARGEST_ROW >> 20} MiB")
    return text.decode()
