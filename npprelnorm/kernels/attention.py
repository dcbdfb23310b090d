"""Attention of one head over one sequence: keys and values packed once, and a tile of queries at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import vector_math as vm
from .compiling import ZERO, inline, part, shared
from .cpu import TILE, WIDTH
from .gemm import ROWS, copy_vector, panels_of, tile, tiles_of
from .primitives import bits_of_float, float_of_bits, floats, make_transpose

LANES = TILE.lanes
transpose = make_transpose(LANES)


@shared
def _stride(keys: int) -> int:
    """How far apart the rows of scores lie: never a multiple of 4 KiB, where they would compete for one cache set."""
    return (panels_of(keys) + 1) * WIDTH


def scratch_size(keys: int, head_size: int) -> int:
    """Numbers of float32 scratch that `attend` needs for up to that many keys."""
    columns, width = panels_of(keys) * WIDTH, panels_of(head_size) * WIDTH
    return WIDTH + (columns + keys) * width + max(WIDTH * width, ROWS * (_stride(keys) + 2 * width + 1))


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
        e = vm.exp_below(row[i] - highest)
        row[i] = e
        total += e
    return total


@inline
def _copy_row(x: Any, at: int, size: int, y: Any, to: int, step: int) -> None:
    """x[at : at + size] to pieces of WIDTH numbers of y that begin `step` apart; the end of the last stays as it is."""
    whole = size // WIDTH
    for piece in range(whole):
        copy_vector(x, at + piece * WIDTH, y, to + piece * step)
    if whole * WIDTH < size:
        rest, piece = x[at + whole * WIDTH : at + size], y[to + whole * step :]
        for j in range(rest.size):
            piece[j] = rest[j]


@part
def pack_columns(x: Any, ldx: int, rows: Any, count: int, size: int, panels: Any, room: Any) -> None:
    """Rows of x transposed: panels (panels of count, width, WIDTH), `width` being `size` filled up to whole panels.

    x is flat, its rows `ldx` apart and `size` long; the first `count` entries of `rows` say which. Columns after the
    last are that one again; depths after `size` hold nothing of use. `room` is for one panel, (WIDTH, width).
    """
    width = panels_of(size) * WIDTH
    for panel in range(panels_of(count)):
        for j in range(WIDTH):
            _copy_row(x, rows[min(panel * WIDTH + j, count - 1)] * ldx, size, room, j * width, WIDTH)
        for j in range(0, WIDTH, LANES):
            for d in range(0, width, LANES):
                transpose(room, j * width + d, width, panels, (panel * width + d) * WIDTH + j, WIDTH)


@part
def pack_rows(x: Any, ldx: int, rows: Any, count: int, size: int, panels: Any) -> None:
    """Rows of x as rows of panels (panels of size, count, WIDTH); columns after `size` hold nothing of use."""
    for t in range(count):
        _copy_row(x, rows[t] * ldx, size, panels, t * WIDTH, count * WIDTH)


@part
def add_bias(scores: Any, bias_at: int, stride: int, tokens: Any, query: int) -> None:
    """Add to a query's scores what a mask says of its token, where there is one: rows `stride` apart at an address."""
    if bias_at != 0:
        bias = floats(bias_at + 4 * stride * tokens[query], scores.size)
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
    columns, width, stride = panels * WIDTH, value_panels * WIDTH, _stride(keys)
    zeros = scratch[:WIDTH]
    packed_k = scratch[WIDTH:]
    packed_v = packed_k[columns * width :]
    scores = packed_v[keys * width :]  # (ROWS, stride)
    queries = scores[ROWS * stride :]  # (ROWS, width)
    sums = queries[ROWS * width :]  # (ROWS, width)
    inverse = sums[ROWS * width :]
    zeros[:] = np.float32(0.0)
    pack_columns(k, ldk, key_rows, keys, size, packed_k, scores)
    pack_rows(v, ldk, key_rows, keys, size, packed_v)
    tiles = tiles_of(last_query - first_query)
    for index in range(tiles):
        begin = first_query + (last_query - first_query) * index // tiles
        rows = first_query + (last_query - first_query) * (index + 1) // tiles - begin
        for i in range(rows):
            at = (begin + i) * ldq
            row, to = q[at : at + size], queries[i * width : i * width + size]
            for d in range(size):
                to[d] = row[d] * scale
        for panel in range(panels):
            tile(
                queries, ZERO, width, packed_k, panel * width * WIDTH, zeros, ZERO, ZERO,
                scores, panel * WIDTH, stride, size, rows,
            )  # fmt: skip
        for i in range(rows):
            add_bias(scores[i * stride : i * stride + keys], bias_at, bias_stride, tokens, begin + i)
            inverse[i] = np.float32(1.0) / exp_row(scores, i * stride, i * stride + keys)
        for panel in range(value_panels):
            tile(
                scores, ZERO, stride, packed_v, panel * keys * WIDTH, zeros, ZERO, ZERO,
                sums, panel * WIDTH, width, keys, rows,
            )  # fmt: skip
        for i in range(rows):
            at, share = (begin + i) * ldo, inverse[i]
            row, to = sums[i * width : i * width + size], out[at : at + size]
            for d in range(size):
                to[d] = row[d] * share


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
        add_bias(scores, bias_at, bias_stride, tokens, row)
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
