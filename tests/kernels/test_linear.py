"""The packed matrix product: against float64, at every ragged edge, with every tile that a processor may ask for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import THREADS, UNIT, locked, norm_error, random

from npprelnorm.kernels import gemm
from npprelnorm.kernels.compiling import part
from npprelnorm.kernels.cpu import AVX2, AVX512, NEON, PLAIN, WIDTH, Tile
from npprelnorm.kernels.linear import linear
from npprelnorm.kernels.primitives import floats, make_tile
from npprelnorm.kernels.storage import supported
from npprelnorm.kernels.weights import address, pack
from npprelnorm.ops import activations
from npprelnorm.ops import linear as reference

sizes = st.integers(1, 40)

# |error| <= gamma(K) |a| |w|, and the roundings of random numbers grow with the root of K: K ^ 0.5 units of 2^-24 of
# the root of the sum of squares, which is what the norm of a row is made of


def exact(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) @ weight.astype(np.float64).T + bias


@settings(max_examples=40)
@given(rows=st.integers(0, 20), depth=sizes, columns=sizes, seed=st.integers(0, 99), threads=st.sampled_from(THREADS))
def test_every_edge(rows: int, depth: int, columns: int, seed: int, threads: int) -> None:
    x, weight, bias = random(seed, rows, depth), random(seed + 1, columns, depth), random(seed + 2, columns)
    y, cache = linear(x, weight, bias, threads=threads)
    assert y.shape == (rows, columns)
    assert y.dtype == np.float32
    assert cache.x is x
    assert cache.weight is weight
    assert np.abs(y - exact(x, weight, bias)).max(initial=0.0) <= UNIT * (depth + 3) * 16.0


@pytest.mark.parametrize(("rows", "depth", "columns"), [(12, 768, 768), (97, 1600, 100), (1, 3072, 33), (300, 50, 1)])
def test_error_by_norm(rows: int, depth: int, columns: int) -> None:
    x, weight, bias = random(1, rows, depth), random(2, columns, depth), random(3, columns)
    truth = exact(x, weight, bias)
    assert norm_error(linear(x, weight, bias)[0], truth) <= UNIT * max(2.0, depth**0.5)
    assert norm_error(linear(x, weight, bias)[0], truth) <= 2.0 * norm_error(
        reference.linear(x, weight, bias)[0], truth
    )


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
def test_rows_that_compete_for_the_cache_are_copied_closer_together(storage: str) -> None:
    """Rows 4 KiB apart, in two blocks of depth: five or more are copied, a few whole, many block by block."""
    if storage not in supported():
        pytest.skip(f"this processor has no {storage}")
    x, weight, bias = random(1, 200, 1024), random(2, 40, 1024), random(3, 40)
    whole, _ = linear(x, weight, bias, weight_dtype=storage)
    bound = {"float32": UNIT * 32, "float16": 3e-4, "bfloat16": 2.2e-3}[storage]
    assert norm_error(whole, exact(x, weight, bias)) <= bound
    for first, last in ((0, 4), (4, 9), (9, 49), (49, 200)):
        alone, _ = linear(x[first:last], weight, bias, weight_dtype=storage)
        np.testing.assert_array_equal(alone, whole[first:last])


@pytest.mark.parametrize("depth", [900, 1024])
def test_threads_and_company_change_no_bit(depth: int) -> None:
    x, weight, bias = random(1, 250, depth), random(2, 333, depth), random(3, 333)
    whole, _ = linear(x, weight, bias)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(linear(x, weight, bias, threads=threads)[0], whole)
    for rows in (slice(0, 1), slice(5, 12), slice(96, 197)):
        np.testing.assert_array_equal(linear(x[rows], weight, bias)[0], whole[rows])


@pytest.mark.parametrize("columns", [16, 31])
@pytest.mark.parametrize("depth", [20, 1000])
@pytest.mark.parametrize("name", ["gelu", "gelu_new", "quick_gelu", "relu", "silu", "tanh"])
def test_fused_activations(name: str, depth: int, columns: int) -> None:
    x, weight, bias = random(1, 13, depth), random(2, columns, depth) / np.float32(depth**0.5), random(3, columns)
    with np.errstate(under="ignore"):
        expected = activations.ACTIVATIONS[name][0](exact(x, weight, bias))[0]
    y, _ = linear(x, weight, bias, what=gemm.ACTIVATION_CODES[name])
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-5)


def test_every_activation_of_the_reference_has_a_code() -> None:
    assert gemm.ACTIVATION_CODES.keys() == activations.ACTIVATIONS.keys()


def test_arguments_of_any_kind_of_memory() -> None:
    x, weight, bias = random(1, 4, 6, 20), random(2, 18, 20), random(3, 18)
    expected, _ = linear(x, weight, bias)
    assert expected.shape == (4, 6, 18)
    np.testing.assert_array_equal(linear(locked(x), locked(weight), locked(bias))[0], expected)
    np.testing.assert_array_equal(linear(x.swapaxes(0, 1), np.asfortranarray(weight), bias)[0], expected.swapaxes(0, 1))
    np.testing.assert_array_equal(linear(x[::-2, 1::2], weight, np.repeat(bias, 2)[::2])[0], expected[::-2, 1::2])


def test_nan_and_infinity_reach_their_row_alone() -> None:
    x, weight, bias = random(1, 9, 7), np.abs(random(2, 20, 7)), random(3, 20)
    x[2, 3], x[4, 0] = np.nan, np.inf
    y, _ = linear(x, weight, bias)
    assert np.isnan(y[2]).all()
    assert (y[4] == np.inf).all()
    others = np.delete(y, [2, 4], axis=0)
    np.testing.assert_array_equal(others, linear(np.delete(x, [2, 4], axis=0), weight, bias)[0])


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("shape", [(1, 1), (16, 5), (35, 9), (700, 600)])
def test_packing(shape: tuple[int, int], threads: int) -> None:
    weight = random(0, *shape)
    rows, depth = shape
    panels = pack(weight, threads).reshape(-1, depth, WIDTH)
    unpacked = panels.transpose(0, 2, 1).reshape(-1, depth)
    np.testing.assert_array_equal(unpacked[:rows], weight)
    assert not unpacked[rows:].any()


@pytest.mark.parametrize("shape", [AVX512, AVX2, NEON, PLAIN], ids=["avx512", "avx2", "neon", "plain"])
def test_tiles_of_every_processor(shape: Tile) -> None:
    """Each is compiled for this one; instructions that it lacks LLVM composes of others."""
    assert shape.vectors * shape.lanes == WIDTH
    for rows in range(1, shape.rows + 1):
        tile = make_tile(shape, rows)

        @part
        def call(a_at: int, panel_at: int, start_at: int, c_at: int, depth: int) -> None:
            a, panel, start = floats(a_at, 999), floats(panel_at, 999), floats(start_at, 999)
            tile(a, 0, depth + 1, panel, 0, start, 0, WIDTH, floats(c_at, 999), 0, 20, depth)  # noqa: B023

        for depth in (0, 1, 9):
            a, panel, start = random(rows, rows, depth + 1), random(7, depth, WIDTH), random(8, rows, WIDTH)
            c = np.full((rows, 20), 5.0, np.float32)
            call(address(a), address(panel), address(start), address(c), depth)
            expected = start + a[:, :depth].astype(np.float64) @ panel
            np.testing.assert_allclose(c[:, :WIDTH], expected, rtol=0, atol=1e-5)
            assert (c[:, WIDTH:] == 5.0).all()
