"""What is fuzzed: each target gets damaged or odd input to one part of gradpot.

A target passes if the part refuses the input with an InputError or a RunError, or accepts it and,
where the right value is known, returns it. Any other exception is a finding. Input is written into
`folder` first, so that it is still there after a crash of the process.
"""

import gzip
import io
import itertools
import json
import math
import sys
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from ase.data import chemical_symbols
from hypothesis import strategies as st
from mutations import NUMBERS, changed, mutated
from safetensors import safe_open
from safetensors.torch import save_file

from gradpot import units
from gradpot.compile import package
from gradpot.data.checks import inspect
from gradpot.data.files import read
from gradpot.errors import InputError, RunError
from gradpot.geometry import neighbor_list
from gradpot.models import build, specification
from gradpot.potential import checkpoint
from gradpot.potential.potential import Potential
from gradpot.train import folder as run_folder
from gradpot.train.config import config, override, read_json, read_toml
from gradpot.train.state import State

FILES = Path(__file__).parents[1] / "data" / "formats" / "files"
GOLDEN = Path(__file__).parents[1] / "golden"
UNITS = {"energy_unit": "eV", "length_unit": "Ang"}
REFUSALS = (InputError, RunError, OSError)

Target = Callable[[st.DataObject, Path], None]


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What the call returns; None if it refuses its input."""
    try:
        return call(*arguments, **options)
    except REFUSALS:
        return None


# data files

N, M = 3, 4
R = np.round(np.random.default_rng(0).normal(size=(N, M, 3)), 4)
E, F = np.array([-1.5, 2.25, 0.125]), -2.0 * R
Z = np.array([[8, 1, 1, 6], [8, 1, 1, 0], [6, 1, 1, 1]])
STATED = {"r_unit": "Ang", "e_unit": "eV"}
FORMS: list[dict[str, Any]] = [
    {"R": R, "z": Z[0], "E": E, "F": F, **STATED},
    {"R": R, "Z": Z, "N": (Z > 0).sum(1), "E": E, "F": F, **STATED},
    {"coords": R, "nuclear_charges": Z[0], "energies": E, "forces": F, "cell": np.eye(3) * 9},
]


def _npz(arrays: dict[str, Any], compressed: bool = False) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def npz_bytes(data: st.DataObject, folder: Path) -> None:
    """Damaged bytes: a label that is read is the original, because zip has checksums."""
    contents = [_npz(form, compressed) for form in FORMS for compressed in (False, True)]
    path = folder / "a.npz"
    path.write_bytes(data.draw(mutated(contents)))
    frames = refused(read, path, **UNITS)
    if frames is not None:
        assert frames.n_atoms.shape == (N,)
        for found, right in ((frames.energy, E), (frames.forces, F.reshape(-1, 3))):
            assert np.isnan(found).all() or np.isin(found, right).all()
        assert np.isin(frames.positions, R).all()


DTYPES = ("<f8", ">f4", "<f2", "<i8", ">i2", "u1", "?", "<c16", "S3", "<U2", "<M8[s]", "O")
SHAPES = ((N, M, 3), (N, M), (N,), (M,), (), (0,), (N, 1), (3, 3), (N, 3, 3), (M, N, 3), (N, M, 4))
VALUES = (0.0, 1.0, -1.0, 0.5, 8.0, 119.0, 1e10, 1e300, 1e-300, math.nan, math.inf, -math.inf)


@st.composite
def odd_arrays(draw: st.DrawFn, good: np.ndarray) -> np.ndarray:
    """Another type, another shape, or odd numbers in the array."""
    array = np.array(good)
    kind = draw(st.sampled_from(("type", "shape", "values", "order")))
    if kind == "type" and array.dtype.kind in "fiu":
        wide = array.astype(np.float64) % 100  # complex, text and times can hold it
        to = draw(st.sampled_from(DTYPES))
        return wide.astype(np.int64).astype(to) if "M" in to else wide.astype(to)
    if kind == "shape":
        return np.resize(array, draw(st.sampled_from(SHAPES)))
    if kind == "order":
        return np.asfortranarray(array)
    if array.dtype.kind in "fiu" and array.size:
        array = array.astype(np.float64)
        array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from(VALUES))
    return array


def npz_arrays(data: st.DataObject, folder: Path) -> None:
    """Odd arrays in a whole file: what is read is what numpy holds, in the unit that is given."""
    arrays = dict(data.draw(st.sampled_from(FORMS)))
    names = list(arrays)
    for name in data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True)):
        arrays[name] = data.draw(odd_arrays(arrays[name]))
    extra = data.draw(st.sampled_from((None, "pbc", "lattice", "stress", "charge", "q", "N")))
    if extra:
        arrays[extra] = data.draw(odd_arrays(np.eye(3)))
    for name in ("r_unit", "e_unit"):
        arrays.pop(name, None)
    path = folder / "a.npz"
    path.write_bytes(_npz(arrays))
    energy, length = data.draw(st.sampled_from(("eV", "kcal/mol"))), "bohr"
    frames = refused(read, path, energy, length)
    if frames is None:
        return
    refused(inspect, frames)
    key = next(k for k in ("R", "coords") if k in arrays)
    numbers = next(arrays[k] for k in ("Z", "z", "nuclear_charges") if k in arrays)
    atoms = np.broadcast_to(np.asarray(numbers, float), arrays[key].shape[:2]) != 0
    right = np.asarray(arrays[key], float)[atoms] * units.length_factor(length)
    np.testing.assert_allclose(frames.positions, right, rtol=1e-12)
    np.testing.assert_array_equal(frames.n_atoms, atoms.sum(1))
    for name in ("E", "energies"):
        if name in arrays:
            right = np.asarray(arrays[name], float).reshape(-1) * units.energy_factor(energy)
            np.testing.assert_allclose(frames.energy, right, rtol=1e-12)


def extxyz_text(data: st.DataObject, folder: Path) -> None:
    """Valid files in any order of columns and fields: every number arrives."""
    number = st.floats(-1e4, 1e4).map(lambda x: float(f"{x:.10g}"))
    texts, right = [], []
    has_cell = data.draw(st.booleans())
    energy_name, forces_name = data.draw(
        st.sampled_from((("energy", "forces"), ("REF_energy", "REF_forces")))
    )
    columns = data.draw(
        st.permutations((("species", "S", 1), ("pos", "R", 3), (forces_name, "R", 3)))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        n = data.draw(st.integers(1, 4))
        symbols = data.draw(st.lists(st.sampled_from(chemical_symbols[1:]), min_size=n, max_size=n))
        rows = data.draw(st.lists(st.tuples(*[number] * 6), min_size=n, max_size=n))
        energy = data.draw(number)
        fields = [f"{energy_name}={energy!r}"]
        fields.append("Properties=" + ":".join(f"{a}:{b}:{c}" for a, b, c in columns))
        fields.append('Lattice="90000 0 0 0 90000 0 0 0 90000"' if has_cell else 'pbc="F F F"')
        fields = data.draw(st.permutations(fields))
        lines = []
        for symbol, row in zip(symbols, rows):
            parts = {"species": [symbol], "pos": row[:3], forces_name: row[3:]}
            lines.append("  ".join(str(x) for name, *_ in columns for x in parts[name]))
        texts.append("\n".join([str(n), " ".join(fields), *lines]))
        right.append((symbols, rows, energy))
    path = folder / "a.extxyz"
    path.write_text("\n".join(texts) + "\n")
    frames = refused(read, path, **UNITS)
    if frames is None:
        return
    assert frames.n_atoms.tolist() == [len(symbols) for symbols, *_ in right]
    table = np.array([row for _, rows, _ in right for row in rows])
    np.testing.assert_allclose(frames.positions, table[:, :3], rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(frames.forces, table[:, 3:], rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(frames.energy, [energy for *_, energy in right])
    read_symbols = [chemical_symbols[z] for z in frames.numbers]
    assert read_symbols == [s for symbols, *_ in right for s in symbols]
    assert (frames.pbc == has_cell).all()


@cache
def seeds(*suffixes: str) -> dict[str, list[bytes]]:
    """Real files of other programs, unpacked, by the suffix of their names."""
    found: dict[str, list[bytes]] = {suffix: [] for suffix in suffixes}
    for path in sorted(FILES.iterdir()):
        content = path.read_bytes()
        name = path.name.removesuffix(".gz")
        content = gzip.decompress(content) if name != path.name else content
        if (suffix := Path(name).suffix) in found:
            found[suffix].append(content)
    return {suffix: contents for suffix, contents in found.items() if contents}


def _file(data: st.DataObject, folder: Path, *suffixes: str) -> None:
    known = seeds(*suffixes)
    suffix = data.draw(st.sampled_from(sorted(known)))
    path = folder / f"a{suffix}"
    path.write_bytes(data.draw(mutated(known[suffix])))
    frames = refused(read, path, **data.draw(st.sampled_from((UNITS, {}))))
    if frames is not None:
        _is_whole(frames)
        refused(inspect, frames)


def _is_whole(frames: Any) -> None:
    """What `Frames` promise, whatever the file was."""
    total = frames.n_atoms.sum()
    assert frames.n_atoms.min() >= 1
    assert frames.positions.shape == frames.forces.shape == (total, 3)
    assert np.isfinite(frames.positions).all()
    assert np.isfinite(frames.cell).all()
    assert not np.isinf(frames.energy).any()
    assert not np.isinf(frames.forces).any()
    assert ((frames.numbers >= 1) & (frames.numbers <= 118)).all()


def extxyz_bytes(data: st.DataObject, folder: Path) -> None:
    """Damaged extended XYZ."""
    _file(data, folder, ".extxyz", ".xyz")


def outputs(data: st.DataObject, folder: Path) -> None:
    """Damaged outputs of programs."""
    _file(data, folder, ".pwo", ".nwo", ".out")


def mptrj(data: st.DataObject, folder: Path) -> None:
    """JSON of MPtrj with other values, or damaged."""
    if data.draw(st.booleans()):
        _file(data, folder, ".json")
        return
    tree = json.loads(seeds(".json")[".json"][0])
    path = folder / "a.json"
    path.write_text(json.dumps(data.draw(changed(tree))))
    frames = refused(read, path)
    if frames is not None:
        _is_whole(frames)


def databases(data: st.DataObject, folder: Path) -> None:
    """Damaged databases, of which C libraries map the pages into memory."""
    _file(data, folder, ".db", ".aselmdb")


@cache
def _hdf5() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, form in (("a", 0), ("b", 0)):
            group = file.create_group(name)
            group["atomic_numbers"], group["conformations"] = Z[form], R
            group["dft_total_energy"], group["dft_total_gradient"] = E, F
            for key, unit in (("conformations", "bohr"), ("dft_total_energy", "hartree")):
                group[key].attrs["units"] = unit
    return buffer.getvalue()


def hdf5(data: st.DataObject, folder: Path) -> None:
    """Damaged HDF5."""
    path = folder / "a.h5"
    path.write_bytes(data.draw(mutated([_hdf5()])))
    frames = refused(read, path)
    if frames is not None:
        _is_whole(frames)


def deepmd(data: st.DataObject, folder: Path) -> None:
    """A DeePMD folder with one damaged file."""
    root = folder / "dp"
    with tarfile.open(FILES / "deepmd.tar.gz") as archive:
        archive.extractall(root, filter="data")
    system = data.draw(st.sampled_from(sorted(p for p in root.iterdir() if p.is_dir())))
    inside = sorted(p for p in system.rglob("*") if p.is_file())
    path = data.draw(st.sampled_from(inside))
    path.write_bytes(data.draw(mutated([path.read_bytes()])))
    frames = refused(read, system, **UNITS)
    if frames is not None:
        _is_whole(frames)


# units, configuration


def unit_names(data: st.DataObject, folder: Path) -> None:
    """Any text is refused, or means a positive number and, with its letters' case, the same."""
    known = [*units.ENERGY, *units.LENGTH, *units.PRESSURE]
    part = st.sampled_from(
        (*known, "/", "^3", "**3", "³", "(", ")", "*", " ", "mol", "e", "\u212b")
    )
    text = data.draw(st.lists(part, max_size=6).map("".join) | st.text(max_size=12))
    (folder / "unit.txt").write_text(repr(text))
    for factor in (
        units.energy_factor,
        units.length_factor,
        units.force_factor,
        units.stress_factor,
    ):
        value = refused(factor, text)
        if value is not None:
            assert 0 < value < math.inf
            assert refused(factor, f" {text} ") == value


