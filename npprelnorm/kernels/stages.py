"""Products and normalisations as stages of a kernel that a team runs: cut into tasks, and over when all are done."""

from __future__ import annotations

from typing import Any

from .compiling import ZERO, inline, part
from .cpu import BLOCK_ROWS, WIDTH
from .gemm import ROWS, linear_block, panels_of
from .normalization import layer_norm_rows
from .primitives import floats, shorts
from .reduced import pairs_of, quantize_row, room_size, stored_size
from .storage import INT12
from .team import hand_in, take, wait

# Tasks for each thread of a stage: enough that one who comes late or is held up costs little.
_TASKS = 4


@inline
def _split(whole: int, size: int) -> int:
    """How many pieces of a size make up a whole."""
    return (whole + size - 1) // size


@part
def quantize_stage(
    counters: Any, stage: int, threads: int, a_at: int, lda: int, rows: int, depth: int, room_at: int
) -> None:
    """Rows of a as whole numbers, and then their scales: what `linear_block` takes for `INT12`."""
    pairs = pairs_of(depth)
    a, whole, scales = floats(a_at, rows * lda), shorts(room_at, rows * pairs * 2), floats(room_at, rows * (pairs + 1))
    tasks = min(rows, _TASKS * threads)
    task = take(counters, stage)
    while task < tasks:
        for row in range(rows * task // tasks, rows * (task + 1) // tasks):
            scales[rows * pairs + row] = quantize_row(a, row * lda, depth, whole, row * pairs * 2)
        hand_in(counters, stage)
        task = take(counters, stage)
    wait(counters, stage, tasks)


@part
def linear_stage(
    counters: Any, stage: int, threads: int, a_at: int, lda: int, rows: int, weights: Any, weight: int, bias: int,
    parts: int, depth: int, columns: int, c_at: int, ldc: int, what: int, out_at: int, strip: Any,
    storage: int, first_stage: int, room_at: int,
) -> None:  # fmt: skip
    """c = a @ weight + bias, then `what`, by blocks of rows and groups of panels.

    `weight` and `bias` are places in `weights`, of the first of `parts` matrices side by side in c. Weights of
    `INT12` take a stage more, `first_stage`, that rounds a into the room (`room_size`).
    """
    if rows == 0:
        return
    panels = panels_of(columns)
    size = stored_size(storage, panels, depth)
    a, row_scales, column_scales = floats(a_at, rows * lda), ZERO, ZERO
    if storage == INT12:
        quantize_stage(counters, first_stage, threads, a_at, lda, rows, depth, room_at)
        a = floats(room_at, room_size(rows, depth))
        depth = lda = pairs_of(depth)
        row_scales, column_scales = rows * depth, panels * depth * WIDTH
    blocks = _split(rows, BLOCK_ROWS)
    block = _split(_split(rows, blocks), ROWS) * ROWS
    blocks = _split(rows, block)
    groups = min(panels, _split(_TASKS * threads, blocks * parts))
    while groups < panels and groups * blocks * parts % threads != 0:
        groups += 1
    tasks = blocks * groups * parts
    task = take(counters, stage)
    while task < tasks:
        group, side = task % groups, task // groups % parts
        first_row = task // (groups * parts) * block
        packed = floats(weights[weight + side], size)
        biases = floats(weights[bias + side], panels * WIDTH)
        c = floats(c_at + 4 * side * panels * WIDTH, rows * ldc)
        linear_block(
            a, lda, first_row, min(rows, first_row + block), packed, depth, biases,
            panels * group // groups, panels * (group + 1) // groups, columns, c, ldc,
            what, floats(out_at, rows * columns), columns, strip, storage, row_scales, column_scales,
        )  # fmt: skip
        hand_in(counters, stage)
        task = take(counters, stage)
    wait(counters, stage, tasks)


@part
def norm_stage(
    counters: Any, stage: int, threads: int, x_at: int, rows: int, width: int, weight_at: int, bias_at: int, eps: Any,
    y_at: int,
) -> None:  # fmt: skip
    """y = LayerNorm(x), by blocks of rows."""
    x, y = floats(x_at, rows * width), floats(y_at, rows * width)
    weight, bias = floats(weight_at, width), floats(bias_at, width)
    tasks = min(rows, _TASKS * threads)
    task = take(counters, stage)
    while task < tasks:
        layer_norm_rows(x, rows * task // tasks, rows * (task + 1) // tasks, width, weight, bias, eps, y)
        hand_in(counters, stage)
        task = take(counters, stage)
    wait(counters, stage, tasks)
