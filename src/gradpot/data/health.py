"""Former name of `gradpot.data.checks`, kept for scripts that import it."""

from gradpot.data.checks import inspect

__all__ = ["inspect"]
