"""safetensors files: read through our own header parser and a memory map, written by the safetensors library.

A file is eight bytes (the little-endian length N of the header), N bytes of JSON that give each tensor's element
type, shape and byte range, and then the numbers, end to end. The parser checks all of that before it maps or
allocates anything; see https://github.com/huggingface/safetensors#format for the rules.
"""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

from ..errors import (
    CheckpointError,
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    InputError,
)
from ..files import parse_json, replacing
from .tensors import ELEMENT_TYPES, TensorInfo, widen_bfloat16

# The format allows 100 MB. JSON takes up to 40 times its size once parsed, so that a file of 100 MB could fill the
# memory; 25 MB, as on the hub itself, and a million parts are still far more than any real model has.
MAX_HEADER_BYTES = 25_000_000
MAX_HEADER_PARTS = 1_000_000
MAX_RANK = 32  # NumPy 1.26's limit
MAX_BYTES = 2**63 - 1

# bits per element, of the types that NumPy can hold and of those that only have a name here
_BITS = {name: 8 * size for name, (size, _) in ELEMENT_TYPES.items()} | {
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
_TYPE_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,31}")
_WRITABLE = frozenset(dtype.name for name, (_, dtype) in ELEMENT_TYPES.items() if name != "C128")


class _Entry(NamedTuple):
    info: TensorInfo
    begin: int  # relative to the first byte after the header
    end: int


class SafetensorsFile:
    """A safetensors file, memory-mapped; a `TensorFile`.

    Parameters
    ----------
    path : str or os.PathLike
        The file. Only its header is read; numbers are mapped when `read` asks for them.

    Raises
    ------
    CheckpointNotFoundError
        The file does not exist.
    CheckpointFormatError
        The file is not a safetensors file, or breaks one of the format's rules.

    Notes
    -----
    Beyond the format's own rules, a header must be at most 25 MB long and without repeated names anywhere, and no
    tensor may have more than 32 axes: no real checkpoint breaks these, and they keep a hostile one cheap.
    Arrays are views of the mapped file. Replacing the file by a rename (as every writer of this package does) leaves
    them intact; a program that overwrites it in place changes them.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        require_regular_file(self.path)
        try:
            with open(self.path, "rb") as file:
                self._size = os.fstat(file.fileno()).st_size
                header = _read_header(file, self._size, self.path)
                self.metadata, self._entries = _parse_header(header, self._size - 8 - len(header), self.path)
                self._start = 8 + len(header)
                self._map: mmap.mmap | None = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointFormatError(f"{self.path} cannot be read: {error.strerror or error}") from None

    def names(self) -> list[str]:
        """Names of all tensors, in file order."""
        return list(self._entries)

    def info(self, name: str) -> TensorInfo:
        """Element type and shape of one tensor, without reading its numbers."""
        return self._entry(name).info

    def read(self, name: str) -> np.ndarray:
        """The numbers of one tensor, read-only: a view of the file, or float32 values for bfloat16."""
        info, begin, _ = self._entry(name)
        if info.dtype not in ELEMENT_TYPES:
            raise CheckpointFormatError(
                f"the tensor {name!r} of {self.path} has element type {info.dtype}, which NumPy cannot hold: "
                "save the model as float32, float16 or bfloat16 first"
            )
        if self._map is None:
            raise CheckpointError(f"{self.path} was closed before {name!r} was read: open it again")
        if self._map.size() != self._size:  # reading a page beyond the new end would kill the process (SIGBUS)
            raise CheckpointFormatError(
                f"{self.path} changed from {self._size} to {self._map.size()} bytes while it was open: load it again"
            )
        dtype = np.dtype("<u2") if info.dtype == "BF16" else ELEMENT_TYPES[info.dtype][1]
        count = math.prod(info.shape)
        if count == 0:
            array = np.empty(info.shape, dtype)
        else:
            array = np.frombuffer(self._map, dtype, count, self._start + begin).reshape(info.shape)
        if info.dtype == "BOOL" and count and array.view(np.uint8).max() > 1:
            raise CheckpointFormatError(f"the BOOL tensor {name!r} of {self.path} holds bytes other than 0 and 1")
        if info.dtype == "BF16":
            array = widen_bfloat16(array)
        elif not array.flags.aligned:  # legal when the header's length is no multiple of 8, but slow to compute with
            array = array.copy()
        array.flags.writeable = False
        return array

    def close(self) -> None:
        """Let go of the file; arrays that were read keep their own hold on the map."""
        self._map = None

    def _entry(self, name: str) -> _Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise CheckpointMismatchError(f"{self.path} has no tensor named {name!r}") from None


def require_regular_file(path: Path) -> None:
    """Raise unless `path` is a file: opening a folder fails without saying why, opening a pipe waits for ever."""
    if os.path.isfile(path):
        return
    if os.path.isdir(path):
        raise CheckpointFormatError(f"{path} is a folder, not a tensor file")
    if os.path.exists(path):
        raise CheckpointFormatError(f"{path} is not a regular file")
    if os.path.islink(path):
        raise CheckpointNotFoundError(f"{path} is a link to {os.readlink(path)}, which does not exist")
    raise CheckpointNotFoundError(f"{path} does not exist")


def _read_header(file: BinaryIO, size: int, path: Path) -> bytes:
    """The header's bytes, once their number is known to be plausible."""
    if size < 8:
        _refuse(path, f"it is only {size} bytes long (empty or truncated?): download or copy it again")
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        _refuse(path, f"its first eight bytes announce a header of {length} bytes, but only {size - 8} follow")
    if length > MAX_HEADER_BYTES:
        _refuse(path, f"its header is {length} bytes long, more than the {MAX_HEADER_BYTES} that are allowed")
    header = file.read(length)
    if not header.startswith(b"{"):
        _refuse(path, f"its header starts with {header[:8]!r}, not with '{{'")
    parts = max(header.count(character) for character in (b":", b",", b"[", b"{"))
    if parts > MAX_HEADER_PARTS:
        _refuse(path, f"its header has {parts} parts, more than the {MAX_HEADER_PARTS} that are allowed")
    return header


