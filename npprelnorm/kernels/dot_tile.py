"""The tile of a product with weights as the checkpoint holds them: dot products of their rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .cpu import Tile
from .primitives import prefetch

_WORD, _SINGLE, _INT32 = ir.IntType(64), ir.FloatType(), ir.IntType(32)


def make_dots(shape: Tile, rows: int) -> Callable[..., None]:
    """A function that multiplies a few rows with four rows of a weight as the checkpoint holds it: by dot products.

    ``dots(x, x_at, ldx, weight, weight_at, ldw, columns, c, c_at, depth, ahead)`` adds x (rows, depth) @ weight
    (columns, depth)^T to c (rows, 4), of which only the first `columns`, 1 to 4, mean anything. All are flat float32
    arrays and offsets into them; x and weight have rows `ldx` and `ldw` apart, c is contiguous. The weight may lie at
    any address; what lies `ahead` numbers after each that is read is called for from memory.

    Each number is a sum over every so many products in each lane of a vector, then over the lanes, then over the
    products that fill no vector: the same whatever rows and columns are computed together.

    Parameters
    ----------
    shape : Tile
    rows : int
        Rows of x: four times as many sums have to stay in registers, beside the rows themselves.
    """
    lanes = shape.lanes
    vector, four = ir.VectorType(_SINGLE, lanes), ir.VectorType(_SINGLE, 4)
    cells = [(i, j) for i in range(rows) for j in range(4)]

    def word(value: int) -> Any:
        return ir.Constant(_WORD, value)

    def quarters(*places: int) -> list[int]:
        """Places of two vectors that follow each other, the same in each four of their lanes."""
        return [4 * group + place % 4 + place // 4 * lanes for group in range(lanes // 4) for place in places]

    @intrinsic  # type: ignore[untyped-decorator]
    def dots(
        typingctx: Any, x: Any, x_at: Any, ldx: Any, weight: Any, weight_at: Any, ldw: Any, columns: Any,
        c: Any, c_at: Any, depth: Any, ahead: Any,
    ) -> Any:  # fmt: skip
        at = types.intp
        signature = types.void(x, at, at, weight, at, at, at, c, at, at, at)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            ldx, ldw, columns, depth, ahead = args[2], args[5], args[6], args[9], args[10]

            def pointer(index: int) -> Any:
                data = context.make_array(sig.args[index])(context, builder, args[index]).data
                return builder.gep(data, [args[index + 1]])

            def load(base: Any, k: Any) -> Any:
                where = builder.bitcast(builder.gep(base, [k]), vector.as_pointer())
                return builder.load(where, align=1)

            def multiply_add(a: Any, b: Any, c: Any, kind: Any = vector) -> Any:
                if not shape.fused:
                    return builder.fadd(builder.fmul(a, b), c)
                function = ir.FunctionType(kind, [kind] * 3)
                name = f"llvm.fma.v{kind.count}f32"
                return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [a, b, c])

            def pick(a: Any, b: Any, places: list[int]) -> Any:
                chosen = ir.Constant(ir.VectorType(_INT32, len(places)), places)
                return builder.shuffle_vector(a, b, chosen)

            def sums_of_lanes(parts: list[Any]) -> Any:
                """The sums of four vectors, as one of four: always (0 + 2) + (1 + 3) in each four, then over fours."""
                left, right = (
                    builder.fadd(pick(a, b, quarters(0, 4, 1, 5)), pick(a, b, quarters(2, 6, 3, 7)))
                    for a, b in (parts[:2], parts[2:])
                )
                total = builder.fadd(pick(left, right, quarters(0, 1, 4, 5)), pick(left, right, quarters(2, 3, 6, 7)))
                size = lanes
                while size > 4:
                    size //= 2
                    lower, upper = ([*range(begin, begin + size)] for begin in (0, size))
                    total = builder.fadd(pick(total, total, lower), pick(total, total, upper))
                return total

            x, weight, c = pointer(0), pointer(3), pointer(7)
            x_rows = [builder.gep(x, [builder.mul(ldx, word(i))]) for i in range(rows)]
            weight_rows = []
            for j in range(4):  # what is beyond the last column is computed from that, for nobody
                there = builder.icmp_signed("<", word(j), columns)
                index = builder.select(there, word(j), builder.sub(columns, word(1)))
                weight_rows.append(builder.gep(weight, [builder.mul(ldw, index)]))
            whole = builder.and_(depth, word(-lanes))
            zero = ir.Constant(vector, [0.0] * lanes)
            entry = builder.block
            loop, lanes_done, tail, done = (
                builder.append_basic_block(name) for name in ("vectors", "lanes", "tail", "done")
            )
            builder.cbranch(builder.icmp_signed(">", whole, word(0)), loop, lanes_done)

            builder.position_at_end(loop)
            k = builder.phi(_WORD)
            sums = {cell: builder.phi(vector) for cell in cells}
            numbers = [load(row, k) for row in x_rows]
            following = {}
            for j in range(4):
                prefetch(builder, weight_rows[j], builder.add(k, ahead))
                of_weight = load(weight_rows[j], k)
                for i in range(rows):
                    following[i, j] = multiply_add(numbers[i], of_weight, sums[i, j])
            k_next = builder.add(k, word(lanes))
            k.add_incoming(word(0), entry)
            k.add_incoming(k_next, loop)
            for cell in cells:
                sums[cell].add_incoming(zero, entry)
                sums[cell].add_incoming(following[cell], loop)
            builder.cbranch(builder.icmp_signed("<", k_next, whole), loop, lanes_done)

            builder.position_at_end(lanes_done)
            for cell in cells:
                result = builder.phi(vector)
                result.add_incoming(zero, entry)
                result.add_incoming(following[cell], loop)
                following[cell] = result
            totals = [sums_of_lanes([following[i, j] for j in range(4)]) for i in range(rows)]
            builder.cbranch(builder.icmp_signed("<", whole, depth), tail, done)

            builder.position_at_end(tail)
            k = builder.phi(_WORD)
            sums_so_far = [builder.phi(four) for _ in range(rows)]
            of_weights = ir.Constant(four, ir.Undefined)
            for j in range(4):
                number = builder.load(builder.gep(weight_rows[j], [k]), align=1)
                of_weights = builder.insert_element(of_weights, number, ir.Constant(_INT32, j))
            nothing = ir.Constant(four, ir.Undefined)
            longer = []
            for i in range(rows):
                number = builder.load(builder.gep(x_rows[i], [k]), align=1)
                first = builder.insert_element(nothing, number, ir.Constant(_INT32, 0))
                longer.append(multiply_add(pick(first, nothing, [0] * 4), of_weights, sums_so_far[i], four))
            k_next = builder.add(k, word(1))
            k.add_incoming(whole, lanes_done)
            k.add_incoming(k_next, tail)
            for i in range(rows):
                sums_so_far[i].add_incoming(totals[i], lanes_done)
                sums_so_far[i].add_incoming(longer[i], tail)
            builder.cbranch(builder.icmp_signed("<", k_next, depth), tail, done)

            builder.position_at_end(done)
            results = [builder.phi(four) for _ in range(rows)]
            for i in range(rows):
                results[i].add_incoming(totals[i], lanes_done)
                results[i].add_incoming(longer[i], tail)
            for i in range(rows):
                place = builder.bitcast(builder.gep(c, [word(4 * i)]), four.as_pointer())
                builder.store(builder.fadd(results[i], builder.load(place, align=4)), place, align=4)
            return context.get_dummy_value()

        return signature, codegen

    function: Callable[..., None] = dots
    return function
