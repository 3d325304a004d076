"""Streams that are closed, narrow or full, and JSON beside libraries that print."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import gradpot

from gradpot.cli import streams
from gradpot.data.catalog import catalog

LIST = "data list"
INFO = "data info ethanol"
WRONG = "data info nosuch.npz"


def shell(line: str, folder: Path, **environment: str) -> tuple[int, bytes, bytes]:
    """Run `gradpot LINE`, which may redirect streams; return its exit code and what it printed."""
    program = f"{sys.executable} -m gradpot"
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        f"{program} {line}", shell=True, capture_output=True, cwd=folder, env=variables
    )
    return done.returncode, done.stdout, done.stderr


def test_closed_output_is_no_error(tmp_path):
    for line in (LIST, f"{LIST} --json"):
        code, out, err = shell(f"{line} >&-", tmp_path)
        assert (code, out) == (0, b"")
        assert b"Traceback" not in err


def test_a_closed_error_stream_does_not_move_errors_to_the_output(tmp_path):
    assert shell(f"{WRONG} 2>&-", tmp_path) == (2, b"", b"")
    assert shell(f"{WRONG} <&- >&- 2>&-", tmp_path) == (2, b"", b"")


def test_a_file_does_not_take_the_place_of_a_closed_stream(tmp_path):
    """The first file that a program opens gets the lowest free number: that of the stream."""
    (tmp_path / "set.xyz").write_text("1\n\nHe 0 0 0\n")
    shell("data info set.xyz --json >&- 2>&-", tmp_path)
    assert (tmp_path / "set.xyz").read_text() == "1\n\nHe 0 0 0\n"


@pytest.mark.parametrize(("encoding", "unit"), [("ascii", b"?"), ("latin-1", b"\xc5")])
def test_characters_that_the_output_lacks_are_replaced(tmp_path, encoding, unit):
    code, out, err = shell(INFO, tmp_path, PYTHONIOENCODING=encoding)
    assert (code, err) == (0, b"")
    assert b"shortest distance / " + unit in out


def test_a_full_disk_behind_the_output_is_one_line(tmp_path):
    code, _, err = shell(f"{LIST} --json > /dev/full", tmp_path)
    assert (code, err) == (2, b"error: no space left on device\n")


def test_a_pipe_that_nobody_reads_behind_the_errors(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "gradpot", *WRONG.split()], stderr=writing)
    os.close(writing)
    assert done.returncode == 2


@pytest.fixture
def noisy(monkeypatch):
    """A library that prints in Python, in C and to the descriptor before it does its work."""
    quiet = catalog.entries

    def entries():
        import ctypes

        print("printed in Python")
        ctypes.CDLL(None).puts(b"printed in C")
        os.write(1, b"written to the descriptor\n")
        return quiet()

    monkeypatch.setattr(catalog, "entries", entries)


def test_json_stays_clean_whatever_libraries_print(monkeypatch, capfd, noisy):
    said = gradpot(monkeypatch, capfd, [*LIST.split(), "--json"])
    assert json.loads(said.out)[0]["name"] == "ethanol"
    assert said.err.count("printed in Python") >= 1
    assert said.err.count("printed in C") >= 1
    assert said.err.count("written to the descriptor") >= 1
    said = gradpot(monkeypatch, capfd, LIST.split())
    assert "printed in Python" in said.out


def test_an_error_with_json_leaves_the_output_empty(monkeypatch, capfd, noisy):
    said = gradpot(monkeypatch, capfd, ["data", "fetch", "nosuch", "--json"])
    assert (said.code, said.out) == (2, "")


def test_numbers_that_json_lacks_become_null(capsys):
    streams.print_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": (True, None)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": [True, None]}


# errors, in more detail


@pytest.mark.parametrize("way", ["option", "variable"])
def test_debug_shows_the_cause(monkeypatch, capsys, tmp_path, way):
    path = tmp_path / "a.npz"
    path.write_bytes(b"no npz")
    words = ["data", "info", str(path)]
    assert gradpot(monkeypatch, capsys, words).err.count("\n") == 1
    monkeypatch.setenv("GRADPOT_DEBUG", "1" if way == "variable" else "0")
    said = gradpot(monkeypatch, capsys, ["--debug", *words] if way == "option" else words)
    assert said.code == 2
    assert "zipfile.BadZipFile: File is not a zip file" in said.err
    assert "direct cause" in said.err
    assert said.err.splitlines()[-1].startswith(f"error: {path} is damaged")


def test_a_bug_keeps_its_traceback_and_says_that_it_is_one(monkeypatch, capsys):
    def bug():
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(catalog, "entries", bug)
    said = gradpot(monkeypatch, capsys, LIST.split())
    assert (said.code, said.out) == (70, "")
    assert "ZeroDivisionError: a bug" in said.err
    assert said.err.splitlines()[-1].startswith("error: this is a bug in gradpot")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    ],
)
def test_too_little_memory_is_one_line(monkeypatch, capsys, error):
    def greedy():
        raise error

    monkeypatch.setattr(catalog, "entries", greedy)
    said = gradpot(monkeypatch, capsys, LIST.split())
    assert said.code == 1
    assert said.err.startswith("error: there is not enough memory")
    assert said.err.count("\n") == 1
