"""The whole stack of layers and the final LayerNorm over packed rows, as one function that a team of threads runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from .attention import attend, scratch_size
from .body_weights import (
    DOWN_BIAS,
    DOWN_WEIGHT,
    IN_BIAS,
    IN_WEIGHT,
    K_BIAS,
    K_WEIGHT,
    LAYER,
    NORM1_BIAS,
    NORM1_WEIGHT,
    NORM2_BIAS,
    NORM2_WEIGHT,
    OUT_BIAS,
    OUT_WEIGHT,
    Q_BIAS,
    Q_WEIGHT,
    Weights,
)  # fmt: skip
from .compiling import ONE, THREE, TWO, ZERO, entry, inline, part
from .cpu import BLOCK_ROWS, WIDTH
from .gemm import ADD, NOTHING, panels_of
from .primitives import flags, float_of_bits, floats, integers
from .reduced import room_size
from .stages import linear_stage, norm_stage
from .storage import INT12
from .team import counters, hand_in, stages_at, take, team, wait
from .weights import address, aligned

# What `run_encoder` is told, by place: addresses and sizes.
PLAN = (
    "threads", "layers", "rows", "reads", "sequences", "width", "inner", "heads", "activation", "eps", "post_ln",
    "storage", "order", "bounds", "keys", "read", "read_bounds", "weights", "norm_weight", "norm_bias",
    "x", "u", "qkv", "context", "y", "hidden", "out", "x_read", "u_read", "scratch", "scratch_size", "room", "counters",
    "hidden_stride",
)  # fmt: skip
(
    THREADS, LAYERS, N, READS, SEQUENCES, C, F, H, ACTIVATION, EPS, POST_LN, STORAGE,
    ORDER, BOUNDS, KEYS, READ, READ_BOUNDS, WEIGHTS, NORM_WEIGHT, NORM_BIAS,
    X, U, QKV, CONTEXT, Y, HIDDEN, OUT, X_READ, U_READ, SCRATCH, SCRATCH_SIZE, ROOM, COUNTERS, HIDDEN_STRIDE,
) = range(len(PLAN))  # fmt: skip
PLAN_SIZE = len(PLAN)

# At most this many stages in a layer, and outside the layers.
_STAGES_PER_LAYER, _STAGES_BESIDES = 9, 1


@part
def gather_stage(counters: Any, stage: int, plan: Any, x_at: int, u_at: int) -> None:
    """The rows of x, and of u where that is another array, that are read: each a task."""
    rows, reads, width = plan[N], plan[READS], plan[C]
    x, u = floats(x_at, rows * width), floats(u_at, rows * width)
    x_read, u_read = floats(plan[X_READ], reads * width), floats(plan[U_READ], reads * width)
    read = integers(plan[READ], reads)
    task = take(counters, stage)
    while task < reads:
        at = read[task] * width
        for i in range(width):
            x_read[task * width + i] = x[at + i]
        if u_at != x_at:
            for i in range(width):
                u_read[task * width + i] = u[at + i]
        hand_in(counters, stage)
        task = take(counters, stage)
    wait(counters, stage, reads)


@part
def attention_stage(
    counters: Any, stage: int, plan: Any, q_at: int, ldq: int, query_bounds: Any, queries: int, key_rows: Any,
    scratch: Any,
) -> None:  # fmt: skip
    """Attention of every head of every sequence, each a task, the longest sequences first."""
    rows, sequences, heads, width = plan[N], plan[SEQUENCES], plan[H], plan[C]
    size = width // heads
    scale = np.float32(1.0) / np.sqrt(np.float32(size))
    padded = panels_of(width) * WIDTH
    order, bounds = integers(plan[ORDER], sequences), integers(plan[BOUNDS], sequences + 1)
    seen = flags(plan[KEYS], rows)
    tasks = sequences * heads
    task = take(counters, stage)
    while task < tasks:
        sequence, head = order[task // heads], task % heads
        first, last = bounds[sequence], bounds[sequence + 1]
        keys = ZERO
        for row in range(first, last):
            if plan[KEYS] == 0 or seen[row] != 0:
                key_rows[keys] = row
                keys += 1
        if keys == 0:  # nothing to see: every row counts alike, as under a mask of zeros
            for row in range(first, last):
                key_rows[keys] = row
                keys += 1
            sharpness = np.float32(0.0)
        else:
            sharpness = scale
        column = 4 * head * size
        if query_bounds[sequence] < query_bounds[sequence + 1]:
            attend(
                floats(q_at + column, queries * ldq), ldq, query_bounds[sequence], query_bounds[sequence + 1],
                floats(plan[QKV] + 4 * padded + column, rows * 3 * padded),
                floats(plan[QKV] + 8 * padded + column, rows * 3 * padded), 3 * padded,
                key_rows, keys, size, sharpness, floats(plan[CONTEXT] + column, queries * width), width, scratch,
            )  # fmt: skip
        hand_in(counters, stage)
        task = take(counters, stage)
    wait(counters, stage, tasks)


@inline
def _eps_of(plan: Any) -> Any:
    return float_of_bits(np.int32(plan[EPS]))


@entry
def run_encoder(plan_at: int, thread: int) -> None:
    """What each thread of the team runs: every stage in turn, as many of its tasks as it can get."""
    plan = integers(plan_at, PLAN_SIZE)
    rows, width, inner, threads = plan[N], plan[C], plan[F], plan[THREADS]
    layers, sequences = plan[LAYERS], plan[SEQUENCES]
    padded = panels_of(width) * WIDTH
    eps = _eps_of(plan)
    weights = integers(plan[WEIGHTS], layers * LAYER)
    kind, room, stages = plan[STORAGE], plan[ROOM], layers * _STAGES_PER_LAYER + _STAGES_BESIDES
    counters = stages_at(plan[COUNTERS], 2 * stages)  # those in the second half round what products take
    # of each thread's own: key rows, then a strip for `linear_block`, which `attend` uses as well
    own = plan[SCRATCH] + thread * plan[SCRATCH_SIZE]
    key_rows = integers(own, rows)
    strip = floats(own + 8 * rows, (plan[SCRATCH_SIZE] - 8 * rows) // 4)
    # what goes into a block: x itself in post-LN, whose LayerNorm comes after
    post_ln = plan[POST_LN] != 0
    x_at, q_at, ldq = plan[X], plan[QKV], 3 * padded
    u_at = x_at if post_ln else plan[U]
    query_bounds = integers(plan[BOUNDS], sequences + 1)
    stage = ZERO
    for index in range(layers):
        layer = weights[index * LAYER : (index + 1) * LAYER]
        last = index == layers - 1
        if not post_ln:
            norm_stage(counters, stage, threads, x_at, rows, width, layer[NORM1_WEIGHT], layer[NORM1_BIAS], eps, u_at)
            stage += 1
        if last and plan[READ] != 0:
            # keys and values of every row; everything else only of those that are read
            linear_stage(
                counters, stage, threads, u_at, width, rows, layer, K_WEIGHT, K_BIAS,
                TWO, width, width, plan[QKV] + 4 * padded, 3 * padded, NOTHING, x_at, strip, kind, stages + stage, room,
            )  # fmt: skip
            gather_stage(counters, stage + 1, plan, x_at, u_at)
            rows, x_at, q_at, ldq = plan[READS], plan[X_READ], plan[Y], width
            u_at = x_at if post_ln else plan[U_READ]
            linear_stage(
                counters, stage + 2, threads, u_at, width, rows, layer, Q_WEIGHT, Q_BIAS,
                ONE, width, width, q_at, ldq, NOTHING, x_at, strip, kind, stages + stage + 2, room,
            )  # fmt: skip
            query_bounds = integers(plan[READ_BOUNDS], sequences + 1)
            stage += 3
        else:
            linear_stage(
                counters, stage, threads, u_at, width, rows, layer, Q_WEIGHT, Q_BIAS,
                THREE, width, width, plan[QKV], 3 * padded, NOTHING, x_at, strip, kind, stages + stage, room,
            )  # fmt: skip
            stage += 1
        attention_stage(counters, stage, plan, q_at, ldq, query_bounds, rows, key_rows, strip)
        linear_stage(
            counters, stage + 1, threads, plan[CONTEXT], width, rows, layer, OUT_WEIGHT, OUT_BIAS,
            ONE, width, width, plan[Y], width, ADD, x_at, strip, kind, stages + stage + 1, room,
        )  # fmt: skip
        # the LayerNorm after the attention in post-LN, and that before the feed-forward block in pre-LN
        norm = NORM1_WEIGHT if post_ln else NORM2_WEIGHT
        norm_stage(counters, stage + 2, threads, x_at, rows, width, layer[norm], layer[norm + 1], eps, u_at)
        linear_stage(
            counters, stage + 3, threads, u_at, width, rows, layer, IN_WEIGHT, IN_BIAS,
            ONE, width, inner, plan[HIDDEN], plan[HIDDEN_STRIDE], plan[ACTIVATION], x_at, strip, kind,
            stages + stage + 3, room,
        )  # fmt: skip
        linear_stage(
            counters, stage + 4, threads, plan[HIDDEN], plan[HIDDEN_STRIDE], rows, layer, DOWN_WEIGHT, DOWN_BIAS,
            ONE, inner, width, plan[Y], width, ADD, x_at, strip, kind, stages + stage + 4, room,
        )  # fmt: skip
        stage += 5
        if post_ln:
            y_at = plan[OUT] if last else x_at
            norm_stage(counters, stage, threads, x_at, rows, width, layer[NORM2_WEIGHT], layer[NORM2_BIAS], eps, y_at)
            stage += 1
    if not post_ln:
        norm_stage(counters, stage, threads, x_at, rows, width, plan[NORM_WEIGHT], plan[NORM_BIAS], eps, plan[OUT])


def encoder(
    weights: Weights,
    x: np.ndarray,
    bounds: np.ndarray,
    keys: np.ndarray | None = None,
    read: np.ndarray | None = None,
    *,
    threads: int = 1,
) -> np.ndarray:
    """Every layer and the final LayerNorm (pre-LN alone) over sequences that lie one after the other.

    Parameters
    ----------
    weights : Weights
    x : float32 (N, C)
        The embeddings' output; not written to.
    bounds : int64 (B + 1,)
        Rows ``bounds[b]:bounds[b + 1]`` are sequence b.
    keys : bool (N,), optional
        Rows that may be attended to; all by default.
    read : int64 (R,), optional
        Rows whose output is wanted; all by default.
    threads : int

    Returns
    -------
    float32 (N, C), or (R, C) with `read`
    """
    n, width = x.shape
    inner, padded = weights.inner, panels_of(weights.width) * WIDTH
    back = None
    if read is not None:
        read = np.asarray(read, np.int64)
        if read.size and (np.diff(read) < 0).any():
            order = np.argsort(read, kind="stable")
            back, read = np.argsort(order, kind="stable"), np.ascontiguousarray(read[order])
    rows = n if read is None else len(read)
    out = np.empty((rows, width), np.float32)
    if rows == 0:
        return out
    bounds = np.ascontiguousarray(bounds, np.int64)
    lengths = np.diff(bounds)
    own = 8 * n + 4 * max(BLOCK_ROWS * WIDTH, scratch_size(int(lengths.max()), width // weights.heads))
    own = -(-own // 64) * 64
    layers = len(weights.table)
    stream = np.array(x, np.float32, order="C")  # a copy: the residual stream runs through it
    most = max(n, rows)  # a row may be read twice
    room = {
        "u": (n, width), "y": (most, width), "x_read": (rows, width), "u_read": (rows, width),
        "scratch": (threads * own // 4,),
    }  # fmt: skip
    buffers = {name: np.empty(shape, np.float32) for name, shape in room.items() if read is not None or "_" not in name}
    # the feed-forward block's hidden rows take the place of the attention's, which are over by then
    # a tile's rows a multiple of 4 KiB apart would all compete for the same few places of the first-level cache
    stride = inner + (WIDTH if inner * 4 % 1024 == 0 else 0)
    shared = np.empty(max(n * 3 * padded + most * width, most * stride), np.float32)
    arrays = buffers | {
        "x": stream, "out": out, "weights": weights.table, "bounds": bounds,
        "order": np.argsort(-lengths, kind="stable"),
        "qkv": shared, "context": shared[n * 3 * padded :], "hidden": shared,
        "counters": counters(2 * (layers * _STAGES_PER_LAYER + _STAGES_BESIDES)),
    }  # fmt: skip
    if weights.storage == INT12:
        arrays["room"] = aligned(max(room_size(most, width), room_size(most, inner)))
    if weights.norm:
        arrays |= {"norm_weight": weights.norm[0], "norm_bias": weights.norm[1]}
    if keys is not None:
        arrays["keys"] = np.ascontiguousarray(keys, np.bool_)
    if read is not None:
        arrays |= {"read": read, "read_bounds": np.searchsorted(read, bounds)}
    sizes = {
        "threads": threads, "layers": layers, "rows": n, "reads": rows, "sequences": len(lengths), "width": width,
        "inner": inner, "heads": weights.heads, "activation": weights.activation, "scratch_size": own,
        "post_ln": int(weights.post_ln), "storage": weights.storage,
        "hidden_stride": stride,
        "eps": int(np.float32(weights.eps).view(np.int32)),
    }  # fmt: skip
    plan = np.array([sizes[name] if name in sizes else _address(arrays.get(name)) for name in PLAN], np.int64)
    at = address(plan)
    if threads > 1:
        team(threads).run(lambda thread: run_encoder(at, thread))
    else:
        run_encoder(at, 0)
    return out if back is None else out[back]


def _address(array: np.ndarray | None) -> int:
    return 0 if array is None else address(array)
