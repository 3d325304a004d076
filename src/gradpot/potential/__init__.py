"""Atom energies → energy, forces and stress, with units: saved, loaded, measured and checked."""
