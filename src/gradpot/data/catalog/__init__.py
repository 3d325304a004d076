"""Public data sets by name, and the one that comes with the package."""
