"""Packed weights: made once for each parameter, when it is first used, and kept as long as the parameter itself.

A parameter that was mapped from a file is read-only, and what was packed of it holds as long as it stays so; the pages
that packing has read are given back to the system, so that a loaded model lies in memory once. A writeable array may
be changed in place between two calls, by an optimizer or by its owner: a checksum over all its bytes is compared
before each use (at the speed of reading it), and it is packed again when that differs. Both copies stay, since both
are needed.

Nothing is kept on disk. Packing a base model took 0.2 to 1.4 s of a process in three tries, once; a packed file would
save most of that, and cost a second copy of every model, for each shape of tile.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from .compiling import entry
from .cpu import WIDTH
from .gemm import pack_panels, panels_of
from .primitives import bits_of_float, floats, integers, shorts
from .reduced import pack_bfloat16_panel, pack_float16_panel, pack_integer_panel, pairs_of, stored_size
from .storage import BFLOAT16, FLOAT16, FLOAT32, INT12
from .team import counters, hand_in, spread, stages_at, take, wait

_ALIGNMENT = 64  # bytes, a cache line
_LINE = _ALIGNMENT // 4  # numbers on it
_LARGE = 1 << 23  # numbers: 32 MiB


def address(array: np.ndarray) -> int:
    """Where an array's first number lies."""
    place: int = array.__array_interface__["data"][0]
    return place


