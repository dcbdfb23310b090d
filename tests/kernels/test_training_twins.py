"""The twins that training uses: against float64 at every edge, in any kind of memory, for any number of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import THREADS, UNIT, locked, norm_error, random

from npprelnorm.kernels import training as twins
from npprelnorm.kernels.losses import run_cross_entropy
from npprelnorm.kernels.team import counters
from npprelnorm.kernels.weights import address
from npprelnorm.ops import activations, attention, embedding, losses, normalization
from npprelnorm.ops import adamw as optimizer

threads = st.sampled_from(THREADS)
rows = st.integers(0, 70)
widths = st.integers(1, 100)
seeds = st.integers(0, 99)
NAMES = ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "tanh")


def wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


@settings(max_examples=40)
@given(count=rows, width=widths, seed=seeds, threads=threads)
def test_layer_norm_backward(count: int, width: int, seed: int, threads: int) -> None:
    """Each number of dx is a sum of three terms; the two means in them are off by some units of what they add up."""
    x_hat, dy, weight = random(seed, count, width), random(seed + 1, count, width), random(seed + 2, width)
    inv_std = np.abs(random(seed + 3, count, 1))
    cache = normalization.LayerNormCache(x_hat, inv_std, weight)
    dx, dweight, dbias = twins.layer_norm_backward(dy, cache, threads=threads)
    exact = normalization.layer_norm_backward(wide(dy), normalization.LayerNormCache(*map(wide, cache)))
    g = np.abs(dy * weight)
    size = inv_std * (g + g.mean(axis=1, keepdims=True) + np.abs(x_hat) * (g * np.abs(x_hat)).mean(1, keepdims=True))
    assert (np.abs(dx - exact[0]) <= UNIT * (8 + width) * size).all()
    assert (np.abs(dweight - exact[1]) <= UNIT * (2 + count) * np.abs(dy * x_hat).sum(axis=0)).all()
    assert (np.abs(dbias - exact[2]) <= UNIT * (2 + count) * np.abs(dy).sum(axis=0)).all()
    assert dx.dtype == dweight.dtype == dbias.dtype == np.float32


def test_layer_norm_backward_of_real_rows_is_as_exact_as_the_reference() -> None:
    x, dy, weight, bias = random(0, 7, 60, 768), random(1, 7, 60, 768), random(2, 768), random(3, 768)
    _, cache = normalization.layer_norm(x, weight, bias, 1e-12)
    exact = normalization.layer_norm_backward(wide(dy), normalization.LayerNormCache(*map(wide, cache)))
    ours = twins.layer_norm_backward(dy, cache)
    for computed, theirs, truth in zip(ours, normalization.layer_norm_backward(dy, cache), exact, strict=True):
        assert norm_error(computed, truth) <= 1.5 * norm_error(theirs, truth)
    for count in (2, 3, 8):
        for first, second in zip(ours, twins.layer_norm_backward(dy, cache, threads=count), strict=True):
            np.testing.assert_array_equal(first, second)


# Bounds of a derivative's error in units of 2^-24: the errors of the functions in it (an ulp of vector_math is at most
# two units) by what they are multiplied with, which is at most 1.2, and the roundings of their arguments and products
DERIVATIVE_UNITS = {"gelu": 8, "gelu_tanh": 16, "quick_gelu": 12, "relu": 1, "silu": 12, "tanh": 4}


@pytest.mark.parametrize("name", NAMES)
def test_activations_backward_against_float64(name: str) -> None:
    x = np.linspace(-30.0, 30.0, 200_001).astype(np.float32)
    kept = np.tanh(x) if name == "tanh" else x
    dy = random(1, x.size)
    with np.errstate(under="ignore"):
        exact = getattr(activations, f"{name}_backward")(wide(dy), (wide(kept),))
    dx = getattr(twins, f"{name}_backward")(dy, (kept,), threads=2)
    assert dx.dtype == np.float32
    bound = UNIT * DERIVATIVE_UNITS[name] * np.abs(dy)
    assert (np.abs(dx - exact) <= bound).all(), np.abs((dx - exact) / (UNIT * dy)).max()


@pytest.mark.parametrize("name", NAMES)
def test_activations_backward_of_any_kind_of_memory(name: str) -> None:
    reference: Callable[..., Any] = getattr(activations, f"{name}_backward")
    twin: Callable[..., Any] = getattr(twins, f"{name}_backward")
    x, dy = random(0, 40, 30, 20), random(1, 40, 30, 20)
    dx = twin(dy, (x,))
    np.testing.assert_array_equal(twin(locked(dy), (locked(x),)), dx)
    np.testing.assert_array_equal(twin(dy.T[::-1], (x.T[::-1],), threads=5), dx.T[::-1])
    assert twin(dy[:0], (x[:0],)).shape == (0, 30, 20)
    bad = np.float32([np.nan, np.inf, -np.inf, 0.0])
    with np.errstate(invalid="ignore", over="ignore"):
        expected = reference(np.ones(4, np.float32), (bad,))
    np.testing.assert_allclose(twin(np.ones(4, np.float32), (bad,)), expected, rtol=1e-6)
    assert np.isnan(twin(bad[:1], (np.ones(1, np.float32),))).all()


@settings(max_examples=40)
@given(count=st.integers(1, 12), classes=widths, seed=seeds, threads=threads, some=st.booleans())
def test_cross_entropy(count: int, classes: int, seed: int, threads: int, some: bool) -> None:
    logits = random(seed, count, classes) * np.float32(4)
    labels = np.random.default_rng(seed).integers(0, classes, count)
    if some:
        labels[1:][::2] = -100
    loss, cache = twins.cross_entropy(logits, labels, threads=threads)
    exact, exact_cache = losses.cross_entropy(wide(logits), labels)
    # log of a sum of exponentials, each off by an unit or two, and a difference with the largest logit
    assert abs(float(loss - exact)) <= UNIT * (24 + classes + 4 * float(np.abs(logits).max()))
    np.testing.assert_allclose(cache.probs, exact_cache.probs, rtol=UNIT * (64 + classes), atol=1e-30)
    assert loss.dtype == np.float32
    assert loss.shape == ()
    assert cache.labels is labels
    assert cache.divisor == exact_cache.divisor
    np.testing.assert_array_equal(cache.counted, exact_cache.counted)
    dlogits = twins.cross_entropy_backward(np.float32(0.5), cache, threads=threads)
    expected = losses.cross_entropy_backward(np.float64(0.5), exact_cache)
    np.testing.assert_allclose(dlogits, expected, rtol=UNIT * (64 + classes), atol=2 * UNIT / cache.divisor)
    assert dlogits.dtype == np.float32


def test_cross_entropy_of_a_large_vocabulary_is_as_exact_as_the_reference() -> None:
    logits, labels = random(0, 6, 50_265) * np.float32(3), np.array([5, 50_264, 0, -100, 77, 5])
    exact, exact_cache = losses.cross_entropy(wide(logits), labels)
    loss, cache = twins.cross_entropy(logits, labels)
    assert abs(float(loss) - float(exact)) <= 4 * UNIT * float(exact)
    dlogits = twins.cross_entropy_backward(loss, cache)
    truth = losses.cross_entropy_backward(exact, exact_cache)
    theirs = losses.cross_entropy_backward(loss, losses.cross_entropy(logits, labels)[1])
    assert norm_error(dlogits, truth) <= 2 * norm_error(theirs, truth)
    assert not dlogits[3].any()


@pytest.mark.parametrize("low", [0.0, -1.0, 0.3, -3.3])
def test_cross_entropy_adds_a_large_vocabulary_in_two_steps(low: float) -> None:
    """Equal numbers are rounded alike, so that the errors of one long sum do not cancel.

    Of 512 numbers each of at least 8 running sums takes 64, and there are 99 such parts: 163 halves of a unit.
    """
    logits, labels = np.full((1, 50_265), low, np.float32), np.array([7])
    logits[0, 7] = 1.0
    loss, cache = twins.cross_entropy(logits, labels)
    assert abs(wide(cache.probs).sum() - 1.0) <= UNIT * 81.5
    assert abs(float(loss) - float(losses.cross_entropy(wide(logits), labels)[0])) <= UNIT * 81.5


def test_cross_entropy_options_and_odd_inputs() -> None:
    logits, labels = random(0, 4, 9), np.array([1, 7, 7, 0], np.int32)
    for options in ({"divisor": 10.0}, {"ignore_index": 7}, {"ignore_index": 0, "divisor": 3}):
        expected, expected_cache = losses.cross_entropy(logits, labels, **options)
        loss, cache = twins.cross_entropy(locked(logits), locked(labels), **options)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        np.testing.assert_allclose(
            twins.cross_entropy_backward(np.float32(2), cache),
            losses.cross_entropy_backward(np.float32(2), expected_cache), rtol=1e-5, atol=1e-8,
        )  # fmt: skip
    nothing, cache = twins.cross_entropy(logits.T.copy().T, np.full(4, -100))
    assert np.isnan(nothing)
    assert not twins.cross_entropy_backward(np.float32(1), cache).any()
    logits[1, 3], logits[2, 0] = np.nan, np.inf
    loss, cache = twins.cross_entropy(logits, labels)
    assert np.isnan(loss)
    assert np.isnan(cache.probs[1:3]).all()
    assert np.isfinite(cache.probs[[0, 3]]).all()


@settings(max_examples=40)
@given(
    places=st.integers(0, 40), table=st.integers(1, 12), width=widths, seed=seeds, threads=threads,
    padding=st.sampled_from([None, 0, 3]), onto=st.booleans(),
)  # fmt: skip
def test_embedding_backward(
    places: int, table: int, width: int, seed: int, threads: int, padding: int | None, onto: bool
) -> None:
    ids = np.random.default_rng(seed).integers(0, table, (places,))
    dy, base = random(seed, places, width), random(seed + 1, table, width)
    cache = embedding.EmbeddingCache(ids, table)
    given_to = base.copy() if onto else None
    dtable = twins.embedding_backward(dy, cache, padding, given_to, threads=threads)
    exact = embedding.embedding_backward(wide(dy), cache, padding, wide(base) if onto else None)
    size = embedding.embedding_backward(np.abs(wide(dy)), cache, padding, np.abs(wide(base)) if onto else None)
    assert (np.abs(dtable - exact) <= UNIT * (1 + places) * size).all()
    assert dtable.dtype == np.float32
    if onto:
        assert dtable is given_to
        if padding is not None and padding < table:
            np.testing.assert_array_equal(dtable[padding], base[padding])


def test_embedding_backward_of_any_kind_of_memory() -> None:
    ids, dy = np.array([[3, 1], [1, 0]], np.int32), random(0, 2, 2, 20)
    base = random(1, 5, 40)
    expected = embedding.embedding_backward(dy, embedding.EmbeddingCache(ids, 5), 1, base[:, ::2].copy())
    target = base[:, ::2]
    result = twins.embedding_backward(locked(dy), embedding.EmbeddingCache(ids, 5), 1, target)
    assert result is target
    np.testing.assert_allclose(target, expected, rtol=1e-6)
    bad = np.full((1, 20), np.nan, np.float32)
    assert np.isnan(twins.embedding_backward(bad, embedding.EmbeddingCache(np.array([2]), 5))).all(axis=1).tolist() == [
        False, False, True, False, False,
    ]  # fmt: skip


STEP: dict[str, Any] = {"decay": 0.999, "betas": (0.9, 0.98), "correction": 0.3, "eps": 1e-6, "step_size": 2e-3}


@settings(max_examples=40)
@given(count=st.integers(0, 300), seed=seeds, threads=threads)
def test_adamw(count: int, seed: int, threads: int) -> None:
    p, mean, gradient = random(seed, count), random(seed + 1, count), random(seed + 2, count)
    square = np.square(random(seed + 3, count))
    exact = [wide(a) for a in (p, mean, square)]
    optimizer.adamw(*exact, wide(gradient), **STEP)
    old_mean, old_p = np.abs(mean) + np.abs(gradient), np.abs(p)
    assert twins.adamw(p, mean, square, gradient, **STEP, threads=threads) is None
    assert (np.abs(mean - exact[1]) <= 3 * UNIT * old_mean).all()
    assert (np.abs(square - exact[2]) <= 5 * UNIT * exact[2]).all()
    # the step is a quotient of both, whose errors it has, besides those of a root, two quotients and a product
    step = STEP["step_size"] * old_mean / (np.sqrt(exact[2]) / STEP["correction"])
    assert (np.abs(p - exact[0]) <= 3 * UNIT * old_p + 16 * UNIT * step).all()


def test_adamw_of_any_kind_of_memory_and_of_odd_numbers() -> None:
    arrays = [random(0, 30, 1000), random(1, 30, 1000), np.square(random(2, 30, 1000)), random(3, 30, 1000)]
    arrays[2][0], arrays[3][1, 5], arrays[3][2, 5] = 0.0, np.nan, np.inf
    whole = [a.copy() for a in arrays]
    twins.adamw(*whole, **STEP)
    expected = [a.copy() for a in arrays]
    with np.errstate(invalid="ignore"):
        optimizer.adamw(*expected, **STEP)
    for computed, reference in zip(whole, expected, strict=True):
        np.testing.assert_allclose(computed, reference, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(whole[3], arrays[3])
    for count in (2, 5):
        again = [a.copy() for a in arrays]
        twins.adamw(*again, **STEP, threads=count)
        np.testing.assert_array_equal(again, whole)
    turned = [np.asfortranarray(a) for a in arrays[:3]]
    twins.adamw(*turned, locked(arrays[3]), **STEP)
    np.testing.assert_array_equal(turned, whole[:3])


@pytest.mark.parametrize("gap", [0, 16, 4096])
def test_sums_do_not_depend_on_where_arrays_lie(gap: int) -> None:
    """A loop that LLVM guards against overlapping arrays takes another way where they lie close together."""
    count, classes = 12, 40
    logits, labels = random(0, count, classes) * np.float32(3), np.arange(count)
    sizes = [logits.size, logits.size, count, count]
    room = np.empty(sum(sizes) + gap * len(sizes), np.float32)
    starts = np.cumsum([0, *sizes[:-1]]) + gap * np.arange(len(sizes))
    here, probs, picked, sums = (room[start : start + size] for start, size in zip(starts, sizes, strict=True))
    here[...] = logits.ravel()
    run_cross_entropy(
        address(here), count, classes, address(labels), -100, address(probs), address(picked), address(sums),
        address(counters(1)),
    )  # fmt: skip
    _, cache = twins.cross_entropy(logits, labels)
    np.testing.assert_array_equal(probs.reshape(logits.shape), cache.probs)


class Heads(NamedTuple):
    """Arguments of an attention of random shape."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    mask: np.ndarray | None
    head_mask: np.ndarray | None
    dy: np.ndarray


