"""Products of few rows with weights as they lie in memory, and the largest logits: against float64, at every edge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_calls import THREADS, UNIT, locked, norm_error, random
from strategies import random_model, tiny_config

import npprelnorm as nl
from npprelnorm import kernels
from npprelnorm.kernels import dots
from npprelnorm.kernels.compiling import part
from npprelnorm.kernels.cpu import AVX2, AVX512, NEON, PLAIN, Tile
from npprelnorm.kernels.dot_tile import make_dots
from npprelnorm.kernels.dots import few_rows_linear, linear_top_k
from npprelnorm.kernels.primitives import floats
from npprelnorm.kernels.weights import address
from npprelnorm.ops import linear as reference
from npprelnorm.ops import top_k as reference_top_k

CHUNK = dots._CHUNK


def exact(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) @ weight.astype(np.float64).T + bias


def bound(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """|error| of each number of x W^T + b: UNIT * steps * (|x| |W|^T + |b|), to first order.

    A product is rounded once at most, and then with each addition that its sum goes through: those of its lane (depth /
    4 at most, lanes being 4 or more), 2 + 2 over the lanes, 15 of the rest, and one for each block and the bias.
    """
    steps = x.shape[-1] // 4 + 1 + 4 + 15 + x.shape[-1] // dots._DEPTH + 2
    return UNIT * (steps + 1) * exact(np.abs(x), np.abs(weight), np.abs(bias))


@settings(max_examples=60)
@given(
    rows=st.integers(0, 11), depth=st.integers(0, 70), columns=st.integers(0, 40), seed=st.integers(0, 99),
    threads=st.sampled_from(THREADS),
)  # fmt: skip
def test_every_edge(rows: int, depth: int, columns: int, seed: int, threads: int) -> None:
    x, weight, bias = random(seed, rows, depth), random(seed + 1, columns, depth), random(seed + 2, columns)
    y, cache = few_rows_linear(x, weight, bias, threads=threads)
    assert y.shape == (rows, columns)
    assert y.dtype == np.float32
    assert cache.x is x
    assert cache.weight is weight
    assert (np.abs(y - exact(x, weight, bias)) <= bound(x, weight, bias)).all()


@pytest.mark.parametrize(("rows", "depth", "columns"), [(12, 768, 768), (1, 3072, 33), (32, 1600, 100), (7, 1025, 2)])
def test_error_by_norm(rows: int, depth: int, columns: int) -> None:
    x, weight, bias = random(1, rows, depth), random(2, columns, depth), random(3, columns)
    truth = exact(x, weight, bias)
    y, _ = few_rows_linear(x, weight, bias)
    assert (np.abs(y - truth) <= bound(x, weight, bias)).all()
    # roundings of random numbers grow with the root of their count
    assert norm_error(y, truth) <= UNIT * depth**0.5
    assert norm_error(y, truth) <= 2.0 * norm_error(reference.linear(x, weight, bias)[0], truth)


def test_threads_and_company_change_no_bit() -> None:
    x, weight, bias = random(1, 32, 1300), random(2, 333, 1300), random(3, 333)
    whole, _ = few_rows_linear(x, weight, bias)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(few_rows_linear(x, weight, bias, threads=threads)[0], whole)
    for rows in (slice(0, 1), slice(5, 12), slice(29, 32)):
        np.testing.assert_array_equal(few_rows_linear(x[rows], weight, bias)[0], whole[rows])
    for columns in (slice(0, 1), slice(3, 9), slice(332, 333)):
        np.testing.assert_array_equal(few_rows_linear(x, weight[columns], bias[columns])[0], whole[:, columns])


def test_arguments_of_any_kind_of_memory() -> None:
    x, weight, bias = random(1, 4, 6, 20), random(2, 18, 20), random(3, 18)
    expected, _ = few_rows_linear(x, weight, bias)
    assert expected.shape == (4, 6, 18)
    np.testing.assert_array_equal(few_rows_linear(locked(x), locked(weight), locked(bias))[0], expected)
    np.testing.assert_array_equal(
        few_rows_linear(x.swapaxes(0, 1), np.asfortranarray(weight), bias)[0], expected.swapaxes(0, 1)
    )
    np.testing.assert_array_equal(
        few_rows_linear(x[::-2, 1::2], weight, np.repeat(bias, 2)[::2])[0], expected[::-2, 1::2]
    )
    rows = x[:, 0]
    top = linear_top_k(rows, weight, bias, 4)
    for one in (linear_top_k(locked(rows), locked(weight), locked(bias), 4),
                linear_top_k(np.asfortranarray(rows), np.asfortranarray(weight), np.repeat(bias, 2)[::2], 4,
                             np.ones(36, np.bool_)[::2])):  # fmt: skip
        for got, wanted in zip(one, top, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_nothing_beside_the_arrays_is_computed_with() -> None:
    for depth in (5, 13, 16, 40):
        rooms = [np.full(1000, np.nan, np.float32) for _ in range(3)]
        x, weight, bias = rooms[0][8 : 8 + 3 * depth], rooms[1][8 : 8 + 7 * depth], rooms[2][8:15]
        for seed, array in enumerate((x, weight, bias)):
            array[:] = random(seed, array.size)
        x, weight = x.reshape(3, depth), weight.reshape(7, depth)
        y, _ = few_rows_linear(x, weight, bias)
        assert (np.abs(y - exact(x, weight, bias)) <= bound(x, weight, bias)).all()


def test_nan_and_infinity_reach_their_row_alone() -> None:
    x, weight, bias = random(1, 9, 23), np.abs(random(2, 20, 23)), random(3, 20)
    x[2, 3], x[4, 0], x[5, 22] = np.nan, np.inf, -np.inf
    y, _ = few_rows_linear(x, weight, bias)
    assert np.isnan(y[2]).all()
    assert (y[4] == np.inf).all()
    assert (y[5] == -np.inf).all()
    others = np.delete(y, [2, 4, 5], axis=0)
    np.testing.assert_array_equal(others, few_rows_linear(np.delete(x, [2, 4, 5], axis=0), weight, bias)[0])
    weight[6, 22] = np.nan
    np.testing.assert_array_equal(
        np.isnan(few_rows_linear(x[6:], weight, bias)[0]), np.tile(np.arange(20) == 6, (3, 1))
    )


@settings(max_examples=60)
@given(
    rows=st.integers(0, 6), columns=st.sampled_from([1, 2, 5, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 77]),
    k=st.sampled_from([1, 2, 5, 40, CHUNK + 3, 9999]), values=st.integers(1, 9),
    share=st.sampled_from([None, 0.0, 0.3]), seed=st.integers(0, 99), threads=st.sampled_from(THREADS),
)  # fmt: skip
@example(rows=3, columns=2 * CHUNK + 77, k=5, values=9, share=0.3, seed=1, threads=2)
@example(rows=2, columns=2 * CHUNK + 77, k=5, values=9, share=None, seed=2, threads=1)
def test_top_k_is_a_stable_sort(
    rows: int, columns: int, k: int, values: int, share: float | None, seed: int, threads: int
) -> None:
    """Whole numbers, which have no rounding, and few of them, so that many are equal."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (rows, 5)).astype(np.float32)
    weight = rng.integers(0, values, (columns, 5)).astype(np.float32)
    bias = rng.integers(0, values, columns).astype(np.float32)
    among = None if share is None else rng.random(columns) < share
    found = linear_top_k(x, weight, bias, k, among, threads=threads)
    logits = exact(x, weight, bias)
    ids = range(columns) if among is None else np.flatnonzero(among).tolist()
    naive = [sorted(ids, key=lambda n: (-row[n], n))[:k] for row in logits]
    assert found.ids.tolist() == naive
    assert found.ids.dtype == np.int64
    np.testing.assert_array_equal(found.logits, np.take_along_axis(logits, found.ids, axis=1))
    np.testing.assert_array_equal(found.highest, logits.max(axis=1))
    expected = np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1))
    # 1 ulp in each exponential, and in their sum the roundings of a lane, the lanes and the chunks: 1024 / 4 + 4 + 3
    assert (np.abs(found.log_sum - expected) <= UNIT * (2 + 263 + 1 + 2 * np.abs(expected))).all()


