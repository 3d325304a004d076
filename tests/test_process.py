"""Time limits interrupt what runs, however it waits, and leave nothing behind."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from gradpot.process import OutOfTime, time_limit, usage, write_bytes

INF = float("inf")


def spin() -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pass


def stubborn() -> None:
    """Takes every error for one of its own, as compilers do."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            spin()
        except Exception:
            continue


def wait_for_a_program() -> None:
    subprocess.run([sys.executable, "-c", "import time; time.sleep(20)"], check=True)


@pytest.mark.parametrize("work", [spin, stubborn, wait_for_a_program])
def test_a_time_limit_interrupts(work):
    began, before = time.monotonic(), signal.getsignal(signal.SIGALRM)
    with pytest.raises(OutOfTime), time_limit(0.3, INF):
        work()
    assert 0.3 <= time.monotonic() - began < 5
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_limit_of_processor_time_does_not_count_waiting():
    with time_limit(INF, 0.5):
        time.sleep(0.8)
    began = usage()
    with pytest.raises(OutOfTime), time_limit(INF, 0.3):
        spin()
    assert usage().cpu_s - began.cpu_s >= 0.3


def test_an_interruption_that_got_lost_comes_again(monkeypatch):
    monkeypatch.setattr("gradpot.process.CHECK_AGAIN_S", 0.2)
    lost = 0
    with pytest.raises(OutOfTime), time_limit(0.1, INF):  # noqa: PT012
        try:
            spin()
        except OutOfTime:
            lost += 1
        spin()
    assert lost == 1


def test_no_timer_without_a_limit_or_outside_the_main_thread():
    with time_limit(INF, INF):
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    done = []

    def work():
        with time_limit(0.0, 0.0):
            time.sleep(0.3)
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path):
    """A limit on the size of files is a full disk that needs no administrator."""
    write_bytes(tmp_path / "file", b"old")
    code = (
        "import resource, signal, sys; from gradpot.process import write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_bytes(sys.argv[1], bytes(5000))"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "file")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert "OSError: [Errno 27] File too large" in done.stderr
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
