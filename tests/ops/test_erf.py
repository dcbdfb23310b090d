"""The error function against 35 digits, against the C library, and at the edges of its pieces."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from strategies import arrays

from npprelnorm.ops.erf import erf

VALUES = json.loads(Path(__file__).with_name("erf_values.json").read_text("utf-8"))
POINTS = {
    "float32": VALUES["both"],
    "float64": VALUES["both"] | VALUES["float64"],
}
# in units of the last place of the true value: what the module states
BOUND = {"float32": 1.3, "float64": 1.5}


def units_apart(ours: float, exact: str, dtype: str) -> float:
    """Distance from `exact` in units of the last place that it has in `dtype`."""
    true = Fraction(Decimal(exact))
    nearest = np.dtype(dtype).type(float(true))
    return float(abs(Fraction(ours) - true) / Fraction(float(np.spacing(np.abs(nearest)))))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_35_digits(dtype: str) -> None:
    points = POINTS[dtype]
    assert len(points) > 150
    for sign in (1.0, -1.0):
        x = sign * np.array([float.fromhex(text) for text in points], dtype)
        y = erf(x)
        assert y.dtype == x.dtype
        for point, value, exact in zip(x, y, points.values(), strict=True):
            assert units_apart(sign * float(value), exact, dtype) <= BOUND[dtype], point


def test_float32_against_the_c_library_densely() -> None:
    x = np.concatenate([np.linspace(-4.5, 4.5, 40_001), np.geomspace(1e-42, 1.0, 10_001)]).astype(np.float32)
    exact = np.array([math.erf(value) for value in x.astype(np.float64)])
    apart = np.abs(erf(x).astype(np.float64) - exact) / np.spacing(np.abs(exact).astype(np.float32))
    assert apart.max() <= BOUND["float32"]


def test_float64_against_the_c_library_densely() -> None:
    x = np.concatenate([np.linspace(-6.5, 6.5, 40_001), np.geomspace(1e-310, 1.0, 10_001)])
    exact = np.array([math.erf(value) for value in x])
    assert np.abs(erf(x) - exact).max() <= 4.5e-16
    assert (np.abs(erf(x) - exact) <= 2.5 * np.spacing(np.abs(exact))).all()  # theirs is off by up to one unit too


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values(dtype: str) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, tiny, -tiny, np.finfo(dtype).max, np.finfo(dtype).min], dtype)
    y = erf(x)
    expected = np.array([0.0, -0.0, 1.0, -1.0, np.nan, tiny, -tiny, 1.0, -1.0], dtype)
    np.testing.assert_array_equal(y, expected)
    assert np.array_equal(np.signbit(y[:4]), np.signbit(expected[:4]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_monotone_across_the_seams(dtype: str) -> None:
    for seam in (1.0, 4.0, 6.0):
        x = np.dtype(dtype).type(seam) + np.arange(-200, 201) * np.spacing(np.dtype(dtype).type(seam))
        steps = np.diff(erf(x.astype(dtype)))
        assert steps.min() >= -2 * np.spacing(np.dtype(dtype).type(1.0))


@given(arrays(np.float64, low=-1e6, high=1e6))
def test_odd_bounded_and_elementwise(x: np.ndarray) -> None:
    y = erf(x)
    assert y.shape == x.shape
    assert np.array_equal(erf(-x), -y)
    assert (np.abs(y) <= 1.0).all()
    assert np.array_equal(erf(x.reshape(-1)), y.reshape(-1))


def test_longer_than_a_chunk_in_any_memory_order() -> None:
    x = np.random.default_rng(0).standard_normal((300, 200)) * 3
    assert x.size > 3 * (1 << 14)
    y = erf(x)
    for row in (0, 100, 200, 299):
        assert y[row].tolist() == [float(erf(x[row, column : column + 1])[0]) for column in range(200)]
    assert np.array_equal(erf(x.T), y.T)
    assert np.array_equal(erf(x[::3, ::-2]), y[::3, ::-2])
    assert np.array_equal(erf(np.array(0.5)), y.dtype.type(math.erf(0.5)))
    assert erf(np.empty((0, 3))).shape == (0, 3)


def test_the_argument_is_not_written_to() -> None:
    x = np.linspace(-5, 5, 100)
    x.flags.writeable = False
    before = x.copy()
    erf(x)
    assert np.array_equal(x, before)
