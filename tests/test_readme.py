"""The README's eight lines of Python, run as they stand on a potential trained here."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A folder with RUN/model.safetensors: half a minute of PaiNN."""
    from gradpot.train.config import config, override
    from gradpot.train.run import train

    keys = ["model.width=32", "model.n_layers=2", "data.n_train=400", "train.epochs=25"]
    settings = config(override({}, [*keys, "data.n_test=50", "train.learning_rate=1e-2"]))
    monkeypatch.chdir(tmp_path)
    train(settings, "RUN", say=lambda line: None)
    return tmp_path


def test_python_lines(trained, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(code.splitlines()) == 8
    names: dict = {}
    exec(compile(code, str(README), "exec"), names)
    frequencies = names["modes"].get_frequencies()
    assert frequencies.shape == (27,)
    # GFN2-xTB: O-H near 3500, C-H near 3000 cm⁻¹; torsions are soft
    highest = np.sort(frequencies.real)
    assert 3000 < highest[-1] < 4000
    assert 2700 < highest[-2] < 3300
    assert np.abs(names["atoms"].get_forces()).max() < 0.005
    assert "Zero-point energy" in capsys.readouterr().out


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150
