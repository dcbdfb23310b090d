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


def runs(ids: np.ndarray, left_out: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of equal ids next to each other: the places (M,), where each run begins and the last ends, each run's id.

    Places whose id is `left_out` are not among them.
    """
    flat = ids.reshape(-1)
    order = np.argsort(flat, kind="stable")
    if left_out is not None:
        order = order[flat[order] != left_out]
    ordered = flat[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if ordered.size else order
    return order, np.append(starts, ordered.size), ordered[starts]


def embedding_backward(
    dy: np.ndarray, cache: EmbeddingCache, padding_id: int | None = None, onto: np.ndarray | None = None
) -> np.ndarray:
    """dtable: row i is the sum of dy over all places where ids == i; the padding row gets none, as in torch.

    dy (..., C) -> (rows, C). Sorting by id makes each sum one run of rows. `onto` is a gradient of the table from
    elsewhere, to which this one is added in place: the table is large, and few of its rows are looked up.
    """
    rows = dy.reshape(-1, dy.shape[-1])
    dtable = np.zeros((cache.rows, rows.shape[1]), dy.dtype) if onto is None else onto
    order, starts, ids = runs(cache.ids, padding_id)
    if ids.size:
        dtable[ids] += np.add.reduceat(rows[order], starts[:-1], axis=0)
    return dtable
