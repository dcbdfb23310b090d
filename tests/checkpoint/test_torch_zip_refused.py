"""The zip around a torch checkpoint: every disagreement or trick that is refused."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch_files as tf
from hypothesis import given, settings

from npprelnorm.checkpoint.torch_records import Limits
from npprelnorm.checkpoint.torch_zip import TorchZipFile
from npprelnorm.errors import (
    CheckpointFormatError,
    CheckpointNotFoundError,
    UnsafeCheckpointError,
)

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)

FLOATS = tf.storage("FloatStorage", "0", 12)

PADDED = b"FB\x04\x00ZZZZ"


def read(path: Path, name: str = "w", **options: Any) -> np.ndarray:
    return TorchZipFile(path, **options).read(name)


def edited(index: int = 3, **changes: Any) -> Callable[[], bytes]:
    """A good file but for these attributes of one record (0 is data.pkl, 3 is data/0)."""

    def build() -> bytes:
        entries = tf.checkpoint({"w": ARRAY, "v": np.ones(3)})
        for field, value in changes.items():
            setattr(entries[index], field, value)
        return tf.make_zip(entries)

    return build


def wrapped(**options: Any) -> Callable[[], bytes]:
    return lambda: tf.make_zip(tf.checkpoint({"w": ARRAY}), **options)


def with_records(*records: tf.Entry, folder: str = "archive") -> Callable[[], bytes]:
    return lambda: tf.make_zip([*tf.checkpoint({"w": ARRAY}, folder=folder), *records])


def of_pickle(value: bytes, data: bytes = ARRAY.tobytes(), **options: Any) -> Callable[[], bytes]:
    return lambda: tf.make_zip(tf.entries_of(tf.program(value), {"0": data}, **options))


def same_place_twice() -> bytes:
    entries = tf.checkpoint({"w": ARRAY, "v": np.ones(12, np.float32)})
    probe = tf.make_zip(entries)
    entries[4].central["offset"] = probe.index(b"archive/data/0") - 30
    return tf.make_zip(entries)


def nested_records() -> bytes:
    """A record whose data holds the local header and the data of another one."""
    inner = b"PK\x03\x04" + struct.pack("<5H3L2H", 0, 0x0800, 0, 0, 0, 0, 0, 0, 14, 0) + b"archive/data/9"
    entries = tf.checkpoint({"w": ARRAY})
    entries.append(tf.Entry("archive/blob", inner))
    entries.append(tf.Entry("archive/data/9", b"", described=False))
    entries[-1].central["offset"] = tf.make_zip(entries).index(inner)
    return tf.make_zip(entries)


def entry_cut_off() -> bytes:
    """The name of the last entry is longer than the directory."""
    data = bytearray(GOOD)
    data[data.rindex(b"PK\x01\x02") + 28] += 1
    return bytes(data)


def entry_of_four_bytes() -> bytes:
    """The last entry begins and the directory ends there: reading on would leave the file."""
    data = tf.make_zip(tf.checkpoint({"w": ARRAY}), zip64=False)
    begin = data.index(b"PK\x01\x02")
    end = {"count": 7, "length": len(data) - 22 - begin + 4, "begin": begin}
    return data[:-22] + b"PK\x01\x02" + tf.make_zip([], zip64=False, end=end)


def compressed() -> bytes:
    """42.zip-like: a megabyte of zeros in a kilobyte."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in tf.checkpoint({"w": np.zeros(1 << 18, np.float32)}):
            archive.writestr(entry.name, entry.data)
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))
    return buffer.getvalue()


def many_copies() -> bytes:
    tensors = {f"t{i}": tf.tensor(tf.storage("FloatStorage", "0", 10_000), [100 - i, 100], [1, 100]) for i in range(30)}
    return of_pickle(tf.state(tensors), bytes(40_000))()


DAMAGED, UNSAFE = CheckpointFormatError, UnsafeCheckpointError

W = tf.state({"w": tf.tensor(FLOATS, [3, 4], [4, 1])})

GOOD = tf.make_zip(tf.checkpoint({"w": ARRAY}))