@st.composite
def heads(draw: st.DrawFn) -> Heads:
    batch, count, size = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 20))
    tokens, seen = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    seed = draw(seeds)
    q, dy = (random(seed + i, batch, tokens, count, size).swapaxes(1, 2) for i in range(2))
    k, v = (random(seed + i, batch, seen, count, size).swapaxes(1, 2) for i in range(2, 4))
    low, generator = np.finfo(np.float32).min, np.random.default_rng(seed)
    shape = draw(st.sampled_from([None, (batch, 1, 1, seen), (1, 1, tokens, seen), (batch, count, tokens, seen), (1,)]))
    mask = None if shape is None else np.where(generator.random(shape) < 0.4, low, np.float32(0.0))
    head_mask = random(seed + 5, count, 1, 1) if draw(st.booleans()) else None
    return Heads(q, k, v, mask, head_mask, dy)


def wide_or_none(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else wide(array)


@settings(max_examples=60)
@given(one=heads(), threads=threads, drop=st.sampled_from([0.0, 0.3]))
def test_attention(one: Heads, threads: int, drop: float) -> None:
    """By the norms of what each number is a sum of: float32 products, and probabilities off by some units of 1."""
    y, cache = twins.attention(
        one.q, one.k, one.v, one.mask, head_mask=one.head_mask, drop=drop, rng=np.random.default_rng(1), threads=threads
    )
    with np.errstate(over="ignore"):  # the lowest number and a score
        exact, exact_cache = attention.attention(
            *map(wide, (one.q, one.k, one.v)), wide_or_none(one.mask), head_mask=wide_or_none(one.head_mask),
            drop=drop, rng=np.random.default_rng(1),
        )  # fmt: skip
    assert y.shape == exact.shape
    assert y.dtype == cache.probs.dtype == np.float32
    assert cache.q is one.q
    if drop:
        assert cache.dropped is not None
        np.testing.assert_array_equal(cache.dropped.kept, exact_cache.dropped.kept)
    score_error = UNIT * (one.q.shape[3] + 8) * float(np.abs(one.q).max()) * float(np.abs(one.k).sum(axis=3).max())
    relative = 4 * score_error + UNIT * (80 + 2 * one.k.shape[2])
    np.testing.assert_allclose(cache.probs, exact_cache.probs, rtol=relative, atol=1e-30)
    largest = float(np.abs(exact_cache.weights()).sum(axis=3).max()) * float(np.abs(one.v).max())
    assert np.abs(y - exact).max() <= relative * largest + 1e-30

    gradients = twins.attention_backward(one.dy, cache, threads=threads)
    truth = attention.attention_backward(wide(one.dy), exact_cache)
    for name, computed, right in zip(truth._fields, gradients, truth, strict=True):
        assert (computed is None) == (right is None), name
        if right is not None and computed is not None:
            assert computed.shape == right.shape, name
            assert computed.dtype == np.float32, name
            # differences of terms of this size, each off by as much as the probabilities are
            size = float(np.linalg.norm(wide(one.dy))) * float(np.linalg.norm(one.v)) * (1.0 + _largest(one.head_mask))
            size *= 1.5 * (1.0 + max(float(np.abs(one.q).max()), float(np.abs(one.k).max())))
            assert np.abs(computed - right).max() <= relative * size, name


def _largest(array: np.ndarray | None) -> float:
    return 0.0 if array is None else float(np.abs(array).max())


def test_attention_of_real_sizes_is_as_exact_as_the_reference() -> None:
    q, k, v, dy = (random(i, 2, 130, 3, 64).swapaxes(1, 2) for i in range(4))
    mask = np.where(np.arange(130) < 100, np.float32(0), np.finfo(np.float32).min)[None, None, None]
    exact, exact_cache = attention.attention(*map(wide, (q, k, v)), wide(mask))
    ours, cache = twins.attention(q, k, v, mask)
    theirs, reference_cache = attention.attention(q, k, v, mask)
    assert norm_error(ours, exact) <= 1.5 * norm_error(theirs, exact)
    assert not cache.probs[..., 100:].any()
    truth = attention.attention_backward(wide(dy), exact_cache)
    computed = twins.attention_backward(dy, cache)
    for one, other, right in zip(computed[:3], attention.attention_backward(dy, reference_cache), truth, strict=False):
        assert norm_error(one, right) <= 1.5 * norm_error(other, right)
    for count in (2, 5):
        again, same = twins.attention(q, k, v, mask, threads=count)
        np.testing.assert_array_equal(again, ours)
        for one, other in zip(twins.attention_backward(dy, same, threads=count)[:3], computed, strict=False):
            np.testing.assert_array_equal(one, other)


def test_attention_of_any_kind_of_memory_and_odd_numbers() -> None:
    q, k, v, dy = (random(i, 2, 3, 7, 10) for i in range(4))
    mask = random(5, 2, 1, 1, 7)
    y, cache = twins.attention(q, k, v, mask)
    gradients = twins.attention_backward(dy, cache)
    for change in (locked, lambda x: np.asfortranarray(x), lambda x: x[::-1].copy()[::-1]):
        again, same = twins.attention(*map(change, (q, k, v, mask)))
        np.testing.assert_array_equal(again, y)
        for one, other in zip(twins.attention_backward(change(dy), same)[:3], gradients, strict=False):
            np.testing.assert_array_equal(one, other)
    for shape in ((2, 3, 0, 10), (0, 3, 7, 10)):
        empty = np.empty(shape, np.float32)
        y, cache = twins.attention(empty, k[: shape[0]], v[: shape[0]], None)
        assert y.shape == shape
        assert twins.attention_backward(empty, cache).dk.shape == k[: shape[0]].shape
    q[1, 2, 3, 4] = np.nan
    y, cache = twins.attention(q, k, v, mask)
    assert np.isnan(y).all(axis=3).sum() == 1
    assert np.isnan(y[1, 2, 3]).all()
    dq, dk, dv, *_ = twins.attention_backward(dy, cache)
    assert np.isnan(dk[1, 2]).all()
    assert np.isnan(dv[1, 2]).all()
    assert np.isnan(dq).all(axis=3).sum() == 1
    assert np.isfinite(dk[0]).all()


def test_relative_positions_are_the_references() -> None:
    q, k, v = (random(i, 1, 2, 4, 6) for i in range(3))
    relative = attention.Relative(random(9, 15, 6), np.arange(4)[:, None] - np.arange(4), True)
    y, cache = twins.attention(q, k, v, None, relative=relative)
    expected, expected_cache = attention.attention(q, k, v, None, relative=relative)
    np.testing.assert_array_equal(y, expected)
    dtable = attention.attention_backward(q, expected_cache).dtable
    np.testing.assert_array_equal(twins.attention_backward(q, cache).dtable, dtable)
