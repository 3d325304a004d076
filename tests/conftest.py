"""Structures and models that many tests share."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

# two worker processes share two cores: more threads would only compete
torch.set_num_threads(1)

DATA = Path(os.environ.get("GRADPOT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder with real data sets, which are not part of the project."""
    if not DATA.is_dir():
        pytest.skip(f"no test data in {DATA}; set GRADPOT_TEST_DATA")
    return DATA


@pytest.fixture
def ethanol() -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.fixture
def crystal() -> Atoms:
    """A rattled triclinic cell of two elements, smaller than twice the cutoff."""
    atoms = bulk("NaCl", "rocksalt", a=4.2)
    atoms.set_cell(atoms.cell @ (np.eye(3) + 0.05 * np.arange(9).reshape(3, 3) / 9), True)
    atoms.rattle(0.1, seed=2)
    return atoms
