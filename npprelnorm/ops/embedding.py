"""Table lookup."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class EmbeddingCache(NamedTuple):
    """What the backward needs."""

    ids: np.ndarray  # integers, any shape
    rows: int  # of the table


def embedding(ids: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, EmbeddingCache]:
    """Row `ids` of `table`. ids (...) in [0, rows), table (rows, C) -> (..., C)."""
    return table[ids], EmbeddingCache(ids, table.shape[0])
