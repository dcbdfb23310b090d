"""The whole stack of layers and the final LayerNorm over packed rows, as one function that a team of threads runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import plan as place
from .attention import scratch_size
from .attention_stages import attention_stage, cross_attention_stage
from .body_weights import (
    CROSS_NORM_WEIGHT,
    CROSS_OUT_BIAS,
    CROSS_OUT_WEIGHT,
    CROSS_Q_BIAS,
    CROSS_Q_WEIGHT,
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
from .cpu import WIDTH
from .gemm import ADD, NOTHING, STRIP, panels_of
from .plan import PLAN, PLAN_SIZE
from .primitives import float_of_bits, floats, integers
from .reduced import room_size
from .stages import linear_stage, norm_stage
from .storage import INT12
from .team import counters, hand_in, stages_at, take, team, wait
from .weights import address, aligned

# At most this many stages in a layer, and outside the layers.
_STAGES_PER_LAYER, _STAGES_BESIDES = 13, 1


@part
def gather_stage(counters: Any, stage: int, plan: Any, x_at: int, u_at: int) -> None:
    """The rows of x, and of u where that is another array, that are read: each a task."""
    rows, reads, width = plan[place.ROWS], plan[place.READS], plan[place.WIDTH]
    x, u = floats(x_at, rows * width), floats(u_at, rows * width)
    x_read, u_read = floats(plan[place.X_READ], reads * width), floats(plan[place.U_READ], reads * width)
    read = integers(plan[place.READ], reads)
    task = take(counters, stage)
    while task < reads:
        at, to = read[task] * width, task * width
        row, row_read = x[at : at + width], x_read[to : to + width]
        for i in range(width):
            row_read[i] = row[i]
        if u_at != x_at:
            row, row_read = u[at : at + width], u_read[to : to + width]
            for i in range(width):
                row_read[i] = row[i]
        hand_in(counters, stage)
        task = take(counters, stage)
    wait(counters, stage, reads)


@inline
def _eps_of(plan: Any) -> Any:
    return float_of_bits(np.int32(plan[place.EPS]))


@entry
def run_encoder(plan_at: int, thread: int) -> None:
    """What each thread of the team runs: every stage in turn, as many of its tasks as it can get."""
    plan = integers(plan_at, PLAN_SIZE)
    rows, width, inner, threads = plan[place.ROWS], plan[place.WIDTH], plan[place.INNER], plan[place.THREADS]
    layers, sequences = plan[place.LAYERS], plan[place.SEQUENCES]
    padded = panels_of(width) * WIDTH
    eps = _eps_of(plan)
    weights = integers(plan[place.WEIGHTS], layers * LAYER)
    kind, room, stages = plan[place.STORAGE], plan[place.ROOM], layers * _STAGES_PER_LAYER + _STAGES_BESIDES
    counters = stages_at(plan[place.COUNTERS], 2 * stages)  # those in the second half round what products take
    # of each thread's own: key rows, then a strip for `linear_block`, which `attend` uses as well
    own = plan[place.SCRATCH] + thread * plan[place.SCRATCH_SIZE]
    most = plan[place.MOST_KEYS]
    key_rows = integers(own, most)
    strip = floats(own + 8 * most, (plan[place.SCRATCH_SIZE] - 8 * most) // 4)
    # what goes into a block: x itself in post-LN, whose LayerNorm comes after
    post_ln = plan[place.POST_LN] != 0
    x_at, q_at, ldq = plan[place.X], plan[place.QKV], 3 * padded
    u_at = x_at if post_ln else plan[place.U]
    query_bounds, tokens = integers(plan[place.BOUNDS], sequences + 1), integers(plan[place.TOKENS], rows)
    stage = ZERO
    for index in range(layers):
        layer = weights[index * LAYER : (index + 1) * LAYER]
        last = index == layers - 1
        if not post_ln:
            norm_stage(counters, stage, threads, x_at, rows, width, layer[NORM1_WEIGHT], layer[NORM1_BIAS], eps, u_at)
            stage += 1
        if last and plan[place.READ] != 0:
            # keys and values of every row; everything else only of those that are read
            linear_stage(
                counters, stage, threads, u_at, width, rows, layer, K_WEIGHT, K_BIAS,
                TWO, width, width, plan[place.QKV] + 4 * padded, 3 * padded, NOTHING, x_at, strip, kind,
                stages + stage, room,
            )  # fmt: skip
            gather_stage(counters, stage + 1, plan, x_at, u_at)
            rows, x_at, q_at, ldq = plan[place.READS], plan[place.X_READ], plan[place.Y], width
            u_at = x_at if post_ln else plan[place.U_READ]
            linear_stage(
                counters, stage + 2, threads, u_at, width, rows, layer, Q_WEIGHT, Q_BIAS,
                ONE, width, width, q_at, ldq, NOTHING, x_at, strip, kind, stages + stage + 2, room,
            )  # fmt: skip
            query_bounds = integers(plan[place.READ_BOUNDS], sequences + 1)
            tokens = integers(plan[place.READ_TOKENS], rows)
            stage += 3
        else:
            linear_stage(
                counters, stage, threads, u_at, width, rows, layer, Q_WEIGHT, Q_BIAS,
                THREE, width, width, plan[place.QKV], 3 * padded, NOTHING, x_at, strip, kind, stages + stage, room,
            )  # fmt: skip
            stage += 1
        attention_stage(counters, stage, plan, index, q_at, ldq, query_bounds, rows, tokens, key_rows, strip)
        linear_stage(
            counters, stage + 1, threads, plan[place.CONTEXT], width, rows, layer, OUT_WEIGHT, OUT_BIAS,
            ONE, width, width, plan[place.Y], width, ADD, x_at, strip, kind, stages + stage + 1, room,
        )  # fmt: skip
        stage += 2
        if plan[place.CROSS] != 0:
            norm = NORM1_WEIGHT if post_ln else CROSS_NORM_WEIGHT
            norm_stage(counters, stage, threads, x_at, rows, width, layer[norm], layer[norm + 1], eps, u_at)
            linear_stage(
                counters, stage + 1, threads, u_at, width, rows, layer, CROSS_Q_WEIGHT, CROSS_Q_BIAS,
                ONE, width, width, plan[place.Y], width, NOTHING, x_at, strip, kind, stages + stage + 1, room,
            )  # fmt: skip
            cross_attention_stage(
                counters, stage + 2, plan, index, plan[place.Y], width, query_bounds, rows, tokens, key_rows, strip
            )
            linear_stage(
                counters, stage + 3, threads, plan[place.CONTEXT], width, rows, layer, CROSS_OUT_WEIGHT, CROSS_OUT_BIAS,
                ONE, width, width, plan[place.Y], width, ADD, x_at, strip, kind, stages + stage + 3, room,
            )  # fmt: skip
            stage += 4
        # the LayerNorm after the attention in post-LN, and that before the feed-forward block in pre-LN
        norm = NORM2_WEIGHT
        if post_ln:
            norm = CROSS_NORM_WEIGHT if plan[place.CROSS] != 0 else NORM1_WEIGHT
        norm_stage(counters, stage, threads, x_at, rows, width, layer[norm], layer[norm + 1], eps, u_at)
        linear_stage(
            counters, stage + 1, threads, u_at, width, rows, layer, IN_WEIGHT, IN_BIAS,
            ONE, width, inner, plan[place.HIDDEN], plan[place.HIDDEN_STRIDE], plan[place.ACTIVATION], x_at, strip, kind,
            stages + stage + 1, room,
        )  # fmt: skip
        linear_stage(
            counters, stage + 2, threads, plan[place.HIDDEN], plan[place.HIDDEN_STRIDE], rows, layer,
            DOWN_WEIGHT, DOWN_BIAS, ONE, inner, width, plan[place.Y], width, ADD, x_at, strip, kind,
            stages + stage + 2, room,
        )  # fmt: skip
        stage += 3
        if post_ln:
            y_at = plan[place.OUT] if last else x_at
            norm_stage(counters, stage, threads, x_at, rows, width, layer[NORM2_WEIGHT], layer[NORM2_BIAS], eps, y_at)
            stage += 1
    if not post_ln:
        norm_stage(
            counters, stage, threads, x_at, rows, width, plan[place.NORM_WEIGHT], plan[place.NORM_BIAS], eps,
            plan[place.OUT],
        )  # fmt: skip


def encoder(
    weights: Weights,
    x: np.ndarray,
    bounds: np.ndarray,
    keys: np.ndarray | None = None,
    read: np.ndarray | None = None,
    *,
    bias: np.ndarray | None = None,
    memory: tuple[np.ndarray, int] | None = None,
    cross: tuple[Sequence[tuple[np.ndarray, np.ndarray]], np.ndarray | None] | None = None,
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
        Rows that may be attended to; all by default. Not with `memory`.
    read : int64 (R,), optional
        Rows whose output is wanted; all by default.
    bias : float32 (B or 1, H or 1, T or 1, S), optional
        What is added to the scores of self-attention, where all sequences have T rows and S keys.
    memory : tuple of float32 (layers, 2, B, H, capacity, D) and int, optional
        Room for keys and values, and how many tokens it holds: those of x are written behind these, and seen too.
    cross : tuple of [(key, value), ...] and bias, optional
        Keys and values of an encoder for each layer, (B, H, E, D) float32, and what is added to their scores.
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
    if rows == 0 and memory is None:
        return out
    bounds = np.ascontiguousarray(bounds, np.int64)
    lengths = np.diff(bounds)
    layers, size = len(weights.table), width // weights.heads
    most_keys = int(lengths.max()) + (memory[1] if memory else 0)
    if cross:
        most_keys = max(most_keys, cross[0][0][0].shape[2])
    own = 8 * most_keys + 4 * max(STRIP, scratch_size(most_keys, size))
    own = -(-own // 64) * 64
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
        "hidden_stride": stride, "most_keys": most_keys,
        "eps": int(np.float32(weights.eps).view(np.int32)),
    }  # fmt: skip
    arrays["tokens"] = tokens = np.arange(n) - np.repeat(bounds[:-1], lengths)  # each row's place in its sequence
    if read is not None:
        arrays["read_tokens"] = tokens[read]
    if bias is not None:
        _tell_bias("bias", bias, arrays, sizes)
    if memory:
        arrays["memory"] = memory[0]
        sizes |= {"memory_start": memory[1], "memory_capacity": memory[0].shape[4]}
    if cross:
        pairs, cross_bias = cross
        places = [np.ascontiguousarray(array, np.float32) for pair in pairs for array in pair]
        arrays["cross"] = np.array([address(array) for array in places])
        sizes["cross_keys"] = places[0].shape[2]
        if cross_bias is not None:
            _tell_bias("cross_bias", cross_bias, arrays, sizes)
    plan = np.array([sizes[name] if name in sizes else _address(arrays.get(name)) for name in PLAN], np.int64)
    at = address(plan)
    if threads > 1:
        team(threads).run(lambda thread: run_encoder(at, thread))
    else:
        run_encoder(at, 0)
    return out if back is None else out[back]


def _tell_bias(name: str, bias: np.ndarray, arrays: dict[str, np.ndarray], sizes: dict[str, int]) -> None:
    """Where a bias lies, and how far apart those of sequences, heads and tokens do; 0 for what they share."""
    arrays[name] = array = np.require(bias, np.float32, ("C", "A"))
    for axis, of in enumerate(("sequence", "head", "token")):
        sizes[f"{name}_of_{of}"] = 0 if array.shape[axis] == 1 else array.strides[axis] // 4


def _address(array: np.ndarray | None) -> int:
    return 0 if array is None else address(array)
