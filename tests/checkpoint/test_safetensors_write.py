"""What is written as safetensors: any layout, whole or not at all, without a second copy."""

from __future__ import annotations

import resource
import stat
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from npprelnorm.checkpoint.safetensors_file import SafetensorsFile, write_safetensors
from npprelnorm.errors import (
    CheckpointError,
    InputError,
)

LIBRARY = tuple(int(part) for part in safetensors.__version__.split(".")[:2])


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
