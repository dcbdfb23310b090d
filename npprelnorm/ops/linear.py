"""The affine map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Up to so many rows OpenBLAS multiplies faster with the large matrix on the left, in float32: 2 to 8 rows take 3/5 of
# the time, 64 rows 4/5. In float64 it is the other way round.
FEW_ROWS = 64


class LinearCache(NamedTuple):
    """What the backward needs."""

    x: np.ndarray  # (..., in)
    weight: np.ndarray  # (out, in)


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, LinearCache]:
    """x W^T + b; weight is stored (out, in), as in the checkpoints. x (..., in) -> (..., out)."""
    # one 2-D product over all rows: matmul on more axes would loop over small ones
    rows = x.reshape(-1, x.shape[-1])
    if x.dtype == np.float32 and 1 < rows.shape[0] <= FEW_ROWS:
        y = np.add((weight @ rows.T).T, bias, order="C")  # (rows, in) -> (rows, out)
    else:
        y = rows @ weight.T
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0]), LinearCache(x, weight)


def linear_backward(dy: np.ndarray, cache: LinearCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx = dy W, dweight = dy^T x, dbias = sum of dy over the rows. dy (..., out) -> (..., in), (out, in), (out,)."""
    return linear_backward_input(dy, cache), linear_backward_weight(dy, cache), sum_rows(dy)


def linear_backward_input(dy: np.ndarray, cache: LinearCache) -> np.ndarray:
    """dx = dy W alone, where the weights are frozen."""
    dx = dy.reshape(-1, dy.shape[-1]) @ cache.weight  # (rows, out) -> (rows, in)
    return dx.reshape(cache.x.shape)


def linear_backward_weight(dy: np.ndarray, cache: LinearCache) -> np.ndarray:
    """dweight = dy^T x alone, where nothing below wants dx."""
    return dy.reshape(-1, dy.shape[-1]).T @ cache.x.reshape(-1, cache.x.shape[-1])  # (out, in)


def sum_rows(x: np.ndarray) -> np.ndarray:
    """Sum over all axes but the last, as a product with ones: BLAS adds in blocks, faster and with less rounding."""
    rows = x.reshape(-1, x.shape[-1])
    return np.ones(rows.shape[0], x.dtype) @ rows
