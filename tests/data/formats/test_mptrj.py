"""The JSON of MPtrj, with structures that pymatgen wrote."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest

from gradpot.data.files import StressLabel, read, read_structures
from gradpot.data.formats import mptrj
from gradpot.errors import InputError

FILES = Path(__file__).parent / "files"
TENSION = StressLabel("stress", "eV/Ang^3", "matrix", "tension")


@pytest.fixture
def content():
    return json.loads(gzip.decompress((FILES / "mptrj.json.gz").read_bytes()))


@pytest.fixture
def save(tmp_path):
    def write(content):
        (tmp_path / "mptrj.json").write_text(json.dumps(content))
        return tmp_path / "mptrj.json"

    return write


def test_mptrj_agrees_with_ase(save, content):
    frames, reference = read(save(content)), read(FILES / "copper.extxyz", stress=TENSION)
    for name in ("n_atoms", "numbers", "positions", "cell", "pbc", "energy", "forces", "stress"):
        one, other = getattr(frames, name), getattr(reference, name)
        np.testing.assert_allclose(one, other, atol=1e-7)
    assert "energies from uncorrected_total_energy" in frames.notices
    assert "stress from stress (kbar, matrix, compression)" in frames.notices
    assert len(read_structures(save(content), index="1:")) == 2


def test_other_energies(save, content):
    path = save(content)
    corrected = read(path, energy_key="corrected_total_energy").energy
    np.testing.assert_allclose(corrected, read(path).energy - 1.5)
    with pytest.raises(InputError, match="'energy_per_atom' is no total energy; MPtrj has uncorr"):
        read(path, energy_key="energy_per_atom")
    with pytest.raises(InputError, match=r"no field 'energy' \(--energy-key\); it has bandgap"):
        read(path, energy_key="energy")


def test_missing_labels_are_nan(save, content):
    frame = next(iter(content["mp-0"].values()))
    del frame["force"], frame["stress"]
    frame["uncorrected_total_energy"] = None
    frames = read(save(content))
    assert np.isnan(frames.energy).tolist() == [True, False, False]
    assert np.isnan(frames.forces[:, 0]).tolist() == [True] * 4 + [False] * 8
    assert np.isnan(frames.stress[:, 0, 0]).tolist() == [True, False, False]


@pytest.mark.parametrize("chunk", [1, 7, 64, 10**6])
def test_members_are_the_same_in_pieces_of_any_size(monkeypatch, chunk):
    monkeypatch.setattr(mptrj, "CHUNK", chunk)
    value = {"a": {"x": [1, 2.5]}, 'b"\\,}{': [], "c": "}{,:", "d": -12.25, "e": {}}
    for text in (json.dumps(value), json.dumps(value, indent=2) + "\n"):
        assert dict(mptrj.members(io.StringIO(text))) == value
    for text in ("", "[1]", "{", '{"a": 1', '{"a": 1,', '{"a": 1 "b": 2}', '{"a" 1}', "{1: 2}"):
        with pytest.raises(ValueError, match=r"object|delimiter|Expecting|expected"):
            list(mptrj.members(io.StringIO(text)))


def site(**changes):
    def change(frame):
        frame["structure"]["sites"][0].update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("structure"), "mp-0/mp-0-0-0 has no structure"),
        (lambda f: f["structure"].pop("lattice"), "has a structure without lattice"),
        (lambda f: f["structure"].update(sites=[]), "has force in shape"),
        (lambda f: f["structure"]["lattice"].update(matrix=[[1, 2], [3, 4]]), "cannot read"),
        (lambda f: f["structure"]["lattice"].update(matrix=[[1, 2, 3]] * 3), "without volume"),
        (lambda f: f["structure"]["lattice"].update(pbc=3.6), "has pbc=3.6; expected true or fal"),
        (lambda f: f["structure"]["lattice"].update(pbc=[1, 1, 0]), r"has pbc=\[1, 1, 0\]"),
        (lambda f: [s.update(abc=[0.1] * 6) for s in f["structure"]["sites"]], "cannot read"),
        (site(species=[]), "cannot read"),
        (site(species=[{"element": "Qq", "occu": 1}]), "expected one element"),
        (site(species=[{"element": "Cu", "occu": 0.5}]), "expected one element"),
        (site(species=[{"element": "Cu", "occu": 0.5}, {"element": "Au", "occu": 0.5}]), "one el"),
        (site(abc=[0, 0]), "cannot read"),
        (site(abc=None), "cannot read|not finite"),
        (lambda f: f.update(force=f["force"][:3]), r"has force in shape \[3, 3\] for 4 atoms"),
        (lambda f: f.update(force=[[1, 2], [3]]), "cannot read"),
        (lambda f: f.update(force="none"), "cannot read"),
        (lambda f: f.update(stress=[1, 2, 3, 4, 5, 6]), r"has stress in shape \[6\]"),
        (lambda f: f.update(uncorrected_total_energy=[1, 2]), "uncorrected_total_energy in shape"),
        (lambda f: f.update(uncorrected_total_energy={}), "cannot read"),
        (lambda f: f.update(uncorrected_total_energy=float("inf")), "infinite energy"),
    ],
)
def test_damaged_frames(save, content, change, message):
    change(next(iter(content["mp-0"].values())))
    with pytest.raises(InputError, match=message) as caught:
        read(save(content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"a": 1}', '{"a": {"b": {"c": 1}}}', "[" * 9999]
)
def test_other_json_is_given_to_ase(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"cannot read .* extended XYZ or npz"):
        read(tmp_path / "a.json")


def test_a_set_that_is_cut_off(save, content):
    path = save(content)
    path.write_text(path.read_text()[:-900])
    with pytest.raises(InputError, match=r"cannot read .* as MPtrj's JSON"):
        read(path)
