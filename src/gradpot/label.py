"""Former name of `gradpot.data.label`, kept for scripts that import it."""

from gradpot.data.files import read_structures
from gradpot.data.label import label, pack, reference

__all__ = ["label", "pack", "read_structures", "reference"]
