"""The directory of a zip archive whose records are stored as they are: what `torch.save` writes.

A zip says everything twice, in a directory at its end and in a header before each record, and readers differ in
which of the two they believe; a file on which they disagree shows a scanner one thing and a loader another. So
nothing here is believed: both must agree in every field, and together they must account for every byte of the file
once. See PKWARE's APPNOTE.TXT 6.3 for the fields, sections 4.3.7 (local header) to 4.3.16 (end of directory).
"""

from __future__ import annotations

import mmap
import re
import struct
from typing import NamedTuple

from .torch_records import Damaged, Unsafe, short

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")

_DESCRIPTOR_FLAG = 0x0008  # checksum and sizes follow the data
_UTF8_FLAG = 0x0800
_ENCRYPTION_FLAGS = 0x2041
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # "see the zip64 field instead"
_ZIP64_ID = 0x0001

_HARMFUL_NAME = re.compile(r"[\\\x00-\x1f\x7f]|^[A-Za-z]:|^/|(^|/)(\.\.?)?(/|$)")


class Record(NamedTuple):
    """Where the bytes of a record are, and their CRC-32."""

    begin: int
    size: int
    crc: int


class _Entry(NamedTuple):
    """What the directory says about a record."""

    name: bytes
    flags: int
    crc: int
    size: int
    offset: int  # of the local header


def read_directory(file: mmap.mmap, max_records: int) -> dict[str, Record]:
    """Names and places of all records of a mapped zip archive that fills its file exactly.

    Raises
    ------
    Unsafe
        Directory and headers disagree, records overlap, bytes are unaccounted for, or a name is harmful or repeated.
    Damaged
        The file is truncated, is not a zip, or uses what no `torch.save` writes (compression, encryption, parts).
    """
    directory, directory_end, count = _find_directory(file)
    if count > max_records:
        raise Unsafe(f"it has {count} records, more than the {max_records} allowed")
    entries, position = [], directory
    for _ in range(count):
        entry, position = _read_entry(file, position, directory_end)
        entries.append(entry)
    if position != directory_end:
        raise Unsafe(f"{directory_end - position} bytes of its directory belong to none of its {count} records")

    places, position = {}, 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        if entry.offset < position:
            raise Unsafe(f"its record {short(_text(entry.name))} overlaps the one before it")
        if entry.offset > position:
            raise Unsafe(f"the {entry.offset - position} bytes from {position} on belong to no record")
        places[entry.offset], position = _read_local(file, entry, directory)
    if position != directory:
        raise Unsafe(f"the {directory - position} bytes from {position} on belong to no record")
    records = {_text(entry.name): places[entry.offset] for entry in entries}
    if len(records) != count:
        raise Unsafe(f"two of its {count} records have the same name")
    return records


def _find_directory(file: mmap.mmap) -> tuple[int, int, int]:
    """Begin and end of the directory, and the number of its entries."""
    size = len(file)
    end = size - _END.size
    if end < 0 or file[end : end + 4] != b"PK\x05\x06":
        found = file.rfind(b"PK\x05\x06", max(0, size - _END.size - _FULL16))
        if found < 0:
            raise Damaged(f"it ends without the directory of a zip ({size} bytes): truncated")
        raise Unsafe(f"{max(0, end - found)} bytes follow the end of its zip archive")
    _, disk, first_disk, here, count, length, begin, comment = _END.unpack_from(file, end)
    if disk or first_disk or here != count or comment:
        raise Unsafe("it is one part of several, or carries a comment, which no torch writes")

    locator = end - _LOCATOR.size
    if locator >= 0 and file[locator : locator + 4] == b"PK\x06\x07":
        end = locator - _END64.size
        _, disk, end64, disks = _LOCATOR.unpack_from(file, locator)
        if end64 != end or file[end : end + 4] != b"PK\x06\x06" or disk or disks != 1:
            raise Unsafe(f"its zip64 directory is announced at byte {end64} and is not there")
        _, length64, _, _, disk, first_disk, here64, count64, bytes64, begin64 = _END64.unpack_from(file, end)
        if length64 != _END64.size - 12 or disk or first_disk or here64 != count64:
            raise Unsafe("its zip64 directory is one part of several")
        short_form, long_form = (count, length, begin), (count64, bytes64, begin64)
        for small, large, full in zip(short_form, long_form, (_FULL16, _FULL32, _FULL32), strict=True):
            if small not in (large, full):
                raise Unsafe(f"its two directory ends disagree: {short_form} and {long_form}")
        count, length, begin = long_form
    if begin + length != end:
        raise Unsafe(f"its directory is announced from byte {begin} to {begin + length}, but ends at {end}")
    return begin, end, count


