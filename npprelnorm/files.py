"""Reading JSON strictly and writing files atomically: the two things every other room needs from a disk."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from .errors import CheckpointFormatError, CheckpointNotFoundError

MAX_JSON_BYTES = 1 << 20
MAX_JSON_DEPTH = 64


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success rename it to `path`, on failure remove it.

    A reader therefore sees the old file or the new one, never half of one; and arrays that are still mapped from
    the old file keep their numbers, since the rename leaves its inode alone.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:  # whoever asked for `path` asked for no folder and no temporary file
        raise OSError(error.errno, error.strerror, os.fspath(target)) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 would hide the file from other users
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike[str], *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object from `path` by the rules of `parse_json`; at most `max_bytes` long."""
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise CheckpointNotFoundError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise CheckpointFormatError(f"{path} is a folder, not a JSON file") from None
    except OSError as error:
        raise CheckpointFormatError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > max_bytes:
        raise CheckpointFormatError(f"{path} is larger than {max_bytes} bytes, which no such file needs")
    return parse_json(data, str(path))


def parse_json(data: bytes, source: str) -> dict[str, Any]:
    """Parse a JSON object strictly: UTF-8, no duplicate keys, no NaN or Infinity, at most 64 levels deep.

    Python's own parser accepts all of these, and keeps the last of two equal keys; another reader may keep the
    first, which is how one file can mean two things.
    """

    def fail(what: str) -> NoReturn:
        raise CheckpointFormatError(f"{source} is not valid JSON: {what}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            fail(f"the key {twice[:80]!r} appears twice")
        return result

    def constant(token: str) -> NoReturn:
        fail(f"the number {token} is not allowed")

    def integer(digits: str) -> int:
        # int() of a very long literal is quadratic, and refused with a ValueError from 4300 digits on; the longest that
        # honest files hold are the 31 of transformers' "no limit", 1e30
        if len(digits) > 40:
            fail(f"an integer of {len(digits)} digits")
        return int(digits)

    def real(digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            fail(f"the number {digits[:40]} is too large")
        return number

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        fail(f"it is not UTF-8 (byte {error.start})")
    if _depth(data) > MAX_JSON_DEPTH:
        fail(f"it is nested deeper than {MAX_JSON_DEPTH} levels")
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=constant, parse_int=integer, parse_float=real)
        if b"\\u" in data:  # half of a surrogate pair parses, but is no text: it could never be written back
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        fail(f"{error.msg} at line {error.lineno}, column {error.colno}")
    except UnicodeEncodeError:
        fail("half of a surrogate pair stands alone")
    if not isinstance(value, dict):
        fail(f"the top level is a {type(value).__name__}, not an object")
    return value


# a whole string (its brackets do not count), or one bracket; each alternative is linear in time and needs no stack
_STRING_OR_BRACKET = re.compile(rb'"[^"]*"?|[\[\]{}]')


def _depth(data: bytes) -> int:
    """Deepest nesting of brackets outside strings; a bound that keeps the recursive parser from overflowing."""
    if b"\\" in data:  # without escaped backslashes and quotes, a string is whatever lies between two quotes
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    depth = deepest = 0
    for match in _STRING_OR_BRACKET.finditer(data):
        token = match.group()
        if token in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_JSON_DEPTH:
                break
        elif token in b"]}":
            depth -= 1
    return deepest