KEYS = ("seed", "train", "train.epochs", "train.learning_rate", "train.compile", "train.threads")
KEYS += ("model.name", "model.width", "model.activation", "model.cutoff", "data.n_train", "lr")
KEYS += ("rescale.references", "rescale.constant", "loss.energy", "data.file", "a.b", "", "data")


def configuration(data: st.DataObject, folder: Path) -> None:
    """KEY=VALUE, TOML and JSON: a configuration that is accepted survives being written."""
    value = st.sampled_from([n.decode() for n in NUMBERS]) | st.sampled_from(
        ("true", "painn", "[1", "{a=1}", "'x'", '"', "1979-05-27", "[" * 3000, "{H=1}", "irelu(2)")
    )
    pairs = st.tuples(st.sampled_from(KEYS), value | st.text(max_size=9)).map("=".join)
    words = data.draw(st.lists(pairs, max_size=3))
    (folder / "words.txt").write_text(repr(words))
    tables = refused(override, {}, words)
    chosen = None if tables is None else refused(config, tables)
    if chosen is not None and refused(specification, **chosen.model.model_dump()):
        assert config(json.loads(chosen.model_dump_json())) == chosen
    toml = b"seed = 3\n[train]\nepochs = 5\nema = 0.9\n[model]\nname = 'painn'\nwidth = 8\n"
    (folder / "a.toml").write_bytes(data.draw(mutated([toml])))
    if (tables := refused(read_toml, folder / "a.toml")) is not None:
        refused(config, tables)


