"""``pytorch_model.bin`` as `torch.save` writes it since torch 1.6, read without torch and without running anything.

The file is a zip archive with one folder: ``data.pkl``, which describes the tensors, ``byteorder``, and the numbers
of each storage in ``data/0``, ``data/1``, ... Several tensors may be views of one storage, tied weights for example.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import CheckpointError, CheckpointFormatError, CheckpointMismatchError
from .safetensors_file import require_regular_file
from .stored_zip import Record, read_directory
from .tensors import ELEMENT_TYPES, TensorInfo, widen_bfloat16
from .torch_pickle import read_pickle
from .torch_records import (
    DEFAULT_LIMITS,
    Damaged,
    Limits,
    StorageRef,
    TensorSpec,
    Unsafe,
    explaining,
    short,
    state_dict,
)

# zlib checks about a gigabyte a second: below this size nobody notices
CRC_BYTES = 64 << 20

# what a file of torch before 1.6 begins with: a pickle of its own magic number
_LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_HOW_TO_CONVERT = "load it with a current torch and torch.save its state dict again, or ask for a safetensors file"


class TorchZipFile:
    """A torch checkpoint, memory-mapped; a `TensorFile`.

    Parameters
    ----------
    path : str or os.PathLike
        The file. Its directory and ``data.pkl`` are read; numbers are mapped when `read` asks for them.
    verify_crc : bool, optional
        Whether to check the checksum of each storage when it is first read. By default it is checked in files of
        less than 64 MiB. That of ``data.pkl`` is always checked.
    limits : Limits, optional
        What the file may ask for; see there for the reasons. Real checkpoints stay far below the default.

    Raises
    ------
    CheckpointNotFoundError
        The file does not exist.
    CheckpointFormatError
        The file is damaged, is of an older format, or is no flat dict of names to tensors.
    UnsafeCheckpointError
        The file would run code if torch or pickle loaded it, contradicts itself, or is a bomb. Nothing of it was run.

    Notes
    -----
    Arrays are views of the mapped file where they can be; a tensor that must be copied (bfloat16, big-endian, not
    contiguous) is copied once for all names that share it, for as long as someone holds the array.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, verify_crc: bool | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self.path = Path(path)
        self.metadata: dict[str, str] = {}
        require_regular_file(self.path)
        try:
            with open(self.path, "rb") as file:
                self._size = os.fstat(file.fileno()).st_size
                _require_zip(file, self._size, self.path)
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointFormatError(f"{self.path} cannot be read: {error.strerror or error}") from None
        self._map: mmap.mmap | None = mapped
        self._verify_crc = self._size < CRC_BYTES if verify_crc is None else verify_crc
        self._verified: set[str] = set()
        self._copies: weakref.WeakValueDictionary[TensorSpec, np.ndarray] = weakref.WeakValueDictionary()
        with explaining(str(self.path)):
            self._records = _without_folder(read_directory(mapped, limits.records))
            self._big_endian = self._read_byteorder(mapped)
            pickle = self._read_record(mapped, "data.pkl", limits.pickle_bytes)
        self._tensors = state_dict(read_pickle(pickle, str(self.path), limits), str(self.path))
        with explaining(str(self.path)):
            for storage in {spec.storage for spec in self._tensors.values()}:
                self._require_size(storage)
            copied = sum(_nbytes(spec) for spec in set(self._tensors.values()) if self._must_copy(spec))
            if copied > limits.copies * self._size:
                raise Unsafe(f"its {self._size} bytes would unfold to {copied} bytes of copies")

    def names(self) -> list[str]:
        """Names of all tensors, in file order."""
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        """Element type and shape of one tensor, without reading its numbers."""
        spec = self._spec(name)
        return TensorInfo(spec.dtype, spec.shape)

    def read(self, name: str) -> np.ndarray:
        """The numbers of one tensor, read-only: a view of the file where possible (see the notes above)."""
        spec = self._spec(name)
        if self._map is None:
            raise CheckpointError(f"{self.path} was closed before {name!r} was read: open it again")
        if self._map.size() != self._size:  # reading a page beyond the new end would kill the process (SIGBUS)
            raise CheckpointFormatError(
                f"{self.path} changed from {self._size} to {self._map.size()} bytes while it was open: load it again"
            )
        array = self._copies.get(spec)
        if array is None:
            with explaining(str(self.path)):
                array = self._read(self._map, spec, name)
            array.flags.writeable = False
            if self._must_copy(spec):
                self._copies[spec] = array
        return array

    def close(self) -> None:
        """Let go of the file; arrays that were read keep their own hold on the map."""
        self._map = None

    def _spec(self, name: str) -> TensorSpec:
        try:
            return self._tensors[name]
        except KeyError:
            raise CheckpointMismatchError(f"{self.path} has no tensor named {name!r}") from None

    def _read(self, mapped: mmap.mmap, spec: TensorSpec, name: str) -> np.ndarray:
        size, result = ELEMENT_TYPES[spec.dtype]
        if 0 in spec.shape:
            return np.empty(spec.shape, result)
        self._verify(mapped, f"data/{spec.storage.key}")
        # an axis of size 1 may have any stride, even one too large to count in bytes
        strides = tuple(step * size if n > 1 else size for n, step in zip(spec.shape, spec.stride, strict=True))
        begin = self._records[f"data/{spec.storage.key}"].begin + spec.offset * size
        # NumPy checks once more that the view lies inside the map
        array: np.ndarray = np.ndarray(spec.shape, self._stored_type(spec), mapped, begin, strides)
        if spec.dtype == "BF16":
            return widen_bfloat16(np.asarray(array, "<u2", order="C"))
        if self._must_copy(spec):
            array = np.array(array, result, order="C")
        if spec.dtype == "BOOL" and array.view(np.uint8).max() > 1:
            raise Damaged(f"the bool tensor {short(name)} holds bytes other than 0 and 1")
        return array

    def _stored_type(self, spec: TensorSpec) -> np.dtype[np.generic]:
        stored = np.dtype("<u2") if spec.dtype == "BF16" else ELEMENT_TYPES[spec.dtype][1]
        return stored.newbyteorder(">") if self._big_endian else stored

    def _must_copy(self, spec: TensorSpec) -> bool:
        """Whether the stored bytes are not what NumPy needs."""
        size, result = ELEMENT_TYPES[spec.dtype]
        if 0 in spec.shape:
            return False
        begin = self._records[f"data/{spec.storage.key}"].begin + spec.offset * size
        return self._stored_type(spec) != result or not _is_contiguous(spec) or begin % result.alignment != 0

    def _require_size(self, storage: StorageRef) -> None:
        record = self._records.get(f"data/{storage.key}")
        if record is None:
            raise Damaged(f"it has no record data/{storage.key}, which data.pkl refers to")
        if record.size != storage.nbytes:
            raise Damaged(
                f"its record data/{storage.key} has {record.size} bytes, where {storage.nbytes} are announced"
            )

    def _read_record(self, mapped: mmap.mmap, name: str, max_bytes: int) -> bytes:
        """The bytes of a small record, checked."""
        record = self._records[name]
        if record.size > max_bytes:
            raise Unsafe(f"its record {name} has {record.size} bytes, more than the {max_bytes} allowed")
        data = mapped[record.begin : record.begin + record.size]
        if zlib.crc32(data) != record.crc:
            raise Damaged(f"the checksum of its record {name} is wrong")
        return data

    def _read_byteorder(self, mapped: mmap.mmap) -> bool:
        """Whether the numbers are big-endian; a file without the record is little-endian, as in torch."""
        if "byteorder" not in self._records:
            return False
        order = self._read_record(mapped, "byteorder", 16)
        if order not in (b"little", b"big"):
            raise Damaged(f"its byteorder is {order!r}, neither little nor big")
        return order == b"big"

    def _verify(self, mapped: mmap.mmap, name: str) -> None:
        """Check the checksum of a storage, once."""
        if self._verify_crc and name not in self._verified:
            record = self._records[name]
            with memoryview(mapped) as view:
                crc = zlib.crc32(view[record.begin : record.begin + record.size])
            if crc != record.crc:
                raise Damaged(f"the checksum of its record {name} is wrong")
            self._verified.add(name)


