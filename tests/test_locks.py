"""An output belongs to one process: names are claimed, locks name their holder and die with it."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gradpot.errors import InputError
from gradpot.locks import claimed, created, give_back_all, locked

CLAIM = """
import sys, time
from pathlib import Path
from gradpot.locks import claimed
while time.time() < float(sys.argv[1]): pass
with claimed(Path("runs/painn-ethanol")) as folder:
    (folder / "mine").write_text(str(folder))
"""
HOLD = """
import sys, time
from pathlib import Path
from gradpot.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held(output: Path) -> Iterator[subprocess.Popen]:
    """Another process holds the output; in the end it is killed."""
    words = [sys.executable, "-c", HOLD, str(output)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        yield other
        other.kill()


def test_twenty_processes_in_one_moment_claim_twenty_folders(tmp_path):
    words = [sys.executable, "-c", CLAIM, str(time.time() + 2)]
    runs = [subprocess.Popen(words, cwd=tmp_path) for _ in range(20)]
    assert [run.wait() for run in runs] == [0] * 20
    written = {path.read_text() for path in tmp_path.glob("runs/*/mine")}
    assert written == {f"runs/painn-ethanol-{n}" for n in range(1, 21)}


@pytest.mark.parametrize("make", [lambda p: claimed(p / "runs/a"), lambda p: created(p / "x/y")])
def test_folders_that_stay_empty_are_removed(tmp_path, make):
    with pytest.raises(ZeroDivisionError), make(tmp_path) as folder:
        _ = 1 / (not folder.is_dir())
    assert list(tmp_path.iterdir()) == []
    with make(tmp_path) as folder:
        (folder / "file").touch()
    assert (folder / "file").exists()


def test_a_folder_that_was_there_before_stays(tmp_path):
    with created(tmp_path / "mine") as folder, created(folder):
        pass
    assert not folder.exists()
    folder.mkdir()
    with created(folder):
        pass
    assert folder.is_dir()


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; --out"), created(tmp_path / "file"):
        pass


@pytest.mark.parametrize("folder", [True, False])
def test_a_second_process_is_told_whose_it_is_until_the_first_is_killed(tmp_path, folder):
    output = tmp_path / "out"
    if folder:
        output.mkdir()
    with held(output) as other:
        message = rf"out is in use by process {other.pid} on {os.uname().nodename}: wait until"
        for _ in range(2):
            with pytest.raises(InputError, match=message), locked(output):
                pass
    with locked(output):
        pass
    assert list(tmp_path.rglob(".*")) == []


def test_waiting_for_another_process(tmp_path):
    with held(tmp_path / "out") as other:
        threading.Timer(0.2, other.kill).start()
        with pytest.warns(UserWarning, match=f"waiting for process {other.pid}"):  # noqa: SIM117
            with locked(tmp_path / "out", wait=True):
                # the kernel drops the lock a moment before the killed process can be waited for
                assert other.wait(timeout=60) != 0


def test_unfinished_files_of_the_dead_are_removed(tmp_path):
    for name in (".out.123.part", ".other.123.part", "out.part", ".out.x.part"):
        (tmp_path / name).touch()
    with locked(tmp_path / "out"):
        assert not (tmp_path / ".out.123.part").exists()
    assert {p.name for p in tmp_path.iterdir()} == {".other.123.part", "out.part", ".out.x.part"}
    with locked(tmp_path):
        assert {p.name for p in tmp_path.glob("*.part")} == {"out.part", ".out.x.part"}


def test_a_folder_deleted_or_replaced_meanwhile_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"):
        (tmp_path / "run" / ".lock").unlink()
        (tmp_path / "run" / ".lock").write_text("of another")
    assert (tmp_path / "run" / ".lock").read_text() == "of another"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="has no locks: let no other process write there"):  # noqa: SIM117
        with locked(tmp_path / "out"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_leaving_without_an_exception_gives_everything_back(tmp_path):
    with claimed(tmp_path / "runs/a") as folder, locked(folder):
        give_back_all()
        assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(InputError, match=r"there is no folder .*none; create it first"),
        locked(tmp_path / "none" / "out"),
    ):
        pass
