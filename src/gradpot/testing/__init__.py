"""The contract that every model must fulfill, as checks that any `Model` can be put through.

    @pytest.mark.parametrize("check", gradpot.testing.CHECKS, ids=lambda check: check.__name__)
    def test_contract(check):
        check(MyModel(cutoff=4.0).double())

A check needs a model in float64 with a cutoff between 3.5 and 6 Å. It raises an AssertionError that
says what is wrong, or `unittest.SkipTest` where the model declares an exception (see
`gradpot.Model`). `check_model` runs all checks. With small widths they take a few seconds.
"""

import inspect
from copy import deepcopy
from unittest import SkipTest

from gradpot.models.base import Model
from gradpot.testing.checks import CHECKS, force_constants
from gradpot.testing.structures import symmetric_sites

__all__ = ["CHECKS", "check_model", "force_constants", "symmetric_sites"]


def check_model(model: Model) -> dict[str, str]:
    """Run every check of `CHECKS`.

    Returns:
        The reason for each check that was skipped, by name.

    Raises:
        AssertionError: a check failed; the text begins with its name and its rule.
    """
    skipped = {}
    for check in CHECKS:
        try:
            check(deepcopy(model))
        except SkipTest as reason:
            skipped[check.__name__] = str(reason)
        except Exception as error:
            text = f"{check.__name__}: {inspect.getdoc(check)}\n\n{error}"
            raise AssertionError(text) from error
    return skipped
