"""Hub ids: how they are spelled, folders that go before them, and the cache alone."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_cache import FILES, MAIN, OTHER, PROPOSED, make_cached

from npprelnorm.checkpoint.hub import resolve
from npprelnorm.errors import CheckpointError, CheckpointNotFoundError, InputError

pytestmark = pytest.mark.usefixtures("bare_environment")


# ---------------------------------------------------------------------------------------------- local folders


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "org" / "name").mkdir(parents=True)
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path
    assert resolve("org/name") == Path("org/name")  # a folder goes before the hub
    assert resolve("./org") == Path("org")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/here") == tmp_path / "here"


@pytest.mark.parametrize(
    "path",
    ["./nothing", "../nothing", "/no/thing", "~/nothing", "~nobody/nothing", "a/b/c", "a/b/", ".\\a", "c:\\a\\b", "."
     "/" + "long" * 300, Path("org/name"), "/zero\0byte"],
)  # fmt: skip
def test_a_path_that_is_not_there(path: str | Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"^the folder '.*' does not exist$"):
        resolve(path)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("x")
    with pytest.raises(CheckpointError, match="is a file: name the folder that holds it together with its config"):
        resolve(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "-a", "a-", "a/-b", "a/b.", "a--b", "a..b", "org/na..me", "é", "a/b.git", "a\n", "a" * 97, "a:b",
     "a%2fb", "a?b", "zero\0byte"],
)  # fmt: skip
def test_ids_are_spelled_like_ids(name: str) -> None:
    with pytest.raises(InputError, match="neither a folder nor spelled like a hub id") as caught:
        resolve(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("revision", ["", "../x", "a..b", "/etc", "a b", "-x", "x\n", "é", "x\0"])
def test_revisions_are_spelled_like_revisions(revision: str) -> None:
    with pytest.raises(InputError, match="is not spelled like a branch, tag or commit hash"):
        resolve("org/name", revision=revision, local_files_only=True)


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(InputError, match="allow_convert_pr reads refs/pr/1, so that revision='main' cannot"):
        resolve("org/name", revision="main", allow_convert_pr=True)
    with pytest.raises(InputError, match="are not among those that are ever read from the hub"):
        resolve("org/name", files=["modeling.py"])


# ---------------------------------------------------------------------------------------------- the cache alone


def test_the_cache_is_where_huggingface_hub_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to name the cache, against what huggingface_hub itself makes of it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    script = "import huggingface_hub.constants as c; print(c.HF_HUB_CACHE, c.HF_HUB_OFFLINE)"
    for settings in (
        {"XDG_CACHE_HOME": str(tmp_path / "x")},
        {"HF_HOME": "~/hf home"},
        {"HF_HOME": "$HOME/expanded"},
        {"HF_HUB_CACHE": str(tmp_path / "y"), "HF_HOME": "/ignored"},
        {"HUGGINGFACE_HUB_CACHE": str(tmp_path / "z")},
    ):
        cache, offline = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **settings, "HF_HUB_OFFLINE": "yes"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.rsplit(maxsplit=1)
        assert offline == "True"
        snapshot = make_cached(Path(cache), "org/name", MAIN, FILES, "main")
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            patch.setenv("HF_HUB_OFFLINE", "yes")
            assert resolve("org/name") == snapshot
            with pytest.raises(CheckpointNotFoundError, match="HF_HUB_OFFLINE is set"):
                resolve("org/unknown")


def test_branches_tags_and_commits_from_the_cache(tmp_path: Path) -> None:
    main = make_cached(tmp_path, "org/name", MAIN, FILES, "main")
    other = make_cached(tmp_path, "org/name", OTHER, FILES, "v1.0", "refs/pr/3")
    short = make_cached(tmp_path, "name", OTHER, FILES, "main")

    def cached(model: str, revision: str | None = None) -> Path:
        return resolve(model, revision=revision, local_files_only=True, cache_dir=tmp_path)

    assert cached("org/name") == cached("org/name", "main") == cached("org/name", MAIN) == main
    assert cached("org/name", "v1.0") == cached("org/name", "refs/pr/3") == cached("org/name", OTHER) == other
    assert cached("name") == short
    for revision in ("nothing", "f" * 40, "refs", "refs/pr", MAIN[:8]):
        with pytest.raises(
            CheckpointNotFoundError, match=f"has 'org/name', but not its revision '{revision}', and loc"
        ):
            cached("org/name", revision)


@pytest.mark.parametrize("content", ["../../../../elsewhere", "", "\xff\xfe", "z" * 40, MAIN[:39], "a" * 100_000, "/"])
def test_a_ref_leads_nowhere_but_to_a_snapshot(content: str, tmp_path: Path) -> None:
    make_cached(tmp_path, "org/name", MAIN, FILES)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "models--org--name" / "refs").mkdir()
    (tmp_path / "models--org--name" / "refs" / "main").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointNotFoundError, match="but not its revision 'main'"):
        resolve("org/name", local_files_only=True, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({}, r"without config\.json, weights"),
        ({"config.json": "{}", "tokenizer.json": "{}", "tf_model.h5": "x"}, "without weights"),
        ({"pytorch_model.bin": "x"}, r"without config\.json"),
    ],
)
def test_a_snapshot_that_lacks_something(files: dict[str, str], missing: str, tmp_path: Path) -> None:
    make_cached(tmp_path, "org/name", MAIN, files, "main")
    with pytest.raises(CheckpointNotFoundError, match=missing + ", and local_files_only is set: load it once with"):
        resolve("org/name", local_files_only=True, cache_dir=tmp_path)


def test_a_tokenizer_needs_neither_config_nor_weights(tmp_path: Path) -> None:
    snapshot = make_cached(tmp_path, "org/name", MAIN, {"tokenizer.json": "{}"}, "main")
    files = ("tokenizer.json", "vocab.json", "merges.txt")
    assert resolve("org/name", local_files_only=True, cache_dir=tmp_path, weights=False, files=files) == snapshot
    with pytest.raises(CheckpointNotFoundError, match=r"without vocab\.json, merges\.txt"):
        resolve("org/name", local_files_only=True, cache_dir=tmp_path, weights=False, files=files[1:])


def test_the_conversion_pull_request_from_the_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    main = make_cached(tmp_path, "org/name", MAIN, {"config.json": "{}", "pytorch_model.bin": "x"}, "main")

    def cached(allow: bool) -> Path:
        return resolve("org/name", local_files_only=True, cache_dir=tmp_path, allow_convert_pr=allow)

    assert cached(False) == cached(True) == main
    proposed = make_cached(tmp_path, "org/name", PROPOSED, FILES, "refs/pr/1")
    assert cached(False) == main
    assert caplog.records == []
    with caplog.at_level(logging.WARNING, "npprelnorm"):
        assert cached(True) == proposed
    assert caplog.messages == [f"using refs/pr/1 of org/name, commit {PROPOSED}, which a third party proposed"]


def test_offline_needs_neither_network_nor_huggingface_hub(tmp_path: Path) -> None:
    """In a fresh process in which any use of a socket is an error."""
    snapshot = make_cached(tmp_path / "hub", "org/name", MAIN, FILES, "main")
    script = """
import sys, time
def no_network(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError(f"{event} {arguments}")
sys.addaudithook(no_network)
from npprelnorm.checkpoint.hub import resolve
from npprelnorm.errors import CheckpointNotFoundError
begin = time.perf_counter()
print(resolve("org/name"))
try:
    resolve("org/unknown")
except CheckpointNotFoundError as error:
    print(error)
print(time.perf_counter() - begin)
print(resolve(sys.argv[1]))
print([name for name in sys.modules if name.split(".")[0] in ("huggingface_hub", "httpx", "requests", "tokenizers")])
"""
    lines = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert lines[0] == str(snapshot)
    assert lines[1] == (
        f"'org/unknown' is not a local folder and not in the hub cache {tmp_path / 'hub'}, and HF_HUB_OFFLINE is set: "
        "load it once with a connection, or give a local folder"
    )
    assert float(lines[2]) < 0.1
    assert lines[3:] == [str(tmp_path), "[]"]
