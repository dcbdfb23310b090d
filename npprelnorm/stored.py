"""Linear maps as layers and heads call them: the reference's, or the kernels' where these are faster.

Weights may be stored in fewer bits, where the kernels can: for inference alone.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from . import backend
from .errors import InputError
from .ops.linear import LinearCache, linear
from .ops.top_k import TopK, top_k
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


def _for_few_rows(x: np.ndarray, weight: np.ndarray) -> ModuleType | None:
    """The kernels, if they multiply these rows with the weight as it lies in memory."""
    if x.dtype != np.float32 or weight.dtype != np.float32:
        return None
    kernels = backend.kernels_in_use()
    return kernels if kernels is not None and x.size <= kernels.FEW_ROWS * x.shape[-1] else None


def stored_linear(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, weight_dtype: str
) -> tuple[np.ndarray, LinearCache]:
    """`ops.linear.linear` with a weight that is stored as `weight_dtype` says, if that can be here."""
    result: tuple[np.ndarray, LinearCache]
    if weight_dtype != "float32":
        kernels = backend.reduced_kernels(weight_dtype)
        if kernels is not None:
            result = kernels.linear(x, weight, bias, threads=backend.threads(), weight_dtype=weight_dtype)
            return result
    kernels = _for_few_rows(x, weight)
    if kernels is not None:
        result = kernels.few_rows_linear(x, weight, bias, threads=backend.threads())
        return result
    return linear(x, weight, bias)


def stored_top_k(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, weight_dtype: str, k: int, among: np.ndarray | None = None
) -> TopK:
    """`ops.top_k.linear_top_k` with a weight that is stored so; x (R, C)."""
    if weight_dtype == "float32":
        kernels = _for_few_rows(x, weight)
        if kernels is not None:
            result: TopK = kernels.linear_top_k(x, weight, bias, k, among, threads=backend.threads())
            return result
    return top_k(stored_linear(x, weight, bias, weight_dtype)[0], k, among)


def affine(x: np.ndarray, p: View, name: str) -> tuple[np.ndarray, LinearCache]:
    """The linear map called `name`."""
    return stored_linear(x, *p.affine(name), p.weight_dtype)
