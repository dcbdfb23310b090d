"""Attention as stages of the encoder's kernel: each head of each sequence is a task, the longest sequences first."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import plan as place
from .attention import FEW_QUERIES, attend, attend_few
from .compiling import ZERO, inline, part
from .cpu import WIDTH
from .gemm import panels_of
from .primitives import flags, floats, integers
from .team import hand_in, take, wait


@inline
def _scale_of(size: int) -> Any:
    return np.float32(1.0) / np.sqrt(np.float32(size))


@part
def _seen_rows(plan: Any, first: int, last: int, key_rows: Any) -> int:
    """Write down which rows of a sequence may be seen; returns how many."""
    seen = flags(plan[place.KEYS], plan[place.ROWS])
    keys = ZERO
    for row in range(first, last):
        if plan[place.KEYS] == 0 or seen[row] != 0:
            key_rows[keys] = row
            keys += 1
    return keys


@part
def _remember(new: Any, first: int, last: int, stride: int, kept: Any, start: int, size: int) -> None:
    """Put a head's new keys or values, rows [first, last), behind the `start` ones that the cache holds."""
    for row in range(first, last):
        source = new[row * stride : row * stride + size]
        target = kept[(start + row - first) * size : (start + row - first + 1) * size]
        for d in range(size):
            target[d] = source[d]


@part
def _attend_kept(
    plan: Any, q: Any, ldq: int, first: int, last: int, k: Any, v: Any, keys: int, size: int, bias_at: int,
    bias_stride: int, tokens: Any, column: int, key_rows: Any, scratch: Any,
) -> None:  # fmt: skip
    """Queries [first, last) look at the keys and values of a cache, which lie one after the other."""
    width = plan[place.WIDTH]
    out, scale = floats(plan[place.CONTEXT] + column, plan[place.ROWS] * width), _scale_of(size)
    if last - first <= FEW_QUERIES:
        attend_few(q, ldq, first, last, k, v, keys, size, scale, bias_at, bias_stride, tokens, out, width, scratch)
    else:
        for t in range(keys):
            key_rows[t] = t
        attend(
            q, ldq, first, last, k, v, size, key_rows, keys, size, scale, bias_at, bias_stride, tokens, out, width,
            scratch,
        )  # fmt: skip


@part
def attention_stage(
    counters: Any, stage: int, plan: Any, layer: int, q_at: int, ldq: int, query_bounds: Any, queries: int,
    tokens: Any, key_rows: Any, scratch: Any,
) -> None:  # fmt: skip
    """Self-attention, of rows to each other, or to what a key/value cache holds once theirs have been added."""
    rows, sequences, heads, width = plan[place.ROWS], plan[place.SEQUENCES], plan[place.HEADS], plan[place.WIDTH]
    size = width // heads
    padded = panels_of(width) * WIDTH
    order, bounds = integers(plan[place.ORDER], sequences), integers(plan[place.BOUNDS], sequences + 1)
    tasks = sequences * heads
    task = take(counters, stage)
    while task < tasks:
        sequence, head = order[task // heads], task % heads
        first, last = bounds[sequence], bounds[sequence + 1]
        first_query, last_query = query_bounds[sequence], query_bounds[sequence + 1]
        column = 4 * head * size
        q = floats(q_at + column, queries * ldq)
        k = floats(plan[place.QKV] + 4 * padded + column, rows * 3 * padded)
        v = floats(plan[place.QKV] + 8 * padded + column, rows * 3 * padded)
        bias_at = plan[place.BIAS]
        if bias_at != 0:
            bias_at += 4 * (sequence * plan[place.BIAS_OF_SEQUENCE] + head * plan[place.BIAS_OF_HEAD])
        if plan[place.MEMORY] != 0:
            start, room = plan[place.MEMORY_START], plan[place.MEMORY_CAPACITY] * size
            keys = start + last - first
            # (layers, 2, sequences, heads, capacity, size)
            nth = (2 * layer * sequences + sequence) * heads + head
            kept_k = floats(plan[place.MEMORY] + 4 * nth * room, room)
            kept_v = floats(plan[place.MEMORY] + 4 * (nth + sequences * heads) * room, room)
            _remember(k, first, last, 3 * padded, kept_k, start, size)
            _remember(v, first, last, 3 * padded, kept_v, start, size)
            _attend_kept(
                plan, q, ldq, first_query, last_query, kept_k, kept_v, keys, size, bias_at, plan[place.BIAS_OF_TOKEN],
                tokens, column, key_rows, scratch,
            )  # fmt: skip
        elif first_query < last_query:
            keys, scale = _seen_rows(plan, first, last, key_rows), _scale_of(size)
            if keys == 0:  # nothing to see: every row counts alike, as under a mask of zeros
                for row in range(first, last):
                    key_rows[keys] = row
                    keys += 1
                scale = np.float32(0.0)
            attend(
                q, ldq, first_query, last_query, k, v, 3 * padded, key_rows, keys, size, scale, bias_at,
                plan[place.BIAS_OF_TOKEN], tokens, floats(plan[place.CONTEXT] + column, queries * width), width,
                scratch,
            )  # fmt: skip
        hand_in(counters, stage)
        task = take(counters, stage)
    wait(counters, stage, tasks)


@part
def cross_attention_stage(
    counters: Any, stage: int, plan: Any, layer: int, q_at: int, ldq: int, query_bounds: Any, queries: int,
    tokens: Any, key_rows: Any, scratch: Any,
) -> None:  # fmt: skip
    """Attention to the keys and values that were made of an encoder's states, (sequences, heads, keys, size) each."""
    sequences, heads, keys = plan[place.SEQUENCES], plan[place.HEADS], plan[place.CROSS_KEYS]
    size = plan[place.WIDTH] // heads
    places = integers(plan[place.CROSS], 2 * plan[place.LAYERS])
    tasks = sequences * heads
    task = take(counters, stage)
    while task < tasks:
        sequence, head = task // heads, task % heads
        column = 4 * head * size
        bias_at = plan[place.CROSS_BIAS]
        if bias_at != 0:
            bias_at += 4 * (sequence * plan[place.CROSS_BIAS_OF_SEQUENCE] + head * plan[place.CROSS_BIAS_OF_HEAD])
        offset = 4 * task * keys * size
        _attend_kept(
            plan, floats(q_at + column, queries * ldq), ldq, query_bounds[sequence], query_bounds[sequence + 1],
            floats(places[2 * layer] + offset, keys * size), floats(places[2 * layer + 1] + offset, keys * size), keys,
            size, bias_at, plan[place.CROSS_BIAS_OF_TOKEN], tokens, column, key_rows, scratch,
        )  # fmt: skip
        hand_in(counters, stage)
        task = take(counters, stage)
    wait(counters, stage, tasks)
