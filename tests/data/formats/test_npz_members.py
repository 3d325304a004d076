"""Damaged npz files give one InputError before memory is allocated; odd, whole ones are read."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from gradpot.data.files import read
from gradpot.data.formats import npz_members
from gradpot.errors import InputError

SHAPE = "{'descr': '<f8', 'fortran_order': False, 'shape': %s, }"
R = np.arange(12.0).reshape(2, 2, 3)
WATERLESS = {"R": R, "z": [1, 1], "E": [0.0, 1.0], "F": 0 * R, "r_unit": "Ang", "e_unit": "eV"}


def npy(header: str, body: bytes = b"") -> bytes:
    """An array with this text as its header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def raw(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


def npz(path, compression=zipfile.ZIP_STORED, **changes: bytes):
    """A good file, in which some arrays are these bytes instead."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, array in WATERLESS.items():
            archive.writestr(f"{name}.npy", changes.get(name, raw(array)))
    return path


DAMAGED_ARRAYS = {
    "a shape of 589 TB": ("R", npy(SHAPE % "(9000000000000, 3, 3)")),
    "a size beyond 64 bits": ("R", npy(SHAPE % f"({2**64},)")),
    "a negative size": ("R", npy(SHAPE % "(-2, 2, -3)", bytes(96))),
    "more bytes than the shape": ("R", npy(SHAPE % "(1, 2, 3)", bytes(96))),
    "an open header": ("R", npy("{'descr': (")),
    "a deep header": ("R", npy("(" * 3000 + ")" * 3000)),
    "a set as header": ("R", npy("{{}:1}")),
    "no header": ("R", b"not an array at all"),
    "nothing": ("R", b""),
    "another version": ("R", b"\x93NUMPY\x03\x00" + npy(SHAPE % "()", bytes(8))[8:]),
    "a unit that is not text": (
        "e_unit",
        npy("{'descr': '<U2', 'fortran_order': False, 'shape': (), }", b"\xff" * 8),
    ),
    "bytes that are not text": ("e_unit", raw(b"\xff")),
}


@pytest.mark.parametrize("what", DAMAGED_ARRAYS)
def test_a_damaged_array_is_named(tmp_path, what):
    name, content = DAMAGED_ARRAYS[what]
    with pytest.raises(InputError, match=f"array '{name}' is damaged") as caught:
        read(npz(tmp_path / "a.npz", **{name: content}))
    assert len(str(caught.value)) < 600


def test_python_objects_are_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", **{**WATERLESS, "R": np.array([R, None], dtype=object)})
    with pytest.raises(InputError, match="array 'R' holds Python objects"):
        read(tmp_path / "a.npz")


# position in the file's central directory, and what is written there
DIRECTORY = {"compression method": (10, 77), "encryption": (8, 1), "zip version": (6, 141)}


@pytest.mark.parametrize("what", DIRECTORY)
def test_a_directory_that_says_something_else(tmp_path, what):
    path = npz(tmp_path / "a.npz")
    content, (place, value) = bytearray(path.read_bytes()), DIRECTORY[what]
    content[content.find(b"PK\1\2") + place] = value
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        read(path)


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damage_inside_every_kind_of_compression(tmp_path, compression):
    path = npz(tmp_path / "a.npz", compression)
    assert read(path).n_atoms.tolist() == [2, 2]
    content = bytearray(path.read_bytes())
    content[60:70] = b"\xff" * 10
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        read(path)


def test_an_array_larger_than_the_memory_is_refused_before_it_is_allocated(tmp_path):
    path, frames = tmp_path / "a.npz", 10**13
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("R.npy", npy(SHAPE % f"({frames}, 2, 3)"))
        archive.writestr("z.npy", raw([1, 1]))
        archive.filelist[0].file_size += frames * 6 * 8
    tracemalloc.start()
    with pytest.raises(InputError, match=r"array 'R' takes 4\.8e\+05 GB, more than the .* memory"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_two_arrays_of_one_name(tmp_path):
    path = npz(tmp_path / "a.npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("R", raw(R + 1))
    with pytest.raises(InputError, match="two arrays called 'R'"):
        read(path)


def test_no_frames_or_no_atoms(tmp_path):
    for shape in ((0, 2, 3), (2, 0, 3), (10**18, 0, 3)):
        path = npz(tmp_path / "a.npz", R=npy(SHAPE % str(shape)))
        with pytest.raises(InputError, match=r"R is empty|is damaged"):
            read(path)


@pytest.mark.parametrize("kind", [">f8", "<f4", "<f2", ">i4", "u1"])
@pytest.mark.parametrize("order", "CF")
def test_any_type_of_number_in_any_order_of_bytes(tmp_path, kind, order):
    path = npz(tmp_path / "a.npz", R=raw(R.astype(kind, order=order)))
    np.testing.assert_array_equal(npz_members.read(path, "R"), R)
    np.testing.assert_array_equal(read(path).positions, R.reshape(4, 3))


@pytest.mark.parametrize("unit", [np.array("Å", ">U1"), np.array(["Å"], "<U9"), "Å".encode()])
def test_any_way_to_store_a_text(tmp_path, unit):
    assert (read(npz(tmp_path / "a.npz", r_unit=raw(unit))).positions == R.reshape(4, 3)).all()


@pytest.mark.parametrize("unit", ["eV", "hartree"])
def test_labels_that_overflow_in_conversion_are_infinite(tmp_path, unit):
    for name, what in (("E", "an infinite energy"), ("F", "infinite forces")):
        spoiled = np.array(WATERLESS[name], dtype=float)
        spoiled.flat[-1] = 1e308
        with pytest.raises(InputError, match=f"frame 1 has {what}"):
            read(npz(tmp_path / "a.npz", e_unit=raw(unit), **{name: raw(spoiled)}))
