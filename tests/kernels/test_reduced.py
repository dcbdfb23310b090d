"""Products with weights in fewer bits: tiles against exact arithmetic on the rounded numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import ABLE, THREADS, UNIT, needs_int12, norm_error, random

from npprelnorm.errors import InputError
from npprelnorm.kernels import storage, weights
from npprelnorm.kernels.compiling import part
from npprelnorm.kernels.cpu import AVX2, NEON, PLAIN, WIDTH, Tile
from npprelnorm.kernels.integer_tile import LARGEST, LONGEST, make_integer_tile
from npprelnorm.kernels.linear import linear
from npprelnorm.kernels.primitives import floats, make_tile
from npprelnorm.kernels.weights import address

# rounding to so many bits, relative: what a random weight loses on average is about 0.4 of it
HALF_ERROR = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


def rounded(weight: np.ndarray, weight_dtype: str) -> np.ndarray:
    """The float16 or bfloat16 numbers nearest to float32 ones, in float64, by NumPy's own rounding or by hand."""
    if weight_dtype == "float16":
        return weight.astype(np.float16).astype(np.float64)
    exponent = np.floor(np.log2(np.maximum(np.abs(weight.astype(np.float64)), 2.0**-126)))
    unit = 2.0 ** (exponent - 7)
    return np.rint(weight.astype(np.float64) / unit) * unit


