"""Attention of one head over one sequence, by blocks of queries whose scores stay in a second-level cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import vector_math as vm
from .compiling import ZERO, inline, part, shared
from .cpu import WIDTH
from .gemm import ROWS, panels_of, tile, tiles_of
from .primitives import bits_of_float, float_of_bits, floats

# Rows and numbers of a block of scores: 48 x 1365 float32 numbers are 256 KiB.
_BLOCK_QUERIES = 48
_BLOCK_SCORES = 1 << 16


@shared
def _queries_at_once(columns: int) -> int:
    rows = min(_BLOCK_QUERIES, _BLOCK_SCORES // columns)
    return max(ROWS, rows // ROWS * ROWS)


def scratch_size(keys: int, head_size: int) -> int:
    """Numbers of float32 scratch that `attend` needs for up to that many keys."""
    columns, width = panels_of(keys) * WIDTH, panels_of(head_size) * WIDTH
    packed = columns * head_size + keys * width
    return packed + _queries_at_once(columns) * columns + ROWS * width + WIDTH + ROWS


@inline
def _ordered(bits: Any) -> Any:
    """Bits of a float32 as an integer that is ordered as the numbers are, NaN above all; its own inverse."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@part
def row_max(x: Any, first: int, last: int) -> Any:
    """The largest of x[first:last], NaN if there is one: as integers, which LLVM compares in vectors."""
    row = x[first:last]  # a place in it is never negative, which LLVM has to know to use vectors
    highest = np.int32(-0x80000000)
    for i in range(row.size):
        highest = max(highest, _ordered(bits_of_float(row[i])))
    return float_of_bits(_ordered(highest))


@part
def exp_row(x: Any, first: int, last: int) -> Any:
    """x[first:last] = exp(x - max), in place; returns their sum."""
    highest = row_max(x, first, last)
    row = x[first:last]
    total = np.float32(0.0)
    for i in range(row.size):
        e = vm.exp(row[i] - highest)
        row[i] = e
        total += e
    return total


@part
def add_bias(scores: Any, bias_at: int, stride: int, token: int) -> None:
    """Add to a query's scores what a mask says of its token, where there is one: rows `stride` apart at an address."""
    if bias_at != 0:
        bias = floats(bias_at + 4 * stride * token, scores.size)
        for i in range(scores.size):
            scores[i] += bias[i]


@part
def attend(
    q: Any, ldq: int, first_query: int, last_query: int, k: Any, v: Any, ldk: int, key_rows: Any, keys: int,
    size: int, scale: Any, bias_at: int, bias_stride: int, tokens: Any, out: Any, ldo: int, scratch: Any,
) -> None:  # fmt: skip
    """out = softmax(scale q k^T + bias) v for query rows [first_query, last_query).

    q, k, v and out are flat, begin at the first column of the head, and have rows `ldq`, `ldk`, `ldk` and `ldo` apart;
    the first `keys` entries of `key_rows` are the rows of k and v that are seen. The bias is that of each query's
    token, which `tokens` tells; see `add_bias`.
    """
    panels, value_panels = panels_of(keys), panels_of(size)
    columns, width = panels * WIDTH, value_panels * WIDTH
    packed_k = scratch
    packed_v = scratch[columns * size :]
    scores = scratch[columns * size + keys * width :]
    block = _queries_at_once(columns)
    sums = scratch[columns * size + keys * width + block * columns :]  # (ROWS, width)
    zeros = sums[ROWS * width :]
    inverse = zeros[WIDTH:]
    for j in range(WIDTH):
        zeros[j] = np.float32(0.0)

    for t in range(columns):  # (keys, D) -> (panels, D, WIDTH)
        to = t // WIDTH * size * WIDTH + t % WIDTH
        if t < keys:
            at = key_rows[t] * ldk
            for d in range(size):
                packed_k[to + d * WIDTH] = k[at + d] * scale
        else:
            for d in range(size):
                packed_k[to + d * WIDTH] = np.float32(0.0)
    for panel in range(value_panels):  # (keys, D) -> (value panels, keys, WIDTH)
        filled = min(WIDTH, size - panel * WIDTH)
        for t in range(keys):
            at = key_rows[t] * ldk + panel * WIDTH
            to = (panel * keys + t) * WIDTH
            for j in range(filled):
                packed_v[to + j] = v[at + j]
            for j in range(filled, WIDTH):
                packed_v[to + j] = np.float32(0.0)

    for begin in range(first_query, last_query, block):
        end = min(begin + block, last_query)
        queries = end - begin
        tiles = tiles_of(queries)
        for panel in range(panels):
            for index in range(tiles):
                down = queries * index // tiles
                tile(
                    q, (begin + down) * ldq, ldq, packed_k, panel * size * WIDTH, zeros, ZERO, ZERO,
                    scores, down * columns + panel * WIDTH, columns, size, queries * (index + 1) // tiles - down,
                )  # fmt: skip
        for index in range(tiles):
            down = queries * index // tiles
            rows = queries * (index + 1) // tiles - down
            at = down * columns
            for i in range(rows):
                add_bias(
                    scores[at + i * columns : at + i * columns + keys], bias_at, bias_stride, tokens[begin + down + i]
                )
                total = exp_row(scores, at + i * columns, at + i * columns + keys)
                inverse[i] = np.float32(1.0) / total
            for panel in range(value_panels):
                tile(
                    scores, at, columns, packed_v, panel * keys * WIDTH, zeros, ZERO, ZERO,
                    sums, panel * WIDTH, width, keys, rows,
                )  # fmt: skip
            for i in range(rows):
                to = (begin + down + i) * ldo
                for d in range(size):
                    out[to + d] = sums[i * width + d] * inverse[i]


# Up to so many queries, looking at keys and values where they lie costs less than packing these.
FEW_QUERIES = 4


@part
def attend_few(
    q: Any, ldq: int, first_query: int, last_query: int, k: Any, v: Any, keys: int,
    size: int, scale: Any, bias_at: int, bias_stride: int, tokens: Any, out: Any, ldo: int, scratch: Any,
) -> None:  # fmt: skip
    """`attend` for a few queries and all of `keys` rows, which lie one after the other."""
    scores, sums = scratch[:keys], scratch[keys : keys + size]
    for row in range(first_query, last_query):
        query = q[row * ldq : row * ldq + size]
        for t in range(keys):
            key = k[t * size : (t + 1) * size]
            total = np.float32(0.0)
            for d in range(size):
                total += query[d] * key[d]
            scores[t] = total * scale
        add_bias(scores, bias_at, bias_stride, tokens[row])
        inverse = np.float32(1.0) / exp_row(scores, 0, keys)
        for d in range(size):
            sums[d] = np.float32(0.0)
        for t in range(keys):
            value, weight = v[t * size : (t + 1) * size], scores[t]
            for d in range(size):
                sums[d] += weight * value[d]
        mine = out[row * ldo : row * ldo + size]
        for d in range(size):
            mine[d] = sums[d] * inverse
