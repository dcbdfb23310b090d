"""Linear maps whose weights may be stored in fewer bits, where the kernels can: for inference alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import backend
from .errors import InputError
from .ops.linear import LinearCache, linear
from .params import View

WEIGHT_DTYPES = ("float32", "float16", "bfloat16", "int12")


def checked_weight_dtype(weight_dtype: Any) -> str:
    """The argument itself.

    Raises
    ------
    InputError
        If it is none of `WEIGHT_DTYPES`.
    """
    if not isinstance(weight_dtype, str) or weight_dtype not in WEIGHT_DTYPES:
        raise InputError(f"weight_dtype is {weight_dtype!r}; allowed: {', '.join(map(repr, WEIGHT_DTYPES))}")
    return weight_dtype


def stored_linear(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, weight_dtype: str
) -> tuple[np.ndarray, LinearCache]:
    """`ops.linear.linear` with a weight that is stored as `weight_dtype` says, if that can be here."""
    if weight_dtype != "float32":
        kernels = backend.reduced_kernels(weight_dtype)
        if kernels is not None:
            result: tuple[np.ndarray, LinearCache] = kernels.linear(
                x, weight, bias, threads=backend.threads(), weight_dtype=weight_dtype
            )
            return result
    return linear(x, weight, bias)


def affine(x: np.ndarray, p: View, name: str) -> tuple[np.ndarray, LinearCache]:
    """The linear map called `name`."""
    return stored_linear(x, *p.affine(name), p.weight_dtype)