def _read_entry(file: mmap.mmap, position: int, limit: int) -> tuple[_Entry, int]:
    """One entry of the directory, and where the next one begins."""
    if position + _CENTRAL.size > limit or file[position : position + 4] != b"PK\x01\x02":
        raise Damaged(f"the entry of its directory at byte {position} is missing")
    fields = _CENTRAL.unpack_from(file, position)
    flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length, disk, _, _, offset = fields[3:]
    name_begin = position + _CENTRAL.size
    extra_begin = name_begin + name_length
    end = extra_begin + extra_length + comment_length
    if end > limit:
        raise Damaged(f"the entry of its directory at byte {position} is cut off")
    name = file[name_begin:extra_begin]
    label = short(_text(name))
    if _HARMFUL_NAME.search(_text(name)):
        raise Unsafe(f"its record is called {label}, which is no plain name in a folder")
    if flags & _ENCRYPTION_FLAGS:
        raise Damaged(f"its record {label} is encrypted (flags {flags:#06x})")
    if flags & ~(_DESCRIPTOR_FLAG | _UTF8_FLAG):
        raise Damaged(f"its record {label} has the flags {flags:#06x}, which no torch writes")
    if method:
        raise Damaged(f"its record {label} is compressed (method {method}), which of torch's files only TorchScript is")
    zip64 = _zip64_field(file[extra_begin : extra_begin + extra_length], label)
    size, packed, offset = _widen((size, packed, offset), zip64, label)
    if comment_length:
        raise Unsafe(f"its record {label} carries a comment, which no torch writes")
    if size != packed or disk:
        raise Unsafe(
            f"its record {label} has the sizes {size} and {packed} in part {disk}, though it is not compressed"
        )
    return _Entry(name, flags, crc, size, offset), end


def _read_local(file: mmap.mmap, entry: _Entry, limit: int) -> tuple[Record, int]:
    """Where the data of `entry` is, and where it ends, descriptor included; its header must repeat the entry."""
    label = short(_text(entry.name))
    if file[entry.offset : entry.offset + 4] != b"PK\x03\x04":
        raise Damaged(f"its record {label} does not begin at byte {entry.offset}")
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack_from(file, entry.offset)
    name_begin = entry.offset + _LOCAL.size
    extra_begin = name_begin + name_length
    begin = extra_begin + extra_length
    end = begin + entry.size
    if end > limit:
        raise Damaged(f"its record {label} of {entry.size} bytes runs into the directory")
    if file[name_begin:extra_begin] != entry.name or flags != entry.flags or method:
        raise Unsafe(f"its record {label} has another name, method or flags in its own header than in the directory")
    zip64 = _zip64_field(file[extra_begin:begin], label)
    described = (crc, packed, size) == (0, 0, 0) and flags & _DESCRIPTOR_FLAG
    if not described:
        size, packed = _widen((size, packed), zip64, label)
        if (crc, packed, size) != (entry.crc, entry.size, entry.size):
            raise Unsafe(f"its record {label} has another size or checksum in its own header than in the directory")
    if flags & _DESCRIPTOR_FLAG:
        # 64-bit sizes wherever the header has a zip64 field, even if only the offset needs one (as in miniz)
        form = "<4sL2Q" if zip64 is not None else "<4s3L"
        descriptor = file[end : end + struct.calcsize(form)]
        end += len(descriptor)
        if descriptor != struct.pack(form, b"PK\x07\x08", entry.crc, entry.size, entry.size):
            raise Unsafe(f"its record {label} has another size or checksum after its data than in the directory")
    return Record(begin, entry.size, entry.crc), end


def _zip64_field(extra: bytes, label: str) -> bytes | None:
    """The zip64 part of a header's extra field; None where there is none. Other parts (padding) are skipped."""
    found, position = None, 0
    while position < len(extra):
        if position + 4 > len(extra):
            raise Damaged(f"the extra field of its record {label} is cut off")
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4 + length
        if position > len(extra):
            raise Damaged(f"the extra field of its record {label} is cut off")
        if kind == _ZIP64_ID:
            if found is not None:
                raise Unsafe(f"its record {label} has two zip64 fields")
            found = extra[position - length : position]
    return found


def _widen(values: tuple[int, ...], zip64: bytes | None, label: str) -> list[int]:
    """`values` with those that did not fit into 32 bits taken from the zip64 field, in order."""
    wide, position = [], 0
    for value in values:
        if value == _FULL32:
            if zip64 is None or position + 8 > len(zip64):
                raise Damaged(f"its record {label} refers to a zip64 field that it does not have")
            (value,) = struct.unpack_from("<Q", zip64, position)
            position += 8
        wide.append(value)
    if zip64 is not None and position not in (0, len(zip64)):
        raise Unsafe(f"its record {label} has a zip64 field of {len(zip64)} bytes where {position} are meant")
    return wide


def _text(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise Damaged(f"its record {name[:80]!r} has a name that is not UTF-8") from None
