"""Files and folders that are not read: one line says what they are and what to do."""

import gzip
import pickle
import re
import sqlite3
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from gradpot.data.files import read, read_structures, require
from gradpot.errors import InputError

FILES = Path(__file__).parent / "files"
DOCS = Path(__file__).parents[3] / "docs"


def refused(path, message):
    for reader in (read, read_structures):
        with pytest.raises(InputError, match=message) as caught:
            reader(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.pt", "a pickle, which is not read because it can run code"),
        ("set.pkl", "a pickle, .*npz or extended XYZ"),
        ("set.tar.gz", "an archive: unpack it"),
        ("set.zip", "an archive: unpack it"),
        ("table.csv", "a table without structures: write .* with ASE as extended XYZ, or as npz"),
        ("table.parquet", "a table without structures"),
        ("R.npy", "a single array: put positions, .* together into an npz"),
        ("md.xtc", "structures without energies and forces: .*gradpot label"),
        ("set.LMDB-LOCK", "the lock of an LMDB"),
    ],
)
def test_by_the_name(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"anything")
    refused(tmp_path / name, f"{re.escape(name)} is {message}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hydrogen-cp2k.out", "is an output of CP2K"),
        ("water-psi4.out", "is an output of Psi4"),
    ],
)
def test_outputs_that_ase_does_not_read(tmp_path, name, message):
    (tmp_path / name).write_bytes(gzip.decompress((FILES / f"{name}.gz").read_bytes()))
    refused(tmp_path / name, message)


@pytest.mark.parametrize("name", ["hydrogen-pos-1.xyz", "hydrogen-frc-1.xyz"])
def test_cp2k_writes_hartree_and_no_cell_and_even_forces_as_positions(name):
    refused(FILES / name, r"a trajectory of CP2K, which has energies in hartree and neither cell")


def test_the_way_out_for_cp2k_that_the_page_shows(tmp_path, monkeypatch):
    page = (DOCS / "units-and-formats.md").read_text()
    [block] = re.findall(r"```python no-run\n([^`]*frc-1[^`]*)```", page)
    for name in ("hydrogen-pos-1.xyz", "hydrogen-frc-1.xyz"):
        (tmp_path / name).write_bytes((FILES / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "units-and-formats.md", "exec"), {})
    frames = read("hydrogen.extxyz")
    assert frames.cell[0].diagonal().tolist() == [5.0, 5.2, 5.4]
    np.testing.assert_allclose(np.diff(frames.energy), work(frames), rtol=0.05)


def work(frames):
    """Minus the mean force on each atom times its way, from each frame to the next."""
    shape = (frames.n_atoms.shape[0], -1, 3)
    positions, forces = frames.positions.reshape(shape), frames.forces.reshape(shape)
    return -0.5 * ((forces[1:] + forces[:-1]) * np.diff(positions, axis=0)).sum((1, 2))


def test_by_the_content(tmp_path):
    (tmp_path / "a.dat").write_bytes(pickle.dumps({"R": [1]}))
    refused(tmp_path / "a.dat", "a pickle")
    with zipfile.ZipFile(tmp_path / "b.dat", "w") as archive:
        archive.writestr("R.npy", b"")
    refused(tmp_path / "b.dat", r"a zip archive: unpack it, or name it \.npz")
    (tmp_path / "c.dat").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    refused(tmp_path / "c.dat", r"HDF5: name it \.h5")
    with sqlite3.connect(tmp_path / "d.dat") as database:
        database.execute("create table a (b)")
    database.close()
    refused(tmp_path / "d.dat", r"a database: name it \.db")


def test_folders(tmp_path):
    refused(tmp_path, "is a folder; expected a file of structures .* has nothing")
    (tmp_path / "model.safetensors").touch()
    refused(tmp_path, r"the folder has model\.safetensors\), or convert it")


@pytest.mark.parametrize("name", ["a.cif", "POSCAR", "a.pdb"])
def test_structures_alone_are_read_and_not_trained_on(tmp_path, name):
    write(tmp_path / name, bulk("NaCl", "rocksalt", 5.6))
    assert str(read_structures(tmp_path / name)[0].symbols) in ("NaCl", "ClNa")
    frames = read(tmp_path / name)
    assert frames.formulas == ["ClNa"]
    assert not frames.labeled.any()
    [said] = [text for text in frames.notices if text.startswith("no ")]
    assert re.fullmatch("no labels: files of the format .* have none", said)
    with pytest.raises(InputError, match=r"no frame has a label .* add labels with gradpot label"):
        require(frames)