def _require_zip(file: BinaryIO, size: int, path: Path) -> None:
    """Raise an error that says what the file is, unless it starts like a zip archive that holds something."""
    head = file.read(262)
    if head.startswith(b"PK\x03\x04"):
        return
    file.seek(max(0, size - 22))
    if not head:
        what = "it is empty: download or copy it again"
    elif head.startswith(_LEGACY_MAGIC):
        what = f"it was made by torch before 1.6, or in that old format: {_HOW_TO_CONVERT}"
    elif head.startswith(b"\x80"):
        what = f"it is a bare pickle, not what torch.save writes: {_HOW_TO_CONVERT}"
    elif head[257:262] == b"ustar":
        what = f"it is a tar archive, as torch before 0.2 made them: {_HOW_TO_CONVERT}"
    elif file.read(4) == b"PK\x05\x06":
        with explaining(str(path)):
            raise Unsafe(f"its zip archive does not begin at its first byte, which is {head[:8]!r}")
    else:
        what = f"it starts with {head[:8]!r}, and so is no zip archive of torch.save: download it again"
    raise CheckpointFormatError(f"{path} is not a torch checkpoint that can be read: {what}")


def _without_folder(records: dict[str, Record]) -> dict[str, Record]:
    """The records of the archive's one folder, by their names in it."""
    pickles = [name for name in records if name.rpartition("/")[2] == "data.pkl"]
    if not pickles:
        raise Damaged("it is a zip archive without a data.pkl, and so no torch checkpoint")
    folder = pickles[0].partition("/")[0] + "/"
    inside = {name.removeprefix(folder): record for name, record in records.items() if name.startswith(folder)}
    if any(name == "constants.pkl" or name.startswith("code/") for name in inside):
        raise Unsafe("it is a TorchScript archive, which holds code; save the state dict of the model instead")
    if len(pickles) != 1 or "data.pkl" not in inside or len(inside) != len(records):
        raise Unsafe("it must have one data.pkl and one folder that holds everything")
    return inside


def _is_contiguous(spec: TensorSpec) -> bool:
    expected = 1
    for size, step in zip(reversed(spec.shape), reversed(spec.stride), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


def _nbytes(spec: TensorSpec) -> int:
    """Bytes of the array that a tensor is read as."""
    return math.prod(spec.shape) * ELEMENT_TYPES[spec.dtype][1].itemsize
