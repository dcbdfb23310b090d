"""Seeded damage to good files, for every fuzzer: to bytes, to JSON, to pickle opcodes."""

from __future__ import annotations

import json
import pickletools
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

EDGES = sorted(
    {0, 1, 2, 3, 7, 8, 9, 100_000_000}
    | {2**bits + offset for bits in (7, 8, 15, 16, 24, 31, 32, 48, 53, 62, 63, 64) for offset in (-1, 0, 1)}
)
ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 0.0, 1.5, -0.0, 1e308, 1e-320, "", "a", "0", "F32", "../x", "\x00", "\ud800",
    "é" * 300, "<mask>", [], {}, [[]], [0], {"": 0}, [1, "a", None], *EDGES, *(-edge for edge in EDGES),
]  # fmt: skip
ODD_TOKENS = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"01", b"1" * 5000, b'"\\ud800"', b"[" * 5000,
              b'{"a":' * 70, b"\xff", b"\xef\xbb\xbf", b"//", b",", b"}", b'"')  # fmt: skip

# opcodes that a checkpoint uses, that any pickle may use, and that nothing uses
_OPCODES: list[bytes] = [
    *(bytes([code]) for code in b"()]}.NRbtuesaQ0123o\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\xff"),
    *(bytes([code, index]) for code in b"hqK" for index in (0, 1, 2, 3, 255)),
    *(b"\x8a" + bytes([size]) + b"\xff" * (size - 1) + b"\x7f" for size in (1, 4, 8, 9, 255)),
    *(b"J" + struct.pack("<i", value) for value in (0, 1, -1, 2**31 - 1, -(2**31))),
    *(b"X" + struct.pack("<I", size) + b"0" * (size % 10) for size in (0, 1, 2**16, 2**32 - 1)),
    *(b"cposix\nsystem\n", b"cbuiltins\neval\n", b"ccollections\nOrderedDict\n", b"ctorch\nSize\n"),
    *(b"ctorch\nIntStorage\n", b"\x80\x02", b"\x80\x04", b"G" + bytes(8), b"G\x7f\xf8" + bytes(6), b"U\x01a"),
    *(b"M\xff\xff", b"ios\nsystem\n"),
]  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four of: flips, truncation, overwriting, removal, duplication, moving, insertion, length lies."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_BYTE_MUTATIONS)(data, rng)
    return data


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    begin = rng.randrange(len(data) + 1)
    return begin, min(len(data), begin + rng.choice((1, 2, 4, 8, 30, 46, 200)))


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] if rng.random() < 0.8 else data[place:]


def _remove(data: bytes, rng: random.Random) -> bytes:
    begin, end = _span(data, rng)
    return data[:begin] + data[end:]


def _duplicate(data: bytes, rng: random.Random) -> bytes:
    begin, end = _span(data, rng)
    return data[:end] + data[begin:end] * rng.choice((1, 1, 3)) + data[end:]


def _splice(data: bytes, rng: random.Random) -> bytes:
    """Copy one part over another."""
    begin, end = _span(data, rng)
    target = rng.randrange(len(data) + 1)
    return data[:target] + data[begin:end] + data[target + end - begin :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice((1, 2, 4, 16))) + data[place:]


def _blank(data: bytes, rng: random.Random) -> bytes:
    begin, end = _span(data, rng)
    return data[:begin] + rng.choice((b"\x00", b"\xff", b" ")) * (end - begin) + data[end:]


def _lie(data: bytes, rng: random.Random) -> bytes:
    """Put an integer that is on some edge, or near what was there, over one, two, four or eight bytes."""
    size = rng.choice((1, 2, 4, 8))
    if len(data) < size:
        return data
    place = rng.randrange(len(data) - size + 1)
    old = int.from_bytes(data[place : place + size], "little")
    new = rng.choice((rng.choice(EDGES), old + 1, old - 1, old * 2, len(data))) % 256**size
    return data[:place] + new.to_bytes(size, "little") + data[place + size :]


