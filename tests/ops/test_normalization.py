"""LayerNorm against loops over Python numbers, and what it ignores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import arrays, seeds

from npprelnorm.ops.normalization import layer_norm


def naive(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    rows = []
    for row in x.reshape(-1, x.shape[-1]).tolist():
        mean = math.fsum(row) / len(row)
        variance = math.fsum((value - mean) ** 2 for value in row) / len(row)
        scale = math.sqrt(variance + eps)
        rows.append([(v - mean) / scale * g + b for v, g, b in zip(row, weight.tolist(), bias.tolist(), strict=True)])
    return np.array(rows).reshape(x.shape)


def draw(seed: int, shape: tuple[int, ...], dtype: str = "float64") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, weight, bias = rng.standard_normal(shape) * 3 + 1, rng.standard_normal(shape[-1]), rng.standard_normal(shape[-1])
    return x.astype(dtype), weight.astype(dtype), bias.astype(dtype)


@given(seeds, st.lists(st.integers(1, 5), max_size=2), st.integers(1, 9), st.sampled_from((1e-12, 1e-5, 0.1, 3.0)))
def test_against_loops(seed: int, outer: list[int], width: int, eps: float) -> None:
    x, weight, bias = draw(seed, (*outer, width))
    y, _ = layer_norm(x, weight, bias, eps)
    assert y.shape == x.shape
    np.testing.assert_allclose(y, naive(x, weight, bias, eps), rtol=1e-9, atol=1e-11)


@given(arrays(np.float64, shape=(3, 5), low=-10, high=10))
def test_against_loops_on_edge_cases(x: np.ndarray) -> None:
    """Rows of equal or nearly equal numbers: there eps is all that is under the root."""
    ones, zeros = np.ones(5), np.zeros(5)
    np.testing.assert_allclose(layer_norm(x, ones, zeros, 1e-5)[0], naive(x, ones, zeros, 1e-5), rtol=1e-9, atol=1e-9)


def test_eps_is_inside_the_root_and_the_variance_biased() -> None:
    x = np.array([[1.0, -1.0]])
    y, _ = layer_norm(x, np.ones(2), np.zeros(2), 3.0)
    np.testing.assert_allclose(y, [[0.5, -0.5]], rtol=1e-15)  # 1 / sqrt(1 + 3)


@given(seeds, st.floats(0.1, 100.0), st.floats(-100.0, 100.0))
def test_a_scale_and_a_shift_of_x_change_nothing(seed: int, a: float, b: float) -> None:
    """With eps scaled along; so with the tiny eps of the class too, where the numbers are not tiny."""
    x, weight, bias = draw(seed, (2, 7))
    y, _ = layer_norm(x, weight, bias, 1e-5)
    np.testing.assert_allclose(layer_norm(a * x + b, weight, bias, a * a * 1e-5)[0], y, rtol=1e-7, atol=1e-9)


@given(seeds)
def test_rows_are_normal_before_weight_and_bias(seed: int) -> None:
    x, _, _ = draw(seed, (4, 8))
    y, cache = layer_norm(x, np.ones(8), np.zeros(8), 1e-12)
    np.testing.assert_allclose(y.mean(axis=-1), 0.0, atol=1e-14)
    np.testing.assert_allclose(np.square(y).mean(axis=-1), 1.0, rtol=1e-9)
    assert np.array_equal(cache.x_hat, y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_type_arguments_and_memory_order(dtype: str) -> None:
    x, weight, bias = draw(0, (6, 4, 10), dtype)
    y, _ = layer_norm(x, weight, bias, 1e-12)
    assert y.dtype == x.dtype
    for array in (x, weight, bias):
        array.flags.writeable = False
    np.testing.assert_array_equal(layer_norm(x, weight, bias, 1e-12)[0], y)
    flipped = layer_norm(np.asfortranarray(x)[::2, ::-1], weight, bias, 1e-12)[0]
    np.testing.assert_allclose(flipped, y[::2, ::-1], rtol=1e-5 if dtype == "float32" else 1e-13, atol=1e-6)


def test_float32_against_float64() -> None:
    x, weight, bias = draw(1, (20, 64), "float32")
    wide = [a.astype(np.float64) for a in (x, weight, bias)]
    np.testing.assert_allclose(layer_norm(x, weight, bias, 1e-5)[0], layer_norm(*wide, 1e-5)[0], rtol=0, atol=2e-6)


def test_nan_stays_in_its_row_and_large_numbers_do_not_overflow() -> None:
    x, weight, bias = draw(2, (3, 6), "float32")
    x[1, 2] = np.nan
    y, _ = layer_norm(x, weight, bias, 1e-5)
    assert np.isnan(y[1]).all()
    assert not np.isnan(y[[0, 2]]).any()
    assert np.isfinite(layer_norm(x[[0, 2]] * np.float32(1e15), weight, bias, 1e-5)[0]).all()
