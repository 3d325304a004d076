"""Networks of other packages, each behind a thin adapter from `Graph`; a file per package.

The files import their packages, so `models.model_class` imports them when they are asked for.
"""