_BYTE_MUTATIONS = (_flip, _flip, _truncate, _remove, _duplicate, _splice, _insert, _blank, _lie, _lie)


def mutate_json(value: Any, rng: random.Random) -> bytes:
    """A JSON text whose tree or text was damaged."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _change(value, rng)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")
    kind = rng.random()
    if kind < 0.15:
        return mutate_bytes(text, rng)
    if kind < 0.25:
        place = rng.randrange(len(text) + 1)
        return text[:place] + rng.choice(ODD_TOKENS) + text[place:]
    if kind < 0.3:  # a key twice
        return text.replace(b"{", b'{"a": 0, "a": 1, ', 1)
    return text


def _change(value: Any, rng: random.Random) -> Any:
    """Change one node of the tree: descend a random path and stop somewhere."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice((rng.choice(ODD_VALUES), _near(value, rng)))
    if isinstance(value, list):
        index = rng.randrange(len(value))
        action = rng.random()
        if action < 0.15:
            return value[:index] + value[index + 1 :]
        if action < 0.3:
            return [*value[:index], value[index], *value[index:]]
        return [*value[:index], _change(value[index], rng), *value[index + 1 :]]
    key = rng.choice(list(value))
    action = rng.random()
    if action < 0.15:
        return {name: item for name, item in value.items() if name != key}
    if action < 0.3:
        new = rng.choice((key + "x", "", rng.choice(list(value)), "../" + key, "__metadata__", "a.py", "\ud800"))
        return {(new if name == key else name): item for name, item in value.items()}
    return {name: _change(item, rng) if name == key else item for name, item in value.items()}


def _near(value: Any, rng: random.Random) -> Any:
    """A value of the same type that may just be allowed, or just not."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, value - 1, -value, value * 2, float(value), str(value)))
    if isinstance(value, str):
        return rng.choice((value + " ", value.upper(), value[1:], value * 2, "../" + value, value + "\x00"))
    return [value] if value is not None else {}


def mutate_opcodes(pickle: bytes, rng: random.Random) -> bytes:
    """A pickle with opcodes removed, repeated, replaced, swapped, inserted or with another argument."""
    places = [place for _, _, place in pickletools.genops(pickle) if place is not None]
    parts = [pickle[begin:end] for begin, end in zip(places, [*places[1:], len(pickle)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        index = rng.randrange(len(parts))
        rng.choice(_OPCODE_MUTATIONS)(parts, index, rng)
        if not parts:
            break
    return b"".join(parts)


def _take_over(parts: list[bytes], index: int, rng: random.Random) -> None:
    """The opcode of this place with an argument from another place or from nowhere."""
    other = rng.choice(parts)
    parts[index] = parts[index][:1] + rng.choice((other[1:], mutate_bytes(parts[index][1:], rng)))


def _swap(parts: list[bytes], index: int, rng: random.Random) -> None:
    other = rng.randrange(len(parts))
    parts[index], parts[other] = parts[other], parts[index]


def _replace(parts: list[bytes], index: int, rng: random.Random) -> None:
    parts[index] = rng.choice((rng.choice(_OPCODES), rng.choice(parts)))


def _insert_one(parts: list[bytes], index: int, rng: random.Random) -> None:
    parts.insert(index, rng.choice((rng.choice(_OPCODES), rng.choice(parts))))


def _repeat(parts: list[bytes], index: int, rng: random.Random) -> None:
    length = rng.choice((1, 2, 20))
    parts[index:index] = parts[index : index + length] * rng.choice((1, 2, 100))


def _remove_some(parts: list[bytes], index: int, rng: random.Random) -> None:
    del parts[index : index + rng.choice((1, 1, 2, 20))]


_OPCODE_MUTATIONS: Sequence[Callable[[list[bytes], int, random.Random], None]] = (
    _take_over,
    _take_over,
    _swap,
    _replace,
    _replace,
    _insert_one,
    _repeat,
    _remove_some,
)
