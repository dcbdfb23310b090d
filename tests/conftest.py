"""What holds for the whole suite: hypothesis profiles, and no silent overflow, invalid value or division by zero."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# without torch these could only be skipped, one by one; `pytest -m reference` then says that it found no test
collect_ignore_glob = []
if importlib.util.find_spec("torch") is None:
    collect_ignore_glob += ["reference/*"]

# the same of the kernels: where Numba is not installed, the header of the run says that their tests are left out
if importlib.util.find_spec("numba") is None:
    collect_ignore_glob += ["kernels/*"]


def pytest_report_header() -> str:
    """Whether the kernels are tested."""
    if importlib.util.find_spec("numba") is None:
        return "kernels: left out, because numba is not installed"
    return "kernels: tested"


# "auto" would run what comes late in a long run on other kernels than what comes early
os.environ.setdefault("NPPRELNORM_BACKEND", "numpy")

# no deadline and no complaint about slow examples: both measure how busy the machine is
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# in CI the same examples each time: a red run can be repeated, and a green one does not depend on luck
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(autouse=True)
def strict_floating_point() -> Iterator[None]:
    """Every floating-point error in every test is an exception, underflow aside (softmax tails underflow rightly)."""
    with np.errstate(all="raise", under="ignore"):
        yield
