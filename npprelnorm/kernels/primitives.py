"""What Numba does not offer and LLVM does: the tile of a matrix product, bits of floats, arrays at an address, and
counters that threads share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from .compiling import inline
from .cpu import AHEAD, Tile
from .storage import BFLOAT16, FLOAT16, FLOAT32

_WORD, _SINGLE, _INT32 = ir.IntType(64), ir.FloatType(), ir.IntType(32)
_HALF, _INT16 = ir.HalfType(), ir.IntType(16)


def prefetch(builder: Any, base: Any, at: Any) -> None:
    """Ask for the line of an element that is needed soon, into the second-level cache. Any address will do."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, _INT32, _INT32, _INT32])
    how = [ir.Constant(_INT32, value) for value in (0, 2, 1)]  # to read, moderately close, data
    call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(call, [builder.bitcast(builder.gep(base, [at]), byte), *how])


def make_tile(shape: Tile, rows: int, storage: int = FLOAT32) -> Callable[..., None]:
    """A function that computes one tile of a matrix product in registers.

    ``tile(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth)`` sets c (rows, WIDTH) to
    start (rows, WIDTH) + a (rows, depth) @ panel (depth, WIDTH). All are flat float32 arrays and offsets into them;
    the panel's memory may hold numbers of two bytes instead, which are widened as they are loaded (exactly).
    a, start and c have rows `lda`, `lds` and `ldc` apart (0 where one row, such as a bias, starts them all); the panel
    is contiguous. start may be c. All sums stay in vector registers: each step of depth loads one row of the panel,
    and spreads one number of each row of a over a vector.

    Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication", section 4.

    Parameters
    ----------
    shape : Tile
    rows : int
        Rows of this tile, at most the shape's: the rest at the lower edge of a matrix has a tile of its own.
    storage : int
        Of the panel: `FLOAT32`, `FLOAT16` or `BFLOAT16`; `panel_at` counts such numbers.
    """
    vectors, lanes = shape.vectors, shape.lanes
    vector = ir.VectorType(_SINGLE, lanes)
    element = {FLOAT32: _SINGLE, FLOAT16: _HALF, BFLOAT16: _INT16}[storage]
    stored = ir.VectorType(element, lanes)
    element_bytes = 4 if storage == FLOAT32 else 2
    cells = [(i, j) for i in range(rows) for j in range(vectors)]

    def word(value: int) -> Any:
        return ir.Constant(_WORD, value)

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(
        typingctx: Any, a: Any, a_at: Any, lda: Any, panel: Any, panel_at: Any,
        start: Any, start_at: Any, lds: Any, c: Any, c_at: Any, ldc: Any, depth: Any,
    ) -> Any:  # fmt: skip
        at = types.intp
        signature = types.void(a, at, at, panel, at, start, at, at, c, at, at, at)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            lda, lds, ldc, depth = args[2], args[7], args[10], args[11]

            def pointer(index: int, kind: Any = _SINGLE) -> Any:
                data = context.make_array(sig.args[index])(context, builder, args[index]).data
                return builder.gep(builder.bitcast(data, kind.as_pointer()), [args[index + 1]])

            def panel_row(at: Any, j: int) -> Any:
                where = builder.gep(panel, [builder.add(at, word(j * lanes))])
                numbers = builder.load(builder.bitcast(where, stored.as_pointer()), align=element_bytes)
                if storage == FLOAT16:
                    return builder.fpext(numbers, vector)
                if storage == BFLOAT16:  # the upper half of a float32
                    whole = ir.VectorType(_INT32, lanes)
                    sixteen = ir.Constant(whole, [16] * lanes)
                    return builder.bitcast(builder.shl(builder.zext(numbers, whole), sixteen), vector)
                return numbers

            def place(base: Any, leading: Any, i: int, j: int) -> Any:
                offset = builder.add(builder.mul(leading, word(i)), word(j * lanes))
                return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

            def multiply_add(x: Any, y: Any, z: Any) -> Any:
                if not shape.fused:
                    return builder.fadd(builder.fmul(x, y), z)
                kind = ir.FunctionType(vector, [vector] * 3)
                return builder.call(
                    cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{lanes}f32"), [x, y, z]
                )

            def spread(number: Any) -> Any:
                first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(_INT32, 0))
                everywhere = ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes)
                return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), everywhere)

            a, panel, start, c = pointer(0), pointer(3, element), pointer(5), pointer(8)
            a_rows = [builder.gep(a, [builder.mul(lda, word(i))]) for i in range(rows)]
            zero = ir.Constant(vector, [0.0] * lanes)
            entry = builder.block
            loop, done = builder.append_basic_block("depth"), builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed(">", depth, word(0)), loop, done)

            builder.position_at_end(loop)
            k = builder.phi(_WORD)
            sums = {cell: builder.phi(vector) for cell in cells}
            row_at = builder.mul(k, word(vectors * lanes))
            prefetch(builder, panel, builder.add(row_at, word(vectors * lanes * AHEAD)))
            row = [panel_row(row_at, j) for j in range(vectors)]
            following = {}
            for i in range(rows):
                number = spread(builder.load(builder.gep(a_rows[i], [k]), align=4))
                for j in range(vectors):
                    following[i, j] = multiply_add(number, row[j], sums[i, j])
            k_next = builder.add(k, word(1))
            k.add_incoming(word(0), entry)
            k.add_incoming(k_next, loop)
            for cell in cells:
                sums[cell].add_incoming(zero, entry)
                sums[cell].add_incoming(following[cell], loop)
            builder.cbranch(builder.icmp_signed("<", k_next, depth), loop, done)

            builder.position_at_end(done)
            for cell in cells:
                result = builder.phi(vector)
                result.add_incoming(zero, entry)
                result.add_incoming(following[cell], loop)
                following[cell] = result
            for cell in cells:
                begun = builder.load(place(start, lds, *cell), align=4)
                builder.store(builder.fadd(following[cell], begun), place(c, ldc, *cell), align=4)
            return context.get_dummy_value()

        return signature, codegen

    function: Callable[..., None] = tile
    return function


