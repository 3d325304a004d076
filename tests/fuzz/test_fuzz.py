"""A few examples of every fuzz target, always the same; `make fuzz` runs many more."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from targets import RISKY, TARGETS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in TARGETS if name not in RISKY])
def test_odd_input_is_refused_or_read_right(name, tmp_path_factory):
    @settings(
        max_examples=15,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data):
        TARGETS[name](data, tmp_path_factory.mktemp(name))

    check()
