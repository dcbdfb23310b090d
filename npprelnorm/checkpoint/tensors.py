"""What every tensor file looks like to the rest of the package, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

# safetensors' names for element types -> (bytes per element, NumPy type it is read as).
# bfloat16 has no NumPy type: it is widened to float32, which holds each of its values exactly.
ELEMENT_TYPES: dict[str, tuple[int, np.dtype[np.generic]]] = {
    "BOOL": (1, np.dtype(np.bool_)),
    "U8": (1, np.dtype(np.uint8)),
    "I8": (1, np.dtype(np.int8)),
    "U16": (2, np.dtype("<u2")),
    "I16": (2, np.dtype("<i2")),
    "U32": (4, np.dtype("<u4")),
    "I32": (4, np.dtype("<i4")),
    "U64": (8, np.dtype("<u8")),
    "I64": (8, np.dtype("<i8")),
    "F16": (2, np.dtype("<f2")),
    "BF16": (2, np.dtype("<f4")),
    "F32": (4, np.dtype("<f4")),
    "F64": (8, np.dtype("<f8")),
    "C64": (8, np.dtype("<c8")),
    "C128": (16, np.dtype("<c16")),
}


@dataclass(frozen=True)
class TensorInfo:
    """Element type (safetensors' name, such as ``"F32"``) and shape of a stored tensor."""

    dtype: str
    shape: tuple[int, ...]


class TensorFile(Protocol):
    """A readable file of named tensors; opening it reads names and shapes only.

    `read` returns a read-only array: a view of the mapped file where the stored bytes are what NumPy needs, a copy
    otherwise (bfloat16, big-endian, non-contiguous). Such views stay valid after `close`.
    """

    path: Path
    metadata: dict[str, str]

    def names(self) -> list[str]:
        """Names of all tensors, in file order."""
        ...

    def info(self, name: str) -> TensorInfo:
        """Element type and shape of one tensor, without reading its numbers."""
        ...

    def read(self, name: str) -> np.ndarray:
        """The numbers of one tensor, read-only."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 values of bfloat16 bit patterns (uint16 in): a bfloat16 is the upper half of a float32."""
    wide: np.ndarray = bits.astype(np.uint32)
    wide <<= np.uint32(16)  # in place: `wide << 16` would turn an array of rank 0 into a scalar
    return wide.view(np.float32)
