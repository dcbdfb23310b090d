"""Products of a few rows with weights as the checkpoint holds them, for those that cannot be packed or hardly pay it.

A vocabulary that is tied to the embeddings is looked up by its rows, and packed it would lie in memory twice. One row
of x takes as long as the weights take to come from memory; more of them are multiplied with four rows of the weight
while these lie in the first-level cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops.linear import LinearCache
from ..ops.top_k import TopK
from . import vector_math as vm
from .attention import row_max
from .compiling import ZERO, entry, inline, part
from .cpu import AVX512, NEON, TILE
from .dot_tile import make_dots
from .primitives import flags, floats, integers
from .shapes import expect_linear
from .team import counters, hand_in, spread, stages_at, take, wait
from .weights import address, aligned

# Up to so many rows of x. A vocabulary of 50,000 takes less than 2/3 of OpenBLAS's time with 12 and with 64 rows, and
# no longer with one. A small weight takes longer, but OpenBLAS's threads go on spinning for some 100 ms after a product
# (an idle process goes on using a processor for that long), and hold up ours: what comes next takes half as long again.
FEW_ROWS = 64

# Rows of x in a tile: its sums, and what they are made of, fill 32 vector registers or 16.
_ROWS = 4 if TILE in (AVX512, NEON) else 2
# Products of a row that are added up at a time: four rows of the weight, and the tile's own, stay in a first-level
# cache of 32 KiB.
_DEPTH = 1024

# Tasks for each thread: enough that one who comes late or is held up costs little.
_TASKS = 4
# Columns whose logits are looked at together: their place decides which sums of exponentials are added first.
_CHUNK = 1024

_dots_1 = make_dots(TILE, min(1, _ROWS))
_dots_2 = make_dots(TILE, min(2, _ROWS))
_dots_3 = make_dots(TILE, min(3, _ROWS))
_dots_4 = make_dots(TILE, min(4, _ROWS))


@part
def _dots(
    rows: int, x: Any, x_at: int, ldx: int, weight: Any, weight_at: int, ldw: int, columns: int, c: Any, c_at: int,
    depth: int, ahead: int,
) -> None:  # fmt: skip
    """`dot_tile.make_dots` for 1 to `_ROWS` rows."""
    if rows == 4:
        _dots_4(x, x_at, ldx, weight, weight_at, ldw, columns, c, c_at, depth, ahead)
    elif rows == 3:
        _dots_3(x, x_at, ldx, weight, weight_at, ldw, columns, c, c_at, depth, ahead)
    elif rows == 2:
        _dots_2(x, x_at, ldx, weight, weight_at, ldw, columns, c, c_at, depth, ahead)
    else:
        _dots_1(x, x_at, ldx, weight, weight_at, ldw, columns, c, c_at, depth, ahead)


@part
def dots_block(
    x: Any, rows: int, depth: int, weight: Any, bias: Any, first: int, last: int, y: Any, ldy: int, strip: Any
) -> None:
    """Columns [first, last) of y = x @ weight^T + bias, the first of them at y[0]; y has rows `ldy` apart.

    `strip` is room for (rows, 4). Each number is the same whatever rows and columns are computed together.
    """
    tiles = (rows + _ROWS - 1) // _ROWS
    for column in range(first, last, 4):
        width = min(4, last - column)
        for row in range(rows):
            for j in range(width):
                strip[4 * row + j] = bias[column + j]
        for begin in range(0, depth, _DEPTH):
            size = min(_DEPTH, depth - begin)
            for index in range(tiles):
                row = rows * index // tiles
                ahead = 4 * depth if index == 0 else 0  # the next four rows, once for all rows of x
                _dots(
                    rows * (index + 1) // tiles - row, x, row * depth + begin, depth,
                    weight, column * depth + begin, depth, width, strip, 4 * row, size, ahead,
                )  # fmt: skip
        for row in range(rows):
            for j in range(width):
                y[row * ldy + column - first + j] = strip[4 * row + j]


@entry
def run_dots(
    x_at: int, rows: int, depth: int, weight_at: int, columns: int, bias_at: int, y_at: int, tasks: int,
    strip_at: int, counters_at: int,
) -> None:  # fmt: skip
    """y = x @ weight^T + bias, by ranges of columns, each a task."""
    x, weight, bias = floats(x_at, rows * depth), floats(weight_at, columns * depth), floats(bias_at, columns)
    strip = floats(strip_at, 4 * rows)
    stages = stages_at(counters_at, 1)
    fours = (columns + 3) // 4
    task = take(stages, 0)
    while task < tasks:
        first, last = fours * task // tasks * 4, min(columns, fours * (task + 1) // tasks * 4)
        y = floats(y_at + 4 * first, rows * columns - first)
        dots_block(x, rows, depth, weight, bias, first, last, y, columns, strip)
        hand_in(stages, 0)
        task = take(stages, 0)
    wait(stages, 0, tasks)


@inline
def _above(a: Any, b: Any) -> Any:
    """Whether a comes before b in falling order; NaN comes last."""
    return a > b or (b != b and a == a)


@part
def _insert(values: Any, ids: Any, at: int, count: int, most: int, value: Any, number: int) -> int:
    """Put a value into its place among `count` in falling order, behind its equals; at most `most` stay."""
    if count == most:
        if not _above(value, values[at + count - 1]):
            return count
        count -= 1
    place = at + count
    while place > at and _above(value, values[place - 1]):
        values[place] = values[place - 1]
        ids[place] = ids[place - 1]
        place -= 1
    values[place] = value
    ids[place] = number
    return count + 1


@part
def _sum_of_exps(x: Any, highest: Any) -> Any:
    """The sum of exp(x - highest): 0 where nothing is above minus infinity."""
    total = np.float32(0.0)
    if highest != -np.float32(np.inf):
        for i in range(x.size):
            total += vm.exp(x[i] - highest)
    return total


@entry
def run_top_k(
    x_at: int, rows: int, depth: int, weight_at: int, columns: int, bias_at: int, among_at: int, most: int,
    values_at: int, ids_at: int, highest_at: int, sums_at: int, room_at: int, counters_at: int,
) -> None:  # fmt: skip
    """Of each chunk of columns, a task: the largest logits of each row among those that are allowed, and statistics.

    values and ids are (chunks, rows, most), highest and sums (rows, chunks). The room is this thread's own, for the
    strip of `dots_block` and the logits of a chunk. No row of logits is ever whole.
    """
    chunks = (columns + _CHUNK - 1) // _CHUNK
    x, weight, bias = floats(x_at, rows * depth), floats(weight_at, columns * depth), floats(bias_at, columns)
    among = flags(among_at, columns)
    values, ids = floats(values_at, chunks * rows * most), integers(ids_at, chunks * rows * most)
    highest, sums = floats(highest_at, chunks * rows), floats(sums_at, chunks * rows)
    strip, logits = floats(room_at, 4 * rows), floats(room_at + 16 * rows, rows * _CHUNK)
    stages = stages_at(counters_at, 1)
    chunk = take(stages, 0)
    while chunk < chunks:
        first, last = chunk * _CHUNK, min(columns, (chunk + 1) * _CHUNK)
        dots_block(x, rows, depth, weight, bias, first, last, logits, _CHUNK, strip)
        for row in range(rows):
            own = logits[row * _CHUNK : row * _CHUNK + last - first]
            top = row_max(own, ZERO, np.int64(own.size))
            highest[row * chunks + chunk] = top
            sums[row * chunks + chunk] = _sum_of_exps(own, top)
            place, count = (chunk * rows + row) * most, ZERO
            for i in range(own.size):
                if among_at == 0 or among[first + i] != 0:
                    count = _insert(values, ids, place, count, most, own[i], first + i)
        hand_in(stages, 0)
        chunk = take(stages, 0)
    wait(stages, 0, chunks)


def _room(rows: int, threads: int, more: int = 0) -> tuple[np.ndarray, int]:
    """Memory of the threads' own for (rows, 4 + more) numbers each, and how many bytes apart these begin."""
    size = -(-rows * (4 + more) // 16) * 16
    return aligned(threads * size), 4 * size


def _line_up(x: np.ndarray) -> np.ndarray:
    """A copy of a few rows whose vectors cross no cache line, as they are loaded over and over."""
    rows = aligned(x.size).reshape(x.shape)
    rows[...] = x
    return rows


def _work(rows: int, depth: int, columns: int) -> int:
    """What `spread` goes by: one thread alone reads weights about as fast as memory gives them."""
    return columns * depth * (8 + rows) // 64


def few_rows_linear(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, threads: int = 1
) -> tuple[np.ndarray, LinearCache]:
    """Twin of `ops.linear.linear`, in float32, that reads the weight where it lies; made for up to `FEW_ROWS` rows."""
    columns, depth = expect_linear(x, weight, bias)
    plain, biases = _line_up(x), np.require(bias, np.float32, ("C", "A"))
    weights = np.require(weight, np.float32, "C")  # at any address
    y = np.empty((*x.shape[:-1], columns), np.float32)
    if y.size:
        rows, tasks = y.size // columns, min((columns + 3) // 4, _TASKS * threads)
        (room, apart), shared = _room(rows, threads), counters(1)
        arguments = (address(plain), rows, depth, address(weights), columns, address(biases), address(y), tasks)
        room_at, shared_at = address(room), address(shared)
        spread(
            lambda thread: run_dots(*arguments, room_at + thread * apart, shared_at),
            _work(rows, depth, columns), threads,
        )  # fmt: skip
    return y, LinearCache(x, weight)


def linear_top_k(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, k: int, among: np.ndarray | None = None, *, threads: int = 1
) -> TopK:
    """Twin of `ops.top_k.linear_top_k`, in float32, that keeps no row of logits; made for up to `FEW_ROWS` rows."""
    columns, depth = expect_linear(x, weight, bias)
    plain, biases = _line_up(x), np.require(bias, np.float32, ("C", "A"))
    weights = np.require(weight, np.float32, "C")  # at any address
    allowed = None if among is None else np.require(among, np.bool_, "C")
    rows = len(x)
    chunks, most = -(-columns // _CHUNK), min(k, _CHUNK)
    values, ids = np.empty((chunks, rows, most), np.float32), np.empty((chunks, rows, most), np.int64)
    highest, sums = (np.empty((rows, chunks), np.float32) for _ in range(2))
    if rows:
        (room, apart), shared = _room(rows, threads, _CHUNK), counters(1)
        arguments = (
            address(plain), rows, depth, address(weights), columns, address(biases),
            0 if allowed is None else address(allowed), most,
            address(values), address(ids), address(highest), address(sums),
        )  # fmt: skip
        room_at, shared_at = address(room), address(shared)
        spread(
            lambda thread: run_top_k(*arguments, room_at + thread * apart, shared_at),
            _work(rows, depth, columns), threads,
        )  # fmt: skip
    begins = np.arange(0, columns, _CHUNK)
    counts = np.minimum(columns - begins, _CHUNK)
    if allowed is not None:
        counts = np.add.reduceat(allowed, begins, dtype=np.int64)
    return _merged(values, ids, highest, sums, np.minimum(counts, most), k)


def _merged(
    values: np.ndarray, ids: np.ndarray, highest: np.ndarray, sums: np.ndarray, counts: np.ndarray, k: int
) -> TopK:
    """What the chunks found as one, always in their order. (chunks, R, most), (R, chunks), counts (chunks,)."""
    filled = np.arange(values.shape[2]) < counts[:, None]  # (chunks, most), the same for every row
    candidates = values.swapaxes(1, 2)[filled].T  # (R, all that were found), by chunk, each in falling order
    order = np.argsort(-candidates, axis=1, kind="stable")[:, :k]
    chosen = np.take_along_axis(ids.swapaxes(1, 2)[filled].T, order, axis=1)
    top = highest.max(axis=1)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        log_sum = np.log((sums * np.exp(highest - top[:, None])).sum(axis=1))
    return TopK(chosen, np.take_along_axis(candidates, order, axis=1), top, log_sum)
