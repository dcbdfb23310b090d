"""What holds for the whole suite: hypothesis profiles, and no silent overflow, invalid value or division by zero."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, settings


def missing(*names: str) -> bool:
    """Whether one of these packages is not installed."""
    return any(importlib.util.find_spec(name) is None for name in names)


# without torch these could only be skipped, one by one; `pytest -m reference` then says that it found no test
collect_ignore_glob = ["reference/*"] if missing("torch") else []

# the same of tests that need an optional package: the header of the run says what is left out
LEFT_OUT = {}
if missing("numba"):
    LEFT_OUT["kernels/*"] = "kernels: left out, because numba is not installed"
if missing("jupytext", "nbclient", "nbformat", "ipykernel"):
    LEFT_OUT["test_tutorials.py"] = "tutorials: left out, because the extra `tutorials` is not installed"
collect_ignore_glob += LEFT_OUT


def pytest_report_header() -> list[str]:
    """Which tests of optional packages do not run."""
    return [*LEFT_OUT.values()]


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
