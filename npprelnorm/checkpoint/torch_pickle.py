"""The pickle inside a torch checkpoint, read by an interpreter that can only make numbers, names and containers.

A pickle is a program for a small stack machine, and the general machine may import and call anything. This one
knows the thirty-odd opcodes that `torch.save` writes for a state dict. Its values are inert: Python scalars,
strings, tuples, lists and dicts, and the records of `torch_records`. The names that a pickle may mention are a short
list; to mention another one, or to use another opcode, is an error, and none is ever imported or called: "calling"
one of the listed names picks a function of ours, which checks its arguments and fills in a record.

See Python's `pickletools` for the opcodes and `torch/_utils.py` for what the names mean.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from .torch_records import (
    DEFAULT_LIMITS,
    Damaged,
    Global,
    Limits,
    OrderedState,
    TorchRecords,
    Unsafe,
    explaining,
    kind,
    short,
)

# what the others are called, for the error message only
_REFUSED_OPCODES = {
    b"0": "POP", b"1": "POP_MARK", b"2": "DUP", b"I": "INT", b"F": "FLOAT", b"L": "LONG", b"S": "STRING",
    b"T": "BINSTRING", b"V": "UNICODE", b"B": "BINBYTES", b"C": "SHORT_BINBYTES", b"P": "PERSID", b"g": "GET",
    b"p": "PUT", b"d": "DICT", b"l": "LIST", b"i": "INST", b"o": "OBJ", b"\x81": "NEWOBJ", b"\x82": "EXT1",
    b"\x83": "EXT2", b"\x84": "EXT4", b"\x8b": "LONG4", b"\x8c": "SHORT_BINUNICODE", b"\x8d": "BINUNICODE8",
    b"\x8e": "BINBYTES8", b"\x8f": "EMPTY_SET", b"\x90": "ADDITEMS", b"\x91": "FROZENSET", b"\x92": "NEWOBJ_EX",
    b"\x93": "STACK_GLOBAL", b"\x94": "MEMOIZE", b"\x95": "FRAME", b"\x96": "BYTEARRAY8", b"\x97": "NEXT_BUFFER",
    b"\x98": "READONLY_BUFFER",
}  # fmt: skip


def read_pickle(data: bytes, source: str, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Interpret `data` and return its one value, inert.

    Parameters
    ----------
    data : bytes
        A whole pickle of protocol 2, as in the record ``data.pkl``.
    source : str
        What to call it in errors.
    limits : Limits
        Bounds on what it may ask for.

    Raises
    ------
    UnsafeCheckpointError
        It uses an opcode or a name that no state dict needs, reads outside its storages, or exceeds a limit.
    CheckpointFormatError
        It is damaged, or holds a kind of tensor that cannot be read.
    """
    machine = _Machine(data, limits)
    with explaining(source, lambda: f"in data.pkl at byte {machine.offset}, "):
        return machine.run()


