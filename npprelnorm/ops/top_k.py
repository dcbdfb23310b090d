"""The largest logits, and what turns them into probabilities. R rows, C hidden, V vocabulary, K of them wanted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .linear import linear


class TopK(NamedTuple):
    """The largest logits of each row, in falling order."""

    ids: np.ndarray  # (R, K), int64
    logits: np.ndarray  # (R, K)
    highest: np.ndarray  # (R,), the largest logit of all V
    log_sum: np.ndarray  # (R,), log(sum(exp(logit - highest))) over all V

    def probabilities(self) -> np.ndarray:
        """The softmax over all V, at `ids`. (R, K)."""
        with np.errstate(invalid="ignore"):  # infinite ones have none, NaN
            return np.asarray(np.exp((self.logits - self.highest[:, None]) - self.log_sum[:, None]))


def top_k(logits: np.ndarray, k: int, among: np.ndarray | None = None) -> TopK:
    """The `k` largest of each row of logits (R, V), or all where there are fewer; of equal ones the lower id first.

    `among`, (V,) booleans, are the ids that may be chosen; the softmax is over all of them whatever it says. NaN comes
    after every number.
    """
    highest = logits.max(axis=-1)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        log_sum = np.log(np.exp(logits - highest[:, None]).sum(axis=-1))
    ids = np.arange(logits.shape[1]) if among is None else np.flatnonzero(among)
    k = min(k, len(ids))
    chosen = np.empty((len(logits), k), np.int64)
    for row, candidates in enumerate(logits if among is None else logits[:, ids]):
        chosen[row] = ids[largest(candidates, k)]
    return TopK(chosen, np.take_along_axis(logits, chosen, axis=1), highest, log_sum)


def largest(scores: np.ndarray, k: int) -> np.ndarray:
    """Where the `k` largest of (N,) scores are, in falling order; of equal ones the first, and NaN last. (K,)."""
    places = np.arange(len(scores))
    if 0 < k < len(scores):
        falling = -scores
        limit = np.partition(falling, k - 1)[k - 1]
        if not np.isnan(limit):  # what is larger than the k-th need not be sorted
            places = np.flatnonzero(falling <= limit)
    return places[np.argsort(-scores[places], kind="stable")[:k]]


def linear_top_k(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, k: int, among: np.ndarray | None = None) -> TopK:
    """`top_k` of `linear`: of the logits x W^T + b. x (R, C), weight (V, C), bias (V,)."""
    return top_k(linear(x, weight, bias)[0], k, among)
