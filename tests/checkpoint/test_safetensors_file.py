"""What the safetensors parser reads, and that the safetensors library reads the same."""

from __future__ import annotations

import json
import math
import mmap
import os
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
from safetensors import safe_open
from safetensors_files import safetensors_bytes, tensor, written

from npprelnorm.checkpoint.safetensors_file import SafetensorsFile, write_safetensors
from npprelnorm.checkpoint.tensors import ELEMENT_TYPES, TensorInfo
from npprelnorm.errors import (
    CheckpointError,
    CheckpointFormatError,
    CheckpointMismatchError,
)

LIBRARY = tuple(int(part) for part in safetensors.__version__.split(".")[:2])

WRITABLE = [np.dtype(name) for name in ("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("safetensors")


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
