"""The zip around a torch checkpoint: what is read from it."""

from __future__ import annotations

import gc
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch_files as tf
from hypothesis import given, settings

from npprelnorm.checkpoint.tensors import TensorInfo
from npprelnorm.checkpoint.torch_zip import TorchZipFile
from npprelnorm.errors import (
    CheckpointError,
    CheckpointFormatError,
    CheckpointMismatchError,
    UnsafeCheckpointError,
)

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)

FLOATS = tf.storage("FloatStorage", "0", 12)


def read(path: Path, name: str = "w", **options: Any) -> np.ndarray:
    return TorchZipFile(path, **options).read(name)


def views(tmp_path: Path, tensors: dict[str, bytes], storages: dict[str, bytes], **options: Any) -> Path:
    entries = tf.entries_of(tf.program(tf.state(tensors)), storages, **options)
    return tf.save(tmp_path / "model.bin", entries)


@given(
    arrays=st.dictionaries(
        st.text(max_size=20).filter(lambda name: name.isprintable()),
        st.sampled_from(sorted(tf.KINDS)).flatmap(
            lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5))
        ),
        max_size=5,
    ),
    byteorder=st.sampled_from(["little", "big", None]),
    folder=st.sampled_from(["archive", "pytorch_model", "é model.v1"]),
    described=st.booleans(),
    zip64=st.booleans(),
)
@settings(max_examples=60)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    arrays: dict[str, np.ndarray],
    byteorder: str | None,
    folder: str,
    described: bool,
    zip64: bool,
) -> None:
    """Every type, shape and byte order; also as zip tools write it, without descriptors and zip64 end."""
    stored = arrays
    if byteorder == "big":
        stored = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in arrays.items()}
    entries = tf.checkpoint(stored, byteorder=byteorder, folder=folder)
    for entry in entries:
        entry.described = described
    path = tf.save(tmp_path_factory.mktemp("round") / "model.bin", entries, zip64=zip64)
    file = TorchZipFile(path)
    assert file.names() == list(arrays)
    assert file.metadata == {}
    for name, array in arrays.items():
        result = file.read(name)
        assert result.dtype == array.dtype
        assert result.shape == array.shape == file.info(name).shape
        assert result.tobytes() == array.tobytes()
        assert result.flags.c_contiguous
        assert result.flags.aligned
        assert not result.flags.writeable