class _Machine:
    """The stack machine; one method an opcode."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self.offset = 0  # of the current opcode, for messages
        self._data = data
        self._limits = limits
        self._position = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []  # heights of the stack at each open MARK
        self._memo: dict[int, Any] = {}
        self._records = TorchRecords(limits)

    def run(self) -> Any:
        if len(self._data) > self._limits.pickle_bytes:
            raise Unsafe(f"it is {len(self._data)} bytes long, more than the {self._limits.pickle_bytes} allowed")
        if self._data[:1] != b"\x80":
            raise Damaged(f"it starts with {self._data[:1]!r}, not with a protocol number")
        for _ in range(self._limits.opcodes):
            self.offset = self._position
            code = self._take(1)
            if code == b".":
                return self._stop()
            handler = _HANDLERS.get(code)
            if handler is None:
                name = _REFUSED_OPCODES.get(code, "unknown")
                raise Unsafe(f"it uses the opcode {code[0]:#04x} ({name}), which no state dict needs")
            handler(self)
            if len(self._stack) > self._limits.stack:
                raise Unsafe(f"it piles up more than {self._limits.stack} values")
        raise Unsafe(f"it takes more than {self._limits.opcodes} steps")

    # bytes and stack

    def _take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise Damaged(f"it ends in the middle of an opcode ({len(self._data)} bytes)")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def _line(self) -> str:
        end = self._data.find(b"\n", self._position, self._position + 256)
        if end < 0:
            raise Damaged("a name has no end within 256 bytes")
        line = self._data[self._position : end]
        self._position = end + 1
        if not line.isascii():
            raise Unsafe(f"a name is not ASCII: {short(line.decode('latin-1'))}")
        return line.decode("ascii")

    def _floor(self) -> int:
        return self._marks[-1] if self._marks else 0

    def _top(self) -> Any:
        if len(self._stack) <= self._floor():
            raise Damaged("a value is wanted and none is there")
        return self._stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise Damaged("a MARK is wanted and none is there")
        height = self._marks.pop()
        items = self._stack[height:]
        del self._stack[height:]
        return items

    # opcodes

    def _protocol(self) -> None:
        version = self._take(1)[0]
        if self.offset != 0:
            raise Unsafe("a second pickle begins")
        if version != 2:
            raise Damaged(f"it declares pickle protocol {version}, where torch.save writes 2 unless told otherwise")

    def _stop(self) -> Any:
        value = self._pop()
        if self._stack or self._marks:
            raise Damaged("it stops with values left over")
        if self._position != len(self._data):
            raise Unsafe(f"{len(self._data) - self._position} bytes follow its end")
        return value

    def _global(self) -> None:
        self._stack.append(self._records.name(Global(self._line(), self._line())))

    def _mark(self) -> None:
        if len(self._marks) >= self._limits.depth:
            raise Unsafe(f"it nests deeper than {self._limits.depth} levels")
        self._marks.append(len(self._stack))

    def _tuple(self, count: int) -> None:
        if len(self._stack) - self._floor() < count:
            raise Damaged(f"a tuple of {count} is wanted from fewer values")
        height = len(self._stack) - count
        self._stack[height:] = [tuple(self._stack[height:])]

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise Unsafe(f"it appends to a {kind(target)}")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict and type(target) is not OrderedState:
            raise Unsafe(f"it sets items of a {kind(target)}")
        if len(items) % 2:
            raise Damaged("a key has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # nothing else needs to be a key, and hashing a tuple of tuples of tuples overflows the C stack
            if type(key) is not str and type(key) is not int:
                raise Damaged(f"a dict has {short(key)} as a key")
            if key in target:
                raise Damaged(f"the key {short(key)} is set twice")
            target[key] = value

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def _text(self, count: int) -> None:
        if count > self._limits.text:
            raise Unsafe(f"a string of {count} bytes is longer than the {self._limits.text} allowed")
        try:
            self._stack.append(self._take(count).decode("utf-8"))
        except UnicodeDecodeError:
            raise Damaged("a string is not UTF-8") from None

    def _long(self) -> None:
        count = self._take(1)[0]
        if count > 8:
            raise Unsafe(f"an integer of {count} bytes is longer than any size or offset (8 bytes)")
        self._stack.append(int.from_bytes(self._take(count), "little", signed=True))

    def _put(self, index: int) -> None:
        self._memo[index] = self._top()
        if len(self._memo) > self._limits.memo:
            raise Unsafe(f"it memorises more than {self._limits.memo} values")

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise Damaged(f"it recalls value {index}, which it never memorised")
        self._stack.append(self._memo[index])

    def _build(self) -> None:
        """Attributes of an OrderedDict: torch keeps `_metadata` (module versions) there, which nothing here needs."""
        state, target = self._pop(), self._top()
        if type(target) is not OrderedState or type(state) is not dict:
            raise Unsafe(f"it sets attributes of a {kind(target)} from a {kind(state)}")

    def _persistent(self) -> None:
        self._stack.append(self._records.storage(self._pop()))

    def _reduce(self) -> None:
        arguments, name = self._pop(), self._pop()
        self._stack.append(self._records.call(name, arguments))


_unpack_int = struct.Struct("<i").unpack
_unpack_uint = struct.Struct("<I").unpack
_unpack_float = struct.Struct(">d").unpack

_HANDLERS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine._protocol,
    b"c": _Machine._global,
    b"R": _Machine._reduce,
    b"b": _Machine._build,
    b"Q": _Machine._persistent,
    b"(": _Machine._mark,
    b"t": lambda m: m._stack.append(tuple(m._pop_to_mark())),
    b")": lambda m: m._stack.append(()),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"]": lambda m: m._stack.append([]),
    b"a": lambda m: m._append([m._pop()]),
    b"e": lambda m: m._append(m._pop_to_mark()),
    b"}": lambda m: m._stack.append({}),
    b"s": _Machine._set_item,
    b"u": lambda m: m._set(m._pop_to_mark()),
    b"N": lambda m: m._stack.append(None),
    b"\x88": lambda m: m._stack.append(True),
    b"\x89": lambda m: m._stack.append(False),
    b"K": lambda m: m._stack.append(m._take(1)[0]),
    b"M": lambda m: m._stack.append(int.from_bytes(m._take(2), "little")),
    b"J": lambda m: m._stack.append(_unpack_int(m._take(4))[0]),
    b"\x8a": _Machine._long,
    b"G": lambda m: m._stack.append(_unpack_float(m._take(8))[0]),
    b"X": lambda m: m._text(_unpack_uint(m._take(4))[0]),
    b"U": lambda m: m._text(m._take(1)[0]),
    b"q": lambda m: m._put(m._take(1)[0]),
    b"r": lambda m: m._put(_unpack_uint(m._take(4))[0]),
    b"h": lambda m: m._get(m._take(1)[0]),
    b"j": lambda m: m._get(_unpack_uint(m._take(4))[0]),
}
