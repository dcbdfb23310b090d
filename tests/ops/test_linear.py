"""The affine map and the table lookup against loops over Python numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import integer_dtypes, seeds

from npprelnorm.ops.embedding import embedding
from npprelnorm.ops.linear import linear


def naive(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    rows = []
    for row in x.reshape(-1, x.shape[-1]).tolist():
        rows.append(
            [
                math.fsum(a * w for a, w in zip(row, weights, strict=True)) + b
                for weights, b in zip(weight.tolist(), bias.tolist(), strict=True)
            ]
        )
    return np.array(rows).reshape(*x.shape[:-1], weight.shape[0])


@given(seeds, st.lists(st.integers(1, 4), max_size=3), st.integers(1, 6), st.integers(1, 6))
def test_linear_against_loops(seed: int, outer: list[int], inputs: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    x, weight, bias = (rng.standard_normal(shape) for shape in ((*outer, inputs), (outputs, inputs), (outputs,)))
    y, cache = linear(x, weight, bias)
    np.testing.assert_allclose(y, naive(x, weight, bias), rtol=1e-12, atol=1e-13)
    assert cache.x is x
    assert cache.weight is weight


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_linear_type_arguments_memory_order_and_nan(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((4, 6, 5), (3, 5), (3,)))
    y, _ = linear(x, weight, bias)
    assert y.dtype == x.dtype
    for array in (x, weight, bias):
        array.flags.writeable = False
    np.testing.assert_array_equal(linear(x, weight, bias)[0], y)
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    for view, expected in ((x.swapaxes(0, 1), y.swapaxes(0, 1)), (x[::-2, 1::2], y[::-2, 1::2])):
        np.testing.assert_allclose(linear(view, np.asfortranarray(weight), bias)[0], expected, rtol=0, atol=tolerance)
    broken = x.copy()
    broken[1, 2, 3] = np.nan
    assert np.array_equal(np.isnan(linear(broken, weight, bias)[0]).any(axis=-1), np.isnan(broken).any(axis=-1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 2, 3, 63, 64, 65, 200])
def test_any_number_of_rows_gives_what_each_gives(rows: int, dtype: str) -> None:
    rng = np.random.default_rng(rows)
    x, weight, bias = (rng.standard_normal(shape) for shape in ((rows, 48), (96, 48), (96,)))
    expected = (x[:, None] * weight).sum(axis=-1) + bias
    y, _ = linear(x.astype(dtype), weight.astype(dtype), bias.astype(dtype))
    assert y.flags.c_contiguous
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-5 if dtype == "float32" else 1e-12)


def test_linear_of_no_rows() -> None:
    assert linear(np.ones((0, 3, 2)), np.ones((4, 2)), np.ones(4))[0].shape == (0, 3, 4)


@given(seeds, integer_dtypes, st.integers(1, 9))
def test_embedding_looks_up_rows(seed: int, dtype: str, rows: int) -> None:
    rng = np.random.default_rng(seed)
    table, ids = rng.standard_normal((rows, 3)), rng.integers(0, rows, (2, 4)).astype(dtype)
    table.flags.writeable = ids.flags.writeable = False
    y, cache = embedding(ids, table)
    assert y.tolist() == [[table[int(i)].tolist() for i in row] for row in ids]
    assert cache.rows == rows
    assert embedding(ids, table.astype(np.float32))[0].dtype == np.float32