def whole(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers of 12 bits and their scales by rows, in float64."""
    largest = np.maximum(np.abs(x).max(axis=1, keepdims=True), np.float32(1e-30))
    inverse = (np.float32(LARGEST) / largest).astype(np.float64)
    return np.rint(x.astype(np.float64) * inverse), (largest / np.float32(LARGEST)).astype(np.float64)


def exact(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, weight_dtype: str) -> np.ndarray:
    """What the kernel has to compute, up to float32 rounding: the product of numbers that are rounded already."""
    if weight_dtype == "int12":
        (a, a_scale), (w, w_scale) = whole(x), whole(weight)
        return (a @ w.T) * a_scale * w_scale.T + bias
    return x.astype(np.float64) @ rounded(weight, weight_dtype).T + bias


@pytest.mark.parametrize("weight_dtype", ABLE)
@settings(max_examples=40)
@given(
    rows=st.integers(0, 29), depth=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 99),
    threads=st.sampled_from(THREADS),
)  # fmt: skip
def test_every_edge(weight_dtype: str, rows: int, depth: int, columns: int, seed: int, threads: int) -> None:
    x, weight, bias = random(seed, rows, depth), random(seed + 1, columns, depth), random(seed + 2, columns)
    y, _ = linear(x, weight, bias, threads=threads, weight_dtype=weight_dtype)
    assert y.shape == (rows, columns)
    assert y.dtype == np.float32
    # a product of float32 numbers may round the last place of x * inverse the other way than float64 does: one unit of
    # 12 bits of one number, at the very tie
    slack = 4.0 * 4.0 / LARGEST if weight_dtype == "int12" else 0.0
    error = np.abs(y - exact(x, weight, bias, weight_dtype))
    assert error.max(initial=0.0) <= UNIT * (depth + 3) * 16.0 + slack
    assert np.median(error, axis=None) <= UNIT * (depth + 3) * 16.0 if error.size else True


@pytest.mark.parametrize("weight_dtype", ABLE)
@pytest.mark.parametrize(("rows", "depth", "columns"), [(12, 768, 768), (97, 1601, 100), (1, 3072, 33), (300, 50, 1)])
def test_error_by_norm(weight_dtype: str, rows: int, depth: int, columns: int) -> None:
    x, weight, bias = random(1, rows, depth), random(2, columns, depth), random(3, columns)
    y, _ = linear(x, weight, bias, weight_dtype=weight_dtype)
    assert norm_error(y, exact(x, weight, bias, weight_dtype)) <= UNIT * max(4.0, depth**0.5)
    truth = x.astype(np.float64) @ weight.astype(np.float64).T + bias
    # 12 bits: steps of max / 2047 on both sides, where the largest of some hundred normal numbers is about 3.5
    bound = {"float16": 3e-4, "bfloat16": 2.2e-3, "int12": 1e-3}[weight_dtype]
    assert norm_error(y, truth) <= bound


@pytest.mark.parametrize("weight_dtype", ABLE)
def test_threads_and_company_change_no_bit(weight_dtype: str) -> None:
    x, weight, bias = random(1, 250, 901), random(2, 333, 901), random(3, 333)
    whole_batch, _ = linear(x, weight, bias, weight_dtype=weight_dtype)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(
            linear(x, weight, bias, threads=threads, weight_dtype=weight_dtype)[0], whole_batch
        )
    for rows in (slice(0, 1), slice(5, 12), slice(96, 197)):
        np.testing.assert_array_equal(linear(x[rows], weight, bias, weight_dtype=weight_dtype)[0], whole_batch[rows])


@needs_int12
@pytest.mark.parametrize("depth", [LONGEST, LONGEST + 1, 1540])
@pytest.mark.parametrize("sign", [1, -1])
def test_int12_sums_do_not_overflow(depth: int, sign: int) -> None:
    """All numbers at the end of their range, so that a sum of 512 products is 2145387008, just below 2^31."""
    assert LONGEST * LARGEST**2 < 2**31 <= (LONGEST + 1) * LARGEST**2
    x, weight = np.full((7, depth), LARGEST, np.float32), np.full((17, depth), sign * LARGEST, np.float32)
    y, _ = linear(x, weight, np.zeros(17, np.float32), weight_dtype="int12")
    np.testing.assert_allclose(y, float(sign * depth) * LARGEST**2, rtol=4 * UNIT)


@needs_int12
def test_int12_is_exact_where_numbers_are_whole() -> None:
    rng = np.random.default_rng(0)
    x, weight = (rng.integers(-LARGEST, LARGEST + 1, shape).astype(np.float32) for shape in ((13, 75), (21, 75)))
    x[:, 5], weight[:, 9] = LARGEST, -LARGEST  # so that every scale is 1
    y, _ = linear(x, weight, np.zeros(21, np.float32), weight_dtype="int12")
    np.testing.assert_array_equal(y, (x.astype(np.int64) @ weight.T.astype(np.int64)).astype(np.float32))


@pytest.mark.parametrize("weight_dtype", ABLE)
def test_zero_and_tiny_and_huge_rows(weight_dtype: str) -> None:
    x, weight, bias = random(1, 6, 50), random(2, 20, 50), random(3, 20)
    x[1], x[2], x[3] = 0.0, x[2] * np.float32(1e-37), x[3] * np.float32(1e30)
    weight[4] = 0.0
    y, _ = linear(x, weight, bias, weight_dtype=weight_dtype)
    np.testing.assert_array_equal(y[1:3], np.broadcast_to(bias, (2, 20)))
    np.testing.assert_array_equal(y[:, 4], np.full(6, bias[4]))
    assert norm_error(y[3], exact(x, weight, bias, weight_dtype)[3]) <= 2e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weight_dtype", ABLE)
def test_what_is_not_finite_reaches_its_row_or_column_alone(weight_dtype: str, bad: float) -> None:
    x, weight, bias = random(1, 9, 7), np.abs(random(2, 20, 7)), random(3, 20)
    clean, _ = linear(x, weight, bias, weight_dtype=weight_dtype)
    x[2, 3] = bad
    y, _ = linear(x, weight, bias, weight_dtype=weight_dtype)
    # whole numbers have no infinity: a row that holds one is NaN
    expected = np.nan if weight_dtype == "int12" else bad
    np.testing.assert_array_equal(y[2], np.full(20, expected, np.float32))
    np.testing.assert_array_equal(np.delete(y, 2, axis=0), np.delete(clean, 2, axis=0))
    weight[6, 1] = bad
    y, _ = linear(np.abs(x), weight, bias, weight_dtype=weight_dtype)
    assert not np.isfinite(y[:, 6]).any()
    assert np.isfinite(np.delete(np.delete(y, 2, axis=0), 6, axis=1)).all()


@pytest.mark.skipif("float16" not in ABLE, reason="this processor cannot widen float16")
def test_weights_beyond_float16_are_refused() -> None:
    x, weight, bias = random(1, 2, 7), random(2, 20, 7), random(3, 20)
    weight[3, 3] = 65519.0
    assert norm_error(
        linear(x, weight, bias, weight_dtype="float16")[0], exact(x, weight, bias, "float16")
    ) <= 4 * UNIT  # fmt: skip
    weight[3, 3] = -65520.0
    with pytest.raises(InputError, match="65520, and float16 ends at 65504; use weight_dtype 'bfloat16'"):
        linear(x, weight, bias, weight_dtype="float16")


@pytest.mark.parametrize("weight_dtype", ABLE)
def test_half_the_bytes(weight_dtype: str) -> None:
    weight = random(0, 320, 640)
    packed = weights.pack(weight, 2, storage.STORAGES[weight_dtype])
    scales = 4 * 320 if weight_dtype == "int12" else 0
    assert packed.nbytes == weight.nbytes // 2 + scales


def test_one_parameter_in_every_storage_at_once() -> None:
    x, weight, bias = random(1, 3, 50), random(2, 20, 50), random(3, 20)
    weight.flags.writeable = False
    for name in ABLE * 2:
        y, _ = linear(x, weight, bias, weight_dtype=name)
        assert norm_error(y, exact(x, weight, bias, name)) <= 8 * UNIT


def call_tile(tile: Any, arrays: dict[str, np.ndarray], depth: int, integer: bool) -> np.ndarray:
    """c (rows, 20) of one tile whose `a` has rows depth + 1 apart."""
    c = np.full((len(arrays["a"]), 20), 5.0, np.float32)

    if integer:

        @part
        def call(a_at: int, panel_at: int, start_at: int, c_at: int, own_at: int, column_at: int, depth: int) -> None:
            a, panel, start = floats(a_at, 999), floats(panel_at, 999), floats(start_at, 999)
            own, column = floats(own_at, 99), floats(column_at, 99)
            tile(a, 0, depth + 1, panel, 0, start, 0, WIDTH, floats(c_at, 999), 0, 20, depth, own, 0, column, 0)

        call(*(address(arrays[name]) for name in ("a", "panel", "start")), address(c), address(arrays["own"]),
             address(arrays["column"]), depth)  # fmt: skip
    else:

        @part
        def call_plain(a_at: int, panel_at: int, start_at: int, c_at: int, depth: int) -> None:
            a, panel, start = floats(a_at, 999), floats(panel_at, 999), floats(start_at, 999)
            tile(a, 0, depth + 1, panel, 0, start, 0, WIDTH, floats(c_at, 999), 0, 20, depth)

        call_plain(*(address(arrays[name]) for name in ("a", "panel", "start")), address(c), depth)
    assert (c[:, WIDTH:] == 5.0).all()
    return c[:, :WIDTH]


@pytest.mark.parametrize("weight_dtype", sorted(HALF_ERROR))
@pytest.mark.parametrize("shape", [AVX2, NEON, PLAIN], ids=["avx2", "neon", "plain"])
def test_widening_tiles_of_every_processor(shape: Tile, weight_dtype: str) -> None:
    if weight_dtype not in ABLE:
        pytest.skip("this processor cannot widen float16")
    for rows in (1, shape.rows):
        tile = make_tile(shape, rows, storage.STORAGES[weight_dtype])
        for depth in (0, 1, 9):
            a, panel, start = random(rows, rows, depth + 1), random(7, depth, WIDTH), random(8, rows, WIDTH)
            exact_panel = rounded(panel, weight_dtype)
            halves = (
                panel.astype(np.float16)
                if weight_dtype == "float16"
                else (exact_panel.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
            )
            arrays = {"a": a, "panel": halves, "start": start}
            expected = start + a[:, :depth].astype(np.float64) @ exact_panel
            np.testing.assert_allclose(call_tile(tile, arrays, depth, False), expected, rtol=0, atol=1e-5)


@needs_int12
def test_integer_tiles() -> None:
    for rows in (1, 2, 5, 6):
        tile = make_integer_tile(AVX2, rows)
        for depth in (0, 1, 9):
            rng = np.random.default_rng(depth)
            a, panel = (rng.integers(-LARGEST, LARGEST + 1, s).astype(np.int16)
                        for s in ((rows, depth + 1, 2), (depth, WIDTH, 2)))  # fmt: skip
            arrays = {
                "a": a,
                "panel": panel,
                "start": random(1, rows, WIDTH),
                "own": random(2, rows),
                "column": random(3, WIDTH),
            }
            sums = np.einsum("rkp,kcp->rc", a[:, :depth].astype(np.int64), panel.astype(np.int64))
            scale = (arrays["own"][:, None] * arrays["column"]).astype(np.float64)
            expected = (sums.astype(np.float32) * scale + arrays["start"]).astype(np.float32)
            np.testing.assert_array_equal(call_tile(tile, arrays, depth, True), expected)
