"""Safetensors files made by hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(**changes: object) -> dict[str, object]:
    """The header entry of one float32 number, with some fields changed."""
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.safetensors"
    path.unlink(missing_ok=True)  # a new inode: views of the file before may still be mapped
    path.write_bytes(content)
    return path