def make_mover(shape: Tile, added: bool) -> Callable[..., None]:
    """A function ``move(x, x_at, y, y_at)`` that sets WIDTH numbers of y to those of x, or adds them, as vectors.

    LLVM makes no vectors of a loop over so few numbers: it writes one out number by number first.
    """
    vector = ir.VectorType(_SINGLE, shape.lanes)

    @intrinsic  # type: ignore[untyped-decorator]
    def move(typingctx: Any, x: Any, x_at: Any, y: Any, y_at: Any) -> Any:
        signature = types.void(x, types.intp, y, types.intp)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            def place(index: int, j: int) -> Any:
                data = context.make_array(sig.args[index])(context, builder, args[index]).data
                offset = builder.add(args[index + 1], ir.Constant(_WORD, j * shape.lanes))
                return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())

            numbers = [builder.load(place(0, j), align=4) for j in range(shape.vectors)]
            for j, moved in enumerate(numbers):
                result = builder.fadd(builder.load(place(2, j), align=4), moved) if added else moved
                builder.store(result, place(2, j), align=4)
            return context.get_dummy_value()

        return signature, codegen

    function: Callable[..., None] = move
    return function


def make_transpose(lanes: int) -> Callable[..., None]:
    """A function that transposes a square of `lanes` rows and columns, lanes a power of two.

    ``transpose(x, x_at, ldx, y, y_at, ldy)`` sets y[y_at + j ldy + i] to x[x_at + i ldx + j]. Each round interleaves
    row i of the upper half with row i of the lower one, which turns the binary digits of an element's place in the
    square by one; when the digits of its row and its column have changed places, it is transposed.
    """
    vector = ir.VectorType(_SINGLE, lanes)
    half, rounds = lanes // 2, lanes.bit_length() - 1
    interleaved = [number for i in range(lanes) for number in (i, lanes + i)]
    sides = [ir.Constant(ir.VectorType(_INT32, lanes), side) for side in (interleaved[:lanes], interleaved[lanes:])]

    @intrinsic  # type: ignore[untyped-decorator]
    def transpose(typingctx: Any, x: Any, x_at: Any, ldx: Any, y: Any, y_at: Any, ldy: Any) -> Any:
        at = types.intp
        signature = types.void(x, at, at, y, at, at)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            def row(index: int, i: int) -> Any:
                data = context.make_array(sig.args[index])(context, builder, args[index]).data
                offset = builder.add(args[index + 1], builder.mul(args[index + 2], ir.Constant(_WORD, i)))
                return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())

            rows = [builder.load(row(0, i), align=4) for i in range(lanes)]
            for _ in range(rounds):
                rows = [builder.shuffle_vector(rows[i], rows[half + i], side) for i in range(half) for side in sides]
            for i in range(lanes):
                builder.store(rows[i], row(3, i), align=4)
            return context.get_dummy_value()

        return signature, codegen

    function: Callable[..., None] = transpose
    return function


