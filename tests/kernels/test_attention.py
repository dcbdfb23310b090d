"""Attention of one head, alone: every ragged edge against float64, and what it must neither read nor write."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import norm_error, random

from npprelnorm.kernels.attention import attend, pack_columns, scratch_size
from npprelnorm.kernels.compiling import ZERO, part
from npprelnorm.kernels.cpu import AVX2, AVX512, NEON, PLAIN, WIDTH, Tile
from npprelnorm.kernels.primitives import floats, integers, make_mover, make_transpose
from npprelnorm.kernels.weights import address
from npprelnorm.ops.attention import attention as reference

BESIDE = 5  # columns before and after the head's own


@part
def run(
    q_at: int, k_at: int, v_at: int, ld: int, rows: int, first: int, last: int, key_rows_at: int, keys: int,
    size: int, out_at: int, scratch_at: int, scratch_size: int,
) -> None:  # fmt: skip
    numbers = rows * ld - BESIDE
    attend(
        floats(q_at, numbers), ld, first, last, floats(k_at, numbers), floats(v_at, numbers), ld,
        integers(key_rows_at, keys), keys, size, np.float32(1.0) / np.sqrt(np.float32(size)),
        ZERO, ZERO, integers(key_rows_at, keys),  # no bias, so that nobody asks which tokens these are
        floats(out_at, numbers), ld, floats(scratch_at, scratch_size),
    )  # fmt: skip


class Head(NamedTuple):
    """q, k and v (rows, size), between columns of NaN."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    size: int


def make_head(seed: int, rows: int, size: int) -> Head:
    q, k, v = random(seed, 3, rows, BESIDE + size + BESIDE)
    for x in (q, k, v):
        x[:, :BESIDE] = x[:, BESIDE + size :] = np.nan
    return Head(q, k, v, size)


def attended(head: Head, key_rows: np.ndarray, first: int, last: int) -> np.ndarray:
    """What `attend` computes of queries first to last, after a look at what it leaves alone."""
    rows, ld = head.q.shape
    needed = scratch_size(len(key_rows), head.size)
    scratch = np.full(needed + WIDTH, np.nan, np.float32)
    scratch[needed:] = 7.0
    out = np.full((rows, ld), 7.0, np.float32)
    run(
        *(address(x) + 4 * BESIDE for x in (head.q, head.k, head.v)), ld, rows, first, last,
        address(key_rows), len(key_rows), head.size, address(out) + 4 * BESIDE, address(scratch), needed,
    )  # fmt: skip
    assert (scratch[needed:] == 7.0).all()
    y = out[first:last, BESIDE : BESIDE + head.size].copy()
    out[first:last, BESIDE : BESIDE + head.size] = 7.0
    assert (out == 7.0).all()
    return y


def by_reference(head: Head, key_rows: np.ndarray, first: int, last: int, dtype: type) -> np.ndarray:
    q, k, v = (x[:, BESIDE : BESIDE + head.size].astype(dtype) for x in head[:3])
    return reference(q[None, None, first:last], k[None, None, key_rows], v[None, None, key_rows], None)[0][0, 0]


