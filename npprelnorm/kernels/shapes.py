"""What kernels rely on: they are given addresses, and would read or write beyond an array that is too small."""

from __future__ import annotations

import numpy as np

from ..errors import InputError


def expect(name: str, array: np.ndarray, *shape: int) -> None:
    """Raise an `InputError` unless the array has this shape; parameters are a user's to replace."""
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}; expected {shape}")


def expect_linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[int, int]:
    """Columns and depth of the linear map of (..., depth) by a weight (columns, depth) and a bias (columns,)."""
    depth = x.shape[-1]
    if weight.ndim != 2 or weight.shape[1] != depth:
        raise InputError(f"the weight of a linear map has shape {weight.shape}; expected (outputs, {depth})")
    expect("the bias of a linear map", bias, len(weight))
    return len(weight), depth
