"""Twins of `ops.attention.attention` and its backward: each head of each sequence a task, by blocks of queries.

What they keep is what the reference keeps. Relative positions are the reference's alone.

Legend: B sequences, H heads, T queries, S keys, D head size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops.attention import AttentionCache, AttentionGradients, Relative
from ..ops.attention import attention as reference
from ..ops.attention import attention_backward as reference_backward
from ..ops.dropout import drawn
from .attention import exp_row
from .compiling import entry, inline, part
from .cpu import WIDTH
from .gemm import ROWS, panels_of, tile
from .primitives import flags, floats, integers
from .team import counters, hand_in, spread, stages_at, take, wait
from .weights import address, aligned

_BLOCK = 48  # queries at a time: their scores for 512 keys are 96 KiB

# What the kernels are told, by place: sizes, addresses, and how far apart (in numbers) neighbours along an axis lie.
PLAN = (
    "B", "H", "T", "S", "D", "Q", "K", "V", "MASK", "PROBS", "KEPT", "HEAD_MASK", "FACTORS", "Y", "DY", "DQ", "DK",
    "DV", "DHEADS", "SCRATCH", "SCRATCH_SIZE", "COUNTERS",
    "Q_B", "Q_H", "Q_T", "K_B", "K_H", "K_T", "V_B", "V_H", "V_T", "DY_B", "DY_H", "DY_T",
    "MASK_B", "MASK_H", "MASK_T", "MASK_S",
)  # fmt: skip
(
    B, H, T, S, D, Q, K, V, MASK, PROBS, KEPT, HEAD_MASK, FACTORS, Y, DY, DQ, DK, DV, DHEADS, SCRATCH, SCRATCH_SIZE,
    COUNTERS, Q_B, Q_H, Q_T, K_B, K_H, K_T, V_B, V_H, V_T, DY_B, DY_H, DY_T, MASK_B, MASK_H, MASK_T, MASK_S,
) = range(len(PLAN))  # fmt: skip
PLAN_SIZE = len(PLAN)


@part
def _pack_columns(x: Any, ldx: int, rows: int, size: int, scale: Any, panels: Any) -> None:
    """x (rows, size) times scale, transposed: panels (panels of rows, size, WIDTH), filled up with zeros."""
    for t in range(panels_of(rows) * WIDTH):
        to = panels[t // WIDTH * size * WIDTH + t % WIDTH :]
        if t < rows:
            row = x[t * ldx :]
            for d in range(size):
                to[d * WIDTH] = row[d] * scale
        else:
            for d in range(size):
                to[d * WIDTH] = np.float32(0.0)


@part
def _pack_rows(x: Any, ldx: int, rows: int, size: int, scale: Any, panels: Any) -> None:
    """x (rows, size) times scale: panels (panels of size, rows, WIDTH), filled up with zeros."""
    for panel in range(panels_of(size)):
        filled = min(WIDTH, size - panel * WIDTH)
        for t in range(rows):
            row, to = x[t * ldx + panel * WIDTH :], panels[(panel * rows + t) * WIDTH :]
            if filled == WIDTH:
                for j in range(WIDTH):
                    to[j] = row[j] * scale
            else:
                for j in range(filled):
                    to[j] = row[j] * scale
                for j in range(filled, WIDTH):
                    to[j] = np.float32(0.0)


@part
def _product(
    a: Any, lda: int, rows: int, panels: Any, depth: int, columns: int, start: Any, lds: int, c: Any, ldc: int
) -> None:
    """c (rows, panels of columns) = start + a (rows, depth) @ panels.

    `start` has rows `lds` apart, as c has them `ldc`; where `lds` is 0 it is WIDTH zeros.
    """
    for panel in range(panels_of(columns)):
        column = panel * WIDTH
        begun = 0 if lds == 0 else column
        for row in range(0, rows, ROWS):
            tile(
                a, row * lda, lda, panels, column * depth, start, row * lds + begun, lds,
                c, row * ldc + column, ldc, depth, min(ROWS, rows - row),
            )  # fmt: skip


@inline
def _head(plan: Any, array: int, strides: int, sequence: Any, head: Any, rows: Any) -> Any:
    """The rows of one head of one sequence, flat, in an array whose strides of B, H and T are at `strides`."""
    at = plan[array] + 4 * (sequence * plan[strides] + head * plan[strides + 1])
    return floats(at, rows * plan[strides + 2])


@entry
def run_attention(plan_at: int, thread: int) -> None:
    """Context and probabilities of every head of every sequence."""
    plan = integers(plan_at, PLAN_SIZE)
    heads, queries, keys, size = plan[H], plan[T], plan[S], plan[D]
    columns, width = panels_of(keys) * WIDTH, panels_of(size) * WIDTH
    scratch = floats(plan[SCRATCH] + 4 * thread * plan[SCRATCH_SIZE], plan[SCRATCH_SIZE])
    zeros = scratch[:WIDTH]
    zeros[:] = np.float32(0.0)
    packed_k = scratch[WIDTH:]
    packed_v = packed_k[columns * size :]
    scores = packed_v[keys * width :]
    sums = scores[_BLOCK * columns :]
    factors = floats(plan[FACTORS], 2)
    scale, factor = factors[0], factors[1]
    tasks = plan[B] * heads
    stages = stages_at(plan[COUNTERS], 1)
    task = take(stages, 0)
    while task < tasks:
        sequence, head = task // heads, task % heads
        q = _head(plan, Q, Q_B, sequence, head, queries)
        k, v = _head(plan, K, K_B, sequence, head, keys), _head(plan, V, V_B, sequence, head, keys)
        _pack_columns(k, plan[K_T], keys, size, scale, packed_k)
        _pack_rows(v, plan[V_T], keys, size, np.float32(1.0), packed_v)
        for begin in range(0, queries, _BLOCK):
            rows = min(_BLOCK, queries - begin)
            _product(q[begin * plan[Q_T] :], plan[Q_T], rows, packed_k, size, keys, zeros, 0, scores, columns)
            for i in range(rows):
                row = scores[i * columns : i * columns + keys]
                if plan[MASK] != 0:
                    along = plan[MASK_S]
                    mask = _head(plan, MASK, MASK_B, sequence, head, queries)[(begin + i) * plan[MASK_T] :]
                    for s in range(keys):
                        row[s] += mask[s * along]
                inverse = np.float32(1.0) / exp_row(row, 0, keys)
                at = (task * queries + begin + i) * keys
                probs = floats(plan[PROBS] + 4 * at, keys)
                for s in range(keys):
                    row[s] *= inverse
                for s in range(keys):
                    probs[s] = row[s]
                _weigh(plan, head, at, keys, factor, row)
            _product(scores, columns, rows, packed_v, keys, size, zeros, 0, sums, width)
            for i in range(rows):
                y = floats(plan[Y] + 4 * ((sequence * queries + begin + i) * heads + head) * size, size)
                result = sums[i * width : i * width + size]
                for d in range(size):
                    y[d] = result[d]
        hand_in(stages, 0)
        task = take(stages, 0)
    wait(stages, 0, tasks)


@part
def _weigh(plan: Any, head: int, at: int, keys: int, factor: Any, row: Any) -> None:
    """Probabilities, or their gradients, times what dropout and the head mask multiply with, in place."""
    _drop(plan, at, keys, factor, row)
    if plan[HEAD_MASK] != 0:
        of_head = floats(plan[HEAD_MASK], plan[H])[head]
        for s in range(keys):
            row[s] *= of_head


@part
def _drop(plan: Any, at: int, keys: int, factor: Any, row: Any) -> None:
    """`dropout_backward`, in place."""
    if plan[KEPT] != 0:
        kept = flags(plan[KEPT] + at, keys)
        for s in range(keys):
            row[s] = row[s] * np.float32(kept[s]) * factor


@entry
def run_attention_backward(plan_at: int, thread: int) -> None:
    """dq, dk, dv and each head's share of the head mask's gradient."""
    plan = integers(plan_at, PLAN_SIZE)
    heads, queries, keys, size = plan[H], plan[T], plan[S], plan[D]
    columns, width = panels_of(keys) * WIDTH, panels_of(size) * WIDTH
    scratch = floats(plan[SCRATCH] + 4 * thread * plan[SCRATCH_SIZE], plan[SCRATCH_SIZE])
    zeros = scratch[:WIDTH]
    zeros[:] = np.float32(0.0)
    packed_v = scratch[WIDTH:]
    packed_k = packed_v[columns * size :]
    packed_dy = packed_k[keys * width :]
    packed_q = packed_dy[_BLOCK * width :]
    dscores = packed_q[_BLOCK * width :]
    turned_dscores = dscores[_BLOCK * columns :]
    turned_weights = turned_dscores[_BLOCK * keys :]
    weights = turned_weights[_BLOCK * keys :]
    dk_sums = weights[keys:]
    dv_sums = dk_sums[keys * width :]
    dq_sums = dv_sums[keys * width :]
    factors, one = floats(plan[FACTORS], 2), np.float32(1.0)
    scale, factor = factors[0], factors[1]
    tasks = plan[B] * heads
    stages = stages_at(plan[COUNTERS], 1)
    task = take(stages, 0)
    while task < tasks:
        sequence, head = task // heads, task % heads
        q, dy = _head(plan, Q, Q_B, sequence, head, queries), _head(plan, DY, DY_B, sequence, head, queries)
        k, v = _head(plan, K, K_B, sequence, head, keys), _head(plan, V, V_B, sequence, head, keys)
        _pack_columns(v, plan[V_T], keys, size, one, packed_v)
        _pack_rows(k, plan[K_T], keys, size, scale, packed_k)
        for i in range(keys * width):
            dk_sums[i] = np.float32(0.0)
            dv_sums[i] = np.float32(0.0)
        dhead = np.float32(0.0)
        for begin in range(0, queries, _BLOCK):
            rows = min(_BLOCK, queries - begin)
            block_dy, block_q = dy[begin * plan[DY_T] :], q[begin * plan[Q_T] :]
            _product(block_dy, plan[DY_T], rows, packed_v, size, keys, zeros, 0, dscores, columns)  # undoes weights @ v
            for i in range(rows):
                row = dscores[i * columns : i * columns + keys]
                at = (task * queries + begin + i) * keys
                probs = floats(plan[PROBS] + 4 * at, keys)
                for s in range(keys):
                    weights[s] = probs[s]
                if plan[HEAD_MASK] != 0:
                    _drop(plan, at, keys, factor, weights)
                    dhead += _dot(row, weights, keys)
                    for s in range(keys):
                        weights[s] = probs[s]
                _weigh(plan, head, at, keys, factor, weights)
                _weigh(plan, head, at, keys, factor, row)
                along = _dot(row, probs, keys)
                for s in range(keys):
                    row[s] = probs[s] * (row[s] - along)
                column_dscores, column_weights = turned_dscores[i:], turned_weights[i:]
                for s in range(keys):
                    column_dscores[s * _BLOCK] = row[s]
                    column_weights[s * _BLOCK] = weights[s]
            _pack_rows(block_dy, plan[DY_T], rows, size, one, packed_dy)
            _pack_rows(block_q, plan[Q_T], rows, size, scale, packed_q)
            _product(turned_weights, _BLOCK, keys, packed_dy, rows, size, dv_sums, width, dv_sums, width)
            _product(turned_dscores, _BLOCK, keys, packed_q, rows, size, dk_sums, width, dk_sums, width)
            _product(dscores, columns, rows, packed_k, keys, size, zeros, 0, dq_sums, width)
            for i in range(rows):
                dq = floats(plan[DQ] + 4 * ((sequence * queries + begin + i) * heads + head) * size, size)
                result = dq_sums[i * width : i * width + size]
                for d in range(size):
                    dq[d] = result[d]
        for s in range(keys):
            to = 4 * ((sequence * keys + s) * heads + head) * size
            dk, dv = floats(plan[DK] + to, size), floats(plan[DV] + to, size)
            dk_row, dv_row = dk_sums[s * width : s * width + size], dv_sums[s * width : s * width + size]
            for d in range(size):
                dk[d] = dk_row[d]
            for d in range(size):
                dv[d] = dv_row[d]
        floats(plan[DHEADS], tasks)[task] = dhead
        hand_in(stages, 0)
        task = take(stages, 0)
    wait(stages, 0, tasks)


@part
def _dot(x: Any, y: Any, count: int) -> Any:
    """A loop that writes nowhere: its order does not depend on where the arrays lie."""
    total = np.float32(0.0)
    for i in range(count):
        total += x[i] * y[i]
    return total


def _rows_of(x: np.ndarray) -> np.ndarray:
    """x (B, H, T, D) with numbers of a row next to each other: itself, if it can be read as it lies."""
    good = x.dtype == np.float32 and x.flags.aligned and x.strides[3] == 4 and min(x.strides) >= 0
    return x if good else np.require(x, np.float32, ("C", "A"))


def _strides(name: str, x: np.ndarray) -> dict[str, int]:
    return {f"{name}_{axis}": x.strides[place] // 4 for place, axis in enumerate("BHT")}


def _run(kernel: Any, arrays: dict[str, np.ndarray | None], sizes: dict[str, int], own: int, threads: int) -> None:
    """Run a kernel by a team; `own` are the numbers of scratch that each thread needs."""
    own = -(-own // WIDTH) * WIDTH
    scratch, shared = aligned(threads * own), counters(1)
    values = sizes | {name: 0 if array is None else address(array) for name, array in arrays.items()}
    values |= {"SCRATCH": address(scratch), "SCRATCH_SIZE": own, "COUNTERS": address(shared)}
    plan = np.array([values.get(name, 0) for name in PLAN], np.int64)
    at = address(plan)
    work = sizes["B"] * sizes["H"] * sizes["T"] * sizes["S"] * sizes["D"] // 32
    spread(lambda thread: kernel(at, thread), work, threads)


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None,
    *,
    head_mask: np.ndarray | None = None,
    relative: Relative | None = None,
    drop: float = 0.0,
    rng: np.random.Generator | None = None,
    threads: int = 1,
) -> tuple[np.ndarray, AttentionCache]:
    """Twin of `ops.attention.attention`, in float32; with relative positions, or nothing to do, the reference."""
    batch, heads, tokens, size = q.shape
    seen = k.shape[2]
    if relative is not None or q.size == 0 or k.size == 0:
        return reference(q, k, v, mask, head_mask=head_mask, relative=relative, drop=drop, rng=rng)
    probs = np.empty((batch, heads, tokens, seen), np.float32)
    y = np.empty((batch, tokens, heads, size), np.float32)
    dropped = drawn(probs.shape, drop, rng)
    rows = {name: _rows_of(x) for name, x in (("Q", q), ("K", k), ("V", v))}
    factors = np.array([size**-0.5, 1.0 if dropped is None else dropped.factor], np.float32)
    sizes = {"B": batch, "H": heads, "T": tokens, "S": seen, "D": size}
    for name, x in rows.items():
        sizes |= _strides(name, x)
    arrays: dict[str, np.ndarray | None] = {
        **rows, "PROBS": probs, "Y": y, "FACTORS": factors,
        "KEPT": None if dropped is None else dropped.kept,
        "HEAD_MASK": None if head_mask is None else np.require(head_mask, np.float32, ("C", "A")),
    }  # fmt: skip
    if mask is not None:
        added = np.require(mask, np.float32, "A")
        if min(added.strides, default=0) < 0:
            added = added.copy()
        everywhere = np.broadcast_to(added, probs.shape)
        arrays["MASK"] = everywhere
        sizes |= _strides("MASK", everywhere) | {"MASK_S": everywhere.strides[3] // 4}
    columns, width = panels_of(seen) * WIDTH, panels_of(size) * WIDTH
    own = WIDTH + columns * size + seen * width + _BLOCK * (columns + width)
    _run(run_attention, arrays, sizes, own, threads)
    return y.transpose(0, 2, 1, 3), AttentionCache(q, k, v, probs, dropped, head_mask, relative)


def attention_backward(dy: np.ndarray, cache: AttentionCache, *, threads: int = 1) -> AttentionGradients:
    """Twin of `ops.attention.attention_backward`, in float32."""
    q, k, v, probs, dropped, head_mask, relative = cache
    if relative is not None or q.size == 0 or k.size == 0:
        return reference_backward(dy, cache)
    batch, heads, tokens, size = q.shape
    seen = k.shape[2]
    dq = np.empty((batch, tokens, heads, size), np.float32)
    dk, dv = np.empty((2, batch, seen, heads, size), np.float32)
    dheads = np.empty((batch, heads), np.float32)
    rows = {name: _rows_of(x) for name, x in (("Q", q), ("K", k), ("V", v), ("DY", dy))}
    factors = np.array([size**-0.5, 1.0 if dropped is None else dropped.factor], np.float32)
    sizes = {"B": batch, "H": heads, "T": tokens, "S": seen, "D": size}
    for name, x in rows.items():
        sizes |= _strides(name, x)
    arrays: dict[str, np.ndarray | None] = {
        **rows, "PROBS": np.require(probs, np.float32, ("C", "A")), "FACTORS": factors,
        "DQ": dq, "DK": dk, "DV": dv, "DHEADS": dheads,
        "KEPT": None if dropped is None else np.require(dropped.kept, np.bool_, "C"),
        "HEAD_MASK": None if head_mask is None else np.require(head_mask, np.float32, ("C", "A")),
    }  # fmt: skip
    columns, width = panels_of(seen) * WIDTH, panels_of(size) * WIDTH
    blocks = _BLOCK * (3 * width + columns + 2 * seen)
    own = WIDTH + columns * size + 3 * seen * width + seen + blocks
    _run(run_attention_backward, arrays, sizes, own, threads)
    dhead_mask = None if head_mask is None else dheads.sum(axis=0)[:, None, None]
    dq, dk, dv = (x.transpose(0, 2, 1, 3) for x in (dq, dk, dv))
    return AttentionGradients(dq, dk, dv, dhead_mask, None)
