"""Damaged model files are refused in one line that names the file; none is taken for a good one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gradpot import InputError, Potential, build, load, save
from gradpot.potential.checkpoint import notes, read_tensors, write_tensors
from gradpot.potential.header import LONGEST_HEADER

REFERENCES = {1: -13.6, 8: -2040.0}
SPEC = {"cutoff": 4.0, "width": 8, "n_layers": 1, "n_radial": 4}


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("good") / "model.safetensors"
    torch.manual_seed(0)
    save(Potential(build("painn", **SPEC), REFERENCES, 0.7), path, {"author": "a test"})
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# name of a field, its value (or None to leave it out), what the error says
FIELDS = [
    ("format", None, "format is missing"),
    ("format", "2", "format is '2', but must be 2"),
    ("format", True, "format is True"),
    ("format", 3, "another version of gradpot, as format 3"),
    ("model", None, "is not a gradpot model"),
    ("model", [], r"model is \[\], but"),
    ("model", "painn", "model is 'painn', but"),
    ("references", None, "references is missing"),
    ("references", {}, "references is {}"),
    ("references", {"H": 1.0}, "references.H is 'H'"),
    ("references", {"0": 1.0}, "references.0 is '0'"),
    ("references", {"01": 1.0}, "references.01 is '01'"),
    ("references", {"1": -13.6, "119": 1.0}, "there is no element 119"),
    ("references", {"1": None}, "references.1 is None, but must be a valid number"),
    ("references", {"1": float("nan")}, "references.1 is nan, but must be a finite number"),
    ("references", {"1": float("-inf")}, "references.1 is -inf"),
    ("references", {"1": "-13.6"}, "references.1 is '-13.6'"),
    ("scale", None, "scale is missing"),
    ("scale", "x", "scale is 'x', but must be a valid number"),
    ("scale", "0.7", "scale is '0.7'"),
    ("scale", True, "scale is True"),
    ("scale", 0.0, "scale is 0.0, but must be greater than 0"),
    ("scale", -0.7, "scale is -0.7"),
    ("scale", float("nan"), "scale is nan, but must be a finite number"),
    ("scale", float("inf"), "scale is inf"),
    ("units", None, "units is missing"),
    ("units", {"energy": "kcal/mol", "length": "Ang"}, "energy is 'kcal/mol', but must be 'eV'"),
    ("units", {"energy": "eV", "length": "bohr"}, "length is 'bohr', but must be 'Ang'"),
    ("units", {"energy": "eV"}, "units.length is missing"),
    ("notes", [], r"notes is \[\]"),
    ("trained_by", "me", "'trained_by' is unknown"),
]


@pytest.mark.parametrize(("field", "value", "message"), FIELDS)
def test_a_field_that_is_wrong(good, tmp_path, field, value, message):
    tensors, header = read_tensors(good)
    changed = {k: v for k, v in {**header, field: value}.items() if v is not None}
    write_tensors(tmp_path / "x.safetensors", tensors, changed)
    refused(tmp_path / "x.safetensors", message)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("name", None, "cannot be built"),
        ("name", "os.system", "unknown model 'os.system'"),
        ("name", ["painn"], "cannot be built"),
        ("width", None, "its header's model lacks width"),
        ("filter", None, "its header's model lacks filter"),
        ("width", 10**9, "width is 1000000000 but must be at most"),
        ("width", 500, "width is 500; the longest axis of its tensors is 119"),
        ("width", 16, r"\[119, 8\], but its header describes one of \[119, 16\]"),
        ("width", "8", "width is '8' but must be a whole number"),
        ("n_layers", 10**9, "n_layers is 1000000000 but must be at most"),
        ("n_layers", 2, "it has no tensor"),
        ("n_radial", 1, "n_radial is 1 but must be at least 2"),
        ("cutoff", 0.0, "cutoff is 0.0 Å but must be positive"),
        ("cutoff", float("nan"), "cutoff is nan but must be finite"),
        ("cutoff", 1e300, "cutoff is 1e.300 but must be at most"),
        ("activation", "../evil", r"unknown activation '\.\./evil'"),
        ("self", 1, "unknown argument of painn 'self'"),
    ],
)
def test_a_model_that_is_not_that_of_the_tensors(good, tmp_path, argument, value, message):
    tensors, header = read_tensors(good)
    spec = {k: v for k, v in {**header["model"], argument: value}.items() if v is not None}
    write_tensors(tmp_path / "x.safetensors", tensors, {**header, "model": spec})
    refused(tmp_path / "x.safetensors", message)


TENSORS = {
    "missing": (lambda t: dict(list(t.items())[1:]), "it has no tensor 'embedding.weight'"),
    "none": (lambda t: {}, "it has no tensor"),
    "one more": (lambda t: {**t, "x": torch.zeros(3)}, "its model has no tensor 'x'"),
    "turned": (
        lambda t: {k: v.flip(0) if v.ndim < 2 else v.mT for k, v in t.items()},
        r"is \[8, 119\], but its header",
    ),
    "whole numbers": (lambda t: {k: v.int() for k, v in t.items()}, "its weights are I32"),
    "two kinds": (
        lambda t: {k: v.double() if v.ndim > 1 else v for k, v in t.items()},
        "its weights are F32 and F64",
    ),
    "not finite": (lambda t: {k: v / 0 for k, v in t.items()}, "weights that are not finite"),
    # an axis without elements costs nothing in a file: it does not count
    "hollow": (lambda t: {**t, "x": torch.zeros(10**9, 0)}, "has no tensor 'x'"),
}


@pytest.mark.parametrize("damage", TENSORS)
def test_tensors_that_are_wrong(good, tmp_path, damage):
    change, message = TENSORS[damage]
    tensors, header = read_tensors(good)
    write_tensors(tmp_path / "x.safetensors", change(tensors), header)
    refused(tmp_path / "x.safetensors", message)


def test_a_header_cannot_make_a_network_larger_than_its_file(good, tmp_path):
    """A tensor with one long axis allows the sizes; building stops at the first large one."""
    tensors, header = read_tensors(good)
    spec = {**header["model"], "width": 9_000}
    long = {**tensors, "x": torch.zeros(9_000, 1)}
    write_tensors(tmp_path / "x.safetensors", long, {**header, "model": spec})
    refused(tmp_path / "x.safetensors", "a network much larger than its tensors")


TEXTS = {
    "no JSON": (lambda text: "{x", "its header is not JSON"),
    "nothing": (lambda text: "", "its header is not JSON"),
    "a list": (lambda text: f"[{text}]", "its header is no table but"),
    "a number": (lambda text: "3", "its header is no table but 3"),
    "deep": (lambda text: "[" * 100_000, "nested too deeply"),
    "a name twice": (lambda text: text[:-1] + ', "scale": 9.9}', "it has 'scale' twice"),
    "a name twice below": (
        lambda text: text.replace('"1": -13.6', '"1": -13.6, "1": 0.0'),
        "it has '1' twice",
    ),
    "a number of 5000 digits": (
        lambda text: text.replace('"width": 8', f'"width": {"9" * 5000}'),
        "its header is not JSON",
    ),
    "half a character": (lambda text: text.replace("a test", "\\ud800"), "surrogates not allowed"),
    "more behind it": (lambda text: text + "\0", "its header is not JSON"),
    "too long": (lambda text: text + " " * LONGEST_HEADER, "characters, more than"),
}


@pytest.mark.parametrize("damage", TEXTS)
def test_a_header_that_is_no_table(good, tmp_path, damage):
    change, message = TEXTS[damage]
    tensors, header = read_tensors(good)
    text = change(json.dumps(header))
    save_file(tensors, tmp_path / "x.safetensors", metadata={"gradpot": text})
    refused(tmp_path / "x.safetensors", message)
    with pytest.raises(InputError, match=message):
        notes(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: b"text",
        lambda content: content[:-5],
        lambda content: content + b"12345678",
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content.replace(b"a test", b"\xff\xfe\xfd\x80\x81\x82"),
        lambda content: content.replace(b'"data_offsets":[0,', b'"data_offsets":[4,'),
    ],
)
def test_bytes_that_are_wrong(good, tmp_path, change):
    (tmp_path / "x.safetensors").write_bytes(change(good.read_bytes()))
    refused(tmp_path / "x.safetensors", "is damaged or not a safetensors file")


def test_random_bytes_never_give_another_error(good, tmp_path):
    """A byte changed anywhere: the file is refused, or it is as good as before."""
    content, rng, said = good.read_bytes(), np.random.default_rng(0), []
    n_header = int.from_bytes(content[:8], "little")
    for place in rng.integers(0, 8 + n_header, 150):
        spoiled = bytearray(content)
        spoiled[place] = rng.integers(256)
        (tmp_path / "x.safetensors").write_bytes(spoiled)
        try:
            load(tmp_path / "x.safetensors")
        except InputError as error:
            said.append(str(error))
    assert len(said) > 50
    assert all("x.safetensors" in line and "\n" not in line for line in said)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_of_every_precision_come_back(good, tmp_path, dtype):
    potential = load(good).to(dtype)
    save(potential, tmp_path / "x.safetensors", {"error": float("nan")})
    again = load(tmp_path / "x.safetensors")
    assert again.dtype == dtype
    assert (again.references, again.scale) == (REFERENCES, 0.7)
    for a, b in zip(again.parameters(), potential.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("references", "scale"), [({1: float("nan")}, 1.0), ({1: 0.0}, float("inf")), ({}, 1.0)]
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, references, scale):
    with pytest.raises(InputError, match="in its header"):
        save(Potential(build("painn", **SPEC), references, scale), tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())