def test_top_k_has_the_reference_and_the_products_numbers() -> None:
    x, weight, bias = random(1, 5, 64), random(2, 5000, 64) / np.float32(8.0), random(3, 5000)
    found, expected = linear_top_k(x, weight, bias, 9), reference_top_k.linear_top_k(x, weight, bias, 9)
    np.testing.assert_array_equal(found.ids, expected.ids)
    logits, _ = few_rows_linear(x, weight, bias)
    np.testing.assert_array_equal(found.logits, np.take_along_axis(logits, found.ids, axis=1))
    np.testing.assert_allclose(found.probabilities(), expected.probabilities(), rtol=1e-5)
    truth = exact(x, weight, bias)
    truth = np.exp(truth - truth.max(axis=1, keepdims=True))
    truth /= truth.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.probabilities(), np.take_along_axis(truth, found.ids, axis=1), rtol=1e-5)
    for threads in (2, 3, 8):
        for one, other in zip(linear_top_k(x, weight, bias, 9, threads=threads), found, strict=True):
            np.testing.assert_array_equal(one, other)
    for one, other in zip(linear_top_k(x[2:3], weight, bias, 9), found, strict=True):
        np.testing.assert_array_equal(one, other[2:3])


def test_top_k_of_nan_and_infinity_is_the_references() -> None:
    columns = CHUNK + 50
    x, weight, bias = np.ones((1, 1), np.float32), np.zeros((columns, 1), np.float32), random(3, columns)
    for places, number in (([], 0.0), ([1, CHUNK + 5], np.nan), ([7], np.inf), (range(CHUNK), -np.inf),
                           (range(columns), -np.inf), (range(columns), np.nan)):  # fmt: skip
        special = bias.copy()
        special[list(places)] = number
        for k in (3, columns):
            found, expected = (f(x, weight, special, k) for f in (linear_top_k, reference_top_k.linear_top_k))
            np.testing.assert_array_equal(found.ids, expected.ids)
            np.testing.assert_array_equal(found.logits, expected.logits)
            np.testing.assert_array_equal(found.highest, expected.highest)
            np.testing.assert_allclose(found.log_sum, expected.log_sum, rtol=1e-6)
            np.testing.assert_allclose(found.probabilities(), expected.probabilities(), rtol=1e-5)


