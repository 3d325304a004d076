"""Former name of `gradpot.potential.checkpoint`, kept for scripts that import it."""

from gradpot.potential.checkpoint import load, notes, read_tensors, save, write_tensors

__all__ = ["load", "notes", "read_tensors", "save", "write_tensors"]
