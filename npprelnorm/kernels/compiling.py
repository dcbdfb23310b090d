"""How kernels are compiled, and where the machine code is kept for the next process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import config as numba_config
from numba import njit
from numba.extending import register_jitable

from .cache_folder import cache_folder

# What rounding may be traded for speed: sums in any order, no signed zeros, products and sums fused. NaN and infinity
# keep their meaning, which "nnan" and "ninf" (a plain fastmath=True) would take away.
FAST = frozenset({"nsz", "arcp", "contract", "afn", "reassoc"})
# Polynomials and the reduction of their argument rely on the order in which they are written.
EXACT = frozenset({"nsz", "contract"})

# Numba compiles a callee once more for each Python number that stands in a call; for one of these it does not.
ZERO, ONE, TWO, THREE = map(np.int64, range(4))

F = TypeVar("F", bound=Callable[..., Any])


def codes(count: int) -> tuple[Any, ...]:
    """The numbers from 0 on, to be named and handed to kernels."""
    return tuple(map(np.int64, range(count)))


def inline(function: F) -> F:
    """Compile a function of numbers that becomes part of its callers' loops; the order of its sums is kept."""
    return njit(nogil=True, fastmath=set(EXACT), error_model="numpy", forceinline=True)(function)


def shared(function: F) -> F:
    """A function of whole numbers that kernels and Python both call."""
    return register_jitable(function)


def part(function: F) -> F:
    """Compile a function that other kernels call."""
    return njit(nogil=True, fastmath=set(FAST), error_model="numpy")(function)


def entry(function: F) -> F:
    """Compile a function that Python calls, at its first call; the machine code is kept on disk where one can write.

    Such functions take whole numbers alone (addresses and sizes): one version of each serves every array, read-only
    and unaligned ones too.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": set(FAST), "error_model": "numpy"}
    folder = cache_folder()
    if folder is None:
        return njit(**options)(function)
    before, numba_config.CACHE_DIR = numba_config.CACHE_DIR, str(folder)
    try:
        return njit(cache=True, **options)(function)
    finally:
        numba_config.CACHE_DIR = before
