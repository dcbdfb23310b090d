"""Losses against loops over Python numbers, at their edges, and what they ignore."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import arrays, seeds

from npprelnorm.ops.losses import binary_cross_entropy, cross_entropy, mean_squared_error


def naive_cross_entropy(logits: np.ndarray, labels: np.ndarray, ignore: int, divisor: float | None) -> float:
    terms = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if label != ignore:
            largest = max(row)
            terms.append(largest + math.log(math.fsum(math.exp(v - largest) for v in row)) - row[label])
    return math.fsum(terms) / (len(terms) if divisor is None else divisor)


@given(seeds, st.integers(1, 6), st.integers(1, 5), st.sampled_from((-100, 2)), st.sampled_from((None, 1.0, 7.5)))
def test_cross_entropy_against_loops(seed: int, rows: int, classes: int, ignore: int, divisor: float | None) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.standard_normal((rows, classes)) * 5, rng.integers(0, classes, rows)
    labels[0] = 0  # at least one counts
    labels[1:][rng.random(rows - 1) < 0.4] = ignore
    loss, _ = cross_entropy(logits, labels, ignore_index=ignore, divisor=divisor)
    assert loss.shape == ()
    np.testing.assert_allclose(loss, naive_cross_entropy(logits, labels, ignore, divisor), rtol=1e-12, atol=1e-14)


def test_ignored_rows_have_no_influence_and_do_not_count() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((4, 5)), np.array([3, -100, 0, -100])
    loss, _ = cross_entropy(logits, labels)
    np.testing.assert_allclose(cross_entropy(logits[[0, 2]], labels[[0, 2]])[0], loss, rtol=1e-15)
    logits[1] = 1e9
    assert cross_entropy(logits, labels)[0] == loss


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_ignored_is_nan(dtype: str) -> None:
    loss, _ = cross_entropy(np.zeros((2, 3), dtype), np.array([-100, -100]))
    assert np.isnan(loss)
    assert loss.dtype == dtype


@given(arrays(np.float64, shape=(3, 4), low=-50, high=50), st.integers(-10_000, 10_000))
def test_cross_entropy_ignores_a_shift(x: np.ndarray, shift: int) -> None:
    loss, _ = cross_entropy(x, np.array([0, 3, 1]))
    np.testing.assert_allclose(cross_entropy(x + shift, np.array([0, 3, 1]))[0], loss, rtol=0, atol=1e-10)


def test_huge_logits_do_not_overflow() -> None:
    for dtype in (np.float32, np.float64):
        big = np.finfo(dtype).max / 4
        loss, _ = cross_entropy(np.array([[big, -big], [big, big]], dtype), np.array([0, 1]))
        np.testing.assert_allclose(loss, math.log(2.0) / 2, rtol=1e-6)
        x = np.array([big, -big, big, -big], dtype)
        loss, _ = binary_cross_entropy(x, np.array([1, 0, 1, 0], dtype))
        assert loss == 0.0


@given(seeds, st.integers(1, 5), st.integers(1, 4))
def test_mean_squared_error_against_loops(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    x, target = rng.standard_normal((rows, columns)), rng.standard_normal((rows, columns))
    expected = math.fsum((a - b) ** 2 for a, b in zip(x.flat, target.flat, strict=True)) / x.size
    np.testing.assert_allclose(mean_squared_error(x, target)[0], expected, rtol=1e-12)


@given(seeds, st.integers(1, 5), st.integers(1, 4))
def test_binary_cross_entropy_against_loops(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    x, target = rng.standard_normal((rows, columns)) * 4, rng.random((rows, columns))
    terms = []
    for value, t in zip(x.flat, target.flat, strict=True):
        s = 1.0 / (1.0 + math.exp(-value))
        terms.append(-t * math.log(s) - (1.0 - t) * math.log(1.0 - s))
    loss, _ = binary_cross_entropy(x, target)
    assert loss.shape == ()
    np.testing.assert_allclose(loss, math.fsum(terms) / x.size, rtol=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_type_and_arguments(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, target, labels = (
        rng.standard_normal((4, 3)).astype(dtype),
        rng.random((4, 3)).astype(dtype),
        np.array([0, 1, -100, 2]),
    )
    for array in (x, target, labels):
        array.flags.writeable = False
    results = (cross_entropy(x, labels), mean_squared_error(x, target), binary_cross_entropy(x, target))
    for loss, _ in results:
        assert loss.dtype == dtype
    strided = np.asfortranarray(x)
    for (loss, _), again in zip(
        results,
        (cross_entropy(strided, labels), mean_squared_error(strided, target), binary_cross_entropy(strided, target)),
        strict=True,
    ):
        np.testing.assert_allclose(again[0], loss, rtol=1e-6)


def test_nan_passes() -> None:
    x = np.array([[np.nan, 1.0], [0.0, 1.0]])
    for loss, _ in (
        cross_entropy(x, np.array([0, 1])),
        mean_squared_error(x, np.zeros((2, 2))),
        binary_cross_entropy(x, np.zeros((2, 2))),
    ):
        assert np.isnan(loss)
    assert not np.isnan(cross_entropy(x, np.array([-100, 1]))[0])