def test_python_zipfile_writes_it_too(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for entry in tf.checkpoint({"w": ARRAY}):
            with archive.open(entry.name, "w", force_zip64=True) as file:
                file.write(entry.data)
    np.testing.assert_array_equal(read(path), ARRAY)


def test_views_of_one_storage(tmp_path: Path) -> None:
    tensors = {
        "w": tf.tensor(FLOATS, [3, 4], [4, 1]),
        "tied": tf.tensor(FLOATS, [3, 4], [4, 1]),
        "transposed": tf.tensor(FLOATS, [4, 3], [1, 4]),
        "column": tf.tensor(FLOATS, [3], [4], 2),
        "row": tf.tensor(FLOATS, [1, 4], [2**62, 1], 8),
        "steps": tf.tensor(FLOATS, [2, 1, 2], [8, 0, 2], 1),
        "scalar": tf.tensor(FLOATS, [], [], 11),
        "nothing": tf.tensor(FLOATS, [0, 4], [4, 1], 13),  # torch itself makes such views
    }
    file = TorchZipFile(views(tmp_path, tensors, {"0": ARRAY.tobytes()}))
    expected = {
        "w": ARRAY,
        "tied": ARRAY,
        "transposed": ARRAY.T,
        "column": ARRAY[:, 2],
        "row": ARRAY[2:],
        "steps": ARRAY[::2, None, 1::2],
        "scalar": ARRAY[2, 3],
        "nothing": ARRAY[3:],
    }
    for name, array in expected.items():
        np.testing.assert_array_equal(file.read(name), array, strict=True)
        assert file.read(name).flags.c_contiguous
    assert np.shares_memory(file.read("w"), file.read("tied"))  # both are the file itself
    assert file.read("w").base is not None
    transposed = file.read("transposed")
    assert file.read("transposed") is transposed


def test_bfloat16_widens_once_for_all_its_names(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.0e38, 0.0, np.inf], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    stored = tf.storage("BFloat16Storage", "0", 5)
    both = {"a": tf.tensor(stored, [5], [1]), "b": tf.tensor(stored, [5], [1])}
    for byteorder in ("little", "big"):
        data = bits.astype("<u2" if byteorder == "little" else ">u2").tobytes()
        file = TorchZipFile(views(tmp_path, both, {"0": data}, byteorder=byteorder))
        assert file.info("a") == TensorInfo("BF16", (5,))
        first = file.read("a")
        np.testing.assert_array_equal(first, (bits.astype(np.uint32) << 16).view(np.float32), strict=True)
        assert file.read("b") is first
        assert not first.flags.writeable
        del first
        gc.collect()
        assert not file._copies  # held only as long as somebody else holds them


def test_untyped_storages_of_later_torch(tmp_path: Path) -> None:
    stored = tf.storage("", "0", 16).replace(b"torch\n\n", b"torch.storage\nUntypedStorage\n")
    for name, width in (("uint16", 2), ("uint32", 4), ("uint64", 8)):
        tensor = tf.tensor(stored, [2], [1], 0, function="_rebuild_tensor_v3", rest=tf.name("torch", name))
        array = np.arange(16 // width, dtype=name)
        path = views(tmp_path, {"w": tensor}, {"0": array.tobytes()})
        np.testing.assert_array_equal(read(path), array[:2], strict=True)
        too_long = tf.tensor(stored, [9], [1], 0, function="_rebuild_tensor_v3", rest=tf.name("torch", name))
        with pytest.raises(UnsafeCheckpointError, match="leaves its storage"):
            TorchZipFile(views(tmp_path, {"w": too_long}, {"0": array.tobytes()}))
    two = {n: tf.tensor(stored, [1], [1], function="_rebuild_tensor_v3", rest=tf.name("torch", n)) for n in
           ("uint16", "uint32")}  # fmt: skip
    with pytest.raises(UnsafeCheckpointError, match="is read as two types, U16 and U32"):
        TorchZipFile(views(tmp_path, two, {"0": bytes(16)}))


def test_data_that_is_not_aligned_is_copied(tmp_path: Path) -> None:
    entries = tf.checkpoint({"w": ARRAY})
    for entry in entries:
        entry.local["extra"] = b""
    entries[0].local["extra"] = b"FB\x01\x00Z"
    path = tf.save(tmp_path / "model.bin", entries)
    assert path.read_bytes().index(ARRAY.tobytes()) % 4 != 0
    array = read(path)
    np.testing.assert_array_equal(array, ARRAY)
    assert array.flags.aligned


def test_arrays_outlive_the_file(tmp_path: Path) -> None:
    path = tf.save(tmp_path / "model.bin", tf.checkpoint({"w": ARRAY}))
    file = TorchZipFile(path)
    array = file.read("w")
    file.close()
    file.close()
    path.unlink()
    np.testing.assert_array_equal(array, ARRAY)
    with pytest.raises(CheckpointError, match="was closed before 'w' was read"):
        file.read("w")
    with pytest.raises(CheckpointMismatchError, match="has no tensor named 'v'"):
        file.read("v")
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1.0


def test_a_file_that_shrinks_is_not_touched(tmp_path: Path) -> None:
    path = tf.save(tmp_path / "model.bin", tf.checkpoint({"w": np.zeros(100_000, np.float32)}))
    file = TorchZipFile(path)
    os.truncate(path, 5000)
    with pytest.raises(CheckpointFormatError, match="to 5000 bytes while it was open"):
        file.read("w")


def test_memory_is_that_of_the_copies(tmp_path: Path) -> None:
    """Opening and viewing 32 MB takes next to nothing; a transposed copy of them takes 32 MB once."""
    array = np.arange(8 << 20, dtype=np.float32).reshape(2048, 4096)
    stored = tf.storage("FloatStorage", "0", array.size)
    tensors = {"w": tf.tensor(stored, [2048, 4096], [4096, 1]), "t": tf.tensor(stored, [4096, 2048], [1, 4096])}
    path = views(tmp_path, tensors, {"0": array.tobytes()})
    tracemalloc.start()
    try:
        file = TorchZipFile(path)
        np.testing.assert_array_equal(file.read("w")[-1], array[-1])
        viewed = tracemalloc.get_traced_memory()[1]
        copied = file.read("t")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(copied[:, 7], array[7])
    assert viewed < 1 << 20
    assert peak < array.nbytes + (1 << 20)


def test_checksums(tmp_path: Path) -> None:
    """Checked by default in small files, one storage at a time; data.pkl in all files."""
    data = bytearray(tf.make_zip(tf.checkpoint({"w": ARRAY, "v": np.ones(3)})))
    data[data.index(ARRAY.tobytes()) + 3] ^= 1
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path, "v"), np.ones(3))
    with pytest.raises(CheckpointFormatError, match="the checksum of its record data/0 is wrong"):
        read(path)
    assert read(path, verify_crc=False)[0, 0] != 0
    data[data.index(b"FloatStorage")] = ord("B")
    path.write_bytes(data)
    with pytest.raises(CheckpointFormatError, match=r"the checksum of its record data\.pkl is wrong"):
        TorchZipFile(path, verify_crc=False)