def aligned(count: int) -> np.ndarray:
    """An uninitialised float32 array that begins on a cache line."""
    room = np.empty(count + _LINE, np.float32)
    return room[-address(room) % _ALIGNMENT // 4 :][:count]


class _Storeroom:
    """Memory for packed weights, taken piece by piece from large arrays.

    For those NumPy asks the system for pages of 2 MiB, where it has them, which read a fourth faster than small ones.
    An array lives as long as the last of its pieces; what is never taken of it is never filled with pages.
    """

    def __init__(self) -> None:
        self._free, self._lock = np.empty(0, np.float32), threading.Lock()

    def take(self, count: int) -> np.ndarray:
        """An uninitialised float32 array that begins on a cache line."""
        whole = -(-count // _LINE) * _LINE
        if whole > _LARGE // 2:
            return aligned(count)
        with self._lock:
            if self._free.size < whole:
                self._free = aligned(_LARGE)
            piece, self._free = self._free[:count], self._free[whole:]
        return piece


_storeroom = _Storeroom()


def is_constant(array: np.ndarray) -> bool:
    """Whether the array is locked: read-only, and so is all that it is a view of."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return False
        base = base.base
    return base is None or memoryview(base).readonly


def release(array: np.ndarray) -> None:
    """Give the mapped pages of an array back to the system, which reads them again should anybody ask."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        offset = address(array) - np.frombuffer(base, np.uint8, 1).__array_interface__["data"][0]
        begin = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (offset + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - begin
        if length > 0:
            base.madvise(mmap.MADV_DONTNEED, begin, length)


@entry
def run_pack(weight_at: int, rows: int, depth: int, storage: int, panels_at: int, counters_at: int) -> None:
    """Pack a weight by panels, each a task."""
    panels = panels_of(rows)
    size = stored_size(storage, panels, depth)
    weight, packed, halves = floats(weight_at, rows * depth), floats(panels_at, size), shorts(panels_at, 2 * size)
    scales = packed[panels * pairs_of(depth) * WIDTH :] if storage == INT12 else packed
    stages = stages_at(counters_at, 1)
    panel = take(stages, 0)
    while panel < panels:
        if storage == FLOAT32:
            pack_panels(weight, rows, depth, panel, panel + 1, packed)
        elif storage == FLOAT16:
            pack_float16_panel(weight, rows, depth, panel, halves)
        elif storage == BFLOAT16:
            pack_bfloat16_panel(weight, rows, depth, panel, halves)
        else:
            pack_integer_panel(weight, rows, depth, panel, halves, scales)
        hand_in(stages, 0)
        panel = take(stages, 0)
    wait(stages, 0, panels)


@entry
def run_checksum(words_at: int, count: int, piece: int, sums_at: int, counters_at: int) -> None:
    """Sums of pieces of an array of 32-bit words, in which each word counts by its place: swapped ones show as well."""
    pieces = -(-count // piece)
    words, sums = floats(words_at, count), integers(sums_at, pieces)
    stages = stages_at(counters_at, 1)
    task = take(stages, 0)
    while task < pieces:
        total = np.int64(0)
        for i in range(task * piece, min(count, (task + 1) * piece)):
            total += np.int64(bits_of_float(words[i])) * np.int64(np.int32(2 * i + 1))
        sums[task] = total
        hand_in(stages, 0)
        task = take(stages, 0)
    wait(stages, 0, pieces)


_PIECE = 1 << 18  # numbers that one task of a checksum reads: 1 MiB


def pack(weight: np.ndarray, threads: int = 1, storage: int = FLOAT32) -> np.ndarray:
    """A weight (rows, depth) as panels, flat (panels * depth * WIDTH), the last one filled up with zeros.

    In another storage than `FLOAT32` the array is memory of that (`reduced.stored_size`), whatever its type says.

    Raises
    ------
    InputError
        If the storage is `FLOAT16` and a number is beyond what that can hold.
    """
    plain = np.require(weight, np.float32, ("C", "A"))
    rows, depth = plain.shape
    panels = _storeroom.take(stored_size(storage, panels_of(rows), depth))
    shared = counters(1)
    arguments = (address(plain), rows, depth, storage, address(panels), address(shared))
    spread(lambda thread: run_pack(*arguments), plain.size, threads)
    if storage == FLOAT16 and np.isinf(panels.view(np.float16)).any():
        largest = np.abs(plain[np.isfinite(plain)]).max(initial=0.0)
        if largest >= 65520.0:  # what rounds to infinity
            raise InputError(
                f"a weight holds a number of magnitude {largest:.6g}, and float16 ends at 65504; use weight_dtype "
                "'bfloat16' or 'int12'"
            )
    return panels


def sums_of(array: np.ndarray, threads: int = 1) -> bytes:
    """What changes when any number of a float32 array does."""
    plain = np.require(array, np.float32, ("C", "A"))
    sums, shared = np.zeros(-(-plain.size // _PIECE), np.int64), counters(1)
    arguments = (address(plain), plain.size, _PIECE, address(sums), address(shared))
    spread(lambda thread: run_checksum(*arguments), plain.size, threads)
    return sums.tobytes()


def filled_up(vector: np.ndarray) -> np.ndarray:
    """A bias with zeros up to whole panels."""
    result = np.zeros(panels_of(vector.size) * WIDTH, np.float32)
    result[: vector.size] = vector
    return result


class _Entry(NamedTuple):
    parameter: weakref.ref[np.ndarray]
    packed: np.ndarray
    sums: bytes | None  # None: the parameter cannot change


_entries: dict[tuple[int, int], _Entry] = {}  # by the identity of the parameter, and the storage
_lock = threading.Lock()


def packed(weight: np.ndarray, threads: int = 1, storage: int = FLOAT32) -> np.ndarray:
    """The panels of a parameter (rows, depth), or of a bias (rows,); packed if that was not done or it has changed."""
    key = (id(weight), storage)
    entry = _entries.get(key)
    if entry is not None and entry.parameter() is weight and entry.sums is None and not weight.flags.writeable:
        return entry.packed
    with _lock:
        sums = None if is_constant(weight) else sums_of(weight, threads)
        entry = _entries.get(key)
        if entry is not None and entry.parameter() is weight and entry.sums == sums:
            return entry.packed
        panels = filled_up(weight) if weight.ndim == 1 else pack(weight, threads, storage)
        if sums is None:
            release(weight)

        def forget(dead: weakref.ref[np.ndarray], key: tuple[int, int] = key) -> None:
            kept = _entries.get(key)
            if kept is not None and kept.parameter is dead:
                del _entries[key]

        _entries[key] = _Entry(weakref.ref(weight, forget), panels, sums)
        return panels


def packed_bytes() -> int:
    """Memory of all packed weights."""
    return sum(entry.packed.nbytes for entry in list(_entries.values()))
