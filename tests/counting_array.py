"""An array that counts the floating-point operations of every matrix product that it, or what is made of it, meets."""

from __future__ import annotations

from typing import Any

import numpy as np


class CountingArray(np.ndarray):
    """Give it to a model as parameters: whatever is computed from them is of this class too, and counted."""

    flops = 0  # of the whole class: a test sets it to 0 first

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        plain = [_plain(value) for value in inputs]
        if ufunc is np.matmul:
            a, b = plain
            result_size = int(np.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))) * a.shape[-2] * b.shape[-1]
            CountingArray.flops += 2 * result_size * a.shape[-1]
        if out is not None:
            options["out"] = tuple(_plain(array) for array in out)
        result = getattr(ufunc, method)(*plain, **options)
        if out is not None:
            return out[0]
        return result.view(CountingArray) if isinstance(result, np.ndarray) else result


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, CountingArray) else value