# models, states, run folders


@cache
def _model() -> tuple[bytes, dict[str, Any], dict[str, torch.Tensor]]:
    """A small model file: its bytes, its header, and its tensors."""
    path = GOLDEN / "run-muon" / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return path.read_bytes(), json.loads(file.metadata()["gradpot"]), tensors


def model(data: st.DataObject, folder: Path) -> None:
    """A model file with another header, or damaged: what loads has finite weights."""
    content, header, tensors = _model()
    path = folder / "model.safetensors"
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(mutated([content])))
    else:
        text = json.dumps(data.draw(changed(header)))
        save_file(tensors, path, {"gradpot": text})
    potential = refused(checkpoint.load, path)
    if potential is not None:
        assert isinstance(potential, Potential)
        assert all(w.isfinite().all() for w in potential.state_dict().values())
        assert 0 < potential.scale < math.inf
    refused(checkpoint.notes, path)


def compiled(data: st.DataObject, folder: Path) -> None:
    """The header of a compiled potential."""
    import zipfile

    _, header, _ = _model()
    whole = {**header, "format": package.FORMAT, "machine": package.machine(), "dtype": "float32"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        text = json.dumps(data.draw(changed(whole)))
        archive.writestr("a/metadata.json", json.dumps({"gradpot": text}))
    (folder / "a.pt2").write_bytes(data.draw(mutated([buffer.getvalue()])))
    refused(package.read_header, folder / "a.pt2")


@cache
def _small() -> Any:
    return build("painn", width=4, n_layers=1, n_radial=2)


@cache
def _state(folder: Path) -> bytes:
    state = State(_small(), "adamw")
    state.save(folder / "whole.safetensors")
    return (folder / "whole.safetensors").read_bytes()


def state(data: st.DataObject, folder: Path) -> None:
    """A saved state with other counters, or damaged."""
    content, path = _state(folder.parent), folder / "state.safetensors"
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(mutated([content])))
    else:
        (folder / "b.safetensors").write_bytes(content)
        tensors, header = checkpoint.read_tensors(folder / "b.safetensors")
        save_file(tensors, path, {"gradpot": json.dumps(data.draw(changed(header)))})
    restored = State(_small(), "adamw")
    refused(restored.restore, path)
    assert restored.weights.isfinite().all()


