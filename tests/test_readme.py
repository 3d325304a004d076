"""The README's eight lines of Python run as printed, on a potential trained here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def trained(tmp_path):
    """A folder with RUN/model.safetensors: PaiNN, trained for seconds."""
    from gradpot.train.config import config, override
    from gradpot.train.run import train

    keys = ["model.width=32", "model.n_layers=1", "data.n_train=300", "train.epochs=10"]
    settings = config(override({}, [*keys, "data.n_test=50", "train.learning_rate=1e-2"]))
    train(settings, tmp_path / "RUN", say=lambda line: None)
    return tmp_path


def test_python_lines(trained):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(code.splitlines()) == 8
    code += """
print(*modes.get_frequencies().real)
print(abs(atoms.get_forces()).max())
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=trained, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *printed, frequencies, force = done.stdout.splitlines()
    assert any("Zero-point energy" in line for line in printed)
    # GFN2-xTB gives O-H near 3500 and C-H near 3000 cm⁻¹; torsions are soft
    *_, lower, highest = sorted(float(word) for word in frequencies.split())
    assert 3000 < highest < 4000
    assert 2700 < lower < 3300
    assert float(force) < 0.005


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150
