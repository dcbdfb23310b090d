"""Products and normalisations as stages of a kernel that a team runs: cut into tasks, and over when all are done."""

from __future__ import annotations

from typing import Any

from .compiling import inline, part
from .cpu import BLOCK_ROWS, WIDTH
from .gemm import ROWS, linear_block, panels_of
from .normalization import layer_norm_rows
from .primitives import floats
from .team import hand_in, take, wait

# Tasks for each thread of a stage: enough that one who comes late or is held up costs little.
_TASKS = 4


@inline
def _split(whole: int, size: int) -> int:
    """How many pieces of a size make up a whole."""
    return (whole + size - 1) // size


@part
def linear_stage(
    counters: Any, stage: int, threads: int, a_at: int, lda: int, rows: int, weights: Any, weight: int, bias: int,
    parts: int, depth: int, columns: int, c_at: int, ldc: int, what: int, out_at: int, strip: Any,
) -> None:  # fmt: skip
    """c = a @ weight + bias, then `what`, by blocks of rows and groups of panels.

    `weight` and `bias` are places in `weights`, of the first of `parts` matrices side by side in c.
    """
    if rows == 0:
        return
    a = floats(a_at, rows * lda)
    panels = panels_of(columns)
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
        packed = floats(weights[weight + side], panels * depth * WIDTH)
        biases = floats(weights[bias + side], panels * WIDTH)
        c = floats(c_at + 4 * side * panels * WIDTH, rows * ldc)
        linear_block(
            a, lda, first_row, min(rows, first_row + block), packed, depth, biases,
            panels * group // groups, panels * (group + 1) // groups, columns, c, ldc,
            what, floats(out_at, rows * columns), columns, strip,
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
