"""Checkpoints in several files: what an index may say, and what a save writes, replaces and leaves alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npprelnorm.checkpoint.sharded as sharded
from npprelnorm.checkpoint.safetensors_file import SafetensorsFile, save_tensors, write_safetensors
from npprelnorm.checkpoint.sharded import ShardedFile, is_bare_name, parse_size, write_sharded
from npprelnorm.checkpoint.tensors import TensorInfo
from npprelnorm.errors import (
    CheckpointError,
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    InputError,
    UnsafeCheckpointError,
)

INDEX = "model.safetensors.index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def tensors_of(count: int = 4, value: float = 0) -> dict[str, np.ndarray]:
    """Tensors of 40 bytes each."""
    return {f"t{i}": np.full((2, 5), i + value, np.float32) for i in range(count)}


def write_index(folder: Path, weight_map: object, **more: object) -> Path:
    path = folder / INDEX
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map, **more}))
    return path


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_sharded_checkpoint_reads_like_one_file(tmp_path: Path) -> None:
    tensors = tensors_of(5)
    write_sharded(tmp_path, tensors, 80)
    assert listing(tmp_path) == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)] + [INDEX]
    file = ShardedFile(tmp_path / INDEX)
    assert file.names() == list(tensors)
    assert file.metadata == {"total_size": "200"}
    for name, array in tensors.items():
        assert file.info(name) == TensorInfo("F32", (2, 5))
        assert np.array_equal(file.read(name), array)
        assert not file.read(name).flags.writeable
    kept = file.read("t3")
    with pytest.raises(CheckpointMismatchError, match=r"index\.json has no tensor named 'x'"):
        file.read("x")
    file.close()
    assert np.array_equal(kept, tensors["t3"])
    with pytest.raises(CheckpointError, match="was closed"):
        file.read("t3")


def test_everything_wrong_with_the_shards_is_reported_at_once(tmp_path: Path) -> None:
    write_safetensors(tmp_path / ONE, {"a": np.zeros(1), "stray": np.zeros(1), "b": np.zeros(1)})
    write_safetensors(tmp_path / TWO, {"b": np.ones(1)})
    (tmp_path / "model-bad.safetensors").write_bytes(b"nothing of the kind")
    index = write_index(
        tmp_path,
        {
            "a": ONE,
            "b": TWO,
            "gone": TWO,
            "x": "absent.safetensors",
            "y": "away.safetensors",
            "z": "model-bad.safetensors",
        },
    )
    with pytest.raises(CheckpointFormatError) as caught:
        ShardedFile(index)
    message = str(caught.value)
    for part in (
        "2 shards are not in the folder (absent.safetensors, away.safetensors)",
        f"2 tensors are not listed, but in {ONE} (b, stray)",
        f"1 tensor is missing from {TWO} (gone)",
        "model-bad.safetensors is not a usable safetensors file",
    ):
        assert part in message
    assert "\n" not in message


def test_missing_shards_alone_are_not_found(tmp_path: Path) -> None:
    index = write_index(tmp_path, {f"t{i}": f"shard{i}.safetensors" for i in range(7)})
    with pytest.raises(CheckpointNotFoundError, match=r"7 shards are not .*\(shard0.*shard3\.safetensors and 3 more\)"):
        ShardedFile(index)
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        ShardedFile(tmp_path / "no.index.json")


def test_a_shard_that_is_a_git_lfs_pointer_says_so(tmp_path: Path) -> None:
    (tmp_path / ONE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 10\n")
    with pytest.raises(CheckpointFormatError, match="git-lfs pointer, not the file itself: run `git lfs pull`"):
        ShardedFile(write_index(tmp_path, {"a": ONE}))


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/etc/model.safetensors", "sub/model.safetensors", "..\\m.safetensors", "c:m.safetensors",
     "..", ".", "", "a\0b.safetensors", "a\nb.safetensors", "./m.safetensors", "//host/m.safetensors"],
)  # fmt: skip
def test_shards_are_bare_names_in_the_same_folder(shard: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder, folder / "sub"):
        write_safetensors(place / "model.safetensors", {"a": np.zeros(1)})
    assert not is_bare_name(shard)
    with pytest.raises(UnsafeCheckpointError, match="only bare names of files in its own folder"):
        ShardedFile(write_index(folder, {"a": shard}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "the top level is a list"),
        ("{}", "has no weight_map"),
        ('{"weight_map": []}', "has no weight_map"),
        ('{"weight_map": {}}', "has no weight_map"),
        ('{"weight_map": {"a": 1}}', "maps 'a' to 1, which is no file name"),
        ('{"weight_map": {"a": null}}', "maps 'a' to None"),
        ('{"weight_map": {"a": "evil.py"}}', "'evil.py', which is no .safetensors or .bin file"),
        ('{"weight_map": {"a": "model.safetensors.index.json"}}', "which is no .safetensors or .bin file"),
        ('{"weight_map": {"a": "x.bin", "a": "y.bin"}}', "the key 'a' appears twice"),
        ('{"weight_map": {"a": NaN}}', "the number NaN is not allowed"),
        ("nonsense", "is not valid JSON"),
        ("", "is not valid JSON"),
    ],
)
def test_bad_indexes(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(CheckpointFormatError) as caught:
        ShardedFile(tmp_path / INDEX)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_index_of_too_many_shards_is_refused_before_any_is_opened(tmp_path: Path) -> None:
    index = write_index(tmp_path, {f"t{i}": f"s{i}.safetensors" for i in range(501)})
    with pytest.raises(CheckpointFormatError, match="names 501 shards, more than the 500 allowed"):
        ShardedFile(index)


@pytest.mark.parametrize("metadata", [None, [], "x", {"total_size": 5, "format": "pt"}])
def test_the_metadata_of_an_index_may_be_anything(metadata: object, tmp_path: Path) -> None:
    write_safetensors(tmp_path / ONE, {"a": np.zeros(1)})
    file = ShardedFile(write_index(tmp_path, {"a": ONE}, metadata=metadata))
    assert file.metadata == ({"total_size": "5", "format": "pt"} if isinstance(metadata, dict) else {})


@pytest.mark.parametrize(
    ("text", "size"),
    [(1, 1), (10**12, 10**12), ("5GB", 5 * 10**9), ("500MB", 5 * 10**8), ("1.5kb", 1500), (" 2 TB ", 2 * 10**12)],
)
def test_sizes(text: int | str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [0, -1, True, 1.5, None, "", "5", "GB", "5GiB", "-5GB", "0MB", "0.0001KB", "5 G B", "1e3GB", "9" * 400 + "GB"],
)
def test_what_is_no_size(text: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a size: give bytes, or text such as '5GB'"):
        write_sharded(tmp_path, tensors_of(), text)  # type: ignore[arg-type]
    assert listing(tmp_path) == []


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), max_size=12), st.integers(1, 400))
def test_dealing_keeps_order_and_limit(sizes: list[int], limit: int) -> None:
    tensors = {f"t{i}": np.zeros(size, np.uint64) for i, size in enumerate(sizes)}
    shards = sharded._deal(tensors, limit)
    assert sorted(name for shard in shards for name in shard) == sorted(tensors)
    assert len(shards) >= 1
    for shard in shards:
        size = sum(array.nbytes for array in shard.values())
        assert size <= limit or len(shard) == 1
        assert list(shard) == [name for name in tensors if name in shard]
    assert all(shards) or not tensors
    if sum(sizes) * 8 <= limit:
        assert shards == [tensors]


def test_one_file_when_it_fits_and_a_large_tensor_alone(tmp_path: Path) -> None:
    write_sharded(tmp_path, tensors_of(4), 160)
    assert listing(tmp_path) == ["model.safetensors"]
    assert SafetensorsFile(tmp_path / "model.safetensors").metadata == {"format": "pt"}
    write_sharded(tmp_path / "new" / "folder", {"big": np.zeros(100)}, "0.1KB")
    assert listing(tmp_path / "new" / "folder") == ["model.safetensors"]


def test_every_save_replaces_the_weights_before_and_nothing_else(tmp_path: Path) -> None:
    others = ["config.json", "model-1-of-2.safetensors", "model-00001-of-00002.safetensors.bak", "my_model.safetensors",
              "pytorch_model.bin", "adapter_model-00001-of-00002.safetensors", "model.safetensors.txt"]  # fmt: skip
    for name in others:
        (tmp_path / name).write_text("theirs")
    (tmp_path / "model-00009-of-00009.safetensors").mkdir()
    others.append("model-00009-of-00009.safetensors")

    def check(count: int, limit: int, expected: list[str]) -> None:
        tensors = tensors_of(count, value=limit)
        write_sharded(tmp_path, tensors, limit)
        assert sorted(set(listing(tmp_path)) - set(others)) == sorted(expected)
        file = ShardedFile(tmp_path / INDEX) if len(expected) > 1 else SafetensorsFile(tmp_path / expected[0])
        assert {name: file.read(name).tolist() for name in file.names()} == {k: v.tolist() for k, v in tensors.items()}

    check(4, 1000, ["model.safetensors"])
    check(4, 80, [ONE, TWO, INDEX])
    check(4, 81, [ONE, TWO, INDEX])  # onto the same names
    check(3, 40, [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)] + [INDEX])
    check(4, 999, ["model.safetensors"])
    assert all((tmp_path / name).is_dir() or (tmp_path / name).read_text() == "theirs" for name in others)


def test_saving_onto_the_files_that_the_arrays_are_mapped_from(tmp_path: Path) -> None:
    tensors = tensors_of(4)
    write_sharded(tmp_path, tensors, 80)
    file = ShardedFile(tmp_path / INDEX)
    mapped = {name: file.read(name) for name in reversed(file.names())}
    write_sharded(tmp_path, mapped, 80)
    again = ShardedFile(tmp_path / INDEX)
    assert again.names() == ["t2", "t3", "t0", "t1"]  # within a file the library sorts
    assert all(np.array_equal(again.read(name), tensors[name]) for name in tensors)
    assert all(np.array_equal(mapped[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("failing", [1, 2, 3])
@pytest.mark.parametrize("before", [80, 1000])
def test_a_failed_save_changes_nothing(
    failing: int, before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sharded(tmp_path, tensors_of(6), before)
    files = {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)}
    calls = 0

    def full_disk(path: Path, tensors: dict[str, np.ndarray]) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            path.write_bytes(b"half of")
            raise OSError(28, "No space left on device")
        save_tensors(path, tensors)

    monkeypatch.setattr(sharded, "save_tensors", full_disk)
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        write_sharded(tmp_path, tensors_of(6, value=100), 80)
    assert {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)} == files


def test_the_index_appears_last_and_stale_files_go_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sharded(tmp_path, tensors_of(4), 1000)
    events: list[str] = []
    replace, unlink = os.replace, Path.unlink

    def noted_replace(source: Path, target: Path) -> None:
        replace(source, target)
        if not Path(target).name.startswith("."):
            events.append(f"+{Path(target).name}")

    def noted_unlink(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if not path.name.startswith("."):
            events.append(f"-{path.name}")

    monkeypatch.setattr(os, "replace", noted_replace)
    monkeypatch.setattr(Path, "unlink", noted_unlink)
    write_sharded(tmp_path, tensors_of(4), 80)
    assert sorted(events[:2]) == [f"+{ONE}", f"+{TWO}"]
    assert events[2:] == [f"+{INDEX}", "-model.safetensors"]
