"""Twin of `ops.embedding.embedding_backward`."""

from __future__ import annotations

import numpy as np

from ..ops.embedding import EmbeddingCache, runs
from .compiling import entry
from .primitives import floats, integers
from .team import counters, hand_in, spread, stages_at, take, wait
from .weights import address


@entry
def run_embedding_backward(
    dy_at: int, places: int, width: int, order_at: int, starts_at: int, targets_at: int, runs: int, dtable_at: int,
    rows: int, counters_at: int,
) -> None:  # fmt: skip
    """dtable[target] += the rows of dy that a run of places names: each run a task, its rows in order."""
    dy, dtable = floats(dy_at, places * width), floats(dtable_at, rows * width)
    order, starts, targets = integers(order_at, places), integers(starts_at, runs + 1), integers(targets_at, runs)
    stages = stages_at(counters_at, 1)
    run = take(stages, 0)
    while run < runs:
        target = dtable[targets[run] * width : (targets[run] + 1) * width]
        for place in range(starts[run], starts[run + 1]):
            row = dy[order[place] * width : (order[place] + 1) * width]
            for i in range(width):
                target[i] += row[i]
        hand_in(stages, 0)
        run = take(stages, 0)
    wait(stages, 0, runs)


def embedding_backward(
    dy: np.ndarray,
    cache: EmbeddingCache,
    padding_id: int | None = None,
    onto: np.ndarray | None = None,
    *,
    threads: int = 1,
) -> np.ndarray:
    """Twin of `ops.embedding.embedding_backward`, in float32."""
    plain = np.require(dy, np.float32, ("C", "A"))
    width = dy.shape[-1]
    dtable = np.zeros((cache.rows, width), np.float32) if onto is None else onto
    target = np.require(dtable, np.float32, ("C", "A"))
    order, starts, targets = (np.require(part, np.int64, ("C", "A")) for part in runs(cache.ids, padding_id))
    shared = counters(1)
    arguments = (
        address(plain), plain.size // width, width, address(order), address(starts), address(targets), len(targets),
        address(target), cache.rows, address(shared),
    )  # fmt: skip
    spread(lambda thread: run_embedding_backward(*arguments), plain.size, threads)
    if target is not dtable:  # what was given lies otherwise in memory
        dtable[...] = target
    return dtable
