"""Dropout, in training only."""

from __future__ import annotations

import numpy as np


def dropout(x: np.ndarray, p: float, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray | None]:
    """x with each element kept with probability 1 - p, and then divided by it; x itself without an rng.

    Srivastava et al. 2014, JMLR 15, section 4, in the inverted form. The cache is the factor of each element.
    """
    if rng is None or p == 0.0:
        return x, None
    keep = (rng.random(x.shape, dtype=np.float32) >= p).astype(x.dtype)
    keep *= 1.0 / (1.0 - p)
    return x * keep, keep
