"""torch checkpoints made by hand, opcode by opcode and field by field, so that each can also be made wrong."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "int16": "ShortStorage",
    "int32": "IntStorage",
    "int64": "LongStorage",
    "complex64": "ComplexFloatStorage",
    "complex128": "ComplexDoubleStorage",
}

# pieces of a pickle, as torch's pickler writes them (memo opcodes left out)

EMPTY_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def items(*parts: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(parts) + b"t"


def numbers(values: Sequence[int]) -> bytes:
    return items(*map(number, values))


def storage(kind: str, key: str, numel: int | bytes) -> bytes:
    size = numel if isinstance(numel, bytes) else number(numel)
    return items(text("storage"), name("torch", kind), text(key), text("cpu"), size) + b"Q"


def tensor(
    stored: bytes,
    shape: Sequence[int] | bytes,
    stride: Sequence[int] | bytes,
    offset: int | bytes = 0,
    *,
    function: str = "_rebuild_tensor_v2",
    requires_grad: bytes = b"\x89",
    hooks: bytes = EMPTY_ORDERED_DICT,
    rest: bytes = b"",
) -> bytes:
    return (
        name("torch._utils", function)
        + items(
            stored,
            offset if isinstance(offset, bytes) else number(offset),
            shape if isinstance(shape, bytes) else numbers(shape),
            stride if isinstance(stride, bytes) else numbers(stride),
            requires_grad,
            hooks,
            rest,
        )
        + b"R"
    )


def state(entries: Mapping[str, bytes], attributes: bytes = b"") -> bytes:
    """An OrderedDict of these values; `attributes` is pickled and attached to it, as torch does with `_metadata`."""
    body = b"".join(text(key) + value for key, value in entries.items())
    return EMPTY_ORDERED_DICT + b"(" + body + b"u" + (attributes and attributes + b"b")


def program(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


# the zip around it


@dataclasses.dataclass
class Entry:
    """A record, with fields of its two headers to tell lies with."""

    name: str
    data: bytes
    local: dict[str, Any] = dataclasses.field(default_factory=dict)
    central: dict[str, Any] = dataclasses.field(default_factory=dict)
    described: bool = True  # checksum and sizes follow the data, as torch writes it
    descriptor: bytes | None = None


_LOCAL_FIELDS = ("signature", "version", "flags", "method", "time", "date", "crc", "packed", "size")
_CENTRAL_FIELDS = ("signature", "made_by", *_LOCAL_FIELDS[1:])


def make_zip(
    entries: Sequence[Entry],
    *,
    zip64: bool = True,
    prefix: bytes = b"",
    gap: bytes = b"",
    suffix: bytes = b"",
    end: Mapping[str, int] | None = None,
    end64: Mapping[str, Any] | None = None,
) -> bytes:
    """An archive like torch's: sizes in descriptors, data aligned to 64 bytes, a zip64 end beside the plain one."""
    out = bytearray(prefix)
    directory = bytearray()
    for entry in entries:
        offset = len(out)
        crc, size = zlib.crc32(entry.data), len(entry.data)
        known: dict[str, Any] = dict.fromkeys(_CENTRAL_FIELDS, 0)
        known |= {"flags": 0x0808 if entry.described else 0x0800, "crc": crc, "packed": size, "size": size}
        known |= {"name": entry.name.encode(), "extra": b"", "comment": b"", "disk": 0, "offset": offset}

        local = known | {"signature": b"PK\x03\x04"}
        if entry.described:
            local |= {"crc": 0, "packed": 0, "size": 0}
        padding = -(offset + 30 + len(local["name"]) + 4) % 64
        local |= {"extra": b"FB" + struct.pack("<H", padding) + b"Z" * padding} | entry.local
        out += struct.pack("<4s5H3L", *(local[field] for field in _LOCAL_FIELDS))
        out += struct.pack("<2H", len(local["name"]), len(local["extra"])) + local["name"] + local["extra"]
        out += entry.data
        if entry.descriptor is not None:
            out += entry.descriptor
        elif entry.described:
            out += struct.pack("<4s3L", b"PK\x07\x08", crc, size, size)

        central = known | {"signature": b"PK\x01\x02"} | entry.central
        directory += struct.pack("<4s6H3L", *(central[field] for field in _CENTRAL_FIELDS))
        directory += struct.pack("<3H", len(central["name"]), len(central["extra"]), len(central["comment"]))
        directory += struct.pack("<2HLL", central["disk"], 0, 0, central["offset"])
        directory += central["name"] + central["extra"] + central["comment"]
    out += gap
    begin = len(out)
    out += directory
    last = {"count": len(entries), "length": len(directory), "begin": begin, "disk": 0}
    if zip64:
        long = last | dict(end64 or {})
        position = long.get("position", len(out))
        out += struct.pack(
            "<4sQ2H2L4Q",
            *(long.get("signature", b"PK\x06\x06"), long.get("own", 44), 0, 45),
            *(long["disk"], long.get("first", 0), long.get("here", long["count"])),
            *(long["count"], long["length"], long["begin"]),
        )
        out += struct.pack("<4sLQL", b"PK\x06\x07", long.get("end_disk", 0), position, long.get("disks", 1))
    short = last | dict(end or {})
    out += struct.pack(
        "<4s4H2LH",
        *(b"PK\x05\x06", short["disk"], short.get("first", 0), short.get("here", short["count"]), short["count"]),
        *(short["length"], short["begin"], short.get("comment", 0)),
    )
    return bytes(out + suffix)


def entries_of(
    pickle: bytes, storages: Mapping[str, bytes], folder: str = "archive", byteorder: str | None = "little"
) -> list[Entry]:
    """The records of a checkpoint in torch's order."""
    records = [Entry(f"{folder}/data.pkl", pickle), Entry(f"{folder}/.format_version", b"1")]
    if byteorder is not None:
        records.append(Entry(f"{folder}/byteorder", byteorder.encode()))
    records += [Entry(f"{folder}/data/{key}", data) for key, data in storages.items()]
    return [*records, Entry(f"{folder}/version", b"3\n"), Entry(f"{folder}/.data/serialization_id", b"0" * 40)]


def checkpoint(tensors: Mapping[str, np.ndarray], **options: Any) -> list[Entry]:
    """The records of a checkpoint of contiguous arrays, each with a storage of its own."""
    values, storages = {}, {}
    for key, (title, array) in enumerate(tensors.items()):
        strides = [step // array.itemsize for step in np.empty(array.shape, array.dtype).strides]
        values[title] = tensor(storage(KINDS[array.dtype.name], str(key), array.size), array.shape, strides)
        storages[str(key)] = array.tobytes()
    return entries_of(program(state(values)), storages, **options)


def save(path: Path, entries: Sequence[Entry], **options: Any) -> Path:
    path.write_bytes(make_zip(entries, **options))
    return path
