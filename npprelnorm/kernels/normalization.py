"""Layer normalisation of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiling import part


@part
def layer_norm_rows(
    x: Any, first_row: int, last_row: int, width: int, weight: Any, bias: Any, eps: float, y: Any
) -> None:
    """y = (x - mean) / sqrt(var + eps) * weight + bias for rows [first_row, last_row) of flat x (rows, width)."""
    for row in range(first_row, last_row):
        at = row * width
        total = np.float32(0.0)
        for i in range(width):
            total += x[at + i]
        mean = total / np.float32(width)
        squares = np.float32(0.0)
        for i in range(width):
            d = x[at + i] - mean
            squares += d * d
        inv_std = np.float32(1.0) / np.sqrt(squares / np.float32(width) + eps)
        for i in range(width):
            y[at + i] = (x[at + i] - mean) * inv_std * weight[i] + bias[i]
