"""What a terminal of 40, 80 and 200 columns shows: the bar, the catalog, the table of errors."""

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import unicodedata

import pytest

from gradpot.cli import progress
from gradpot.cli.progress import LiveProgress, print_errors
from gradpot.data.catalog import catalog

TRAINING = [
    "valid: forces 12.3 meV/Å, energy 4.56 meV",
    "(step 12345)",
    "now epoch 123, step 123456",
]
MD = ["12.345 of 100 ps", "312 K", "1.23 ns/day", "-1234567.8912 eV"]


@pytest.fixture
def terminal(monkeypatch):
    """A pseudo terminal as the standard error of this process; a function returns its lines."""
    opened: list[int] = []

    def of(columns: int):
        main, side = os.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        opened.extend((main, side))
        monkeypatch.setattr(sys, "stderr", os.fdopen(side, "w", closefd=False))
        monkeypatch.setenv("COLUMNS", str(columns))  # rich asks the true streams of the process
        monkeypatch.setenv("TERM", "xterm")
        return lambda: re.split(r"[\r\n]+", plain(everything(main)))

    yield of
    for descriptor in opened:
        os.close(descriptor)


def everything(descriptor: int) -> str:
    """All that can be read from a terminal now, or until its other side is closed."""
    text = b""
    while select.select([descriptor], [], [], 0.1)[0]:
        try:
            part = os.read(descriptor, 1 << 16)
        except OSError:
            break
        text += part
        if not part:
            break
    return text.decode()


def plain(text: str) -> str:
    """The text without colors and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def width(line: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line)


@pytest.mark.parametrize("texts", [TRAINING, MD], ids=["training", "md"])
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_progress_is_a_bar_on_one_line(terminal, columns, texts):
    lines = terminal(columns)
    with LiveProgress() as bar:
        bar.drawn -= 60  # as if it had last been drawn a minute ago
        bar.show(0.5, 3725.0, texts)
    last = [line for line in lines() if "left" in line][-1]
    assert width(last.rstrip()) <= columns
    assert len(re.findall("[━╸╺]", last)) >= progress.BAR
    assert "50.0% 1:02:05 left" in last
    if columns >= 80:
        assert texts[0] in last
    if columns == 200:
        assert "  ".join(texts) in last
    else:  # whole texts, or none
        rest = last.partition("left")[2].strip()
        assert rest in ["  ".join(texts[:n]) for n in range(len(texts) + 1)]


def test_a_file_gets_plain_lines_with_everything(capsys):
    with LiveProgress() as bar:
        bar.show(1.0, 10.0, TRAINING)
    assert capsys.readouterr().err == f"100.0%  00:00 left  {'  '.join(TRAINING)}\n"


def in_terminal(columns: int, *words: str) -> list[str]:
    """The lines of a command whose output is a pseudo terminal."""
    main, side = os.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "gradpot", *words]
    with subprocess.Popen(command, stdout=side, stderr=subprocess.DEVNULL, env=environment) as run:
        os.close(side)
        text = ""
        while run.poll() is None:
            text += everything(main)
        text += everything(main)
    os.close(main)
    assert run.returncode == 0
    return plain(text).replace("\r", "").splitlines()


def test_the_catalog_has_one_line_for_each_set_at_80_columns():
    lines = in_terminal(80, "data", "list")
    assert len(lines) == 1 + len(catalog.entries())
    assert all(width(line.rstrip()) <= 80 for line in lines)
    head = lines[0].split()
    assert head == ["name", "frames", "atoms", "energy", "theory", "here"]
    assert any(line.split()[:4] == ["rmd17:ethanol", "100,000", "9", "kcal/mol"] for line in lines)


@pytest.mark.parametrize("columns", [40, 200])
def test_the_catalog_names_every_set_whatever_the_width(columns):
    lines = in_terminal(columns, "data", "list")
    assert len(lines) == 1 + len(catalog.entries())
    assert all(width(line.rstrip()) <= columns for line in lines)
    assert {line.split()[0] for line in lines[1:]} == set(catalog.entries())


ERRORS = {
    "energy_mae_meV": 1234.5678,
    "energy_mae_meV_per_atom": 0.1,
    "forces_mae_meV_A": 99.97,
    "forces_rmse_meV_A": 0.0,
    "efwt": 0.9,
    "efwt_energy_eV": 0.02,
    "efwt_forces_eV_A": 0.03,
    "stress_mae_meV_A3": 12.0,
    "n_frames": 7,
}


def test_the_table_of_errors_fits_80_columns_with_three_digits_each(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    print_errors({"valid": ERRORS, "test": {**ERRORS, "energy_mae_meV": None}})
    lines = capsys.readouterr().out.splitlines()
    assert max(map(width, lines)) <= 80
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines]
    cells = {row[0]: row[1:] for row in rows if row}
    assert cells["energy MAE"] == ["1235", "–", "meV"]
    assert cells["energy MAE per atom"][:2] == ["0.100", "0.100"]
    assert cells["forces MAE"][0] == "100"
    assert cells["forces RMSE"][0] == "0.00"
    unit = "%, ΔE ≤ 20 meV, ΔF ≤ 30 meV/Å"
    assert cells["within thresholds (EFwT)"] == ["90.0", "90.0", unit]
    assert cells["frames"][:2] == ["7", "7"]


def test_warnings_of_the_beginning_are_repeated_in_the_end(capsys):
    with progress.TrainingProgress() as bar:
        bar.say("warning: sign error")
        bar.say("units: eV")
    bar.repeat_warnings()
    assert capsys.readouterr().err.endswith(
        "units: eV\nwarnings of this run:\nwarning: sign error\n"
    )
