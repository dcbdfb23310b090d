"""Twins of `ops.losses.cross_entropy` and its backward: each row once through the caches, however large K is."""

from __future__ import annotations

import numpy as np

from ..ops.losses import CrossEntropyCache
from . import vector_math as vm
from .attention import row_max
from .compiling import entry
from .primitives import flags, float_of_bits, floats, integers
from .team import counters, hand_in, spread, stages_at, take, wait
from .weights import address

# Numbers of a row that are added up by themselves first: one sum over 50,000 would lose two more digits.
_SUMMED = 512


@entry
def run_cross_entropy(
    logits_at: int, rows: int, width: int, labels_at: int, ignored: int, probs_at: int, picked_at: int, sums_at: int,
    counters_at: int,
) -> None:  # fmt: skip
    """The softmax of each row, its exponentials' sum, and for rows that count the label's logit less the largest."""
    logits, probs = floats(logits_at, rows * width), floats(probs_at, rows * width)
    labels, picked, sums = integers(labels_at, rows), floats(picked_at, rows), floats(sums_at, rows)
    stages = stages_at(counters_at, 1)
    row = take(stages, 0)
    while row < rows:
        highest = row_max(logits, row * width, (row + 1) * width)
        if labels[row] != ignored:
            picked[row] = logits[row * width + labels[row]] - highest
        total = np.float32(0.0)
        for begin in range(row * width, (row + 1) * width, _SUMMED):
            end = min((row + 1) * width, begin + _SUMMED)
            x, e = logits[begin:end], probs[begin:end]
            for i in range(e.size):
                e[i] = vm.exp(x[i] - highest)
            # a loop that writes nowhere: one that did would add in another order where its arrays lie close together
            partial = np.float32(0.0)
            for i in range(e.size):
                partial += e[i]
            total += partial
        sums[row] = total
        inverse = np.float32(1.0) / total
        p = probs[row * width : (row + 1) * width]
        for i in range(width):
            p[i] *= inverse
        hand_in(stages, 0)
        row = take(stages, 0)
    wait(stages, 0, rows)


@entry
def run_cross_entropy_backward(
    probs_at: int, rows: int, width: int, labels_at: int, counted_at: int, factor_bits: int, dlogits_at: int,
    counters_at: int,
) -> None:  # fmt: skip
    """dlogits = (softmax - onehot) * factor in the rows that count, each a task."""
    probs, dlogits = floats(probs_at, rows * width), floats(dlogits_at, rows * width)
    labels, counted = integers(labels_at, rows), flags(counted_at, rows)
    factor = float_of_bits(np.int32(factor_bits))
    stages = stages_at(counters_at, 1)
    row = take(stages, 0)
    while row < rows:
        p, d = probs[row * width : (row + 1) * width], dlogits[row * width : (row + 1) * width]
        if counted[row] != 0:
            for i in range(width):
                d[i] = p[i] * factor
            d[labels[row]] = (p[labels[row]] - np.float32(1.0)) * factor
        else:
            for i in range(width):
                d[i] = np.float32(0.0)
        hand_in(stages, 0)
        row = take(stages, 0)
    wait(stages, 0, rows)


def cross_entropy(
    logits: np.ndarray,
    labels: np.ndarray,
    ignore_index: int = -100,
    divisor: float | None = None,
    *,
    threads: int = 1,
) -> tuple[np.ndarray, CrossEntropyCache]:
    """Twin of `ops.losses.cross_entropy`, in float32."""
    plain, places = np.require(logits, np.float32, ("C", "A")), np.require(labels, np.int64, ("C", "A"))
    rows, width = logits.shape
    probs, picked, sums = (np.empty(shape, np.float32) for shape in ((rows, width), rows, rows))
    shared = counters(1)
    arguments = (
        address(plain), rows, width, address(places), ignore_index, address(probs), address(picked), address(sums),
        address(shared),
    )  # fmt: skip
    spread(lambda thread: run_cross_entropy(*arguments), plain.size, threads)
    counted = labels != ignore_index
    total = float(counted.sum()) if divisor is None else float(divisor)
    log_softmax = picked[counted] - np.log(sums[counted])
    loss = -log_softmax.sum() / np.float32(total) if total else np.float32(np.nan)
    return np.asarray(loss, np.float32), CrossEntropyCache(probs, labels, counted, total)


def cross_entropy_backward(dloss: np.ndarray, cache: CrossEntropyCache, *, threads: int = 1) -> np.ndarray:
    """Twin of `ops.losses.cross_entropy_backward`, in float32."""
    probs = np.require(cache.probs, np.float32, ("C", "A"))
    labels = np.require(cache.labels, np.int64, ("C", "A"))
    counted = np.require(cache.counted, np.bool_, ("C", "A"))
    rows, width = probs.shape
    factor = np.float32(dloss / np.float32(cache.divisor)) if cache.divisor else np.float32(np.nan)
    dlogits, shared = np.empty((rows, width), np.float32), counters(1)
    arguments = (
        address(probs), rows, width, address(labels), address(counted), int(factor.view(np.int32)), address(dlogits),
        address(shared),
    )  # fmt: skip
    spread(lambda thread: run_cross_entropy_backward(*arguments), probs.size, threads)
    return dlogits