@intrinsic  # type: ignore[untyped-decorator]
def float_of_bits(typingctx: Any, bits: Any) -> Any:
    """The float32 whose bits an int32 holds."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _SINGLE)

    return types.float32(types.int32), codegen


@intrinsic  # type: ignore[untyped-decorator]
def bits_of_float(typingctx: Any, number: Any) -> Any:
    """The bits of a float32 as an int32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _INT32)

    return types.int32(types.float32), codegen


@intrinsic  # type: ignore[untyped-decorator]
def half_of_float(typingctx: Any, number: Any) -> Any:
    """The bits of the float16 nearest to a float32 (ties to even; infinity beyond 65504), as an int16."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], _HALF), _INT16)

    return types.int16(types.float32), codegen


def _pointer_to(element: Any) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def pointer(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

        return types.CPointer(element)(types.int64), codegen

    return pointer


_floats_at, _integers_at, _bytes_at = (_pointer_to(kind) for kind in (types.float32, types.int64, types.uint8))
_shorts_at = _pointer_to(types.int16)


@inline
def floats(address: int, count: int) -> Any:
    """The flat float32 array that lies at an address. Nothing holds on to its memory but the caller."""
    return carray(_floats_at(address), (count,))


@inline
def integers(address: int, count: int) -> Any:
    """The flat int64 array that lies at an address."""
    return carray(_integers_at(address), (count,))


@inline
def shorts(address: int, count: int) -> Any:
    """The flat int16 array that lies at an address."""
    return carray(_shorts_at(address), (count,))


@inline
def flags(address: int, count: int) -> Any:
    """The flat array of bytes (0 or 1: NumPy's booleans) that lies at an address."""
    return carray(_bytes_at(address), (count,))


@intrinsic  # type: ignore[untyped-decorator]
def fetch_add(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Add to an element of an int64 array in one step that no other thread sees half of; returns what was there."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def fetch(typingctx: Any, array: Any, index: Any) -> Any:
    """An element of an int64 array as other threads left it, and with it all that they wrote before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "seq_cst", 8)

    return types.int64(array, types.intp), codegen


@intrinsic  # type: ignore[untyped-decorator]
def pause(typingctx: Any) -> Any:
    """Tell the processor that this is a loop that waits."""
    architecture = binding.get_process_triple().partition("-")[0]

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        nothing = ir.VoidType()
        if architecture in ("x86_64", "i686"):
            kind = ir.FunctionType(nothing, [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        elif architecture in ("aarch64", "arm64"):
            kind = ir.FunctionType(nothing, [_INT32])
            hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.hint")
            builder.call(hint, [ir.Constant(_INT32, 1)])  # "yield"
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic  # type: ignore[untyped-decorator]
def yield_processor(typingctx: Any) -> Any:
    """Let another thread run, where there are more of them than processors."""
    name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(_INT32, []), name), [])
        return context.get_dummy_value()

    return types.void(), codegen