def _parse_header(header: bytes, data_size: int, path: Path) -> tuple[dict[str, str], dict[str, _Entry]]:
    """Metadata, and the entries in the order of their bytes, of a header that `data_size` bytes follow."""
    fields = parse_json(header, f"the header of {path}")
    metadata = fields.pop("__metadata__", None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse(path, "__metadata__ must map strings to strings")

    entries = {name: _parse_entry(name, fields[name], path) for name in fields}
    # by end as well: of an empty tensor and its neighbour that begin together, the empty one comes first
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    position = 0
    for name, (_, begin, end) in entries.items():
        if begin != position:
            what = "overlaps the one before it" if begin < position else "leaves a gap before it"
            _refuse(path, f"the tensor {_short(name)} begins at byte {begin} instead of {position} and so {what}")
        position = end
    if position > data_size:
        _refuse(
            path, f"its tensors need {position} bytes, but {data_size} are there: truncated, download or copy it again"
        )
    if position < data_size:
        _refuse(path, f"{data_size - position} bytes after the last tensor belong to none")
    return metadata, entries


def _parse_entry(name: str, fields: Any, path: Path) -> _Entry:
    """One tensor's element type, shape and byte range, each checked by itself and against the others."""
    label = _short(name)
    if not isinstance(fields, dict) or not {"dtype", "shape", "data_offsets"} <= fields.keys():
        _refuse(path, f"the tensor {label} needs a dtype, a shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or not _TYPE_NAME.fullmatch(dtype):
        _refuse(path, f"the tensor {label} has the element type {_short(dtype)}")
    if not _are_sizes(shape):
        _refuse(path, f"the tensor {label} has the shape {_short(shape)}: not a list of whole numbers >= 0")
    if len(shape) > MAX_RANK:
        _refuse(path, f"the tensor {label} has {len(shape)} axes, more than NumPy's {MAX_RANK}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _refuse(path, f"the tensor {label} has the data_offsets {_short(offsets)}: not a pair begin <= end")
    begin, end = offsets
    bits = _BITS.get(dtype)  # None: a type from the future; only its byte range can be checked, and `read` refuses it
    # NumPy wants even an empty array's other axes to multiply to something that it could address
    if math.prod(size for size in shape if size) * (bits or 8) // 8 > MAX_BYTES:
        _refuse(path, f"the tensor {label} has the shape {_short(shape)}, which is too large for any machine")
    if bits is not None and math.prod(shape) * bits != (end - begin) * 8:
        _refuse(path, f"the tensor {label} ({dtype}, shape {_short(shape)}) does not fill its {end - begin} bytes")
    return _Entry(TensorInfo(dtype, tuple(shape)), begin, end)


def _are_sizes(value: Any) -> bool:
    """A list of non-negative integers below 2**63; `True`, which Python counts as 1, is none."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= MAX_BYTES for item in value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _refuse(path: Path, what: str) -> NoReturn:
    raise CheckpointFormatError(f"{path} is not a usable safetensors file: {what}")


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `tensors` to `path` atomically.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write or replace.
    tensors : mapping of str to numpy.ndarray
        Names to arrays, in any memory order and byte order.
    metadata : mapping of str to str, optional
        The file's ``__metadata__``; ``{"format": "pt"}`` by default, which transformers insists on.

    Raises
    ------
    InputError
        There are no tensors, an array has a type that the format does not know, or a name is not a string or is
        reserved.
    CheckpointError
        The file cannot be written; what `path` held before is still there.

    Notes
    -----
    safetensors from 0.8 on writes straight from the arrays; older versions copy all of a file's arrays first, so
    that the peak is twice the size of the file (of the largest file, where a checkpoint is sharded).
    """
    try:
        with replacing(path) as temporary:
            save_tensors(temporary, tensors, metadata)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}") from None


def save_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """What `write_safetensors` does, straight to `path`; all that can go wrong with the file is an OSError."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    if not tensors:  # the library (0.4 to 0.8) writes a file that no parser reads when there is only metadata
        raise InputError("there are no tensors to write")
    plain = {name: _plain(name, array) for name, array in tensors.items()}
    try:
        save_file(plain, path, {"format": "pt"} if metadata is None else dict(metadata))
    except (SafetensorError, TypeError) as error:  # a full disk is a SafetensorError, metadata of numbers a TypeError
        raise OSError(str(error).partition("\n")[0]) from error


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """`array` as the serializer needs it, C-contiguous and little-endian; copied only where it is not."""
    if not isinstance(name, str) or name == "__metadata__" or not _is_text(name):
        raise InputError(f"a tensor cannot be named {name!r}")
    if array.dtype.name not in _WRITABLE:
        raise InputError(f"the tensor {name!r} has type {array.dtype}, which safetensors cannot hold: convert it first")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _is_text(name: str) -> bool:
    """Whether UTF-8 can write `name`: half of a surrogate pair cannot stand alone."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