REFUSED: dict[str, tuple[Callable[[], bytes], type[Exception], str]] = {
    # other formats
    "empty": (lambda: b"", DAMAGED, "it is empty"),
    "web page": (lambda: b"<html>" * 100, DAMAGED, "starts with b'<html><h', and so is no zip archive"),
    "legacy": (
        lambda: b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
        DAMAGED,
        "made by torch before 1.6, or in that old format: load it with a current torch and torch.save its state dict",
    ),
    "bare pickle": (lambda: b"\x80\x04N.", DAMAGED, "it is a bare pickle"),
    "tar": (tar, DAMAGED, "it is a tar archive, as torch before 0.2 made them: load it with a current torch"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(100), DAMAGED, "is no zip archive"),
    "empty zip": (lambda: b"PK\x05\x06" + bytes(18), UNSAFE, "does not begin at its first byte"),
    "another zip": (lambda: tf.make_zip([tf.Entry("a.txt", b"hello")]), DAMAGED, "without a data.pkl"),
    "TorchScript": (with_records(tf.Entry("archive/constants.pkl", b"")), UNSAFE, "archive, which holds code"),
    "TorchScript's code": (with_records(tf.Entry("archive/code/a.py", b"")), UNSAFE, "TorchScript archive"),
    # around the archive
    "prefix": (wrapped(prefix=b"#!/bin/sh\n"), UNSAFE, "does not begin at its first byte, which is b'#!/bin/s'"),
    "zip before the zip": (wrapped(prefix=tf.make_zip([tf.Entry("a", b"")])), UNSAFE, "belong to no record"),
    "suffix": (wrapped(suffix=b"#!/bin/sh\n"), UNSAFE, "10 bytes follow the end of its zip archive"),
    "zip after the zip": (
        lambda: GOOD + tf.make_zip([tf.Entry("a", b"")], zip64=False), UNSAFE, "its directory is announced from"
    ),
    "zip64 after the zip": (lambda: GOOD + tf.make_zip([tf.Entry("a", b"")]), UNSAFE, "and is not there"),
    "gap before the directory": (wrapped(gap=b"payload"), UNSAFE, "7 bytes from"),
    "comment": (wrapped(suffix=b"hi", end={"comment": 2}), UNSAFE, "2 bytes follow the end"),
    "comment that is not there": (wrapped(end={"comment": 2}), UNSAFE, "carries a comment"),
    "comment that hides an end": (wrapped(suffix=GOOD[-22:], end={"comment": 22}), UNSAFE, "announced"),
    "cut in half": (lambda: GOOD[: len(GOOD) // 2], DAMAGED, "ends without the directory of a zip"),
    "cut by one byte": (lambda: GOOD[:-1], UNSAFE, "bytes follow the end"),
    "only the signature": (lambda: b"PK\x03\x04", DAMAGED, "ends without the directory of a zip (4 bytes)"),
    "one part of two": (wrapped(end={"disk": 1}), UNSAFE, "one part of several"),
    "begun in part 1": (wrapped(end={"first": 1}), UNSAFE, "one part of several"),
    "fewer records here": (wrapped(end={"here": 1}), UNSAFE, "one part of several"),
    # the ends
    "directory beyond the end": (wrapped(zip64=False, end={"begin": 2**31}), UNSAFE, "its directory is announced"),
    "directory shorter": (wrapped(zip64=False, end={"length": 100}), UNSAFE, "its directory is announced"),
    "one record less": (wrapped(zip64=False, end={"count": 5}), UNSAFE, "of its directory belong to none of its 5"),
    "one record more": (wrapped(zip64=False, end={"count": 7}), DAMAGED, "the entry of its directory at byte"),
    "65535 records": (wrapped(zip64=False, end={"count": 0xFFFF}), UNSAFE, "it has 65535 records, more than the 60000"),
    "zip64 that is not there": (wrapped(zip64=False, end={"begin": 2**32 - 1}), UNSAFE, "its directory is announced"),
    "zip64 that disagrees": (wrapped(end64={"begin": 7}), UNSAFE, "its two directory ends disagree"),
    "zip64 with other records": (wrapped(end64={"count": 5}), UNSAFE, "its two directory ends disagree"),
    "zip64 of 2^64 bytes": (
        wrapped(end={"length": 2**32 - 1}, end64={"length": 2**64 - 1}), UNSAFE, "its directory is announced"
    ),
    "zip64 of 2^63 records": (
        wrapped(end={"count": 0xFFFF}, end64={"count": 2**63}), UNSAFE, "records, more than the 60000 allowed"
    ),
    "zip64 elsewhere": (wrapped(end64={"position": 5}), UNSAFE, "announced at byte 5 and is not there"),
    "zip64 in parts": (wrapped(end64={"disks": 2}), UNSAFE, "and is not there"),
    "zip64 end in part 1": (wrapped(end64={"end_disk": 1}), UNSAFE, "and is not there"),
    "zip64 without signature": (wrapped(end64={"signature": b"PK\x06\x05"}), UNSAFE, "and is not there"),
    "zip64 part 1": (wrapped(end64={"disk": 1}), UNSAFE, "zip64 directory is one part of several"),
    "zip64 begun in part 1": (wrapped(end64={"first": 1}), UNSAFE, "zip64 directory is one part of several"),
    "zip64 with fewer records here": (wrapped(end64={"here": 1}), UNSAFE, "zip64 directory is one part of several"),
    "zip64 of another length": (wrapped(end64={"own": 45}), UNSAFE, "zip64 directory is one part of several"),
    # records
    "two records of one name": (with_records(tf.Entry("archive/data/0", b"x" * 48)), UNSAFE, "have the same name"),
    "two data.pkl": (with_records(tf.Entry("archive/x/data.pkl", b"")), UNSAFE, "must have one data.pkl"),
    "two folders": (with_records(tf.Entry("other/data/0", b"")), UNSAFE, "one folder that holds everything"),
    "data.pkl deeper": (with_records(folder="a/b"), UNSAFE, "must have one data.pkl"),
    "absolute name": (with_records(tf.Entry("/etc/passwd", b"")), UNSAFE, "'/etc/passwd', which is no plain name"),
    "name that leads out": (with_records(tf.Entry("archive/../x", b"")), UNSAFE, "no plain name"),
    "backslash": (with_records(tf.Entry("archive\\x", b"")), UNSAFE, "no plain name"),
    "drive": (with_records(tf.Entry("C:archive/x", b"")), UNSAFE, "no plain name"),
    "NUL": (with_records(tf.Entry("archive/data.pkl\0.txt", b"")), UNSAFE, "no plain name"),
    "folder": (with_records(tf.Entry("archive/data/", b"")), UNSAFE, "no plain name"),
    "name that is not UTF-8": (edited(central={"name": b"archive/\xff"}), DAMAGED, "a name that is not UTF-8"),
    "name differs": (edited(local={"name": b"archive/data/1"}), UNSAFE, "another name, method or flags"),
    "name differs in length": (edited(local={"name": b"archive/data/00"}), UNSAFE, "another name, method or flags"),
    "flags differ": (edited(local={"flags": 0x0809}), UNSAFE, "another name, method or flags"),
    "encrypted": (edited(local={"flags": 0x0809}, central={"flags": 0x0809}), DAMAGED, "is encrypted"),
    "strongly encrypted": (edited(central={"flags": 0x0840}), DAMAGED, "is encrypted"),
    "unknown flag": (edited(central={"flags": 0x8808}), DAMAGED, "has the flags 0x8808"),
    "compressed": (compressed, DAMAGED, "is compressed (method 8)"),
    "method differs": (edited(local={"method": 8}), UNSAFE, "another name, method or flags"),
    "other method": (edited(central={"method": 99}), DAMAGED, "is compressed (method 99)"),
    "checksum differs behind": (edited(central={"crc": 1}), UNSAFE, "size or checksum after its data"),
    "checksum differs before": (edited(local={"crc": 1}), UNSAFE, "size or checksum in its own header"),
    "size differs before": (edited(described=False, local={"size": 47}), UNSAFE, "size or checksum in its own header"),
    "size differs behind": (edited(descriptor=b"PK\x07\x08" + bytes(12)), UNSAFE, "size or checksum after its data"),
    "no descriptor": (edited(descriptor=b""), UNSAFE, "size or checksum after its data"),
    "sizes differ": (edited(central={"packed": 47}), UNSAFE, "has the sizes 48 and 47"),
    "longer than it is": (edited(central={"packed": 99, "size": 99}), UNSAFE, "size or checksum after its data"),
    "shorter than it is": (edited(central={"packed": 9, "size": 9}), UNSAFE, "size or checksum after its data"),
    "as long as the file": (edited(central={"packed": 9**9, "size": 9**9}), DAMAGED, "runs into the directory"),
    "of 2^64 bytes": (
        edited(central={"packed": 2**32 - 1, "size": 2**32 - 1, "extra": b"\1\0\x10\0" + b"\xff" * 16}),
        DAMAGED, "of 18446744073709551615 bytes runs into",
    ),
    "zip64 sizes without field": (edited(central={"size": 2**32 - 1}), DAMAGED, "a zip64 field that it does not have"),
    "zip64 field too short": (
        edited(central={"size": 2**32 - 1, "extra": b"\1\0\4\0\0\0\0\0"}), DAMAGED, "zip64 field that it does not have"
    ),
    "zip64 field too long": (
        edited(central={"size": 2**32 - 1, "extra": b"\1\0\x10\0" + bytes(16)}), UNSAFE, "a zip64 field of 16 bytes"
    ),
    "two zip64 fields": (edited(central={"extra": b"\1\0\0\0" * 2}), UNSAFE, "two zip64 fields"),
    "extra field cut off": (edited(local={"extra": PADDED[:-1]}), DAMAGED, "extra field of its record"),
    "extra field of 3 bytes": (edited(local={"extra": b"FB\0"}), DAMAGED, "extra field of its record"),
    "in part 1": (edited(central={"disk": 1}), UNSAFE, "in part 1"),
    "offset of another": (edited(central={"offset": 0}), UNSAFE, "overlaps the one before it"),
    "offset beyond the end": (edited(index=6, central={"offset": 2**31}), UNSAFE, "belong to no record"),
    "offset off by one": (edited(index=0, central={"offset": 1}), UNSAFE, "1 bytes from 0 on belong to no record"),
    "no header there": (edited(index=0, local={"signature": b"PK\x03\x05"}), UNSAFE, "begin at its first byte"),
    "no second header": (edited(local={"signature": b"PK\x03\x05"}), DAMAGED, "does not begin at byte"),
    "no entry": (edited(central={"signature": b"PK\x01\x03"}), DAMAGED, "the entry of its directory"),
    "entry cut off": (entry_cut_off, DAMAGED, "is cut off"),
    "entry of four bytes": (entry_of_four_bytes, DAMAGED, "the entry of its directory at byte"),
    "comment of a record": (edited(central={"comment": b"hi"}), UNSAFE, "carries a comment"),
    "one record seen twice": (same_place_twice, UNSAFE, "overlaps the one before it"),
    "record within a record": (nested_records, UNSAFE, "overlaps the one before it"),
    # storages
    "storage missing": (lambda: tf.make_zip(tf.entries_of(tf.program(W), {})), DAMAGED, "it has no record data/0"),
    "storage too short": (of_pickle(W, bytes(47)), DAMAGED, "data/0 has 47 bytes, where 48 are announced"),
    "storage too long": (of_pickle(W, bytes(52)), DAMAGED, "data/0 has 52 bytes, where 48 are announced"),
    "storage in another folder": (
        of_pickle(tf.state({"w": tf.tensor(tf.storage("FloatStorage", "../data.pkl", 1), [1], [1])})),
        DAMAGED, "it has no record data/../data.pkl",
    ),
    "storage of 2^63 numbers": (
        of_pickle(tf.state({"w": tf.tensor(tf.storage("FloatStorage", "0", 2**63 - 1), [4], [1])})),
        DAMAGED, "where 36893488147419103228 are announced",
    ),
    "bool of 2": (
        of_pickle(tf.state({"w": tf.tensor(tf.storage("BoolStorage", "0", 48), [48], [1])})),
        DAMAGED, "the bool tensor 'w' holds bytes other than 0 and 1",
    ),
    "byteorder of nonsense": (of_pickle(W, byteorder="middle"), DAMAGED, "its byteorder is b'middle'"),
    "long byteorder": (of_pickle(W, byteorder="l" * 99), UNSAFE, "byteorder has 99 bytes, more than the 16"),
    "long data.pkl": (lambda: tf.make_zip(tf.entries_of(bytes(20 << 20), {})), UNSAFE, "data.pkl has 20971520 bytes"),
    "thirty copies": (many_copies, UNSAFE, "would unfold to 1026000 bytes of copies"),
    "not a state dict": (of_pickle(b"}" + tf.text("epoch") + b"K\x03s"), DAMAGED, "its keys are 'epoch' (int)"),
    "code in the pickle": (of_pickle(b"cposix\nsystem\n" + tf.text("touch canary") + b"\x85R"), UNSAFE, "posix.system"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact class, the reason, one line, nothing run, little memory; at the latest when the tensor is read."""
    monkeypatch.chdir(tmp_path)
    build, error, reason = REFUSED[case]
    Path("model.bin").write_bytes(build())
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointFormatError) as caught:
            read(Path("model.bin"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(caught.value) is error
    assert reason in str(caught.value)
    assert str(caught.value).startswith("model.bin ")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["model.bin"]
    assert peak < 2e6


@given(length=st.integers(0, len(GOOD) - 1))
@settings(max_examples=100)
def test_every_truncation_is_refused(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "model.bin"
    path.write_bytes(GOOD[:length])
    with pytest.raises(CheckpointFormatError):
        TorchZipFile(path)


@given(place=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 7))
@settings(max_examples=300)
def test_no_flipped_bit_changes_a_number(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    """A flip is found, or was in a byte that means nothing (dates, padding)."""
    data = bytearray(GOOD)
    data[place] ^= 1 << bit
    path = tmp_path_factory.mktemp("flip") / "model.bin"
    path.write_bytes(data)
    try:
        array = read(path)
    except CheckpointFormatError:
        return
    np.testing.assert_array_equal(array, ARRAY, strict=True)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        TorchZipFile(tmp_path / "model.bin")
    with pytest.raises(CheckpointFormatError, match="is a folder"):
        TorchZipFile(tmp_path)


def test_limits_of_the_zip(tmp_path: Path) -> None:
    path = tf.save(tmp_path / "model.bin", tf.checkpoint({"w": ARRAY}))
    with pytest.raises(UnsafeCheckpointError, match="it has 6 records, more than the 5 allowed"):
        TorchZipFile(path, limits=Limits(records=5))
    with pytest.raises(UnsafeCheckpointError, match=r"data\.pkl has \d+ bytes, more than the 9 allowed"):
        TorchZipFile(path, limits=Limits(pickle_bytes=9))