@settings(max_examples=150)
@given(seed=st.integers(0, 99), rows=st.integers(1, 70), size=st.integers(1, 40), data=st.data())
def test_every_edge(seed: int, rows: int, size: int, data: st.DataObject) -> None:
    """Rows that are no keys, the columns beside the head and the scratch hold NaN, which must not come through."""
    head = make_head(seed, rows, size)
    first = data.draw(st.integers(0, rows - 1))
    last = data.draw(st.integers(first, rows))
    seen = np.random.default_rng(seed).random(rows) < data.draw(st.sampled_from([0.3, 0.9, 1.0]))
    seen[data.draw(st.integers(0, rows - 1))] = True
    head.k[~seen], head.v[~seen] = np.nan, np.nan
    key_rows = np.flatnonzero(seen)
    y = attended(head, key_rows, first, last)
    # rows of probabilities, which sum to 1, times numbers of about 5 at most
    np.testing.assert_allclose(y, by_reference(head, key_rows, first, last, np.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("rows", "size"), [(12, 64), (129, 64), (512, 64), (1025, 80), (40, 128)])
def test_error_by_norm(rows: int, size: int) -> None:
    head = make_head(1, rows, size)
    key_rows = np.arange(rows)
    truth = by_reference(head, key_rows, 0, rows, np.float64)
    error = norm_error(by_reference(head, key_rows, 0, rows, np.float32), truth)
    assert norm_error(attended(head, key_rows, 0, rows), truth) <= 2.0 * error


def test_queries_in_other_company_are_the_same_to_the_bit() -> None:
    head = make_head(2, 61, 24)
    key_rows = np.arange(0, 61, 2)
    whole = attended(head, key_rows, 0, 61)
    for first, last in ((0, 1), (5, 12), (17, 61), (60, 61)):
        np.testing.assert_array_equal(attended(head, key_rows, first, last), whole[first:last])


def test_scores_far_apart_and_infinite() -> None:
    """As softmax has it: the highest takes all, and infinity less infinity is NaN, in its own row alone."""
    head = make_head(3, 20, 16)
    head.q[:, BESIDE], head.k[:, BESIDE] = 1e4, np.arange(20)
    y = attended(head, np.arange(20), 0, 20)
    np.testing.assert_allclose(y, np.broadcast_to(head.v[19, BESIDE:-BESIDE], y.shape), rtol=1e-6)
    head.q[4, BESIDE] = np.inf
    head.q[7, BESIDE + 1] = np.nan
    again = attended(head, np.arange(20), 0, 20)
    assert np.isnan(again[[4, 7]]).all()
    others = np.setdiff1d(np.arange(20), [4, 7])
    np.testing.assert_array_equal(again[others], y[others])


def test_columns_after_the_last_repeat_it() -> None:
    """So that what is multiplied and never used are ordinary numbers."""
    x, rows = random(4, 9, 6), np.array([8, 2, 5])
    panels, room = np.zeros((WIDTH, WIDTH), np.float32), np.zeros((WIDTH, WIDTH), np.float32)

    @part
    def pack(x_at: int, rows_at: int, panels_at: int, room_at: int) -> None:
        square = WIDTH * WIDTH
        pack_columns(
            floats(x_at, 54), 6, integers(rows_at, 3), 3, 6, floats(panels_at, square), floats(room_at, square)
        )

    pack(address(x), address(rows), address(panels), address(room))
    np.testing.assert_array_equal(panels[:6], x[[8, 2] + [5] * (WIDTH - 2)].T)


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_transpose(lanes: int) -> None:
    transpose = make_transpose(lanes)

    @part
    def turn(x_at: int, y_at: int) -> None:
        transpose(floats(x_at, lanes * 20), 3, 20, floats(y_at, lanes * 30), 2, 30)

    x, y = random(1, lanes, 20), np.zeros((lanes, 30), np.float32)
    turn(address(x), address(y))
    np.testing.assert_array_equal(y[:, 2 : 2 + lanes], x[:, 3 : 3 + lanes].T)
    y[:, 2 : 2 + lanes] = 0.0
    assert not y.any()


@pytest.mark.parametrize("shape", [AVX512, AVX2, NEON, PLAIN])
@pytest.mark.parametrize("added", [False, True])
def test_vectors_that_move(shape: Tile, added: bool) -> None:
    move = make_mover(shape, added)

    @part
    def once(x_at: int, y_at: int) -> None:
        move(floats(x_at, 40), 3, floats(y_at, 40), 7)

    x, y = random(1, 40), random(2, 40)
    expected = y.copy()
    expected[7:23] = x[3:19] + y[7:23] if added else x[3:19]
    once(address(x), address(y))
    np.testing.assert_array_equal(y, expected)
