"""Twin of `ops.linear.linear`, in float32, over weights that are packed once."""

from __future__ import annotations

import numpy as np

from ..ops.linear import LinearCache
from .compiling import ONE, ZERO, entry
from .gemm import NOTHING, STRIP
from .primitives import floats, integers
from .reduced import room_size
from .shapes import expect_linear
from .stages import linear_stage
from .storage import INT12, STORAGES
from .team import counters, spread, stages_at
from .weights import address, aligned, filled_up, packed


@entry
def run_linear(
    a_at: int, rows: int, depth: int, weights_at: int, columns: int, c_at: int, what: int, threads: int, thread: int,
    strips_at: int, counters_at: int, storage: int, room_at: int,
) -> None:  # fmt: skip
    """c = a @ weight + bias, then an activation; the table at `weights_at` has the two addresses."""
    strip = floats(strips_at + thread * 4 * STRIP, STRIP)
    linear_stage(
        stages_at(counters_at, 2), ONE, threads, a_at, depth, rows, integers(weights_at, 2), ZERO, ONE,
        ONE, depth, columns, c_at, columns, what, c_at, strip, storage, ZERO, room_at,
    )  # fmt: skip


def linear(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    *,
    what: int = int(NOTHING),
    threads: int = 1,
    weight_dtype: str = "float32",
) -> tuple[np.ndarray, LinearCache]:
    """Twin of `ops.linear.linear`; `what` is an activation of `gemm` that is fused in.

    `weight_dtype` is how the packed weight is stored; see `storage.STORAGES`.
    """
    storage = STORAGES[weight_dtype]
    plain = np.require(x, np.float32, ("C", "A"))
    columns, depth = expect_linear(x, weight, bias)
    rows = plain.size // depth
    y = np.empty((*x.shape[:-1], columns), np.float32)
    panels, biases = packed(weight, threads, storage), filled_up(bias)
    table = np.array([address(panels), address(biases)])
    strips, shared = aligned(threads * STRIP), counters(2)
    room = aligned(room_size(rows, depth) if storage == INT12 else 0)
    arguments = (address(plain), rows, depth, address(table), columns, address(y), int(what), threads)
    more = (address(strips), address(shared), storage, address(room))
    spread(lambda thread: run_linear(*arguments, thread, *more), rows * columns * depth // 64, threads)
    return y, LinearCache(x, weight)