@pytest.mark.parametrize("shape", [AVX512, AVX2, NEON, PLAIN], ids=["avx512", "avx2", "neon", "plain"])
def test_tiles_of_every_processor(shape: Tile) -> None:
    """Each is compiled for this one; instructions that it lacks LLVM composes of others."""
    for rows in (1, 2, 4):
        tile = make_dots(shape, rows)

        @part
        def call(x_at: int, weight_at: int, columns: int, c_at: int, depth: int) -> None:
            x, weight = floats(x_at, 999), floats(weight_at, 999)
            tile(x, 0, depth + 1, weight, 0, depth, columns, floats(c_at, 999), 0, depth, 4 * depth)  # noqa: B023

        for columns in (1, 3, 4):
            for depth in (0, 1, 19, 33):
                x, weight, begun = random(rows, rows, depth + 1), random(7, columns, depth), random(8, rows + 1, 4)
                c = begun.copy()
                call(address(x), address(weight), columns, address(c), depth)
                expected = begun[:rows, :columns] + x[:, :depth].astype(np.float64) @ weight.T
                np.testing.assert_allclose(c[:rows, :columns], expected, rtol=0, atol=1e-5)
                np.testing.assert_array_equal(c[rows], begun[rows])


def test_heads_and_top_tokens_of_few_rows_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("few_rows_linear", "linear_top_k"):
        original = getattr(kernels, name)

        def counted(*args: Any, original: Any = original, name: str = name, **options: Any) -> Any:
            calls.append(name)
            return original(*args, **options)

        monkeypatch.setattr(kernels, name, counted)
    mlm, classify, choose, base = (
        random_model(kind, tiny_config(), 0, "float32")
        for kind in ("ForMaskedLM", "ForSequenceClassification", "ForMultipleChoice", "Model")
    )
    many = dots.FEW_ROWS + 1
    hidden = random(1, many, mlm.config.hidden_size)
    ids = np.arange(3, 13)[None]
    runs = {
        "lm_head": (lambda: mlm.lm_head(hidden[:-1]), ["few_rows_linear"] * 2),
        "lm_head, many": (lambda: mlm.lm_head(hidden), []),
        "top": (lambda: mlm.top_tokens(hidden[:-1], 4).logits, ["few_rows_linear", "linear_top_k"]),
        "top, many": (lambda: mlm.top_tokens(hidden, 4).logits, []),
        "classify": (lambda: classify(ids).logits, ["few_rows_linear"] * 2),
        "choose": (lambda: choose(ids[None]).logits, ["few_rows_linear"] * 2),
        "pooler": (lambda: base(ids).pooler_output, ["few_rows_linear"]),
    }
    for run, expected in runs.values():
        with nl.use_backend("numpy"):
            reference = run()
            assert not calls
        with nl.use_backend("numba"):
            np.testing.assert_allclose(run(), reference, rtol=1e-4, atol=1e-5)
        assert calls == expected
        calls.clear()


def test_a_model_in_float64_stays_with_the_reference() -> None:
    model = random_model("ForMaskedLM", tiny_config(), 0, "float64")
    hidden = np.random.default_rng(0).standard_normal((2, model.config.hidden_size))
    with nl.use_backend("numba"):
        computed, top = model.lm_head(hidden), model.top_tokens(hidden, 3)
    with nl.use_backend("numpy"):
        np.testing.assert_array_equal(computed, model.lm_head(hidden))
    assert computed.dtype == top.logits.dtype == np.float64


def test_training_takes_it_and_gives_the_references_gradients() -> None:
    model = random_model("ForMaskedLM", tiny_config(), 0, "float32")
    labels = np.where(np.arange(10) % 3 == 0, np.arange(3, 13), -100)[None]
    results = {}
    for name in ("numpy", "numba"):
        with nl.use_backend(name):
            results[name] = model.loss_and_grads(input_ids=np.arange(3, 13)[None], labels=labels)[1]
    for name, gradient in results["numpy"].items():
        np.testing.assert_allclose(results["numba"][name], gradient, rtol=1e-3, atol=1e-5, err_msg=name)
