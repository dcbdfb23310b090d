"""Layer normalisation of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops.normalization import LayerNormCache
from .compiling import entry, part
from .primitives import float_of_bits, floats
from .shapes import expect
from .team import counters, hand_in, spread, stages_at, take, wait
from .weights import address


@part
def mean_and_inverse(x: Any, at: int, width: int, eps: Any) -> Any:
    """Mean and 1 / sqrt(var + eps) of x[at : at + width]; the variance is taken about the mean, as in the reference."""
    row = x[at : at + width]  # a place in it is never negative, which LLVM has to know to use vectors
    total = np.float32(0.0)
    for i in range(row.size):
        total += row[i]
    mean = total / np.float32(width)
    squares = np.float32(0.0)
    for i in range(row.size):
        d = row[i] - mean
        squares += d * d
    return mean, np.float32(1.0) / np.sqrt(squares / np.float32(width) + eps)


@part
def layer_norm_rows(
    x: Any, first_row: int, last_row: int, width: int, weight: Any, bias: Any, eps: Any, y: Any
) -> None:
    """y = (x - mean) / sqrt(var + eps) * weight + bias for rows [first_row, last_row) of flat x (rows, width)."""
    for row in range(first_row, last_row):
        at = row * width
        mean, inverse = mean_and_inverse(x, at, width, eps)
        x_row, y_row = x[at : at + width], y[at : at + width]
        for i in range(width):
            y_row[i] = (x_row[i] - mean) * inverse * weight[i] + bias[i]


@entry
def run_layer_norm(
    x_at: int, rows: int, width: int, weight_at: int, bias_at: int, eps_bits: int, y_at: int, x_hat_at: int,
    inv_std_at: int, block: int, counters_at: int,
) -> None:  # fmt: skip
    """LayerNorm by blocks of rows, and what the backward needs."""
    x, y, x_hat = floats(x_at, rows * width), floats(y_at, rows * width), floats(x_hat_at, rows * width)
    inv_std, weight, bias = floats(inv_std_at, rows), floats(weight_at, width), floats(bias_at, width)
    eps = float_of_bits(np.int32(eps_bits))
    tasks = -(-rows // block)
    stages = stages_at(counters_at, 1)
    task = take(stages, 0)
    while task < tasks:
        for row in range(task * block, min(rows, (task + 1) * block)):
            first, last = row * width, (row + 1) * width
            mean, inverse = mean_and_inverse(x, first, width, eps)
            inv_std[row] = inverse
            x_row, hat_row, y_row = x[first:last], x_hat[first:last], y[first:last]
            for i in range(width):
                hat = (x_row[i] - mean) * inverse
                hat_row[i] = hat
                y_row[i] = hat * weight[i] + bias[i]
        hand_in(stages, 0)
        task = take(stages, 0)
    wait(stages, 0, tasks)


def layer_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float, *, threads: int = 1
) -> tuple[np.ndarray, LayerNormCache]:
    """Twin of `ops.normalization.layer_norm`, in float32."""
    width = x.shape[-1]
    expect("the weight of a LayerNorm", weight, width)
    expect("the bias of a LayerNorm", bias, width)
    plain, w, b = (np.require(array, np.float32, ("C", "A")) for array in (x, weight, bias))
    rows = plain.size // width
    y, x_hat = np.empty(x.shape, np.float32), np.empty(x.shape, np.float32)
    inv_std, shared = np.empty((*x.shape[:-1], 1), np.float32), counters(1)
    eps_bits = int(np.float32(eps).view(np.int32))
    arguments = (
        address(plain), rows, width, address(w), address(b), eps_bits, address(y), address(x_hat), address(inv_std),
        max(1, (1 << 14) // width), address(shared),
    )  # fmt: skip
    spread(lambda thread: run_layer_norm(*arguments), plain.size, threads)
    return y, LayerNormCache(x_hat, inv_std, weight)


# Rows of one task of the backward. The sums over rows are taken in these blocks, in order, so that they are the same
# for any number of threads.
_SUMMED_ROWS = 32


@entry
def run_layer_norm_backward(
    dy_at: int, x_hat_at: int, inv_std_at: int, weight_at: int, rows: int, width: int, dx_at: int, partial_at: int,
    sums_at: int, counters_at: int,
) -> None:  # fmt: skip
    """dx by blocks of rows, and each block's part of dweight and dbias, (blocks, 2, width); then their sums."""
    dy, x_hat, dx = floats(dy_at, rows * width), floats(x_hat_at, rows * width), floats(dx_at, rows * width)
    inv_std, weight = floats(inv_std_at, rows), floats(weight_at, width)
    blocks = -(-rows // _SUMMED_ROWS)
    stages = stages_at(counters_at, 2)
    task = take(stages, 0)
    while task < blocks:
        dweight = floats(partial_at + 8 * task * width, width)
        dbias = floats(partial_at + (8 * task + 4) * width, width)
        for i in range(width):
            dweight[i] = np.float32(0.0)
            dbias[i] = np.float32(0.0)
        for row in range(task * _SUMMED_ROWS, min(rows, (task + 1) * _SUMMED_ROWS)):
            first, last = row * width, (row + 1) * width
            dy_row, hat_row, dx_row = dy[first:last], x_hat[first:last], dx[first:last]
            total, along = np.float32(0.0), np.float32(0.0)
            for i in range(width):
                g = dy_row[i] * weight[i]
                total += g
                along += g * hat_row[i]
            mean, along_mean = total / np.float32(width), along / np.float32(width)
            inverse = inv_std[row]
            for i in range(width):
                dx_row[i] = (dy_row[i] * weight[i] - mean - hat_row[i] * along_mean) * inverse
            for i in range(width):
                dweight[i] += dy_row[i] * hat_row[i]
            for i in range(width):
                dbias[i] += dy_row[i]
        hand_in(stages, 0)
        task = take(stages, 0)
    wait(stages, 0, blocks)
    if take(stages, 1) == 0:
        sums = floats(sums_at, 2 * width)
        sums[:] = np.float32(0.0)
        for block in range(blocks):
            partial = floats(partial_at + 8 * block * width, 2 * width)
            for i in range(2 * width):
                sums[i] += partial[i]
        hand_in(stages, 1)
    wait(stages, 1, 1)


def layer_norm_backward(
    dy: np.ndarray, cache: LayerNormCache, *, threads: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Twin of `ops.normalization.layer_norm_backward`, in float32."""
    slope, x_hat, inv_std, w = (np.require(array, np.float32, ("C", "A")) for array in (dy, *cache))
    width = dy.shape[-1]
    rows = slope.size // width
    dx, sums, shared = np.empty(dy.shape, np.float32), np.empty((2, width), np.float32), counters(2)
    partial = np.empty((-(-rows // _SUMMED_ROWS), 2, width), np.float32)
    arguments = (
        address(slope), address(x_hat), address(inv_std), address(w), rows, width, address(dx), address(partial),
        address(sums), address(shared),
    )  # fmt: skip
    spread(lambda thread: run_layer_norm_backward(*arguments), slope.size, threads)
    return dx, sums[0], sums[1]
