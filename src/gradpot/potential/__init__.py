"""Atom energies → energy, forces and stress, with units: saved, loaded, measured and checked."""

from gradpot.potential.potential import Potential, predict

__all__ = ["Potential", "predict"]
