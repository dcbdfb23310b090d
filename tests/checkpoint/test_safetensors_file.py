"""The safetensors parser against hand-made files, good and bad, and beside the safetensors library itself."""

from __future__ import annotations

import json
import math
import mmap
import os
import resource
import stat
import struct
import tracemalloc
from pathlib import Path

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from safetensors import SafetensorError, safe_open

from npprelnorm.checkpoint.safetensors_file import SafetensorsFile, write_safetensors
from npprelnorm.checkpoint.tensors import ELEMENT_TYPES, TensorInfo
from npprelnorm.errors import (
    CheckpointError,
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    InputError,
)

LIBRARY = tuple(int(part) for part in safetensors.__version__.split(".")[:2])
WRITABLE = [np.dtype(name) for name in ("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("safetensors")


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


def test_every_stored_type_is_read_as_it_is(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    entries, data, expected = {}, b"", {}
    for name, (size, dtype) in ELEMENT_TYPES.items():
        raw = random.integers(0, 2 if name == "BOOL" else 256, 6 * size, dtype=np.uint8).tobytes()
        entries[name] = tensor(dtype=name, shape=[2, 3], data_offsets=[len(data), len(data) + len(raw)])
        if name == "BF16":
            widened = b"".join(b"\0\0" + raw[i : i + 2] for i in range(0, len(raw), 2))
            expected[name] = np.frombuffer(widened, "<f4").reshape(2, 3)
        else:
            expected[name] = np.frombuffer(raw, dtype).reshape(2, 3)
        data += raw
    file = SafetensorsFile(written(tmp_path, safetensors_bytes(entries, data)))
    assert file.names() == list(ELEMENT_TYPES)
    for name in ELEMENT_TYPES:
        array = file.read(name)
        assert file.info(name) == TensorInfo(name, (2, 3))
        assert array.dtype == expected[name].dtype
        assert array.tobytes() == expected[name].tobytes()
        assert type(array) is np.ndarray
        assert array.shape == (2, 3)
        assert array.flags.aligned
        assert array.flags.c_contiguous
        assert not array.flags.writeable


def test_names_come_in_the_order_of_their_bytes_and_empty_tensors_fit_between(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt", "note": "ü"},
        "z": tensor(data_offsets=[4, 8]),
        "empty": tensor(shape=[3, 0, 2], data_offsets=[4, 4]),
        "": tensor(shape=[], data_offsets=[0, 4]),
        "last": tensor(shape=[0], data_offsets=[8, 8]),
    }
    path = written(tmp_path, safetensors_bytes(header, struct.pack("<ff", 1.5, 2.5)))
    file = SafetensorsFile(path)
    assert file.names() == ["", "empty", "z", "last"]
    assert file.metadata == {"format": "pt", "note": "ü"}
    assert file.path == path
    assert file.read("").shape == ()
    assert file.read("") == 1.5
    assert file.read("z").tolist() == [2.5]
    assert file.read("empty").shape == (3, 0, 2)
    assert not file.read("empty").flags.writeable
    with pytest.raises(CheckpointMismatchError, match="no tensor named 'y'"):
        file.read("y")
    with pytest.raises(CheckpointMismatchError, match="no tensor named 'y'"):
        file.info("y")


@pytest.mark.parametrize("header", [{}, {"__metadata__": {}}, {"__metadata__": None}])
def test_a_file_without_tensors(header: dict[str, object], tmp_path: Path) -> None:
    file = SafetensorsFile(written(tmp_path, safetensors_bytes(header)))
    assert file.names() == []
    assert file.metadata == {}


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F4", "F99_NEW"])
def test_types_numpy_cannot_hold_are_listed_but_not_read(dtype: str, tmp_path: Path) -> None:
    shape = [8] if dtype == "F4" else [4]
    header = {"odd": tensor(dtype=dtype, shape=shape), "even": tensor(data_offsets=[4, 8])}
    file = SafetensorsFile(written(tmp_path, safetensors_bytes(header, struct.pack("<ff", 0, 7))))
    assert file.info("odd") == TensorInfo(dtype, tuple(shape))
    assert file.read("even") == 7
    with pytest.raises(
        CheckpointFormatError, match=f"'odd' .* has element type {dtype}, which NumPy cannot hold: save"
    ):
        file.read("odd")


def test_a_bool_must_be_zero_or_one(tmp_path: Path) -> None:
    header = {"a": tensor(dtype="BOOL", shape=[4])}
    file = SafetensorsFile(written(tmp_path, safetensors_bytes(header, b"\0\1\2\1")))
    with pytest.raises(CheckpointFormatError, match="bytes other than 0 and 1"):
        file.read("a")


def memory_of(array: np.ndarray) -> object:
    """What an array is a view of, at the end of the chain."""
    base: object = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return base.obj if isinstance(base, memoryview) else base


def test_arrays_are_views_of_the_map_and_outlive_the_file(tmp_path: Path) -> None:
    values = np.arange(100_000, dtype=np.float32)
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": values})
    file = SafetensorsFile(path)
    tracemalloc.start()
    try:
        array = file.read("a")
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()
    assert isinstance(memory_of(array), mmap.mmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    file.close()
    file.close()
    write_safetensors(path, {"a": array[::-1]})  # onto the very file that `array` is mapped from
    assert np.array_equal(array, values)
    assert np.array_equal(SafetensorsFile(path).read("a"), values[::-1])
    with pytest.raises(CheckpointError, match="was closed before 'a' was read"):
        file.read("a")


def test_an_odd_header_length_gives_an_aligned_copy(tmp_path: Path) -> None:
    header = json.dumps({"a": tensor()}).encode()
    for padding in range(4):
        file = SafetensorsFile(written(tmp_path, safetensors_bytes(header + b" " * padding, struct.pack("<f", 3.25))))
        array = file.read("a")
        assert array.flags.aligned
        assert not array.flags.writeable
        assert array.tolist() == [3.25]


def test_a_file_cut_short_while_open_is_an_error_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": np.zeros(1_000_000, np.float32)})
    file = SafetensorsFile(path)
    os.truncate(path, 4096)
    with pytest.raises(CheckpointFormatError, match=r"changed from \d+ to 4096 bytes while it was open"):
        file.read("a")


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")
arrays = hnp.arrays(st.sampled_from(WRITABLE), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))


@settings(deadline=None)
@given(st.dictionaries(names, arrays, min_size=1, max_size=6), st.dictionaries(names, names, max_size=3))
def test_what_we_write_both_parsers_read(
    folder: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]
) -> None:
    path = folder / "round.safetensors"
    write_safetensors(path, tensors, metadata)
    ours = SafetensorsFile(path)
    assert sorted(ours.names()) == sorted(tensors)
    assert ours.metadata == metadata
    with safe_open(path, "numpy") as theirs:
        assert sorted(theirs.keys()) == sorted(tensors)
        assert (theirs.metadata() or {}) == metadata
        for name, array in tensors.items():
            read = ours.read(name)
            assert read.dtype == array.dtype
            assert read.shape == array.shape
            assert read.tobytes() == array.tobytes() == theirs.get_tensor(name).tobytes()
            assert list(ours.info(name).shape) == theirs.get_slice(name).get_shape()
            assert ours.info(name).dtype == theirs.get_slice(name).get_dtype()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(ELEMENT_TYPES.keys() - {"C128"} - ({"C64"} if LIBRARY < (0, 7) else set()))),
                  st.lists(st.integers(0, 4), max_size=4)),
        max_size=6,
    ),
    st.randoms(use_true_random=False),
    st.integers(0, 9),
)  # fmt: skip
def test_hand_made_headers_mean_the_same_to_both(
    folder: Path, kinds: list[tuple[str, list[int]]], random: object, padding: int
) -> None:
    entries, position = [], 0
    for i, (dtype, shape) in enumerate(kinds):
        size = math.prod(shape) * ELEMENT_TYPES[dtype][0]
        entries.append((f"t{i}", tensor(dtype=dtype, shape=shape, data_offsets=[position, position + size])))
        position += size
    random.shuffle(entries)  # type: ignore[attr-defined]  # the header may list them in any order
    data = bytes(i % 2 for i in range(position))
    path = written(folder, safetensors_bytes(json.dumps(dict(entries)).encode() + b" " * padding, data))
    ours = SafetensorsFile(path)
    with safe_open(path, "numpy") as theirs:
        assert set(theirs.keys()) == set(ours.names())
        for name in ours.names():
            view = theirs.get_slice(name)
            assert ours.info(name) == TensorInfo(view.get_dtype(), tuple(view.get_shape()))
            array = ours.read(name)
            assert array.shape == ours.info(name).shape
            assert isinstance(array, np.ndarray)
            assert not array.flags.writeable
            if ours.info(name).dtype == "BF16":  # which the library's NumPy side cannot read
                begin, end = dict(entries)[name]["data_offsets"]
                widened = b"".join(b"\0\0" + data[i : i + 2] for i in range(begin, end, 2))
                assert array.tobytes() == widened
            else:
                assert array.tobytes() == theirs.get_tensor(name).tobytes()


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


