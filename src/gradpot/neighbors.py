"""Former name of `gradpot.geometry`, kept for scripts that import it."""

from gradpot.geometry import neighbor_list

__all__ = ["neighbor_list"]
