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


def embedding_backward(dy: np.ndarray, cache: EmbeddingCache, padding_id: int | None = None) -> np.ndarray:
    """dtable: row i is the sum of dy over all places where ids == i; the padding row gets none, as in torch.

    dy (..., C) -> (rows, C). Sorting by id makes each sum one run of rows.
    """
    ids = cache.ids.reshape(-1)
    rows = dy.reshape(-1, dy.shape[-1])
    dtable = np.zeros((cache.rows, rows.shape[1]), dy.dtype)
    if ids.size:
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        dtable[ordered[starts]] = np.add.reduceat(rows[order], starts, axis=0)
    if padding_id is not None:
        dtable[padding_id] = 0.0
    return dtable
