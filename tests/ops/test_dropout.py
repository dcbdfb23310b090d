"""Dropout: how much is kept, by what it is scaled, and that draws are independent of each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import float_dtypes, seeds

from npprelnorm.ops.attention import attention
from npprelnorm.ops.dropout import dropout

COUNT = 200_000
DEVIATIONS = 6  # a fair draw misses this bound once in 500 million times


def kept_by(p: float, seed: int) -> np.ndarray:
    y, _ = dropout(np.ones(COUNT), p, np.random.default_rng(seed))
    return y != 0


@pytest.mark.parametrize("p", [0.01, 0.1, 0.4, 0.5, 0.9, 0.99])
def test_about_one_minus_p_is_kept(p: float) -> None:
    bound = DEVIATIONS * math.sqrt(COUNT * p * (1 - p))
    for seed in range(5):
        assert abs(int(kept_by(p, seed).sum()) - COUNT * (1 - p)) <= bound


@given(seeds, float_dtypes, st.floats(0.01, 0.95))
def test_what_is_kept_is_divided_by_one_minus_p(seed: int, dtype: str, p: float) -> None:
    x = np.random.default_rng(seed).uniform(1, 2, (5, 7)).astype(dtype)
    x.flags.writeable = False
    y, cache = dropout(x, p, np.random.default_rng(seed))
    assert cache is not None
    assert y.dtype == dtype
    assert np.array_equal(y != 0, cache.kept)
    np.testing.assert_allclose(y[cache.kept], x[cache.kept] / (1 - p), rtol=4 * np.finfo(dtype).eps)


def test_the_mean_stays() -> None:
    y, _ = dropout(np.ones(COUNT), 0.3, np.random.default_rng(0))
    assert abs(y.mean() - 1) <= DEVIATIONS * math.sqrt(0.3 / 0.7 / COUNT)


def test_elements_and_calls_are_independent() -> None:
    """Neighbours, and two calls with one generator, agree as often as chance says; one seed repeats itself."""
    p = 0.4
    agree = p * p + (1 - p) * (1 - p)
    bound = DEVIATIONS * math.sqrt(COUNT * agree * (1 - agree))
    rng = np.random.default_rng(3)
    first, second = (dropout(np.ones(COUNT), p, rng)[0] != 0 for _ in range(2))
    assert abs(int((first == second).sum()) - COUNT * agree) <= bound
    for lag in (1, 2, 64):
        assert abs(int((first[lag:] == first[:-lag]).sum()) - (COUNT - lag) * agree) <= bound
    assert np.array_equal(kept_by(p, 3), first)
    assert not np.array_equal(kept_by(p, 4), first)


def test_none_without_a_generator_and_none_at_probability_zero() -> None:
    x = np.ones((2, 3))
    for p, rng in ((0.5, None), (0.0, np.random.default_rng(0))):
        y, cache = dropout(x, p, rng)
        assert y is x
        assert cache is None


def test_attention_weights_are_dropped_too() -> None:
    """Each weight by itself, after the softmax: the rest is not made to add up to 1 again."""
    p = 0.25
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((8, 4, 20, 3)) for _ in range(3))
    _, plain = attention(q, k, v, None)
    y, cache = attention(q, k, v, None, drop=p, rng=np.random.default_rng(1))
    weights = cache.weights()
    kept = weights != 0
    assert abs(int(kept.sum()) - kept.size * (1 - p)) <= DEVIATIONS * math.sqrt(kept.size * p * (1 - p))
    np.testing.assert_allclose(weights[kept], plain.probs[kept] / (1 - p), rtol=1e-14)
    np.testing.assert_allclose(y, weights @ v, rtol=1e-14)
    rows = weights.sum(axis=-1)
    assert rows.std() > 0.05
    assert not np.array_equal(kept[0], kept[1])
    assert not np.array_equal(kept[:, 0], kept[:, 1])
