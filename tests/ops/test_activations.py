"""Every activation against its formula with Python's math module, and what all of them share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from strategies import ACTIVATION_NAMES, arrays

from npprelnorm.ops.activations import ACTIVATIONS, sigmoid


def logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700 else 0.0


def gelu_by_tanh(x: float) -> float:
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


FORMULAS: dict[str, Callable[[float], float]] = {
    "gelu": lambda x: 0.5 * x * math.erfc(-x / math.sqrt(2.0)),
    "gelu_new": gelu_by_tanh,
    "gelu_pytorch_tanh": gelu_by_tanh,
    "quick_gelu": lambda x: x * logistic(1.702 * x),
    "relu": lambda x: x if x > 0 else 0.0,
    "silu": lambda x: x * logistic(x),
    "swish": lambda x: x * logistic(x),
    "tanh": math.tanh,
}


def forward(name: str) -> Callable[[np.ndarray], tuple[np.ndarray, Any]]:
    return ACTIVATIONS[name][0]


names = pytest.mark.parametrize("name", ACTIVATION_NAMES)


def test_the_names_are_all_there() -> None:
    assert set(ACTIVATIONS) == set(ACTIVATION_NAMES) == set(FORMULAS)


@names
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_the_formula(name: str, dtype: str) -> None:
    x = np.concatenate([np.linspace(-30, 30, 2001), np.geomspace(1e-30, 1e3, 200), -np.geomspace(1e-30, 1e3, 200)])
    x = x.astype(dtype)
    y, _ = forward(name)(x)
    exact = np.array([FORMULAS[name](value) for value in x.astype(np.float64)])
    eps = float(np.finfo(dtype).eps)
    assert (np.abs(y - exact) <= 4 * eps * np.abs(x)).all()


def test_gelu_differs_from_its_approximations() -> None:
    """So that no test above could take one for the other."""
    x = np.linspace(-3, 3, 61)
    for name in ("gelu_new", "quick_gelu"):
        assert np.abs(forward("gelu")(x)[0] - forward(name)(x)[0]).max() > 1e-4


@names
@given(x=arrays(np.float32, low=-1e4, high=1e4))
def test_type_shape_and_argument_stay(name: str, x: np.ndarray) -> None:
    for array in (x, x.astype(np.float64)):
        array.flags.writeable = False
        before = array.copy()
        y, _ = forward(name)(array)
        assert y.dtype == array.dtype
        assert y.shape == array.shape
        assert np.array_equal(array, before)


@names
def test_memory_order_does_not_matter(name: str) -> None:
    x = np.random.default_rng(0).standard_normal((6, 10, 4))
    y, _ = forward(name)(x)
    for view, expected in ((x.T, y.T), (x[::2, ::-3], y[::2, ::-3])):
        assert np.array_equal(forward(name)(view)[0], expected)


@names
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_passes_and_large_values_do_not_overflow(name: str, dtype: str) -> None:
    """The fixture of conftest turns every overflow, invalid value or division by zero into an error."""
    x = np.array([np.nan, 1e12, -1e12, 1.0], dtype)
    y, _ = forward(name)(x)
    assert np.isnan(y[0])
    assert not np.isnan(y[1:]).any()
    assert y[1] == (1.0 if name == "tanh" else x[1])
    assert y[2] == (-1.0 if name == "tanh" else 0.0)


@given(arrays(np.float64, low=-1e4, high=1e4))
def test_sigmoid_is_symmetric_and_keeps_small_results(x: np.ndarray) -> None:
    y = sigmoid(x)
    np.testing.assert_allclose(y + sigmoid(-x), 1.0, rtol=0, atol=3e-16)
    exact = np.array([logistic(value) for value in x.reshape(-1)]).reshape(x.shape)
    normal = exact > 1e-300
    np.testing.assert_allclose(y[normal], exact[normal], rtol=1e-12)
