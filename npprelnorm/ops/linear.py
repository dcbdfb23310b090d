"""The affine map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class LinearCache(NamedTuple):
    """What the backward needs."""

    x: np.ndarray  # (..., in)
    weight: np.ndarray  # (out, in)


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, LinearCache]:
    """x W^T + b; weight is stored (out, in), as in the checkpoints. x (..., in) -> (..., out)."""
    # one 2-D product over all rows: matmul on more axes would loop over small ones
    y = x.reshape(-1, x.shape[-1]) @ weight.T  # (rows, in) -> (rows, out)
    y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0]), LinearCache(x, weight)
