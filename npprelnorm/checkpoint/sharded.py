"""Checkpoints in several files: an index (JSON) says which shard holds which tensor."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import (
    CheckpointError,
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    InputError,
    UnsafeCheckpointError,
)
from ..files import read_json, replacing, write_json
from .safetensors_file import SafetensorsFile, require_regular_file, save_tensors
from .tensors import TensorFile, TensorInfo

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
DEFAULT_MAX_SHARD_SIZE = "50GB"

MAX_INDEX_BYTES = 25_000_000
MAX_SHARDS = 500  # each stays open, and a process may often have no more than 1024 files open

_SHARD_NAME = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class ShardedFile:
    """All shards of an index as one `TensorFile`.

    Parameters
    ----------
    index_path : str or os.PathLike
        ``model.safetensors.index.json`` or ``pytorch_model.bin.index.json``; the shards lie beside it. Opening reads
        the names and shapes of every shard, and no numbers.

    Raises
    ------
    CheckpointNotFoundError
        The index or some shards do not exist; all that are missing are named.
    CheckpointFormatError
        Index and shards disagree; every disagreement is named.
    UnsafeCheckpointError
        A shard is to be read from another folder, or asks for more than numbers.
    """

    def __init__(self, index_path: str | os.PathLike[str]) -> None:
        self.path = Path(index_path)
        index = read_json(self.path, max_bytes=MAX_INDEX_BYTES)
        weight_map = _weight_map(index, self.path)
        metadata = index.get("metadata")
        # safetensors' metadata are strings, an index holds numbers (total_size) as well
        self.metadata = {key: str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}
        self._shards: dict[str, TensorFile] = {}
        try:
            self._open_shards(weight_map)
        except BaseException:
            self.close()
            raise
        self._shard_of = {
            name: shard for shard, file in self._shards.items() for name in file.names() if name in weight_map
        }

    def names(self) -> list[str]:
        """Names of all tensors, shard by shard."""
        return list(self._shard_of)

    def info(self, name: str) -> TensorInfo:
        """Element type and shape of one tensor, without reading its numbers."""
        return self._shard(name).info(name)

    def read(self, name: str) -> np.ndarray:
        """The numbers of one tensor, read-only."""
        return self._shard(name).read(name)

    def close(self) -> None:
        """Let go of all shards."""
        for shard in self._shards.values():
            shard.close()

    def _shard(self, name: str) -> TensorFile:
        try:
            return self._shards[self._shard_of[name]]
        except KeyError:
            raise CheckpointMismatchError(f"{self.path} has no tensor named {name!r}") from None

    def _open_shards(self, weight_map: dict[str, str]) -> None:
        """Open every shard and compare its names with the index; report all that is wrong at once."""
        listed: dict[str, set[str]] = {}
        for name, shard in weight_map.items():
            listed.setdefault(shard, set()).add(name)
        if len(listed) > MAX_SHARDS:
            raise CheckpointFormatError(f"{self.path} names {len(listed)} shards, more than the {MAX_SHARDS} allowed")

        problems: list[str] = []
        causes: list[type[CheckpointError]] = []
        missing = [shard for shard in sorted(listed) if not os.path.lexists(self.path.parent / shard)]
        if missing:
            problems.append(f"{_count(missing, 'shard')} not in the folder ({_some(missing)})")
            causes.append(CheckpointNotFoundError)
        for shard in sorted(listed.keys() - set(missing)):
            try:
                file = self._shards[shard] = open_single(self.path.parent / shard)
            except CheckpointError as error:
                problems.append(str(error))
                causes.append(type(error))
                continue
            held = set(file.names())
            for names, what in ((listed[shard] - held, "missing from"), (held - listed[shard], "not listed, but in")):
                if names:
                    problems.append(f"{_count(names, 'tensor')} {what} {shard} ({_some(names)})")
                    causes.append(CheckpointFormatError)
        if problems:
            raise _gravest(causes)(f"{self.path} does not match its shards: {'; '.join(problems)}: download it again")


def _weight_map(index: dict[str, Any], path: Path) -> dict[str, str]:
    """The index's tensor names to shard names, after all names were found to be harmless."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointFormatError(f"{path} has no weight_map, which is to say which shard holds which tensor")
    for name, shard in weight_map.items():
        if not isinstance(shard, str):
            raise CheckpointFormatError(f"{path} maps {name[:80]!r} to {str(shard)[:80]}, which is no file name")
        if not is_bare_name(shard):
            raise UnsafeCheckpointError(
                f"{path} wants the shard {shard[:80]!r}: only bare names of files in its own folder are read"
            )
        if not shard.endswith((".safetensors", ".bin")):
            raise CheckpointFormatError(f"{path} wants the shard {shard[:80]!r}, which is no .safetensors or .bin file")
    return weight_map


def shard_names(index_path: Path) -> list[str]:
    """The files that an index names, each a bare name."""
    index = read_json(index_path, max_bytes=MAX_INDEX_BYTES)
    return sorted(set(_weight_map(index, index_path).values()))


def is_bare_name(name: str) -> bool:
    """Whether `name` is a file name and nothing more, on every system: no folder, no drive, no way up."""
    return name not in ("", ".", "..") and not any(character in "/\\:" or character < " " for character in name)


