"""Figures of runs, evaluations and dynamics."""
