"""Machine code is run only from a file that the user names, or from the user's own cache."""

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from ase.build import molecule

import gradpot
from gradpot import Calculator, InputError, Potential, build, save
from gradpot.compile import cache, export, package, private
from gradpot.compile.private import INDUCTOR, keep_inductor_private, make_private

HEADERS = ['{"gradpot": "{\\"format\\": 1}"}', "5", '{"gradpot": "{x"}', '{"gradpot": "[]"}']
HEADERS += ['{"gradpot": 3}', '{"gradpot": "' + "[" * 9000 + '"}', "\\ud800"]


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    """A potential in a folder of its own, and an empty cache."""
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    torch.manual_seed(0)
    network = build("painn", cutoff=4.0, width=4, n_layers=1, n_radial=4)
    (tmp_path / "run").mkdir()
    save(Potential(network, {1: 0.0, 8: 0.0}, 1.0), tmp_path / "run" / "model.safetensors")
    return tmp_path / "run" / "model.safetensors"


def forged(model: Path, path: Path, dtype: str = "float32") -> Path:
    """A package with the right header, whose library writes a file when it is loaded."""
    potential = gradpot.load(model)
    source = path.with_suffix(".c")
    source.write_text(
        "#include <stdio.h>\n"
        "__attribute__((constructor)) static void f(void)"
        f'{{fclose(fopen("{path.parent}/ran", "w"));}}\n'
    )
    library = path.with_suffix(".so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    header = {
        **{"format": 1, "gradpot": "0", **package.machine(), "dtype": dtype},
        **{"cutoff": potential.cutoff, "scale": potential.scale},
        "references": {str(z): e for z, e in potential.references.items()},
        "fingerprint": package.fingerprint(potential),
    }
    described = {"gradpot": json.dumps(header), "AOTI_DEVICE_KEY": "cpu"}
    inside = "model/data/aotinductor/model/c"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{inside}.wrapper_metadata.json", json.dumps(described))
        archive.write(library, f"{inside}.wrapper.so")
        parts = {"archive_format": "pt2", "archive_version": "0", "byteorder": "little"}
        for name, text in (parts | {".data/version": "3", ".data/serialization_id": "0"}).items():
            archive.writestr(f"model/{name}", text)
    return path


needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")


@needs_gcc
def test_a_file_beside_a_model_is_not_run(model):
    """Its header is right in every field; the code runs when it is named, which shows the test."""
    beside = forged(model, model.with_suffix(".pt2"))
    with pytest.warns(UserWarning, match=r"found .*model\.pt2 beside it, which is not used"):
        calculator = Calculator(model)
    assert not calculator.compiled
    assert calculator.get_potential_energy(molecule("H2O")) < 1e9
    assert not Calculator(model, compile=False).compiled
    assert not (model.parent / "ran").exists()
    with pytest.raises(InputError, match="cannot be loaded"):
        Calculator(beside)
    assert (model.parent / "ran").exists()