def _gravest(causes: list[type[CheckpointError]]) -> type[CheckpointError]:
    """The class to raise for several problems: what is unsafe outweighs what is damaged, and that what is missing."""
    for grave in (UnsafeCheckpointError, CheckpointFormatError):
        if any(issubclass(cause, grave) for cause in causes):
            return grave
    return CheckpointNotFoundError


def _count(things: Iterable[str], noun: str) -> str:
    number = len(list(things))
    return f"{number} {noun}{'s are' if number != 1 else ' is'}"


def _some(names: Iterable[str], limit: int = 4) -> str:
    """The first few names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(name if len(name) <= 80 else name[:77] + "..." for name in ordered[:limit]) + more


def open_single(path: str | os.PathLike[str]) -> TensorFile:
    """Open one tensor file by its content; its suffix only decides which reader explains what is wrong with it."""
    path = Path(path)
    require_regular_file(path)
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointFormatError(f"{path} cannot be read: {error.strerror}") from None
    if not head:
        raise CheckpointFormatError(f"{path} is empty: download or copy it again")
    # no zip has "{" (compression method 123) there, and no safetensors header starts with anything else
    if head[8:9] == b"{":
        return SafetensorsFile(path)
    for magic, what in _NOT_TENSORS.items():
        if head.lstrip().lower().startswith(magic):
            raise CheckpointFormatError(f"{path} is {what}")
    if path.suffix == ".safetensors" and not head.startswith(b"PK\x03\x04"):
        return SafetensorsFile(path)
    from .torch_zip import TorchZipFile

    return TorchZipFile(path)


_NOT_TENSORS = {
    b"version https://git-lfs": "a git-lfs pointer, not the file itself: run `git lfs pull` in its folder, "
    "or download the file from the hub",
    b"<!doctype": "a web page, not a tensor file: download it again",
    b"<html": "a web page, not a tensor file: download it again",
    b"\x89hdf": "an HDF5 (TensorFlow) file, which is not supported: convert it with transformers, "
    "from_pretrained(..., from_tf=True).save_pretrained(...)",
}


def parse_size(size: int | str) -> int:
    """Bytes of `size`: an integer, or a decimal number with KB, MB, GB or TB (powers of 1000, as in transformers)."""
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]B)\s*", size, re.IGNORECASE | re.ASCII)
        number = float(match[1]) * _UNITS[match[2].upper()] if match else 0.0
        bytes_ = int(number) if math.isfinite(number) else 0
    else:
        bytes_ = size if type(size) is int else 0
    if bytes_ < 1:
        raise InputError(f"max_shard_size={size!r} is not a size: give bytes, or text such as '5GB' or '500MB'")
    return bytes_


def write_sharded(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    max_shard_size: int | str = DEFAULT_MAX_SHARD_SIZE,
) -> None:
    """Write `tensors` as ``model.safetensors``, or as shards and an index if they are larger than `max_shard_size`.

    Parameters
    ----------
    folder : str or os.PathLike
        Where to write; made if it does not exist. Weights of an earlier save, in one file or in shards, are
        replaced; all other files stay.
    tensors : mapping of str to numpy.ndarray
        Names to arrays. They are dealt to the shards in this order, as transformers does it.
    max_shard_size : int or str
        Bytes, or text such as ``"5GB"`` (powers of 1000). A larger tensor gets a shard of its own.

    Raises
    ------
    InputError
        `max_shard_size` is not a size, or a tensor cannot be stored.
    CheckpointError
        Some file cannot be written. Nothing was replaced then, unless the last renames themselves failed.
    """
    folder = Path(folder)
    shards = _deal(tensors, parse_size(max_shard_size))
    if len(shards) == 1:
        files = {SINGLE_NAME: shards[0]}
    else:
        files = {f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards, 1)}
    try:
        # Everything is written under temporary names; then the stack renames, last entered first: the index comes last.
        with contextlib.ExitStack() as stack:
            if len(files) > 1:
                index = {
                    "metadata": {"total_size": sum(array.nbytes for array in tensors.values())},
                    "weight_map": {name: file for file, shard in files.items() for name in shard},
                }
                write_json(stack.enter_context(replacing(folder / INDEX_NAME)), index)
            for file, shard in files.items():
                save_tensors(stack.enter_context(replacing(folder / file)), shard)
        _remove_stale(folder, set(files) | ({INDEX_NAME} if len(files) > 1 else set()))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written: {error.strerror or error}") from None


def _deal(tensors: Mapping[str, np.ndarray], limit: int) -> list[dict[str, np.ndarray]]:
    """Fill shards in order, each up to `limit` bytes; always at least one shard."""
    shards: list[dict[str, np.ndarray]] = []
    current: dict[str, np.ndarray] = {}
    room = limit
    for name, array in tensors.items():
        if array.nbytes > limit:
            shards.append({name: array})
            continue
        if array.nbytes > room:
            shards.append(current)
            current, room = {}, limit
        current[name] = array
        room -= array.nbytes
    if current or not shards:
        shards.append(current)
    return shards


def _remove_stale(folder: Path, keep: set[str]) -> None:
    """Remove the weights of an earlier save: they would be read first, or waste the disk. Nothing else is touched."""
    for name in os.listdir(folder):
        ours = name in (SINGLE_NAME, INDEX_NAME) or _SHARD_NAME.fullmatch(name)
        if ours and name not in keep and not (folder / name).is_dir():
            (folder / name).unlink()
