"""Networks of other packages, each behind a thin adapter from `Graph`; one file per package.

The files import their packages, so `models.model_class` imports them only when they are asked for.
"""
