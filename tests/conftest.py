"""Structures and models that many tests share."""

import os
from pathlib import Path

import pytest
import torch
from ase import Atoms

from gradpot.testing import structures

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
    return structures.ethanol()


@pytest.fixture
def crystal() -> Atoms:
    return structures.crystal()
