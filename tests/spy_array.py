"""An array that fails as soon as a computation on it, or on anything made from it, meets float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def _refuse_float64(value: Any, where: str) -> None:
    if isinstance(value, np.ndarray | np.generic) and value.dtype == np.float64:
        raise AssertionError(f"{where} meets float64")


class Float32Only(np.ndarray):
    """Give it to a model as parameters: whatever is computed from them is of this class too, and checked."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        for value in (*inputs, *(out or ())):
            _refuse_float64(value, ufunc.__name__)
        if out is not None:
            options["out"] = tuple(_plain(array) for array in out)
        result = getattr(ufunc, method)(*(_plain(value) for value in inputs), **options)
        if out is not None:
            return out[0]
        return _watched(result, ufunc.__name__)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        result = super().__array_function__(function, types, arguments, options)
        return _watched(result, function.__name__)


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, Float32Only) else value


def _watched(result: Any, where: str) -> Any:
    _refuse_float64(result, where)
    return watched(result) if isinstance(result, np.ndarray) and result.dtype == np.float32 else result


def watched(array: np.ndarray) -> Float32Only:
    """The same numbers, watched."""
    return array.view(Float32Only)


def keep_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let np.ascontiguousarray, which returns a plain array, return a watched one of a watched one."""
    plain = np.ascontiguousarray

    def contiguous(array: Any, *arguments: Any, **options: Any) -> np.ndarray:
        result = plain(array, *arguments, **options)
        return watched(result) if isinstance(array, Float32Only) else result

    monkeypatch.setattr(np, "ascontiguousarray", contiguous)
