"""Which file of a checkpoint folder is read, and what is said when there is none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from npprelnorm.checkpoint.folder import WEIGHT_NAMES, open_tensor_file, open_tensors
from npprelnorm.checkpoint.safetensors_file import SafetensorsFile, write_safetensors
from npprelnorm.checkpoint.sharded import ShardedFile
from npprelnorm.errors import CheckpointError, CheckpointFormatError, CheckpointNotFoundError


def fill(folder: Path, name: str, value: float) -> None:
    """A readable checkpoint of the one tensor `a` under any of the four names (their content decides, not the name)."""
    if name.endswith(".index.json"):
        shard = f"shard-of-{name.split('.')[0]}.safetensors"
        write_safetensors(folder / shard, {"a": np.array([value])})
        (folder / name).write_text(json.dumps({"weight_map": {"a": shard}}))
    else:
        write_safetensors(folder / name, {"a": np.array([value])})


@pytest.mark.parametrize("first", range(4))
def test_the_first_of_the_four_names_is_read(first: int, tmp_path: Path) -> None:
    for i, name in enumerate(WEIGHT_NAMES[first:], first):
        fill(tmp_path, name, i)
    file = open_tensors(tmp_path)
    assert file.path.name == WEIGHT_NAMES[first]
    assert file.read("a") == first
    assert isinstance(file, ShardedFile if WEIGHT_NAMES[first].endswith("json") else SafetensorsFile)


def test_the_order_is_that_of_transformers() -> None:
    assert WEIGHT_NAMES == (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    )


def test_a_damaged_first_choice_is_never_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, "pytorch_model.bin", 1)
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / "gone")
    with pytest.raises(CheckpointNotFoundError, match=r"model\.safetensors is a link to .*gone, which does not exist"):
        open_tensors(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointFormatError, match=r"model\.safetensors is a folder"):
        open_tensors(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"the folder .*nowhere does not exist"):
        open_tensors(tmp_path / "nowhere")
    with pytest.raises(CheckpointNotFoundError) as caught:
        open_tensors(tmp_path)
    assert str(caught.value) == f"{tmp_path} holds no weights: looked for {', '.join(WEIGHT_NAMES)}; there is nothing"
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is a file, not a checkpoint folder"):
        open_tensors(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("tf_model.h5", "from_tf=True"),
        ("flax_model.msgpack", "from_flax=True"),
        ("checkpoint_best.pt", r"safetensors\.torch\.save_file"),
        ("last.ckpt", r"safetensors\.torch\.save_file"),
        ("model.pth", r"safetensors\.torch\.save_file"),
    ],
)
def test_other_formats_are_named_with_their_way_out(name: str, how: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "sub").mkdir()
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointNotFoundError, match=f"{name} is not supported: convert it with .*{how}") as caught:
        open_tensors(tmp_path)
    assert "there is " + ", ".join(sorted(["config.json", "sub/", name])) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_folder_is_listed_in_part(tmp_path: Path) -> None:
    for i in range(25):
        (tmp_path / f"file{i:02d}").write_text("x")
    with pytest.raises(CheckpointNotFoundError, match=r"file00, .*, file09 and 15 more$"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "weights", "model.pt"])
def test_content_decides_and_not_the_suffix(name: str, tmp_path: Path) -> None:
    write_safetensors(tmp_path / name, {"a": np.array([7.0])})
    file = open_tensor_file(tmp_path / name)
    assert isinstance(file, SafetensorsFile)
    assert file.read("a") == 7


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1421\n", "git-lfs pointer, not the file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page, not a tensor file: download it again"),
        (b"\n<html><body>404</body></html>", "is a web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 (TensorFlow) file, which is not supported: convert it"),
        (b"", "is empty: download or copy it again"),
    ],
)
def test_files_that_are_something_else(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointFormatError) as caught:
        open_tensors(tmp_path)
    assert f"{tmp_path / name} is " in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pipes_and_missing_files_do_not_hang(tmp_path: Path) -> None:
    for name in ("model.safetensors", "x.index.json"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(CheckpointFormatError, match="is not a regular file"):
            open_tensor_file(tmp_path / name)
    for name in ("missing.safetensors", "missing.bin", "missing.index.json"):
        with pytest.raises(CheckpointNotFoundError, match="does not exist"):
            open_tensor_file(tmp_path / name)
