"""Molecular dynamics: the ASE calculator, and runs with a log, limits and a summary."""