def run_files(data: st.DataObject, folder: Path) -> None:
    """One damaged file of a run folder."""
    name = data.draw(
        st.sampled_from(("config.json", "split.json", "rescaling.json", "metrics.jsonl"))
    )
    content = (GOLDEN / "run-muon" / name).read_bytes()
    if name != "metrics.jsonl" and data.draw(st.booleans()):
        new = json.dumps(data.draw(changed(json.loads(content)))).encode()
    else:
        new = data.draw(mutated([content]))
    (folder / name).write_bytes(new)
    readers = {
        "config.json": lambda: read_json(folder / name),
        "split.json": lambda: run_folder.read_parts(folder),
        "rescaling.json": lambda: run_folder.read_rescaling(folder),
        "metrics.jsonl": lambda: run_folder.metrics(folder),
    }
    refused(readers[name])


# geometry


def pairs(data: st.DataObject, folder: Path) -> None:
    """Pairs of any atoms in any cell, compared with all images where these are few."""
    size = data.draw(st.sampled_from((1.0, 3.0, 10.0, 1e3, 1e5, 1e7, 1e300)))
    scalar = st.floats(-1, 1, allow_nan=False) | st.sampled_from((0.0, 1.0, 1e-300, math.nan))
    n = data.draw(st.integers(1, 6))
    positions = size * np.array([[data.draw(scalar) for _ in range(3)] for _ in range(n)])
    kind = data.draw(st.sampled_from(("cube", "any", "none")))
    cell = np.zeros((3, 3))
    if kind == "cube":
        cell = np.eye(3) * data.draw(st.sampled_from((1e-3, 2.0, 5.0, 1e4, 1e6, 1e300)))
    elif kind == "any":
        cell = size * np.array([[data.draw(scalar) for _ in range(3)] for _ in range(3)])
    pbc = np.array([data.draw(st.booleans()) for _ in range(3)]) & cell.any(axis=1)
    cutoff = data.draw(st.sampled_from((0.5, 3.0, 6.0, 100.0)))
    np.savez(folder / "atoms.npz", positions=positions, cell=cell, pbc=pbc, cutoff=cutoff)
    found = refused(neighbor_list, positions, cell, pbc, cutoff)
    if found is None or size > 10 or cutoff > 6 or kind == "any":
        return
    reach = [range(-int(cutoff // max(c, 1) + 14), int(cutoff // max(c, 1) + 15)) if p else (0,)
             for c, p in zip(np.diag(cell), pbc)]  # fmt: skip
    if math.prod(len(r) for r in reach) * n * n > 200_000 or (pbc & (np.diag(cell) < 1)).any():
        return
    (edges, shifts), images = found, np.array(list(itertools.product(*reach)))
    vectors = positions[None, :, None] - positions[:, None, None] + (images @ cell)[None, None]
    distance = np.sqrt((vectors**2).sum(-1))
    near = (distance < cutoff - 1e-9) & ~((images == 0).all(1) & np.eye(n, dtype=bool)[:, :, None])
    edge = (np.abs(distance - cutoff) <= 1e-9).sum()
    assert 0 <= edges.shape[1] - near.sum() <= edge
    assert shifts.shape == (edges.shape[1], 3)


# the command line

WORDS = (
    *("train", "eval", "md", "compile", "label", "data", "info", "list", "fetch", "--help", "-h"),
    *("--version", "--debug", "--json", "--data", "--model", "--out", "--resume", "--activation"),
    *("--energy-unit", "--length-unit", "--stress-key", "--index", "--ensemble", "--time-ps"),
    *("--temperature-K", "--with", "--device", "--threads", "--to", "--plot", "--worst-first"),
    *(
        "painn",
        "ethanol",
        "H2O",
        "nvt",
        "1",
        "-1",
        "nan",
        "1e400",
        "",
        "=",
        "a=b",
        "train.epochs=1",
    ),
    *(
        "seed=x",
        "model.width=1e9",
        "model.safetensors",
        "h2.xyz",
        "a.npz",
        "nosuch",
        "\udcff",
        "--",
    ),
    *("--lr", "--epochs", "-x", "--data=", "--out=", "x" * 3000, "\0", "Å", "gfn2-xtb", "kcal"),
)


def arguments(data: st.DataObject, folder: Path) -> None:
    """Any words as a command: an exit code and one line, and with --json nothing but JSON.

    Nothing is trained, simulated, labeled or compiled.
    """
    import contextlib

    from gradpot import cli

    words = data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=7))
    (folder / "words.txt").write_text(repr(words))
    (folder / "h2.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    (folder / "a.npz").write_bytes(_npz(FORMS[0]))
    out, err, code = io.StringIO(), io.StringIO(), None
    before = sys.argv
    sys.argv = ["gradpot", *words]
    try:
        with (
            _no_work(), contextlib.chdir(folder), contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):  # fmt: skip
            cli.main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = before
    assert code in (0, 1, 2, 3), err.getvalue()
    assert "Traceback" not in err.getvalue() or "--debug" in words[:1], err.getvalue()
    if code == 2 and words[:1] != ["--debug"] and not out.getvalue():
        assert err.getvalue().splitlines()[-1].startswith("error: "), err.getvalue()
    if code == 0 and "--json" in words and not {"--help", "-h", "--version"} & set(words):
        json.loads(out.getvalue())


def _no_work() -> Any:
    """Replace what takes minutes or the network by a refusal; all checks before it are made."""
    import contextlib
    from unittest.mock import patch

    def stop(*_: object, **__: object) -> None:
        raise RunError("not in a fuzz test")

    stack = contextlib.ExitStack()
    for name in (
        "gradpot.train.run.train",
        "gradpot.md.dynamics.run",
        "gradpot.data.label.label",
        "gradpot.compile.export.compile_potential",
        "gradpot.data.catalog.download.resume",
    ):
        stack.enter_context(patch(name, stop))
    return stack


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        *(
            npz_bytes,
            npz_arrays,
            extxyz_text,
            extxyz_bytes,
            outputs,
            mptrj,
            deepmd,
            databases,
            hdf5,
        ),
        *(unit_names, configuration, model, compiled, state, run_files, pairs, arguments),
    )
}
# these can end the process, inside of C libraries: only in a process of their own
RISKY = {"databases", "hdf5"}
