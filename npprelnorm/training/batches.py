"""Which examples a step sees: shuffled, in batches of like length, told by the seed and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError

# batches that are sorted by length together: enough to find like lengths, few enough to stay well shuffled
_BUCKET = 50


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Indices of each batch of an epoch, every example once.

    The order is shuffled, runs of 50 batches are sorted by length so that a batch needs little padding, and the
    batches are shuffled again. The same seed and epoch give the same batches, so a run can be taken up anywhere.

    Parameters
    ----------
    lengths : integers (N,)
        Tokens of each example.
    batch_size : int
        Examples in a batch; the last one may have fewer.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), _BUCKET * batch_size):
        bucket = order[start : start + _BUCKET * batch_size]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def pad(rows: Sequence[Sequence[Any]], value: Any, dtype: Any = np.int64) -> np.ndarray:
    """Rows of different lengths as one array, filled up on the right with `value`. -> (B, longest)."""
    if not rows:
        raise InputError("there are no rows to pad; give at least one")
    result = np.full((len(rows), max(len(row) for row in rows)), value, dtype)
    for index, row in enumerate(rows):
        result[index, : len(row)] = row
    return result
