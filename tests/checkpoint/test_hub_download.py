"""Hub ids, from a small hub on this machine that huggingface_hub really talks to."""

from __future__ import annotations

import hashlib
import http.server
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.file_download
import huggingface_hub.utils
import pytest
from hub_cache import FILES, MAIN, OTHER, PROPOSED, make_cached

from npprelnorm.checkpoint.hub import SMALL_FILES, resolve
from npprelnorm.errors import CheckpointError, CheckpointNotFoundError

pytestmark = pytest.mark.usefixtures("bare_environment")


@dataclass
class Hub:
    """What the hub on this machine holds, how it behaves, and what it was asked for."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    refusal: tuple[int, dict[str, str]] | None = None
    cut_short: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)

    def files_asked(self) -> list[str]:
        return [name for method, name in self.asked if method == "GET"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub(revisions={"main": MAIN})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if self.path.startswith("/api/"):  # huggingface_hub's own housekeeping, which has no part in this
                return self.answer(404, {})
            model, _, rest = self.path.lstrip("/").partition("/resolve/")
            revision, _, name = rest.replace("%2F", "/").rpartition("/")
            hub.asked.append((self.command, name))
            hub.tokens.add(self.headers["Authorization"])
            commit = hub.revisions.get(revision, revision)
            content = hub.commits.get(commit, {}).get(name)
            if hub.refusal:
                return self.answer(*hub.refusal)
            if model != "org/name":
                return self.answer(401, {"X-Error-Code": "RepoNotFound"})
            if commit not in hub.commits:
                return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
            if content is None:
                return self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            etag = hashlib.sha256(content).hexdigest()
            self.answer(200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, content)

        do_GET = do_HEAD

        def answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[: len(content) // 2] if hub.cut_short else content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    redirect(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


def redirect(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Have huggingface_hub, which reads its settings once, talk to `endpoint` and to nobody else."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, huggingface_hub.file_download):  # the latter up to 0.36
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between huggingface_hub's own attempts
    huggingface_hub.utils.disable_progress_bars()


CHECKPOINT = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "README.md": b"read me",
    "modeling_evil.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickled",
    "tf_model.h5": b"hdf5",
}


def test_safetensors_first_and_only_what_is_read(hub: Hub, tmp_path: Path) -> None:
    hub.commits[MAIN] = {**CHECKPOINT, "model.safetensors": b"safe", "vocab.json": b"{}"}
    folder = resolve("org/name", cache_dir=tmp_path)
    assert folder == tmp_path / "models--org--name" / "snapshots" / MAIN
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors", "tokenizer.json", "vocab.json"]
    assert (folder / "model.safetensors").read_bytes() == b"safe"
    asked = {name for _, name in hub.asked}
    assert asked <= {*SMALL_FILES, "model.safetensors"}

    hub.asked.clear()  # the second time, one question is left: whether main has moved
    assert resolve("org/name", cache_dir=tmp_path) == folder
    assert hub.asked == [("HEAD", "config.json")]
    hub.asked.clear()
    assert resolve("org/name", cache_dir=tmp_path, revision=MAIN) == folder
    assert resolve("org/name", cache_dir=tmp_path, local_files_only=True) == folder
    assert hub.asked == []


def test_a_moved_branch_is_followed_and_its_files_never_mixed(hub: Hub, tmp_path: Path) -> None:
    hub.commits = {
        MAIN: {**CHECKPOINT, "model.safetensors": b"old", "vocab.json": b"old"},
        OTHER: {**CHECKPOINT, "model.safetensors": b"new"},
    }
    first = resolve("org/name", cache_dir=tmp_path)
    hub.revisions["main"] = OTHER
    second = resolve("org/name", cache_dir=tmp_path)
    assert (first.name, second.name) == (MAIN, OTHER)
    assert (first / "model.safetensors").read_bytes() == b"old"
    assert (second / "model.safetensors").read_bytes() == b"new"
    assert not (second / "vocab.json").exists()


def test_the_pickle_only_where_there_is_nothing_else(hub: Hub, tmp_path: Path) -> None:
    hub.commits[MAIN] = CHECKPOINT
    folder = resolve("org/name", cache_dir=tmp_path)
    assert sorted(os.listdir(folder)) == ["config.json", "pytorch_model.bin", "tokenizer.json"]


def test_all_shards_of_an_index_and_no_other_file_it_might_name(hub: Hub, tmp_path: Path) -> None:
    shards = {"model-00001-of-00002.safetensors": b"1", "model-00002-of-00002.safetensors": b"2"}
    index = json.dumps({"weight_map": {f"t{i}": shard for i, shard in enumerate(shards)}}).encode()
    hub.commits[MAIN] = {**CHECKPOINT, **shards, "model.safetensors.index.json": index}
    folder = resolve("org/name", cache_dir=tmp_path)
    assert {*shards, "model.safetensors.index.json"} <= set(os.listdir(folder))
    assert "pytorch_model.bin" not in os.listdir(folder)

    del hub.commits[MAIN]["model-00002-of-00002.safetensors"]
    with pytest.raises(
        CheckpointNotFoundError, match=r"no model-00002-of-00002\.safetensors on the hub, which its mod"
    ):
        resolve("org/name", cache_dir=tmp_path / "fresh")
    for shard in ("modeling_evil.py", "../../config.json"):
        hub.commits[MAIN]["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": shard}}).encode()
        hub.asked.clear()
        with pytest.raises(CheckpointError, match="wants the shard"):
            resolve("org/name", cache_dir=tmp_path / shard.replace("/", "-"))
        assert not any("evil" in name or ".." in name for _, name in hub.asked)


def test_the_conversion_pull_request(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.commits = {MAIN: CHECKPOINT, PROPOSED: {**CHECKPOINT, "model.safetensors": b"proposed"}}
    hub.revisions["refs/pr/1"] = PROPOSED
    caplog.set_level(logging.WARNING, "npprelnorm")
    assert resolve("org/name", cache_dir=tmp_path).name == MAIN
    assert caplog.messages == []
    folder = resolve("org/name", cache_dir=tmp_path / "other", allow_convert_pr=True)
    assert folder.name == PROPOSED
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert caplog.messages == [f"using refs/pr/1 of org/name, commit {PROPOSED}, which a third party proposed"]
    assert hub.files_asked().count("pytorch_model.bin") == 1  # by the first call
    offline = resolve("org/name", cache_dir=tmp_path / "other", allow_convert_pr=True, local_files_only=True)
    assert offline == folder

    caplog.clear()  # where main has safetensors of its own, nobody is asked about the pull request
    hub.commits[MAIN] = {**CHECKPOINT, "model.safetensors": b"merged"}
    assert resolve("org/name", cache_dir=tmp_path / "third", allow_convert_pr=True).name == MAIN
    assert caplog.messages == []


@pytest.mark.parametrize("there", [False, True])
def test_no_conversion_to_be_had(there: bool, hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.commits = {MAIN: CHECKPOINT, PROPOSED: CHECKPOINT}
    if there:  # a pull request about something else
        hub.revisions["refs/pr/1"] = PROPOSED
    folder = resolve("org/name", cache_dir=tmp_path, allow_convert_pr=True)
    assert folder.name == MAIN
    assert (folder / "pytorch_model.bin").read_bytes() == b"pickled"
    assert caplog.messages == ["org/name has no safetensors in refs/pr/1 either; its main branch is used"]


def test_a_tokenizer_alone_downloads_no_weights(hub: Hub, tmp_path: Path) -> None:
    hub.commits[MAIN] = {**CHECKPOINT, "merges.txt": b"m"}
    files = ("vocab.json", "merges.txt", "tokenizer.json")
    folder = resolve("org/name", cache_dir=tmp_path, weights=False, files=files)
    assert sorted(os.listdir(folder)) == ["merges.txt", "tokenizer.json"]
    with pytest.raises(CheckpointNotFoundError, match=r"'org/name' has none of vocab\.json on the hub"):
        resolve("org/name", cache_dir=tmp_path, weights=False, files=("vocab.json",))


def test_the_token_is_sent_with_every_question(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commits[MAIN] = CHECKPOINT
    resolve("org/name", cache_dir=tmp_path)
    assert hub.tokens == {None}
    hub.tokens.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    resolve("org/name", cache_dir=tmp_path / "other")
    assert hub.tokens == {"Bearer hf_secret"}


@pytest.mark.parametrize(
    ("model", "revision", "refusal", "error", "message"),
    [
        ("org/unknown", None, None, CheckpointNotFoundError, "neither a local folder nor a model on the hub: check"),
        ("org/name", "v9", None, CheckpointNotFoundError, "'org/name' has no revision 'v9' on the hub: check its"),
        ("org/name", OTHER, None, CheckpointNotFoundError, f"has no revision '{OTHER}' on the hub"),
        ("org/name", None, (403, {"X-Error-Code": "GatedRepo"}), CheckpointError,
         "access to 'org/name' is restricted: ask for it on the model's page, then set HF_TOKEN to"),
        ("org/name", None, (401, {"X-Error-Code": "GatedRepo"}), CheckpointError, "then set HF_TOKEN to your token"),
        ("org/name", None, (401, {"X-Error-Message": "Invalid credentials in Authorization header"}), CheckpointError,
         r"the hub refuses config\.json of 'org/name' \(status 401\): set HF_TOKEN"),
        ("org/name", None, (403, {"X-Error-Message": "x"}), CheckpointError,
         r"the hub refuses config\.json .*\(status 403\)"),
        ("org/name", None, (429, {}), CheckpointError,
         r"download of config\.json of 'org/name' failed \(status 429\): try again"),
        ("org/name", None, (503, {}), CheckpointNotFoundError, r"the hub cannot be reached \(status 503\)"),
    ],
)  # fmt: skip
def test_what_the_hub_may_answer(
    model: str,
    revision: str | None,
    refusal: tuple[int, dict[str, str]] | None,
    error: type[CheckpointError],
    message: str,
    hub: Hub,
    tmp_path: Path,
) -> None:
    hub.commits[MAIN] = CHECKPOINT
    hub.refusal = refusal
    with pytest.raises(error, match=message) as caught:
        resolve(model, revision=revision, cache_dir=tmp_path)
    assert type(caught.value) in (error, *error.__subclasses__())
    assert "\n" not in str(caught.value)


def test_a_repository_without_anything_to_read(hub: Hub, tmp_path: Path) -> None:
    hub.commits[MAIN] = {"config.json": b"{}", "tf_model.h5": b"x"}
    with pytest.raises(
        CheckpointNotFoundError, match=r"has no weights on the hub that can be read: looked for model\.sa"
    ):
        resolve("org/name", cache_dir=tmp_path)
    del hub.commits[MAIN]["config.json"]
    with pytest.raises(CheckpointNotFoundError, match=r"has no config\.json on the hub"):
        resolve("org/name", cache_dir=tmp_path / "other")


def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    redirect(monkeypatch, "http://127.0.0.1:9")  # where nobody listens
    snapshot = make_cached(tmp_path, "org/name", MAIN, FILES, "main")
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    assert resolve("org/name", cache_dir=tmp_path) == snapshot  # what is cached is used
    with pytest.raises(CheckpointNotFoundError) as caught:
        resolve("org/unknown", cache_dir=tmp_path)
    assert "'org/unknown' is not a local folder and not in the hub cache" in str(caught.value)
    assert "the hub cannot be reached (" in str(caught.value)
    assert "load it once with a connection, or give a local folder" in str(caught.value)
    if not huggingface_hub.__version__.startswith("0."):  # which retries every question
        assert waits == []


def test_other_failures_are_explained_in_one_line(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> str:
        raise OSError("No space left on device\nand a second line")

    hub.commits[MAIN] = CHECKPOINT
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(CheckpointError) as caught:
        resolve("org/name", cache_dir=tmp_path)
    assert str(caught.value) == (
        "the download of config.json of 'org/name' failed (OSError: No space left on device): try again, "
        "or set HF_HUB_OFFLINE=1 to use what is in the cache"
    )


def test_a_download_cut_short_leaves_nothing_that_looks_whole(hub: Hub, tmp_path: Path) -> None:
    hub.commits[MAIN] = {**CHECKPOINT, "config.json": b"{" + b" " * 1000 + b"}"}
    hub.cut_short = True
    with pytest.raises(CheckpointError, match=r"the download of config\.json of 'org/name' failed"):
        resolve("org/name", cache_dir=tmp_path)
    assert not list(tmp_path.rglob("snapshots/*/config.json"))
    hub.cut_short = False
    assert (resolve("org/name", cache_dir=tmp_path) / "config.json").stat().st_size == 1002