@needs_gcc
@pytest.mark.parametrize("others", ["folder", "file", "folder above", "link", "linked folder"])
def test_a_cache_that_others_can_write_to_is_not_used(model, tmp_path, others):
    path = cache.cache_file(gradpot.load(model), torch.float32)
    assert path is not None
    path.parent.mkdir(parents=True)
    forged(model, path)
    if others == "folder":
        path.parent.chmod(0o777)
    if others == "folder above":
        path.parent.parent.chmod(0o777)
    if others == "file":
        path.chmod(0o666)
    if others == "link":
        shutil.move(path, tmp_path / "elsewhere.pt2")
        path.symlink_to(tmp_path / "elsewhere.pt2")
    if others == "linked folder":
        shutil.move(path.parent, tmp_path / "elsewhere")
        path.parent.symlink_to(tmp_path / "elsewhere")
    if others in ("file", "link"):
        assert not Calculator(model).compiled
    else:
        with pytest.warns(UserWarning, match="the cache of compiled potentials is not used"):
            assert not Calculator(model).compiled
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize("header", HEADERS)
def test_an_odd_package_beside_a_good_model(model, header):
    with zipfile.ZipFile(model.with_suffix(".pt2"), "w") as archive:
        archive.writestr("x/metadata.json", header)
    with pytest.warns(UserWarning, match="beside it"):
        Calculator(model)
    with pytest.raises(InputError, match=r"model\.pt2 ") as caught:
        Calculator(model.with_suffix(".pt2"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 2, "newer than 1: update gradpot"),
        ("format", None, "format is missing"),
        ("dtype", "float16", "dtype is 'float16'"),
        ("cutoff", 0.0, "cutoff is 0.0"),
        ("cutoff", float("inf"), "cutoff is inf"),
        ("scale", float("nan"), "scale is nan, but must be a finite number"),
        ("references", {"1": float("nan")}, "references.1 is nan"),
        ("references", {}, "references is {}"),
        ("torch", 2, "torch is 2"),
        ("fingerprint", None, "fingerprint is missing"),
        ("evil", 1, "'evil' is unknown"),
    ],
)
def test_a_header_of_a_package_that_is_wrong(tmp_path, field, value, message):
    header = {
        **{"format": 1, "gradpot": "0", **package.machine(), "dtype": "float32", "cutoff": 4.0},
        **{"scale": 1.0, "references": {"1": 0.0}, "fingerprint": "0", field: value},
    }
    text = json.dumps({k: v for k, v in header.items() if v is not None})
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        archive.writestr("x/metadata.json", json.dumps({"gradpot": text}))
    with pytest.raises(InputError, match=message):
        Calculator(tmp_path / "x.pt2")


def test_a_private_folder_is_made_and_kept(tmp_path):
    folder = tmp_path / "a" / "b"
    assert make_private(folder) is None
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "mine").write_text("kept")
    folder.chmod(0o755)  # as earlier versions made it: others could read, not write
    assert make_private(folder) is None
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "mine").read_text() == "kept"


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    assert make_private(tmp_path / "a") is None
    monkeypatch.setattr(private.os, "geteuid", lambda: os.getuid() + 1)
    problem = make_private(tmp_path / "a")
    assert problem is not None
    assert "belongs to another user" in problem or "others own" in problem


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be used" in (make_private(tmp_path / "file" / "a" / "b") or "")
    assert "cannot be used" in (make_private(tmp_path / "file") or "")


def test_without_a_private_cache_what_is_compiled_is_not_kept(model, monkeypatch, tmp_path):
    made = []

    def instead(potential, path, dtype=None):
        made.append(Path(path))
        Path(path).write_text("machine code")

    monkeypatch.setattr(export, "compile_potential", instead)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    with pytest.warns(UserWarning, match="what is compiled is not kept: others can write to"):
        path = cache.provide(gradpot.load(model), torch.float32, tmp_path / "run")
    assert made == [path] == [tmp_path / "run" / "potential.pt2"]


def test_torch_compiles_in_a_folder_of_the_user(tmp_path, monkeypatch):
    """What torch finds there is unpickled, so a folder that others made is not taken."""
    default = tmp_path / "torchinductor_me"
    monkeypatch.setattr(
        "torch._inductor.runtime.cache_dir_utils.default_cache_dir", lambda: str(default)
    )
    monkeypatch.setenv(INDUCTOR, str(tmp_path / "named by the user"))
    keep_inductor_private()
    assert os.environ[INDUCTOR] == str(tmp_path / "named by the user")
    monkeypatch.delenv(INDUCTOR)
    keep_inductor_private()
    assert INDUCTOR not in os.environ
    assert default.stat().st_mode & 0o777 == 0o700
    default.chmod(0o777)
    monkeypatch.setenv(INDUCTOR, str(default))  # as torch itself sets it
    with pytest.warns(UserWarning, match="torch compiles without its cache: others own"):
        keep_inductor_private()
    assert os.environ[INDUCTOR] != str(default)
    assert Path(os.environ[INDUCTOR]).stat().st_mode & 0o777 == 0o700
