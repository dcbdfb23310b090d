"""Kernels as functions of arrays, for tests: a team's worth of threads, and loops over the functions of one number."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from npprelnorm.kernels import storage, vector_math
from npprelnorm.kernels.compiling import part
from npprelnorm.kernels.primitives import floats
from npprelnorm.kernels.weights import address

THREADS = (1, 2, 5)
UNIT = 2.0**-24  # half a unit in the last place of a float32 from 1 to 2: what one rounding loses, relative
ABLE = sorted(storage.supported() - {"float32"})  # what this processor can store weights as, besides

needs_int12 = pytest.mark.skipif("int12" not in ABLE, reason="this processor has neither AVX2 nor AVX-512")


@functools.cache
def elementwise(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function of `vector_math`, over float32 arrays."""
    function = getattr(vector_math, name)

    @part
    def loop(x_at: int, y_at: int, count: int) -> None:
        x, y = floats(x_at, count), floats(y_at, count)
        for i in range(count):
            y[i] = function(x[i])

    def call(x: np.ndarray) -> np.ndarray:
        plain = np.ascontiguousarray(x, np.float32)
        y = np.empty_like(plain)
        loop(address(plain), address(y), plain.size)
        return y

    return call


def random(seed: int, *shape: int) -> np.ndarray:
    """Standard normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def norm_error(computed: np.ndarray, exact: np.ndarray) -> float:
    """|computed - exact| / |exact|, both as vectors."""
    exact = exact.astype(np.float64)
    return float(np.linalg.norm(computed - exact) / max(float(np.linalg.norm(exact)), 1e-300))


def locked(array: np.ndarray) -> np.ndarray:
    """A read-only copy at an address that is no multiple of four bytes."""
    room = np.empty(array.nbytes + 1, np.uint8)
    result: Any = room[1:].view(array.dtype).reshape(array.shape)
    result[...] = array
    result.flags.writeable = False
    return result
