"""Atomic writing and strict JSON."""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
import time
import tracemalloc
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from npprelnorm.errors import CheckpointFormatError, CheckpointNotFoundError
from npprelnorm.files import MAX_JSON_BYTES, parse_json, read_json, replacing, write_json, write_text


def test_the_new_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "file"
    with replacing(target) as temporary:
        assert temporary.parent == target.parent
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    with replacing(target) as temporary:
        temporary.write_bytes(b"newer")
        assert target.read_bytes() == b"new"
    assert target.read_bytes() == b"newer"
    assert os.listdir(target.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_any_failure_leaves_the_old_file_and_no_rubbish(error: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def attempt() -> None:
        with replacing(target) as temporary:
            temporary.write_bytes(b"half of the n")
            raise error

    with pytest.raises(error):
        attempt()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_written_to_is_told_by_the_file_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".file.abc.tmp"))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(PermissionError) as caught:
        write_text(tmp_path / "file", "new")
    assert caught.value.filename == str(tmp_path / "file")


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failing_system_call_leaves_the_old_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_text(target, "new")
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0, 0o666)])
def test_permissions_follow_the_umask_and_leave_it_alone(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file", "x")
        assert stat.S_IMODE(os.stat(tmp_path / "file").st_mode) == mode
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_an_open_reader_keeps_the_file_it_opened(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with open(tmp_path / "file") as reader:
        write_text(tmp_path / "file", "new")
        assert reader.read() == "old"
    assert (tmp_path / "file").read_text() == "new"


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    write_text(tmp_path / "blob", "shared")
    (tmp_path / "link").symlink_to("blob")
    write_text(tmp_path / "link", "mine")
    assert (tmp_path / "blob").read_text() == "shared"
    assert (tmp_path / "link").read_text() == "mine"
    assert not (tmp_path / "link").is_symlink()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json") / "file.json"


@settings(deadline=None)
@given(value=st.dictionaries(texts, values, max_size=5))
def test_json_survives_a_round_trip(path: Path, value: dict[str, object]) -> None:
    write_json(path, value)
    assert read_json(path) == value
    # "\u" escapes and compact form as well
    assert parse_json(json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode(), "x") == value


def test_written_json_is_stable_and_readable(path: Path) -> None:
    write_json(path, {"b": 1, "a": "é"})
    assert path.read_bytes() == '{\n  "a": "é",\n  "b": 1\n}\n'.encode()
    for nonsense in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            write_json(path, {"a": nonsense})
    assert read_json(path) == {"a": "é", "b": 1}


BAD_JSON: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "Expecting value at line 1, column 1"),
    "a list": (b"[]", "the top level is a list, not an object"),
    "a number": (b"1", "the top level is a int, not an object"),
    "twice": (b'{"a": 1, "a": 1}', "the key 'a' appears twice"),
    "twice inside": (b'{"x": [{"a": 1, "b": 2, "a": 3}]}', "the key 'a' appears twice"),
    "twice, escaped": (b'{"a": 1, "\\u0061": 2}', "the key 'a' appears twice"),
    "NaN": (b'{"a": NaN}', "the number NaN is not allowed"),
    "Infinity": (b'{"a": Infinity}', "the number Infinity is not allowed"),
    "-Infinity": (b'{"a": -Infinity}', "the number -Infinity is not allowed"),
    "infinite in digits": (b'{"a": -1e999}', "the number -1e999 is too large"),
    "long integer": (b'{"a": ' + b"1" * 5000 + b"}", "an integer of 5000 digits"),
    "not utf-8": (b'{"a": "\xe9"}', "it is not UTF-8 (byte 7)"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "it is not UTF-8 (byte 0)"),
    "byte order mark": (b'\xef\xbb\xbf{"a": 1}', "Unexpected UTF-8 BOM"),
    "half a surrogate pair": (b'{"a": "\\ud83d"}', "half of a surrogate pair stands alone"),
    "half a surrogate pair in a key": (b'{"\\ude00": 1}', "half of a surrogate pair stands alone"),
    "comment": (b'{"a": 1} // x', "Extra data at line 1, column 10"),
    "comma at the end": (b'{"a": 1,}', "at line 1, column"),
    "control character": (b'{"a": "\x01"}', "Invalid control character"),
    "65 levels": (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "nested deeper than 64 levels"),
    "deep enough to overflow": (b'{"a":' * 200_000, "nested deeper than 64 levels"),
    "deep behind an escaped quote": (b'{"\\"":' + b"[" * 100_000, "nested deeper than 64 levels"),
    "deep behind escaped backslashes": (b'{"\\\\\\\\":' + b"[" * 100_000, "nested deeper than 64 levels"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_bad_json_is_refused_in_one_line(name: str) -> None:
    data, message = BAD_JSON[name]
    with pytest.raises(CheckpointFormatError) as caught:
        parse_json(data, "config.json")
    assert str(caught.value).startswith("config.json is not valid JSON: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_what_only_looks_bad_is_read() -> None:
    assert parse_json(b'{"a":' + b"[" * 63 + b"]" * 63 + b"}", "x")
    brackets = "[{" * 100
    assert parse_json(json.dumps({brackets: brackets, '"[\\': '\\"['}).encode(), "x") == {
        brackets: brackets,
        '"[\\': '\\"[',
    }
    assert parse_json(b'{"a": "\\ud83d\\ude00"}', "x") == {"a": "\N{GRINNING FACE}"}
    assert parse_json(b'{"a": 1e-400, "b": 1234567890123456789012345}', "x") == {
        "a": 0.0,
        "b": 1234567890123456789012345,
    }


@pytest.mark.parametrize("data", [b'{"' + b'\\"' * 500_000, b'{"' + b"\\\\" * 500_000, b'{"' + b"a" * 1_000_000])
def test_an_unclosed_string_costs_neither_time_nor_memory(data: bytes) -> None:
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        with pytest.raises(CheckpointFormatError, match="Unterminated string"):
            parse_json(data, "x")
        assert tracemalloc.get_traced_memory()[1] < 6 * len(data)
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - begin < 2  # a quadratic scan takes hours


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"no\.json does not exist"):
        read_json(tmp_path / "no.json")
    with pytest.raises(CheckpointFormatError, match="is a folder, not a JSON file"):
        read_json(tmp_path)
    (tmp_path / "big.json").write_bytes(b"{" + b" " * MAX_JSON_BYTES + b"}")
    with pytest.raises(CheckpointFormatError, match="is larger than 1048576 bytes"):
        read_json(tmp_path / "big.json")
    assert read_json(tmp_path / "big.json", max_bytes=2 * MAX_JSON_BYTES) == {}
    (tmp_path / "link.json").symlink_to("link.json")
    with pytest.raises(CheckpointFormatError, match="cannot be read: Too many levels of symbolic links"):
        read_json(tmp_path / "link.json")
