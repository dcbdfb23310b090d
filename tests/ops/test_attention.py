"""Attention against loops over Python numbers; softmax, masks, head masks, relative positions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import arrays, seeds

from npprelnorm.ops.attention import Relative, attention, merge_heads, relative_scores, softmax, split_heads

LOWEST = float(np.finfo(np.float64).min)


def naive_softmax(row: list[float]) -> list[float]:
    largest = max(row)
    exponentials = [math.exp(value - largest) for value in row]
    total = math.fsum(exponentials)
    return [value / total for value in exponentials]


def naive_relative(q: Any, k: Any, table: Any, with_keys: bool, first_query: int) -> np.ndarray:
    """As the definition says, one distance at a time."""
    batch, heads, tokens, size = q.shape
    keys, centre = k.shape[2], (table.shape[0] - 1) // 2
    scores = np.zeros((batch, heads, tokens, keys))
    for b, h, t, s in np.ndindex(*scores.shape):
        vector = table[first_query + t - s + centre]
        scores[b, h, t, s] = math.fsum(q[b, h, t, d] * vector[d] for d in range(size))
        if with_keys:
            scores[b, h, t, s] += math.fsum(k[b, h, s, d] * vector[d] for d in range(size))
    return scores


def naive_attention(q: Any, k: Any, v: Any, mask: Any, head_mask: Any = None, relative: Any = None) -> np.ndarray:
    batch, heads, tokens, size = q.shape
    keys = k.shape[2]
    y = np.zeros_like(q)
    for b, h, t in np.ndindex(batch, heads, tokens):
        scores = []
        for s in range(keys):
            score = math.fsum(q[b, h, t, d] * k[b, h, s, d] for d in range(size))
            if relative is not None:
                score += relative[b, h, t, s]
            score /= math.sqrt(size)
            if mask is not None:
                score += float(np.broadcast_to(mask, (batch, heads, tokens, keys))[b, h, t, s])
            scores.append(score)
        weights = naive_softmax(scores)
        if head_mask is not None:
            weights = [weight * float(head_mask[h, 0, 0]) for weight in weights]
        y[b, h, t] = [math.fsum(weights[s] * v[b, h, s, d] for s in range(keys)) for d in range(size)]
    return y


def draw(seed: int, batch: int = 2, heads: int = 2, tokens: int = 3, keys: int = 4, size: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    shapes = ((batch, heads, tokens, size), (batch, heads, keys, size), (batch, heads, keys, size))
    return tuple(rng.standard_normal(shape) for shape in shapes)


@given(arrays(np.float64, low=-1e300, high=1e300))
def test_softmax_rows_are_distributions(x: np.ndarray) -> None:
    y = softmax(x / 4)
    assert (y >= 0).all()
    np.testing.assert_allclose(y.sum(axis=-1), 1.0, rtol=1e-14)


@given(arrays(np.float64, low=-50, high=50), st.integers(-1000, 1000))
def test_softmax_ignores_a_shift_and_matches_loops(x: np.ndarray, shift: int) -> None:
    y = softmax(x)
    expected = [naive_softmax(row) for row in x.reshape(-1, x.shape[-1]).tolist()]
    np.testing.assert_allclose(y.reshape(-1, x.shape[-1]), expected, rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(softmax(x + shift), y, rtol=1e-11, atol=1e-300)


def test_softmax_of_huge_numbers_and_of_nan() -> None:
    for dtype in (np.float32, np.float64):
        lowest, highest = np.finfo(dtype).min, np.finfo(dtype).max
        np.testing.assert_array_equal(softmax(np.array([highest, 0, highest], dtype)), [0.5, 0, 0.5])
        np.testing.assert_array_equal(softmax(np.full(4, lowest, dtype)), [0.25] * 4)
    y = softmax(np.array([[1.0, np.nan], [1.0, 1.0]]))
    assert np.isnan(y[0]).all()
    assert y[1].tolist() == [0.5, 0.5]


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_heads_are_neighbouring_columns(batch: int, tokens: int, heads: int, size: int) -> None:
    x = np.arange(batch * tokens * heads * size).reshape(batch, tokens, heads * size)
    split = split_heads(x, heads)
    assert split.shape == (batch, heads, tokens, size)
    for b, h, t, d in np.ndindex(*split.shape):
        assert split[b, h, t, d] == x[b, t, h * size + d]
    assert np.array_equal(merge_heads(split), x)


@given(
    seeds, st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.booleans()
)
def test_attention_against_loops(
    seed: int, batch: int, heads: int, tokens: int, keys: int, size: int, masked: bool
) -> None:
    q, k, v = draw(seed, batch, heads, tokens, keys, size)
    rng = np.random.default_rng(seed)
    mask = rng.choice([0.0, LOWEST, -1.5], (batch, 1, tokens, keys)) if masked else None
    head_mask = rng.random((heads, 1, 1)) if masked else None
    y, cache = attention(q, k, v, mask, head_mask=head_mask)
    np.testing.assert_allclose(y, naive_attention(q, k, v, mask, head_mask), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(cache.probs.sum(axis=-1), 1.0, rtol=1e-14)


@given(seeds, st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_relative_positions_against_loops(seed: int, tokens: int, past: int, with_keys: bool) -> None:
    q, k, v = draw(seed, tokens=tokens, keys=past + tokens)
    table = np.random.default_rng(seed).standard_normal((2 * 9 - 1, q.shape[-1]))
    distance = np.arange(past, past + tokens)[:, None] - np.arange(past + tokens)[None, :]
    relative = Relative(table, distance, with_keys)
    expected = naive_relative(q, k, table, with_keys, past)
    np.testing.assert_allclose(relative_scores(q, k, relative), expected, rtol=1e-11, atol=1e-12)
    y, _ = attention(q, k, v, None, relative=relative)
    np.testing.assert_allclose(y, naive_attention(q, k, v, None, None, expected), rtol=1e-11, atol=1e-12)


@given(seeds)
def test_a_masked_key_has_no_influence(seed: int) -> None:
    q, k, v = draw(seed)
    mask = np.where([True, False, True, True], 0.0, LOWEST)
    y, _ = attention(q, k, v, mask)
    k[:, :, 1], v[:, :, 1] = 1e3, -1e3
    np.testing.assert_array_equal(attention(q, k, v, mask)[0], y)


def test_a_row_that_sees_nothing_is_the_mean_of_all_values() -> None:
    for dtype in (np.float32, np.float64):
        q, k, v = (array.astype(dtype) for array in draw(0))
        y, cache = attention(q, k, v, np.full((1, 1, 3, 4), np.finfo(dtype).min, dtype))
        np.testing.assert_array_equal(cache.probs, np.full((2, 2, 3, 4), 0.25))
        np.testing.assert_allclose(y, np.broadcast_to(v.mean(axis=2, keepdims=True), y.shape), rtol=1e-5)


def test_the_head_mask_scales_after_the_softmax() -> None:
    q, k, v = draw(0)
    y, cache = attention(q, k, v, None)
    factors = np.array([0.0, 2.5]).reshape(2, 1, 1)
    scaled, scaled_cache = attention(q, k, v, None, head_mask=factors)
    np.testing.assert_allclose(scaled, y * factors, rtol=1e-13)
    np.testing.assert_array_equal(scaled_cache.probs, cache.probs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("with_relative", [False, True])
def test_type_arguments_and_memory_order(dtype: str, with_relative: bool) -> None:
    q, k, v = (array.astype(dtype) for array in draw(3, keys=3))
    mask = np.zeros((2, 1, 3, 3), dtype)
    head_mask = np.ones((2, 1, 1), dtype)
    distance = np.arange(3)[:, None] - np.arange(3)
    table = np.random.default_rng(0).standard_normal((11, 3)).astype(dtype)
    relative = Relative(table, distance, True) if with_relative else None
    y, _ = attention(q, k, v, mask, head_mask=head_mask, relative=relative)
    assert y.dtype == q.dtype
    for array in (q, k, v, mask, head_mask, table, distance):
        array.flags.writeable = False
    strided = (np.asfortranarray(array)[..., ::-1][..., ::-1] for array in (q, k, v))
    again, _ = attention(*strided, mask, head_mask=head_mask, relative=relative)
    np.testing.assert_allclose(again, y, rtol=0, atol=1e-6 if dtype == "float32" else 1e-14)


def test_nan_reaches_the_rows_that_see_it() -> None:
    q, k, v = draw(0)
    v[0, 0, 2, 1] = np.nan
    y, _ = attention(q, k, v, None)
    assert np.isnan(y[0, 0, :, 1]).all()
    assert np.isnan(y).sum() == y.shape[2]
