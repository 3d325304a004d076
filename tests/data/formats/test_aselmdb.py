"""ASE databases in LMDB and of SchNetPack, in files that these libraries wrote."""

import gzip
import json
import zlib
from pathlib import Path

import lmdb
import numpy as np
import pytest

from gradpot.data.files import StressLabel, read, read_structures
from gradpot.data.formats import aselmdb
from gradpot.errors import InputError

FILES = Path(__file__).parent / "files"
TENSION = StressLabel("stress", "eV/Ang^3", "matrix", "tension")


@pytest.fixture
def unpack(tmp_path):
    """Unpack one of the files, and return its path."""

    def write(name, to=None):
        path = tmp_path / (to or name)
        path.write_bytes(gzip.decompress((FILES / f"{name}.gz").read_bytes()))
        return path

    return write


def agree(frames, reference):
    for name in ("n_atoms", "numbers", "positions", "cell", "pbc", "energy", "forces", "stress"):
        np.testing.assert_allclose(getattr(frames, name), getattr(reference, name), atol=1e-7)


def lmdb_file(path, items):
    with (
        lmdb.open(str(path), subdir=False, map_size=2**20) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in items.items():
            transaction.put(key, value)
    return path


def test_fairchem_database(unpack):
    frames = read(unpack("copper.aselmdb"))
    agree(frames, read(FILES / "copper.extxyz", stress=TENSION).take(np.array([0, 2])))
    assert frames.numbers.tolist() == [29, 29, 29, 29, 79, 29, 29, 29]


def test_a_folder_of_shards_is_read_in_order_and_nothing_is_written(unpack, tmp_path):
    for name in ("b.aselmdb", "a.aselmdb"):
        unpack("copper.aselmdb", name)
    frames = read(tmp_path)
    assert frames.n_atoms.tolist() == [4] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.aselmdb", "b.aselmdb"]
    assert len(read_structures(tmp_path)) == 4


def test_rows_are_ordered_by_number(tmp_path):
    def row(n):
        geometry = {"numbers": [1], "positions": [[0, 0, n]], "cell": np.zeros((3, 3)).tolist()}
        rest = {"energy": n, "pbc": [False] * 3, "ctime": 0, "unique_id": "a"}
        return zlib.compress(json.dumps({**geometry, **rest}).encode())

    path = lmdb_file(tmp_path / "a.aselmdb", {str(n).encode(): row(n) for n in range(1, 13)})
    assert read(path).energy.tolist() == list(range(1, 13))


def test_schnetpack_keeps_its_units_although_rows_have_results_in_ev(unpack):
    label = StressLabel("stress", "kcal/mol/Ang^3", "matrix", "tension")
    frames = read(unpack("schnetpack.db"), stress=label)
    agree(frames, read(FILES / "copper.extxyz", stress=TENSION))
    assert "kcal/mol, Ang, kcal/mol/Ang (energy, length, force from the file)" in frames.notices[0]


def test_pickles_are_refused(tmp_path):
    for name in ("a.lmdb", "data.mdb"):
        path = lmdb_file(tmp_path / name, {b"0": b"\x80\x04cos\nsystem\n", b"length": b"\x80\x041"})
        with pytest.raises(InputError, match=r"holds pickles .*they can run code: .*extended XYZ"):
            read(path)
    with pytest.raises(InputError, match="holds pickles"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({}, "holds no structures"),
        ({b"1": b"plain"}, "is LMDB, but holds no ASE database"),
        ({b"1": zlib.compress(b"[]")}, "cannot read"),
        ({b"1": zlib.compress(b"{")}, "cannot read"),
        ({b"1": zlib.compress(b'{"numbers": [1]}')}, "cannot read"),
        ({b"1": zlib.compress(b"{}" * 999)[:-9]}, "has a row that is cut off"),
        ({b"1": zlib.compress(bytes(2**24))}, "or larger than 1 MiB"),
    ],
)
def test_rows_that_are_no_structures(tmp_path, monkeypatch, items, message):
    monkeypatch.setattr(aselmdb, "LARGEST_ROW", 2**20)
    with pytest.raises(InputError, match=message):
        read(lmdb_file(tmp_path / "a.aselmdb", items))


def test_damaged_files_do_not_end_the_process(unpack):
    """LMDB maps a file into memory: a page that is not there ends the process with SIGBUS."""
    path = unpack("copper.aselmdb")
    whole = path.read_bytes()
    for content in (b"", whole[:20000], whole[:20480] + bytes(4096) + whole[24576:], b"x" * 9000):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"is damaged or not LMDB .* extended XYZ or npz"):
            read(path)
