"""exp, erf, tanh and the activations of one number: units in the last place against float64, NaN and infinity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_calls import elementwise

from npprelnorm.kernels import elementwise as twins
from npprelnorm.ops import activations
from npprelnorm.ops.erf import erf

F = np.float32

# every 977th float32 there is: both signs, denormals, 0, up to the largest
EVERYWHERE = np.arange(0, 1 << 32, 977, dtype=np.uint64).astype(np.uint32).view(F)
FINITE = EVERYWHERE[np.isfinite(EVERYWHERE)]


def ulps(computed: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distance in units in the last place of the exact value's float32."""
    with np.errstate(over="ignore"):
        near = np.abs(exact).astype(F)
    return np.abs(computed.astype(np.float64) - exact) / np.spacing(np.minimum(near, np.finfo(F).max))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1.0, np.exp(-np.abs(x))) / (1.0 + np.exp(-np.abs(x)))


CASES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float, float]] = {
    "exp": (np.exp, 88.7, 1.1),
    "erf": (erf, np.inf, 1.6),
    "tanh": (np.tanh, np.inf, 2.0),
    "sigmoid": (sigmoid, 87.0, 2.5),
}


@pytest.mark.parametrize("name", CASES)
def test_units_in_the_last_place(name: str) -> None:
    function, end, bound = CASES[name]
    x = FINITE[np.abs(FINITE) <= end]
    worst = ulps(elementwise(name)(x), function(x.astype(np.float64)))
    assert worst.max() <= bound, x[worst.argmax()]


def test_exp_underflows_through_denormals_and_overflows_to_infinity() -> None:
    x = np.linspace(-110.0, -87.4, 4001).astype(F)
    with np.errstate(under="ignore"):
        exact = np.exp(x.astype(np.float64))
        assert np.abs(elementwise("exp")(x) - exact).max() <= np.finfo(F).smallest_subnormal
    assert elementwise("exp")(F([-104.5, -np.inf])).tolist() == [0.0, 0.0]
    assert elementwise("exp")(F([88.8, 1e30, np.inf])).tolist() == [math.inf] * 3


def test_exp_of_what_lies_below_the_highest() -> None:
    """exp to the bit down to 2^-126, then 0 or a little more, and nothing else at the lowest."""
    exp, exp_below = elementwise("exp"), elementwise("exp_below")
    x = np.linspace(-87.33, 0.0, 100_001).astype(F)
    np.testing.assert_array_equal(exp_below(x), exp(x))
    below = np.linspace(-1000.0, -87.33, 100_001).astype(F)
    assert np.abs(exp_below(below) - exp(below)).max() <= np.finfo(F).tiny
    assert not exp_below(below[below < -88.0]).any()
    np.testing.assert_array_equal(exp_below(F([-np.inf, -0.0, np.nan, np.finfo(F).min])), F([0.0, 1.0, np.nan, 0.0]))


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "tanh"])
def test_activations_against_float64(name: str) -> None:
    """By norm, and at each number by what float32 can hold of the exact value and of x times the spacing of 1."""
    x = np.linspace(-30.0, 30.0, 200_001).astype(F)
    reference = getattr(activations, name)
    with np.errstate(under="ignore"):
        exact = reference(x.astype(np.float64))[0]
        computed = getattr(twins, name)(x)[0]
    assert computed.dtype == F
    error = np.abs(computed - exact)
    assert (error <= 3e-7 * np.abs(exact) + 1e-7 * np.minimum(np.abs(x), 1.0)).all(), x[error.argmax()]
    assert np.linalg.norm(error) <= 1e-7 * np.linalg.norm(exact)


def test_the_left_tail_of_gelu_keeps_its_digits() -> None:
    x = np.linspace(-5.0, -1.5, 1001).astype(F)
    exact = 0.5 * x.astype(np.float64) * np.array([math.erfc(-v * math.sqrt(0.5)) for v in x.tolist()])
    assert (np.abs(elementwise("gelu")(x) / exact - 1.0) < 4e-6).all()
    assert np.abs(elementwise("gelu")(F([-20.0, -1e4]))).max() == 0.0


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "tanh"])
def test_activations_of_nan_and_infinity(name: str) -> None:
    x = F([np.nan, np.inf, -np.inf, 0.0])
    with np.errstate(invalid="ignore"):
        expected = getattr(activations, name)(x)[0]
    # among vectors and among the last few
    for count in (1, 3, 40):
        np.testing.assert_array_equal(getattr(twins, name)(np.repeat(x, count))[0], np.repeat(expected, count))


@pytest.mark.parametrize("name", ["exp", "erf", "tanh", "sigmoid"])
def test_functions_of_nan_and_infinity(name: str) -> None:
    x = F([np.nan, np.inf, -np.inf])
    expected: Any = {
        "exp": [np.nan, np.inf, 0.0],
        "erf": [np.nan, 1.0, -1.0],
        "tanh": [np.nan, 1.0, -1.0],
        "sigmoid": [np.nan, 1.0, 0.0],
    }[name]
    np.testing.assert_array_equal(elementwise(name)(np.repeat(x, 40)), np.repeat(F(expected), 40))
