"""What a processor can do at most, measured: multiply-adds in registers, and reading memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npprelnorm.kernels.cpu import TILE

# as many sums as the tile of a product has, which is as many as registers hold: each waits for itself alone
CHAINS, LANES = TILE.rows * TILE.vectors, TILE.lanes
OPERATIONS = 2 * CHAINS * LANES  # in a step


@intrinsic
def _chains(typingctx: Any, numbers: Any, steps: Any) -> Any:
    """So many steps of sum = sum * x + y in each chain.

    `numbers` (CHAINS + 2, LANES) begin with the sums, which are all different or LLVM would compute one for all, and
    are put back in the end; x and y are last.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector, word = ir.VectorType(ir.FloatType(), LANES), ir.IntType(64)
        data = builder.bitcast(context.make_array(sig.args[0])(context, builder, args[0]).data, vector.as_pointer())
        places = [builder.gep(data, [ir.Constant(word, i)]) for i in range(CHAINS + 2)]
        *begun, x, y = [builder.load(place, align=4) for place in places]

        def multiply_add(total: Any) -> Any:
            if not TILE.fused:
                return builder.fadd(builder.fmul(total, x), y)
            kind = ir.FunctionType(vector, [vector] * 3)
            fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
            return builder.call(fma, [total, x, y])

        before = builder.block
        loop, done = builder.append_basic_block("steps"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        step, totals = builder.phi(word), [builder.phi(vector) for _ in begun]
        following = [multiply_add(total) for total in totals]
        step_next = builder.add(step, ir.Constant(word, 1))
        step.add_incoming(ir.Constant(word, 0), before)
        step.add_incoming(step_next, loop)
        for total, first, after in zip(totals, begun, following, strict=True):
            total.add_incoming(first, before)
            total.add_incoming(after, loop)
        builder.cbranch(builder.icmp_signed("<", step_next, args[1]), loop, done)
        builder.position_at_end(done)
        for place, after in zip(places, following, strict=False):
            builder.store(after, place, align=4)
        return context.get_dummy_value()

    return types.void(numbers, types.intp), codegen


@numba.njit(nogil=True)
def run_chains(numbers: np.ndarray, steps: int) -> None:
    """Multiply and add in registers, `OPERATIONS` of them in each step (at least one)."""
    _chains(numbers, steps)


@numba.njit(nogil=True, fastmath={"reassoc", "contract"})
def sum_of(x: np.ndarray) -> Any:
    """The sum of a flat array, in vectors."""
    total = np.float32(0)
    for i in range(x.size):
        total += x[i]
    return total


def begun() -> np.ndarray:
    """Numbers for `run_chains` whose sums stay between 1 and 3, however long."""
    numbers = np.empty((CHAINS + 2, LANES), np.float32)
    numbers[:CHAINS] = np.linspace(1.0, 3.0, CHAINS * LANES, dtype=np.float32).reshape(CHAINS, LANES)
    numbers[CHAINS:] = [[0.5], [1.0]]
    return numbers


class Ceilings:
    """Threads that do all of them the same; `read_bytes` is the size of an array to be read, more than caches hold."""

    def __init__(self, threads: int, read_bytes: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads)
        self._parts = np.array_split(np.ones(read_bytes // 4, np.float32), threads)
        self._numbers = [begun() for _ in range(threads)]

    def _together(self, task: Callable[..., Any], *columns: Any) -> list[Any]:
        # the last in this thread, which would do nothing but wait
        futures = [self._pool.submit(task, *row) for row in zip(*(column[:-1] for column in columns), strict=True)]
        last = task(*(column[-1] for column in columns))
        return [*(future.result() for future in futures), last]

    def peak(self, threads: int, steps: int) -> int:
        """Operations done by so many threads at once."""
        self._together(run_chains, self._numbers[:threads], [steps] * threads)
        return threads * steps * OPERATIONS

    def read(self) -> int:
        """Bytes read by all threads at once."""
        sums = self._together(sum_of, self._parts)
        assert all(sums)
        return sum(part.nbytes for part in self._parts)
