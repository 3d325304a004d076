"""Dynamics: the ASE calculator, and runs that are logged, limited and summed up."""
