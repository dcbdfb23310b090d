"""LayerNorm and softmax of rows, and the twins' signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_calls import THREADS, UNIT, locked, norm_error, random

from npprelnorm.kernels import elementwise, normalization, training
from npprelnorm.kernels import linear as kernel_linear
from npprelnorm.ops import activations, attention, embedding, losses
from npprelnorm.ops import adamw as optimizer
from npprelnorm.ops import linear as ops_linear
from npprelnorm.ops import normalization as ops_normalization

threads = st.sampled_from(THREADS)


@settings(max_examples=40)
@given(rows=st.integers(0, 9), width=st.integers(1, 100), seed=st.integers(0, 99), threads=threads)
@example(rows=1, width=2, seed=58, threads=1)  # two numbers that are nearly the same
def test_layer_norm(rows: int, width: int, seed: int, threads: int) -> None:
    x, weight, bias = random(seed, 2, rows, width) * np.float32(3) + np.float32(1), random(1, width), random(2, width)
    y, cache = normalization.layer_norm(x, weight, bias, 1e-5, threads=threads)
    exact, exact_cache = ops_normalization.layer_norm(*(a.astype(np.float64) for a in (x, weight, bias)), 1e-5)
    # a rounding of the row's largest number, in its standard deviations: what the mean, and so all else, can be off by
    unit = UNIT * (1 + np.abs(x).max(axis=-1, keepdims=True, initial=0) * exact_cache.inv_std)
    bound = 3 * unit * (1 + np.abs(exact_cache.x_hat))
    assert (np.abs(cache.x_hat - exact_cache.x_hat) <= bound).all()
    assert (np.abs(y - exact) <= bound * np.abs(weight) + 3 * UNIT * (np.abs(bias) + np.abs(exact))).all()
    assert (np.abs(cache.inv_std / exact_cache.inv_std - 1) <= 3 * unit).all()
    assert cache.weight is weight
    assert y.dtype == cache.x_hat.dtype == cache.inv_std.dtype == np.float32


def test_layer_norm_of_real_rows_is_as_exact_as_the_reference() -> None:
    x, weight, bias = random(0, 60, 768) + np.float32(2), random(1, 768), random(2, 768)
    exact, _ = ops_normalization.layer_norm(*(a.astype(np.float64) for a in (x, weight, bias)), 1e-12)
    ours, _ = normalization.layer_norm(x, weight, bias, 1e-12)
    theirs, _ = ops_normalization.layer_norm(x, weight, bias, 1e-12)
    assert norm_error(ours, exact) <= 1.5 * norm_error(theirs, exact)


def test_layer_norm_keeps_eps_inside_the_root_and_a_large_mean_out() -> None:
    x = np.float32([[1000.0, 1000.5, 1001.0, 1000.5]])
    one, zero = np.ones(4, np.float32), np.zeros(4, np.float32)
    y, _ = normalization.layer_norm(x, one, zero, 0.125)
    np.testing.assert_allclose(y, [[-1.0, 0.0, 1.0, 0.0]], rtol=1e-6)


@settings(max_examples=40)
@given(rows=st.integers(0, 9), width=st.integers(1, 100), seed=st.integers(0, 99), threads=threads)
def test_softmax(rows: int, width: int, seed: int, threads: int) -> None:
    x = random(seed, rows, width) * np.float32(4)
    y = elementwise.softmax(x, threads=threads)
    np.testing.assert_allclose(y, attention.softmax(x.astype(np.float64)), rtol=2e-6, atol=1e-30)
    np.testing.assert_allclose(elementwise.softmax(x + np.float32(64)), y, rtol=2e-5, atol=1e-30)


def test_softmax_of_masks_nan_and_infinity() -> None:
    low = np.finfo(np.float32).min
    x = np.float32([[1, low, 1, low], [low] * 4, [-np.inf, 0, 0, -np.inf], [3e38, -3e38, 3e38, 0]])
    expected = [[0.5, 0, 0.5, 0], [0.25] * 4, [0, 0.5, 0.5, 0], [0.5, 0, 0.5, 0]]
    np.testing.assert_array_equal(elementwise.softmax(x), expected)
    for bad in (np.nan, -np.nan, np.inf):
        row = np.repeat(np.float32([[0, 1, bad, 2]]), 9, axis=-1)
        assert np.isnan(elementwise.softmax(row)).all()


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "tanh"])
def test_activations_of_any_kind_of_memory(name: str) -> None:
    twin: Callable[..., Any] = getattr(elementwise, name)
    x = random(0, 40, 30, 20)
    y, (kept,) = twin(x)
    assert kept is (y if name == "tanh" else x)
    np.testing.assert_array_equal(twin(locked(x))[0], y)
    np.testing.assert_array_equal(twin(x.T[::-1])[0], y.T[::-1])
    np.testing.assert_array_equal(twin(x, threads=2)[0], y)
    assert twin(x[:0])[0].shape == (0, 30, 20)


TWINS = [
    *((getattr(elementwise, name), getattr(activations, name)) for name in
      ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "tanh")),
    (elementwise.softmax, attention.softmax),
    (normalization.layer_norm, ops_normalization.layer_norm),
    (kernel_linear, ops_linear.linear),
    *((getattr(training, name), getattr(activations, name)) for name in dir(activations) if name.endswith("_backward")),
    (training.attention, attention.attention),
    (training.attention_backward, attention.attention_backward),
    (training.layer_norm_backward, ops_normalization.layer_norm_backward),
    (training.cross_entropy, losses.cross_entropy),
    (training.cross_entropy_backward, losses.cross_entropy_backward),
    (training.embedding_backward, embedding.embedding_backward),
    (training.adamw, optimizer.adamw),
]  # fmt: skip


@pytest.mark.parametrize(("twin", "reference"), TWINS, ids=lambda f: f.__name__)
def test_twins_take_what_the_reference_takes(twin: Callable[..., Any], reference: Callable[..., Any]) -> None:
    ours, theirs = inspect.signature(twin), inspect.signature(reference)
    shared = [p for p in ours.parameters.values() if p.name in theirs.parameters or p.kind is not p.KEYWORD_ONLY]
    assert [(p.name, p.annotation) for p in shared] == [(p.name, p.annotation) for p in theirs.parameters.values()]
    assert ours.return_annotation == theirs.return_annotation
    assert twin.__name__ == reference.__name__
