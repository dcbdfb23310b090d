"""Weights in fewer bits: packing them, rounding activations to go with whole numbers, and the tiles that read them.

float16 and bfloat16 weights are widened as a tile loads them, and are exact from there on. Twelve bits: each output
channel of a weight and each row of activations is divided by its largest magnitude and rounded to whole numbers from
-2047 to 2047; their products are exact, and are scaled back in float32 once for each block of 512.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .compiling import inline, part, shared
from .cpu import TILE, WIDTH
from .integer_tile import LARGEST, make_integer_tile
from .primitives import bits_of_float, float_of_bits, half_of_float, make_tile
from .storage import BFLOAT16, FLOAT16, FLOAT32, INT12, supported

_LARGEST = np.float32(LARGEST)
_MAGIC = np.float32(1.5 * 2.0**23)  # adding it rounds to a whole number, which then lies in the lowest bits
_MAGIC_BITS = np.int32(0x4B400000)
_SIGN_OFF, _INFINITY = np.int32(0x7FFFFFFF), np.int32(0x7F800000)
_TINY = np.float32(1e-30).view(np.int32)  # below it all is zero: 2047 / x has to stay finite


@shared
def pairs_of(depth: int) -> int:
    """How many pairs hold a row of that many numbers, filled up with zeros."""
    return (depth + 1) // 2


@shared
def stored_size(storage: int, panels: int, depth: int) -> int:
    """Room for that many packed panels, in numbers of four bytes; scales of columns come last."""
    if storage == INT12:
        return panels * (pairs_of(depth) + 1) * WIDTH
    if storage != FLOAT32:
        return panels * depth * WIDTH // 2
    return panels * depth * WIDTH


@shared
def room_size(rows: int, depth: int) -> int:
    """Room for that many rows of whole numbers and their scales, in numbers of four bytes."""
    return rows * (pairs_of(depth) + 1)


@inline
def bfloat16_of_float(x: Any) -> Any:
    """The bits of the bfloat16 nearest to a float32 (ties to even; NaN stays), as an int16."""
    bits = bits_of_float(x)
    nearest = (bits + np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))) >> np.int32(16)
    quiet = (bits >> np.int32(16)) | np.int32(0x40)
    return np.int16(quiet if (bits & _SIGN_OFF) > _INFINITY else nearest)


@inline
def _whole(x: Any, inverse: Any) -> Any:
    return np.int16(bits_of_float(x * inverse + _MAGIC) - _MAGIC_BITS)


@part
def _largest_bits(x: Any, at: int, count: int) -> Any:
    """Bits of the largest magnitude of x[at : at + count]: as integers, in whose order NaN is above infinity."""
    highest = np.int32(0)
    for i in range(at, at + count):
        highest = max(highest, bits_of_float(x[i]) & _SIGN_OFF)
    return highest


@inline
def _scales(highest: Any) -> Any:
    """What whole numbers are multiplied with, and what makes numbers whole; NaN and 0 for a row that is not finite.

    So such a row comes out as NaN altogether: whole numbers have no infinity, and 0 times NaN is NaN.
    """
    if highest >= _INFINITY:
        return np.float32(np.nan), np.float32(0.0)
    largest = float_of_bits(max(highest, _TINY))
    return largest / _LARGEST, _LARGEST / largest


@part
def quantize_row(x: Any, at: int, count: int, whole: Any, to: int) -> Any:
    """Round x[at : at + count] into whole[to : ...]; returns the scale.

    Whatever fills up the last pair of an odd count meets a zero of the packed weight.
    """
    scale, inverse = _scales(_largest_bits(x, at, count))
    if inverse == np.float32(0.0):
        for i in range(count):
            whole[to + i] = np.int16(0)
    else:
        for i in range(count):
            whole[to + i] = _whole(x[at + i], inverse)
    return scale


@part
def pack_integer_panel(weight: Any, rows: int, depth: int, panel: int, whole: Any, scales: Any) -> None:
    """A panel of pairs, (pairs, WIDTH, 2), and the scales of its columns; see `gemm.pack_panels`."""
    first, pairs = panel * WIDTH, pairs_of(depth)
    width = min(WIDTH, rows - first)
    begin = panel * pairs * WIDTH * 2
    for i in range(begin, begin + pairs * WIDTH * 2):
        whole[i] = np.int16(0)
    for j in range(WIDTH):
        scales[first + j] = np.float32(0.0)
    for j in range(width):
        at = (first + j) * depth
        scale, inverse = _scales(_largest_bits(weight, at, depth))
        scales[first + j] = scale
        if inverse != np.float32(0.0):
            for k in range(depth):
                whole[begin + (k // 2 * WIDTH + j) * 2 + k % 2] = _whole(weight[at + k], inverse)


def _make_packing(convert: Callable[[Any], Any]) -> Callable[..., None]:
    @part
    def pack_short_panel(weight: Any, rows: int, depth: int, panel: int, stored: Any) -> None:
        first = panel * WIDTH
        width = min(WIDTH, rows - first)
        for k in range(depth):
            at = (panel * depth + k) * WIDTH
            for j in range(width):
                stored[at + j] = convert(weight[(first + j) * depth + k])
            for j in range(width, WIDTH):
                stored[at + j] = np.int16(0)

    packing: Callable[..., None] = pack_short_panel
    return packing


pack_bfloat16_panel = _make_packing(bfloat16_of_float)
# where there is no instruction for it, nothing asks for it, and LLVM must not be asked either
pack_float16_panel = _make_packing(half_of_float) if "float16" in supported() else pack_bfloat16_panel


def _by_rows(make: Callable[[int], Callable[..., None]]) -> Callable[..., None]:
    """``tile(rows, ...)``: the tile of as many rows as there are."""
    tiles = [make(min(rows, TILE.rows)) for rows in range(1, 13)]
    tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8, tile_9, tile_10, tile_11, tile_12 = tiles

    @part
    def tile(rows: int, *arguments: Any) -> None:
        if rows == 12:
            tile_12(*arguments)
        elif rows == 11:
            tile_11(*arguments)
        elif rows == 10:
            tile_10(*arguments)
        elif rows == 9:
            tile_9(*arguments)
        elif rows == 8:
            tile_8(*arguments)
        elif rows == 7:
            tile_7(*arguments)
        elif rows == 6:
            tile_6(*arguments)
        elif rows == 5:
            tile_5(*arguments)
        elif rows == 4:
            tile_4(*arguments)
        elif rows == 3:
            tile_3(*arguments)
        elif rows == 2:
            tile_2(*arguments)
        else:
            tile_1(*arguments)

    function: Callable[..., None] = tile
    return function


@part
def _no_tile(rows: int, *arguments: Any) -> None:
    """What this processor lacks the instruction for; nothing calls it."""


bfloat16_tile = _by_rows(lambda rows: make_tile(TILE, rows, BFLOAT16))
float16_tile = _by_rows(lambda rows: make_tile(TILE, rows, FLOAT16)) if "float16" in supported() else _no_tile
integer_tile = _by_rows(lambda rows: make_integer_tile(TILE, rows)) if "int12" in supported() else _no_tile
