"""Matrix products over packed weights: a (rows, depth) @ panels (depth, columns), with what follows fused in."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import vector_math as vm
from .compiling import ZERO, codes, part, shared
from .cpu import BLOCK_DEPTH, BLOCK_ROWS, TILE, WIDTH
from .integer_tile import LONGEST
from .primitives import make_mover, make_tile
from .reduced import bfloat16_tile, float16_tile, integer_tile
from .storage import FLOAT16, FLOAT32, INT12

# What is done to a tile while it still lies in the first-level cache.
NOTHING, GELU, GELU_TANH, QUICK_GELU, RELU, SILU, TANH, ADD = codes(8)

# a configuration's `hidden_act` -> what `linear` calls it
ACTIVATION_CODES = {
    "gelu": GELU,
    "gelu_new": GELU_TANH,
    "gelu_pytorch_tanh": GELU_TANH,
    "quick_gelu": QUICK_GELU,
    "relu": RELU,
    "silu": SILU,
    "swish": SILU,
    "tanh": TANH,
}

ROWS = TILE.rows
# Rows that lie a multiple of 4 KiB apart (so many numbers) compete for the same 8 or so places of a first-level cache;
# where there are more than half as many, they are copied closer together first.
_PAGE, _FEW_ROWS = 1024, 4
# What `linear_block` needs: a panel's column of the result, and a block of the left matrix.
STRIP = BLOCK_ROWS * (WIDTH + BLOCK_DEPTH + WIDTH)
_tile_1 = make_tile(TILE, min(1, ROWS))
_tile_2 = make_tile(TILE, min(2, ROWS))
_tile_3 = make_tile(TILE, min(3, ROWS))
_tile_4 = make_tile(TILE, min(4, ROWS))
_tile_5 = make_tile(TILE, min(5, ROWS))
_tile_6 = make_tile(TILE, min(6, ROWS))
_tile_7 = make_tile(TILE, min(7, ROWS))
_tile_8 = make_tile(TILE, min(8, ROWS))
_tile_9 = make_tile(TILE, min(9, ROWS))
_tile_10 = make_tile(TILE, min(10, ROWS))
_tile_11 = make_tile(TILE, min(11, ROWS))
_tile_12 = make_tile(TILE, min(12, ROWS))


@shared
def panels_of(columns: int) -> int:
    """How many panels hold that many columns."""
    return -(-columns // WIDTH)


@shared
def tiles_of(rows: int) -> int:
    """How many tiles share so many rows, as evenly as they can: a low one uses the processor badly."""
    return (rows + ROWS - 1) // ROWS


@part
def tile(
    a: Any, a_at: int, lda: int, panel: Any, panel_at: int, start: Any, start_at: int, lds: int,
    c: Any, c_at: int, ldc: int, depth: int, rows: int,
) -> None:  # fmt: skip
    """`primitives.make_tile` for 1 to `ROWS` rows."""
    if rows == 12:
        _tile_12(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth)
    elif rows == 11:
        _tile_11(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth)
    elif rows == 10:
        _tile_10(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth)
    elif rows == 9:
        _tile_9(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth)
    elif rows == 8:
        _tile_8(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth)
    elif rows == 7:
        _tile_7(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth)
    elif rows == 6:
        _tile_6(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth)
    elif rows == 5:
        _tile_5(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth)
    elif rows == 4:
        _tile_4(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth)
    elif rows == 3:
        _tile_3(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth)
    elif rows == 2:
        _tile_2(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth)
    else:
        _tile_1(a, a_at, lda, panel, panel_at, start, start_at, lds, c, c_at, ldc, depth)


@part
def activate(what: int, x: Any, count: int) -> None:
    """An activation of the first `count` numbers of x, in place: one long loop each, which LLVM vectorises."""
    if what == GELU:
        for i in range(count):
            x[i] = vm.gelu(x[i])
    elif what == GELU_TANH:
        for i in range(count):
            x[i] = vm.gelu_tanh(x[i])
    elif what == QUICK_GELU:
        for i in range(count):
            x[i] = vm.quick_gelu(x[i])
    elif what == RELU:
        for i in range(count):
            x[i] = vm.relu(x[i])
    elif what == SILU:
        for i in range(count):
            x[i] = vm.silu(x[i])
    elif what == TANH:
        for i in range(count):
            x[i] = vm.tanh(x[i])


copy_vector, add_vector = make_mover(TILE, False), make_mover(TILE, True)


@part
def add_rows(out: Any, out_at: int, ldo: int, c: Any, c_at: int, ldc: int, rows: int, width: int) -> None:
    """A tile of out += one of c."""
    if width == WIDTH:
        for i in range(rows):
            add_vector(c, c_at + i * ldc, out, out_at + i * ldo)
    else:
        for i in range(rows):
            to, at = out_at + i * ldo, c_at + i * ldc
            for j in range(width):
                out[to + j] += c[at + j]


@part
def copy_rows(out: Any, out_at: int, ldo: int, c: Any, c_at: int, ldc: int, rows: int, width: int) -> None:
    """A tile of out = one of c."""
    if width == WIDTH:
        for i in range(rows):
            copy_vector(c, c_at + i * ldc, out, out_at + i * ldo)
    else:
        for i in range(rows):
            to, at = out_at + i * ldo, c_at + i * ldc
            for j in range(width):
                out[to + j] = c[at + j]


@part
def _move_closer(a: Any, a_at: int, lda: int, block: Any, ldb: int, rows: int, size: int) -> None:
    """A block (rows, size) = one of a."""
    for i in range(rows):
        row, to = a[a_at + i * lda : a_at + i * lda + size], block[i * ldb : i * ldb + size]
        for k in range(size):
            to[k] = row[k]


@part
def linear_block(
    a: Any, lda: int, first_row: int, last_row: int, panels: Any, depth: int, bias: Any,
    first_panel: int, last_panel: int, columns: int, c: Any, ldc: int,
    what: int, out: Any, ldo: int, strip: Any, storage: int, row_scales: int, column_scales: int,
) -> None:  # fmt: skip
    """Rows [first_row, last_row) and panels [first_panel, last_panel) of c = a @ panels + bias, then `what`.

    All arrays are flat. a (rows, depth) has rows `lda` apart; panels is (panels, depth, WIDTH); bias fills whole
    panels; c and out (rows, columns) have rows `ldc` and `ldo` apart; where `what` is `ADD`, c is added to out.
    `strip` is room (`STRIP`) for one panel's column of c, (last_row - first_row, WIDTH), and for a block of a.
    The memory of the panels is as `storage` says. For `INT12` that of a is whole numbers too, `lda` and depth
    count pairs, and scales of rows and columns begin at a[row_scales] and panels[column_scales].

    Each number is the sum over blocks of `BLOCK_DEPTH` (of `LONGEST` products for `INT12`), in order, of sums in
    order of depth: the same whatever the rows and panels that are computed together.
    """
    activated = what != NOTHING and what != ADD
    block_depth = LONGEST // 2 if storage == INT12 else BLOCK_DEPTH
    height, blocks, count = last_row - first_row, (depth + block_depth - 1) // block_depth, last_panel - first_panel
    # A panel's blocks one after the other, as they lie in memory; or all panels for each block of a, where the rows of
    # a would not stay in a cache.
    in_order = height * depth <= BLOCK_ROWS * BLOCK_DEPTH
    crowded = lda % _PAGE == 0 and height > _FEW_ROWS and storage != INT12
    block, ldb = a, lda
    if crowded:
        block, ldb = strip[BLOCK_ROWS * WIDTH :], (depth if in_order else block_depth) + WIDTH
    for step in range(blocks * count):
        begin = block_depth * (step % blocks if in_order else step // count)
        panel = first_panel + (step // blocks if in_order else step % count)
        size = min(block_depth, depth - begin)
        last = begin + size == depth
        block_at = first_row * lda + begin  # where the first row's part of this block lies
        if crowded and in_order:
            if step == 0:
                _move_closer(a, first_row * lda, lda, block, ldb, height, depth)
            block_at = begin
        elif crowded:
            if panel == first_panel:
                _move_closer(a, block_at, lda, block, ldb, height, size)
            block_at = ZERO
        panel_at = (panel * depth + begin) * WIDTH
        column = panel * WIDTH
        width = min(WIDTH, columns - column)
        at = first_row * ldc + column
        # a strip of its own for what is wider than the rest of c, and for what goes through a long loop
        apart = width < WIDTH or (last and activated)
        to, to_at, ldt = (strip, ZERO, np.int64(WIDTH)) if apart else (c, at, ldc)
        if apart and begin > 0:
            copy_rows(strip, ZERO, np.int64(WIDTH), c, at, ldc, height, width)
        start, start_at, lds = (bias, column, ZERO) if begin == 0 else (to, to_at, ldt)
        tiles = tiles_of(height)
        for index in range(tiles):
            down = height * index // tiles
            rows = height * (index + 1) // tiles - down
            row = first_row + down
            if storage == FLOAT32:
                tile(
                    block, block_at + down * ldb, ldb, panels, panel_at, start, start_at + down * lds, lds,
                    to, to_at + down * ldt, ldt, size, rows,
                )  # fmt: skip
            elif storage == INT12:
                integer_tile(
                    rows, a, row * lda + begin, lda, panels, panel_at, start, start_at + down * lds, lds,
                    to, to_at + down * ldt, ldt, size, a, row_scales + row, panels, column_scales + column,
                )  # fmt: skip
            elif storage == FLOAT16:
                float16_tile(
                    rows, block, block_at + down * ldb, ldb, panels, panel_at, start, start_at + down * lds, lds,
                    to, to_at + down * ldt, ldt, size,
                )  # fmt: skip
            else:
                bfloat16_tile(
                    rows, block, block_at + down * ldb, ldb, panels, panel_at, start, start_at + down * lds, lds,
                    to, to_at + down * ldt, ldt, size,
                )  # fmt: skip
            if last and what == ADD and not apart:
                add_rows(out, row * ldo + column, ldo, c, row * ldc + column, ldc, rows, width)
        if last and activated:
            activate(what, strip, height * WIDTH)
        if apart:
            copy_rows(c, at, ldc, strip, ZERO, np.int64(WIDTH), height, width)
            if last and what == ADD:
                add_rows(out, first_row * ldo + column, ldo, c, at, ldc, height, width)


@part
def pack_panels(weight: Any, rows: int, depth: int, first_panel: int, last_panel: int, panels: Any) -> None:
    """Panels of a weight (rows, depth), as checkpoints hold it: panel p holds its rows 16 p ... transposed."""
    for panel in range(first_panel, last_panel):
        first = panel * WIDTH
        width = min(WIDTH, rows - first)
        for k in range(depth):
            at = (panel * depth + k) * WIDTH
            for j in range(width):
                panels[at + j] = weight[(first + j) * depth + k]
            for j in range(width, WIDTH):
                panels[at + j] = np.float32(0.0)
