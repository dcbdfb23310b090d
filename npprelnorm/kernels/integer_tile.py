"""The tile of the 12-bit product: int16 pairs multiplied and added into int32 sums, scaled as they are stored.

A row of activations and an output channel of weights each have a scale of their own and whole numbers from -2047 to
2047. One instruction (x86 `vpmaddwd`) multiplies a vector of them by another and adds neighbours, twice the products of
a float32 FMA. No sum of at most `LONGEST` products overflows an int32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .cpu import AHEAD, WIDTH, Tile
from .primitives import prefetch

LARGEST = 2047  # of 12 bits; -2048 is never used, so that sums are symmetric
LONGEST = (2**31 - 1) // LARGEST**2  # products that an int32 sum can hold: 512

_WORD, _INT32, _SINGLE = ir.IntType(64), ir.IntType(32), ir.FloatType()
_MULTIPLY_PAIRS = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}  # by lanes


def make_integer_tile(shape: Tile, rows: int) -> Callable[..., None]:
    """A function that computes one tile of a product of whole numbers in registers of AVX2 or AVX-512.

    ``tile(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth, row_scales, row_at,
    column_scales, column_at)`` is `primitives.make_tile` with c = start + (a @ panel) * row scale * column scale.
    The memory of a and of the panel holds pairs of int16, neighbours of a row and of an output channel; `a_at`,
    `lda`, `panel_at` and `depth` count pairs, and depth is at most ``LONGEST // 2``. Scales are float32.

    Parameters
    ----------
    shape : Tile
        Of 8 or 16 lanes.
    rows : int
        Of this tile, at most the shape's.
    """
    vectors, lanes = shape.vectors, shape.lanes
    sums_type, floats_type = ir.VectorType(_INT32, lanes), ir.VectorType(_SINGLE, lanes)
    shorts_type = ir.VectorType(ir.IntType(16), 2 * lanes)
    cells = [(i, j) for i in range(rows) for j in range(vectors)]

    def word(value: int) -> Any:
        return ir.Constant(_WORD, value)

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(
        typingctx: Any, a: Any, a_at: Any, lda: Any, panel: Any, panel_at: Any,
        start: Any, start_at: Any, lds: Any, c: Any, c_at: Any, ldc: Any, depth: Any,
        row_scales: Any, row_at: Any, column_scales: Any, column_at: Any,
    ) -> Any:  # fmt: skip
        at = types.intp
        signature = types.void(
            a, at, at, panel, at, start, at, at, c, at, at, at, row_scales, at, column_scales, at
        )  # fmt: skip

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            lda, lds, ldc, depth = args[2], args[7], args[10], args[11]

            def pointer(index: int, kind: Any = _SINGLE) -> Any:
                data = context.make_array(sig.args[index])(context, builder, args[index]).data
                return builder.gep(builder.bitcast(data, kind.as_pointer()), [args[index + 1]])

            def place(base: Any, offset: Any, kind: Any) -> Any:
                return builder.bitcast(builder.gep(base, [offset]), kind.as_pointer())

            def cell(base: Any, leading: Any, i: int, j: int) -> Any:
                return place(base, builder.add(builder.mul(leading, word(i)), word(j * lanes)), floats_type)

            def spread(number: Any, kind: Any) -> Any:
                first = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(_INT32, 0))
                everywhere = ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes)
                return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), everywhere)

            multiply_pairs = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(sums_type, [shorts_type] * 2), _MULTIPLY_PAIRS[lanes]
            )
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(floats_type, [floats_type] * 3), f"llvm.fma.v{lanes}f32"
            )
            a, panel, start, c = pointer(0, _INT32), pointer(3, _INT32), pointer(5), pointer(8)
            row_scales, column_scales = pointer(12), pointer(14)
            a_rows = [builder.gep(a, [builder.mul(lda, word(i))]) for i in range(rows)]
            zero = ir.Constant(sums_type, [0] * lanes)
            entry = builder.block
            loop, done = builder.append_basic_block("depth"), builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed(">", depth, word(0)), loop, done)

            builder.position_at_end(loop)
            k = builder.phi(_WORD)
            sums = {cell: builder.phi(sums_type) for cell in cells}
            row_start = builder.mul(k, word(WIDTH))
            prefetch(builder, panel, builder.add(row_start, word(WIDTH * AHEAD)))
            row = [
                builder.load(place(panel, builder.add(row_start, word(j * lanes)), sums_type), align=4)
                for j in range(vectors)
            ]
            following = {}
            for i in range(rows):
                pair = builder.bitcast(
                    spread(builder.load(builder.gep(a_rows[i], [k]), align=4), sums_type), shorts_type
                )
                for j in range(vectors):
                    products = builder.call(multiply_pairs, [pair, builder.bitcast(row[j], shorts_type)])
                    following[i, j] = builder.add(sums[i, j], products)
            k_next = builder.add(k, word(1))
            k.add_incoming(word(0), entry)
            k.add_incoming(k_next, loop)
            for where in cells:
                sums[where].add_incoming(zero, entry)
                sums[where].add_incoming(following[where], loop)
            builder.cbranch(builder.icmp_signed("<", k_next, depth), loop, done)

            builder.position_at_end(done)
            for where in cells:
                result = builder.phi(sums_type)
                result.add_incoming(zero, entry)
                result.add_incoming(following[where], loop)
                following[where] = result
            columns = [
                builder.load(place(column_scales, word(j * lanes), floats_type), align=4) for j in range(vectors)
            ]
            for i in range(rows):
                own = spread(builder.load(builder.gep(row_scales, [word(i)]), align=4), floats_type)
                for j in range(vectors):
                    scale = builder.fmul(own, columns[j])
                    begun = builder.load(cell(start, lds, i, j), align=4)
                    total = builder.call(fma, [builder.sitofp(following[i, j], floats_type), scale, begun])
                    builder.store(total, cell(c, ldc, i, j), align=4)
            return context.get_dummy_value()

        return signature, codegen

    function: Callable[..., None] = tile
    return function
