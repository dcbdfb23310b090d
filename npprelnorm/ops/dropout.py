"""Dropout, in training only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class DropoutCache(NamedTuple):
    """What the backward needs."""

    kept: np.ndarray  # bool, the shape of x
    factor: float  # 1 / (1 - p)


def drawn(shape: tuple[int, ...], p: float, rng: np.random.Generator | None) -> DropoutCache | None:
    """Which elements of an array of that shape are kept; None: all, without an rng."""
    if rng is None or p == 0.0:
        return None
    return DropoutCache(rng.random(shape, dtype=np.float32) >= p, 1.0 / (1.0 - p))


def dropout(x: np.ndarray, p: float, rng: np.random.Generator | None) -> tuple[np.ndarray, DropoutCache | None]:
    """x with each element kept with probability 1 - p, and then divided by it; x itself without an rng.

    Srivastava et al. 2014, JMLR 15, section 4, in the inverted form.
    """
    cache = drawn(x.shape, p, rng)
    return dropout_backward(x, cache), cache


def dropout_backward(dy: np.ndarray, cache: DropoutCache | None) -> np.ndarray:
    """dx: the same elements kept, by the same factor. The map is linear, so forward and backward are one."""
    if cache is None:
        return dy
    dx = dy * cache.kept
    dx *= cache.factor
    return dx
