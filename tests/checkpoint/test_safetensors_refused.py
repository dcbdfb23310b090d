"""Damaged and hostile safetensors files: refused by us, cheaply, and by the library too."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from safetensors import SafetensorError, safe_open
from safetensors_files import safetensors_bytes, tensor, written

from npprelnorm.checkpoint.safetensors_file import SafetensorsFile
from npprelnorm.errors import (
    CheckpointFormatError,
    CheckpointNotFoundError,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("safetensors")


ENTRY = b'"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'


# name -> (file content, part of the message)
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "only 0 bytes long"),
    "seven bytes": (b"\x02\0\0\0\0\0\0", "only 7 bytes long"),
    "only a length": (struct.pack("<Q", 2), "announce a header of 2 bytes, but only 0 follow"),
    "length beyond the file": (struct.pack("<Q", 3) + b"{}", "header of 3 bytes, but only 2 follow"),
    "length of 2**63": (struct.pack("<Q", 2**63) + b"{}", f"header of {2**63} bytes"),
    "length of 2**64 - 1": (struct.pack("<Q", 2**64 - 1) + b"{}", f"header of {2**64 - 1} bytes"),
    "empty header": (safetensors_bytes(b""), "starts with b''"),
    "space before": (safetensors_bytes(b" {" + ENTRY + b"}", b"0000"), "starts with b' {"),
    "an array": (safetensors_bytes(b"[]"), "starts with b'[]'"),
    "not json": (safetensors_bytes(b"{nonsense"), "not valid JSON"),
    "not utf-8": (safetensors_bytes(b'{"\xff": 1}'), "not UTF-8"),
    "zero byte after": (safetensors_bytes(b"{" + ENTRY + b"}\0", b"0000"), "Extra data"),
    "two objects": (safetensors_bytes(b"{}{}"), "Extra data"),
    "deep": (safetensors_bytes(b'{"a":' + b"[" * 100_000), "deeper than 64"),
    "unclosed string of quotes": (safetensors_bytes(b'{"' + b'\\"' * 300_000), "Unterminated string"),
    "a million parts": (safetensors_bytes(b'{"a":[' + b"0," * 1_000_001 + b"0]}"), "parts, more than the 1000000"),
    "lone surrogate": (safetensors_bytes(b"{" + ENTRY.replace(b"a", b"\\ud800", 1) + b"}", b"0000"), "surrogate"),
    "same name twice": (safetensors_bytes(b"{" + ENTRY + b", " + ENTRY + b"}", b"0000"), "'a' appears twice"),
    "same name, escaped": (
        safetensors_bytes(b"{" + ENTRY + b", " + ENTRY.replace(b"a", b"\\u0061", 1) + b"}", b"0000"),
        "'a' appears twice",
    ),
    "same field twice": (
        safetensors_bytes(b"{" + ENTRY.replace(b'"shape"', b'"dtype": "F32", "shape"') + b"}", b"0000"),
        "'dtype' appears twice",
    ),
    "metadata twice": (safetensors_bytes(b'{"__metadata__": {"x": "1", "x": "2"}}'), "'x' appears twice"),
    "metadata of numbers": (safetensors_bytes({"__metadata__": {"x": 1}}), "__metadata__ must map strings"),
    "metadata as list": (safetensors_bytes({"__metadata__": ["x"]}), "__metadata__ must map strings"),
    "entry as list": (safetensors_bytes(b'{"a": ["F32", [1], [0, 4]]}', b"0000"), "needs a dtype, a shape"),
    "no shape": (safetensors_bytes({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, b"0000"), "needs a dtype, a shape"),
    "type in lower case": (safetensors_bytes({"a": tensor(dtype="f32")}, b"0000"), "element type 'f32'"),
    "type as number": (safetensors_bytes({"a": tensor(dtype=32)}, b"0000"), "element type 32"),
    "shape as number": (safetensors_bytes({"a": tensor(shape=1)}, b"0000"), "shape 1: not a list"),
    "float in the shape": (safetensors_bytes({"a": tensor(shape=[1.0])}, b"0000"), "shape [1.0]: not a list"),
    "bool in the shape": (safetensors_bytes({"a": tensor(shape=[True])}, b"0000"), "shape [True]: not a list"),
    "negative size": (safetensors_bytes({"a": tensor(shape=[-1, -1])}, b"0000"), "shape [-1, -1]: not a list"),
    "NaN in the shape": (safetensors_bytes(b'{"a": {"shape": [NaN]}}'), "number NaN is not allowed"),
    "infinite size": (safetensors_bytes(b'{"a": {"shape": [1e999]}}'), "number 1e999 is too large"),
    "size of 5000 digits": (safetensors_bytes(b'{"a": {"shape": [' + b"9" * 5000 + b"]}}"), "integer of 5000 digits"),
    "size of 2**64": (safetensors_bytes({"a": tensor(shape=[2**64])}, b"0000"), "not a list of whole numbers"),
    "product wraps to one": (safetensors_bytes({"a": tensor(shape=[2**33, 2**33])}, b"0000"), "too large for any"),
    "empty, yet huge": (
        safetensors_bytes({"a": tensor(shape=[0, 2**62, 2**62], data_offsets=[0, 0])}),
        "too large for any",
    ),
    "33 axes": (safetensors_bytes({"a": tensor(shape=[1] * 33)}, b"0000"), "33 axes"),
    "one offset": (safetensors_bytes({"a": tensor(data_offsets=[4])}, b"0000"), "data_offsets [4]"),
    "three offsets": (safetensors_bytes({"a": tensor(data_offsets=[0, 4, 4])}, b"0000"), "data_offsets [0, 4, 4]"),
    "negative offset": (safetensors_bytes({"a": tensor(data_offsets=[-4, 0])}, b"0000"), "data_offsets [-4, 0]"),
    "float offset": (safetensors_bytes({"a": tensor(data_offsets=[0, 4.0])}, b"0000"), "data_offsets [0, 4.0]"),
    "end before begin": (safetensors_bytes({"a": tensor(data_offsets=[4, 0])}, b"0000"), "data_offsets [4, 0]"),
    "offset of 2**63": (safetensors_bytes({"a": tensor(data_offsets=[0, 2**63])}, b"0000"), "data_offsets"),
    "too few bytes for the shape": (safetensors_bytes({"a": tensor(shape=[2])}, b"0000"), "does not fill its 4 bytes"),
    "too many bytes for the shape": (safetensors_bytes({"a": tensor(shape=[0])}, b"0000"), "does not fill its 4 bytes"),
    "half a byte": (safetensors_bytes({"a": tensor(dtype="F4", shape=[7])}, b"0000"), "does not fill its 4 bytes"),
    "float8 of the wrong size": (safetensors_bytes({"a": tensor(dtype="F8_E4M3")}, b"0000"), "does not fill its 4"),
    "overlap": (
        safetensors_bytes({"a": tensor(shape=[2], data_offsets=[0, 8]), "b": tensor(data_offsets=[4, 8])}, b"0" * 8),
        "'b' begins at byte 4 instead of 8 and so overlaps",
    ),
    "same bytes twice": (safetensors_bytes({"a": tensor(), "b": tensor()}, b"0000"), "overlaps"),
    "gap": (
        safetensors_bytes({"a": tensor(), "b": tensor(data_offsets=[8, 12])}, b"0" * 12),
        "'b' begins at byte 8 instead of 4 and so leaves a gap",
    ),
    "gap at the start": (safetensors_bytes({"a": tensor(data_offsets=[4, 8])}, b"0" * 8), "leaves a gap"),
    "empty tensor inside another": (
        safetensors_bytes({"a": tensor(), "b": tensor(shape=[0], data_offsets=[2, 2])}, b"0000"),
        "overlaps",
    ),
    "truncated": (safetensors_bytes({"a": tensor()}, b"000"), "need 4 bytes, but 3 are there: truncated"),
    "far beyond the end": (
        safetensors_bytes({"a": tensor(shape=[2**40], data_offsets=[0, 2**42])}, b"0000"),
        f"need {2**42} bytes, but 4 are there",
    ),
    "bytes after the end": (safetensors_bytes({"a": tensor()}, b"0000PK\3\4"), "4 bytes after the last tensor"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "announce a header"),
}


# what the library takes, and we do not: nothing that any writer makes
STRICTER = {
    "space before",
    "metadata twice",
    "same name twice",  # the library keeps one of them
    "same name, escaped",
    "entry as list",
    "empty, yet huge",  # no NumPy array can have these two
    "33 axes",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_cheaply(name: str, tmp_path: Path) -> None:
    content, message = BAD[name]
    path = written(tmp_path, content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointFormatError) as caught:
            SafetensorsFile(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(caught.value) is CheckpointFormatError
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))
    assert peak < 200_000 + 8 * len(content)


@pytest.mark.parametrize("name", BAD)
def test_the_library_refuses_them_too(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, BAD[name][0])
    if name in STRICTER:
        with safe_open(path, "numpy") as file:
            assert list(file.keys()) in ([], ["a"])
    else:
        with pytest.raises((SafetensorError, OSError)), safe_open(path, "numpy"):
            pass


def test_a_huge_header_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 90_000_000) + b"{")
        file.truncate(100_000_000)  # sparse
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointFormatError, match="90000000 bytes long, more than the 25000000"):
            SafetensorsFile(path)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_no_file_a_folder_a_pipe_and_a_broken_link(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"nothing\.safetensors does not exist"):
        SafetensorsFile(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        SafetensorsFile(tmp_path / ("long" * 200))
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        SafetensorsFile(tmp_path / "zero\0byte")
    with pytest.raises(CheckpointFormatError, match="is a folder"):
        SafetensorsFile(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointFormatError, match="not a regular file"):
        SafetensorsFile(tmp_path / "pipe")  # opening it would wait for a writer for ever
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(CheckpointNotFoundError, match=r"is a link to .*gone, which does not exist"):
        SafetensorsFile(tmp_path / "link")


GOOD = safetensors_bytes(
    {
        "__metadata__": {"format": "pt"},
        "a": tensor(shape=[2, 2], data_offsets=[0, 16]),
        "b": tensor(dtype="I64", shape=[], data_offsets=[16, 24]),
        "c": tensor(dtype="BF16", shape=[3, 0], data_offsets=[24, 24]),
        "d": tensor(dtype="BOOL", shape=[5], data_offsets=[24, 29]),
    },
    bytes(29),
)


edits = st.lists(
    st.tuples(
        st.integers(0, len(GOOD) - 1),
        st.one_of(
            st.binary(max_size=3), st.sampled_from([b"-", b"9", b"1e5", b'"', b"{", b"}", b"[", b"]", b",", b"\0"])
        ),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=400)
@given(edits, st.booleans())
def test_damaged_files_give_only_our_errors_and_never_more_than_the_library_takes(
    folder: Path, edits: list[tuple[int, bytes, int]], repair: bool
) -> None:
    content = GOOD
    for position, inserted, removed in edits:
        content = content[:position] + inserted + content[position + removed :]
    if repair:  # the length, so that the damage is found further in
        content = struct.pack("<Q", max(0, len(content) - 8 - 29)) + content[8:]
    path = written(folder, content)
    try:
        file = SafetensorsFile(path)
        for name in file.names():
            file.read(name)
    except CheckpointFormatError:
        return
    # -0 is an integer to Python and not to the library; C128 is a type that the library does not know
    if b"-0" not in content and b"C128" not in content:
        with safe_open(path, "numpy") as theirs:
            assert set(theirs.keys()) == set(file.names())
