"""Layer normalisation of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops.normalization import LayerNormCache
from .compiling import entry, part
from .primitives import float_of_bits, floats
from .team import counters, hand_in, spread, stages_at, take, wait
from .weights import address


@part
def mean_and_inverse(x: Any, at: int, width: int, eps: Any) -> Any:
    """Mean and 1 / sqrt(var + eps) of x[at : at + width]; the variance is taken about the mean, as in the reference."""
    total = np.float32(0.0)
    for i in range(at, at + width):
        total += x[i]
    mean = total / np.float32(width)
    squares = np.float32(0.0)
    for i in range(at, at + width):
        d = x[i] - mean
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
        for i in range(width):
            y[at + i] = (x[at + i] - mean) * inverse * weight[i] + bias[i]


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
            mean, inverse = mean_and_inverse(x, row * width, width, eps)
            inv_std[row] = inverse
            for i in range(width):
                hat = (x[row * width + i] - mean) * inverse
                x_hat[row * width + i] = hat
                y[row * width + i] = hat * weight[i] + bias[i]
        hand_in(stages, 0)
        task = take(stages, 0)
    wait(stages, 0, tasks)


def layer_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float, *, threads: int = 1
) -> tuple[np.ndarray, LayerNormCache]:
    """Twin of `ops.normalization.layer_norm`, in float32."""
    plain, w, b = (np.require(array, np.float32, ("C", "A")) for array in (x, weight, bias))
    width = x.shape[-1]
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