def test_any_layout_and_byte_order_is_written_right(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensors = {
        "transposed": base.T,
        "reversed": base[:, ::-1],
        "every other": base[..., ::2],
        "broadcast": np.broadcast_to(base[0, 0], (5, 4)),
        "big-endian": base.astype(">f4"),
        "fortran": np.asfortranarray(base),
        "scalar": np.array(2.5, dtype=np.float16),
        "big-endian scalar": np.array(7, dtype=">i8"),
    }
    path = tmp_path / "model.safetensors"
    write_safetensors(path, tensors)
    file = SafetensorsFile(path)
    theirs = safetensors.numpy.load_file(path)
    (tmp_path / "plain").touch()  # the library makes files for its user alone
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert file.metadata == {"format": "pt"}
    for name, array in tensors.items():
        assert file.read(name).shape == array.shape == theirs[name].shape
        assert np.array_equal(file.read(name), array)
        assert np.array_equal(theirs[name], array)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "there are no tensors to write"),
        ({"__metadata__": np.zeros(1)}, "cannot be named '__metadata__'"),
        ({1: np.zeros(1)}, "cannot be named 1"),
        ({"\ud800": np.zeros(1)}, "cannot be named"),
        ({"a": np.array(["x"])}, "'a' has type <U1"),
        ({"a": np.array([None])}, "'a' has type object"),
        ({"a": np.zeros(1, "M8[s]")}, "'a' has type datetime64"),
        ({"a": np.zeros(1, [("x", "f4")])}, "'a' has type"),
        ({"a": np.zeros(1, np.complex128)}, "'a' has type complex128"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is(
    tensors: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        write_safetensors(tmp_path / "model.safetensors", tensors)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": np.ones(3)})
    before = path.read_bytes()

    def full_disk(tensors: object, filename: Path, metadata: object) -> None:
        filename.write_bytes(b"half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full_disk)
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be written: No space left on device"):
        write_safetensors(path, {"a": np.zeros(3)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_when_the_system_takes_no_more_bytes(tmp_path: Path) -> None:
    """The library's own error, which is no OSError; as on a full disk."""
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": np.ones(3)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(
            CheckpointError, match=r"model\.safetensors cannot be written: .*(File too large|FileTooLarge)"
        ):
            write_safetensors(path, {"a": np.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert SafetensorsFile(path).read("a").tolist() == [1, 1, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_place_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be written: .*'int'"):
        write_safetensors(tmp_path / "model.safetensors", {"a": np.ones(3)}, {"step": 1})  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_safetensors(tmp_path / "file" / "model.safetensors", {"a": np.ones(3)})


def test_writing_needs_no_second_copy_of_the_arrays(tmp_path: Path) -> None:
    tensors = {f"t{i}": np.ones((500, 1000), np.float32) for i in range(4)}  # 8 MB
    tracemalloc.start()
    try:
        write_safetensors(tmp_path / "model.safetensors", tensors)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (1_000_000 if LIBRARY >= (0, 8) else 9_000_000)
