"""Losses: a scalar of the logits' dtype, as means over what counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .activations import sigmoid


class CrossEntropyCache(NamedTuple):
    """What the backward needs."""

    probs: np.ndarray  # (N, K), the softmax
    labels: np.ndarray  # (N,)
    counted: np.ndarray  # (N,) bool
    divisor: float


def cross_entropy(
    logits: np.ndarray, labels: np.ndarray, ignore_index: int = -100, divisor: float | None = None
) -> tuple[np.ndarray, CrossEntropyCache]:
    """Mean of -log softmax(logits)[label] over the rows whose label is not `ignore_index`.

    logits (N, K), labels (N,) -> a scalar. `divisor` replaces the number of rows (a sum over several batches).
    With no row to count the mean is 0 / 0, NaN, as it is in torch.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)  # so that nothing overflows
    # kept for the backward as exponentials over their sum, and not as exp(log softmax): those would add up to 1 only
    # within the error of exp, which a gradient that is a small difference of large ones does not survive
    probs = np.exp(shifted)  # (N, K)
    sums = probs.sum(axis=-1, keepdims=True)
    probs /= sums
    counted = labels != ignore_index
    rows = np.flatnonzero(counted)
    picked = shifted[rows, labels[rows]] - np.log(sums[rows, 0])  # log softmax at the labels
    total = float(counted.sum()) if divisor is None else float(divisor)
    loss = -picked.sum() / np.asarray(total, logits.dtype) if total else np.asarray(np.nan, logits.dtype)
    return np.asarray(loss, logits.dtype), CrossEntropyCache(probs, labels, counted, total)


def cross_entropy_backward(dloss: np.ndarray, cache: CrossEntropyCache) -> np.ndarray:
    """dlogits = (softmax - onehot) / divisor * dloss in the rows that count, 0 in the others. (N, K).

    Where no row counts all are 0, though the loss is NaN: as in torch.
    """
    probs, labels, counted, divisor = cache
    rows = np.flatnonzero(counted)
    dlogits = np.zeros_like(probs)
    if rows.size:
        dlogits[rows] = probs[rows]
        dlogits[rows, labels[rows]] -= 1.0
        dlogits *= dloss / np.asarray(divisor, dlogits.dtype) if divisor else np.asarray(np.nan, dlogits.dtype)
    return dlogits


def mean_squared_error(x: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray]]:
    """Mean of (x - target)^2 over all entries; x and target of one shape -> a scalar."""
    difference = x - target
    return np.asarray(np.square(difference).mean(), x.dtype), (difference,)


def mean_squared_error_backward(dloss: np.ndarray, cache: tuple[np.ndarray]) -> np.ndarray:
    """dx = 2 (x - target) / count * dloss."""
    (difference,) = cache
    return difference * (dloss * np.asarray(2.0 / difference.size, difference.dtype))


def binary_cross_entropy(x: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Mean of -t log s(x) - (1 - t) log(1 - s(x)), s the sigmoid, over all entries; one shape -> a scalar.

    Written as max(x, 0) - x t + log(1 + exp(-|x|)), which is the same and never overflows.
    """
    terms = np.maximum(x, 0.0, dtype=x.dtype) - x * target + np.log1p(np.exp(-np.abs(x)))
    return np.asarray(terms.mean(), x.dtype), (sigmoid(x), target)


def binary_cross_entropy_backward(dloss: np.ndarray, cache: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """dx = (s(x) - target) / count * dloss."""
    probability, target = cache
    return (probability - target) * (dloss * np.asarray(1.0 / target.size, probability.dtype))
