"""From what a user calls a model (a folder or a hub id) to a local folder with its files.

Downloads are made by huggingface_hub, into its own cache and by its own settings (HF_HOME, HF_HUB_CACHE, HF_TOKEN,
HF_ENDPOINT). With HF_HUB_OFFLINE or `local_files_only` the cache is read directly, so that huggingface_hub, whose
import takes longer than loading a small model, is not needed at all. Its layout:

    models--org--name/refs/<branch or tag>     a file that holds a commit hash
    models--org--name/snapshots/<commit>/      the files of that commit
    models--org--name/.no_exist/<commit>/      empty files: names that the hub is known not to have in that commit
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import CheckpointError, CheckpointNotFoundError, InputError
from .folder import WEIGHT_NAMES, weights_in
from .sharded import INDEX_NAME, SINGLE_NAME, shard_names

SMALL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
)
# of checkpoints laid out as sentence-transformers; asked for only by those who read them
SENTENCE_FILES = (
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
CONVERT_PR = "refs/pr/1"  # where the hub's conversion bot offers a model.safetensors

_ID = re.compile(r"(?:[A-Za-z0-9_][\w.-]{0,95}/)?[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][\w.+/-]{0,199}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")

_log = logging.getLogger("npprelnorm")


def resolve(
    path_or_id: str | os.PathLike[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    allow_convert_pr: bool = False,
    files: Sequence[str] = SMALL_FILES,
    weights: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """The local folder of a model.

    Parameters
    ----------
    path_or_id : str or os.PathLike
        A folder, which is returned as it is, or the id of a model on the hub (``"name"`` or ``"org/name"``).
    revision : str, optional
        Branch, tag or full commit hash of a hub model; its main branch by default.
    local_files_only : bool
        Look in the cache only, as with the environment variable ``HF_HUB_OFFLINE=1``.
    allow_convert_pr : bool
        If a model's main branch has no safetensors, take everything from its pull request 1, where the hub's
        conversion bot offers them. This is content by a third party; the commit that was taken is logged.
    files : sequence of str
        Which of `SMALL_FILES` (or `SENTENCE_FILES`) to get, where the model has them.
    weights : bool
        Whether config.json and weights are needed too. The first of model.safetensors, its index with all shards,
        pytorch_model.bin, its index with all shards, that the model has is taken; the others are not downloaded.
    cache_dir : str or os.PathLike, optional
        The hub cache; by default where huggingface_hub keeps it.

    Raises
    ------
    CheckpointNotFoundError
        There is no such folder, model, revision or file, or not in the cache while offline.
    CheckpointError
        The hub refuses access or a download fails.
    InputError
        The id or the revision is not spelled like one.
    """
    # os.path, not Path: it says no where Path raises (a name too long, a zero byte, a user that does not exist)
    path = Path(os.path.expanduser(path_or_id))
    if os.path.isdir(path) and path_or_id != "":
        return path
    if os.path.isfile(path):
        raise CheckpointError(f"{path} is a file: name the folder that holds it together with its config.json")
    if not isinstance(path_or_id, str) or _looks_like_path(path_or_id):
        raise CheckpointNotFoundError(f"the folder {str(path)!r} does not exist")
    if not _ID.fullmatch(path_or_id) or re.search(r"--|\.\.|[.-](?:/|$)|\.git$", path_or_id):
        raise InputError(f"{path_or_id[:200]!r} is neither a folder nor spelled like a hub id ('name' or 'org/name')")
    if revision is not None and not _REVISION.fullmatch(revision):
        raise InputError(f"revision={revision[:200]!r} is not spelled like a branch, tag or commit hash")
    if allow_convert_pr and revision is not None:
        raise InputError(f"allow_convert_pr reads {CONVERT_PR}, so that revision={revision!r} cannot be asked for too")
    unknown = [name for name in files if name not in SMALL_FILES + SENTENCE_FILES]
    if unknown:
        raise InputError(f"files={unknown} are not among those that are ever read from the hub: {SMALL_FILES}")

    cache = Path(cache_dir).expanduser() if cache_dir is not None else _default_cache()
    model = _HubModel(path_or_id, cache, tuple(files), weights)
    if local_files_only:
        return model.cached(revision, allow_convert_pr, "local_files_only is set")
    if _is_offline():
        return model.cached(revision, allow_convert_pr, "HF_HUB_OFFLINE is set")
    try:
        return model.download(revision, allow_convert_pr)
    except _UnreachableError as error:
        return model.cached(revision, allow_convert_pr, f"the hub cannot be reached ({error})")


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or text.endswith("/") or text.count("/") > 1 or "\\" in text


def _default_cache() -> Path:
    """Where huggingface_hub keeps its cache; by its own variables, in its own order."""
    xdg = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", os.path.join(xdg, "huggingface"))
    cache = os.environ.get("HF_HUB_CACHE", os.environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub")))
    return Path(os.path.expandvars(os.path.expanduser(cache)))


def _is_offline() -> bool:
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in ("1", "ON", "YES", "TRUE")


class _UnreachableError(Exception):
    """No answer from the hub, and the wanted file is not in the cache; says why in a few words."""


class _HubModel:
    """One model on the hub: what to take from it, from the cache or over the network."""

    def __init__(self, model_id: str, cache: Path, files: tuple[str, ...], weights: bool) -> None:
        self.id = model_id
        self.cache = cache
        self.folder = cache / f"models--{model_id.replace('/', '--')}"
        self.files = files
        self.weights = weights

    # ---- from the cache, without huggingface_hub

    def cached(self, revision: str | None, allow_convert_pr: bool, why: str) -> Path:
        """The snapshot of `revision` in the cache; `why` says what keeps us from downloading."""
        advice = f"{why}: load it once with a connection, or give a local folder"
        if not (self.folder / "snapshots").is_dir():
            raise CheckpointNotFoundError(
                f"{self.id!r} is not a local folder and not in the hub cache {self.cache}, and {advice}"
            )
        snapshot = self._snapshot(revision or "main")
        if allow_convert_pr and not (snapshot and _has_safetensors(snapshot)):
            proposed = self._snapshot(CONVERT_PR)
            if proposed and _has_safetensors(proposed):
                self._log_convert_pr(proposed.name)
                snapshot = proposed
        if snapshot is None:
            raise CheckpointNotFoundError(
                f"the hub cache {self.cache} has {self.id!r}, but not its revision {revision or 'main'!r}, and {advice}"
            )
        needed = ("config.json",) if self.weights else ()
        missing = [name for name in needed if not (snapshot / name).exists()]
        if self.weights and weights_in(snapshot) is None:
            missing.append("weights")
        if not self.weights and not any((snapshot / name).exists() for name in self.files):
            missing.extend(self.files)
        if missing:
            raise CheckpointNotFoundError(
                f"the hub cache {self.cache} has {self.id!r} (commit {snapshot.name}) "
                f"without {', '.join(missing)}, and {advice}"
            )
        return snapshot

    def _snapshot(self, revision: str) -> Path | None:
        """The folder of a branch, tag or commit in the cache."""
        commit = revision
        reference = self.folder / "refs" / revision
        if reference.is_file():
            with open(reference, "rb") as file:
                commit = file.read(41).decode("ascii", "replace").strip()
        snapshot = self.folder / "snapshots" / commit
        return snapshot if _COMMIT.fullmatch(commit) and snapshot.is_dir() else None

    # ---- over the network

    def download(self, revision: str | None, allow_convert_pr: bool) -> Path:
        """Get what is not yet in the cache; all files from one and the same commit."""
        if not self.weights:
            return self._download_small(revision or "main")
        config = self._get("config.json", revision or "main")
        if config is None:
            raise CheckpointNotFoundError(
                f"{self.id!r} has no config.json on the hub (revision {revision or 'main'!r}): "
                "it is not a checkpoint in the layout of transformers"
            )
        snapshot = config.parent
        if allow_convert_pr and not self._download_weights(snapshot, (SINGLE_NAME, INDEX_NAME)):
            proposed = self._download_convert_pr()
            snapshot = proposed or snapshot
        if not self._download_weights(snapshot, WEIGHT_NAMES):
            raise CheckpointNotFoundError(
                f"{self.id!r} has no weights on the hub that can be read: looked for {', '.join(WEIGHT_NAMES)} in "
                f"revision {revision or 'main'!r}; convert it with transformers' save_pretrained first"
            )
        for name in self.files:
            self._get(name, snapshot.name)
        return snapshot

    def _download_small(self, revision: str) -> Path:
        """The small files alone; whichever is there first pins the commit for the others."""
        snapshot: Path | None = None
        for name in self.files:
            found = self._get(name, snapshot.name if snapshot else revision)
            if found and not snapshot:
                snapshot = found.parent
        if snapshot is None:
            raise CheckpointNotFoundError(f"{self.id!r} has none of {', '.join(self.files)} on the hub")
        return snapshot

    def _download_weights(self, snapshot: Path, names: Sequence[str]) -> bool:
        """Get the first of `names` that the commit has, with its shards if it is an index; whether there was one."""
        for name in names:
            path = self._get(name, snapshot.name)
            if path is None:
                continue
            for shard in shard_names(path) if name.endswith(".index.json") else ():
                if self._get(shard, snapshot.name) is None:
                    raise CheckpointNotFoundError(f"{self.id!r} has no {shard} on the hub, which its {name} lists")
            return True
        return False

    def _download_convert_pr(self) -> Path | None:
        """The snapshot of the conversion pull request, or None if there is none with safetensors."""
        try:
            config = self._get("config.json", CONVERT_PR)
        except _NoRevisionError:
            config = None
        if config and self._download_weights(config.parent, (SINGLE_NAME, INDEX_NAME)):
            self._log_convert_pr(config.parent.name)
            return config.parent
        _log.warning("%s has no safetensors in %s either; its main branch is used", self.id, CONVERT_PR)
        return None

    def _log_convert_pr(self, commit: str) -> None:
        _log.warning("using %s of %s, commit %s, which a third party proposed", CONVERT_PR, self.id, commit)

    def _get(self, name: str, revision: str) -> Path | None:
        """One file, from the cache if its commit is known and it is there; None if the hub says it does not exist."""
        if _COMMIT.fullmatch(revision):  # a commit never changes, so that nobody has to be asked twice
            if (self.folder / "snapshots" / revision / name).exists():
                return self.folder / "snapshots" / revision / name
            if (self.folder / ".no_exist" / revision / name).exists():
                return None
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.utils import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

        try:
            if not _COMMIT.fullmatch(revision):
                # One question, which huggingface_hub from 1.0 on asks only once: without a connection its download
                # would retry for half a minute to learn that a file, optional or not, is not in the cache.
                try:
                    commit = get_hf_file_metadata(hf_hub_url(self.id, name, revision=revision)).commit_hash
                except Exception as error:
                    status = _status(error)
                    if isinstance(error, HfHubHTTPError) and (status is None or status < 500):
                        raise
                    raise _UnreachableError(f"status {status}" if status else type(error).__name__) from error
                snapshot = self._snapshot(revision)
                if snapshot and snapshot.name == commit and (snapshot / name).exists():
                    return snapshot / name
            return Path(hf_hub_download(self.id, name, revision=revision, cache_dir=self.cache))
        except _UnreachableError:
            raise
        except LocalEntryNotFoundError as error:  # before EntryNotFoundError, which it derives from
            raise _UnreachableError(type(error.__cause__ or error).__name__) from error
        except EntryNotFoundError:
            return None
        except Exception as error:  # of whatever HTTP library it uses this year
            raise self._explained(error, name, revision) from error

    def _explained(self, error: Exception, name: str, revision: str) -> CheckpointError:
        """Our error for one of huggingface_hub's, in one line that says what to do."""
        from huggingface_hub.utils import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        if isinstance(error, GatedRepoError):  # before RepositoryNotFoundError, which it derives from
            return CheckpointError(
                f"access to {self.id!r} is restricted: ask for it on the model's page, then set HF_TOKEN to your token"
            )
        if isinstance(error, RepositoryNotFoundError):
            return CheckpointNotFoundError(
                f"{self.id!r} is neither a local folder nor a model on the hub: check the spelling, "
                "or set HF_TOKEN if it is private"
            )
        if isinstance(error, RevisionNotFoundError):
            return _NoRevisionError(f"{self.id!r} has no revision {revision!r} on the hub: check its branches and tags")
        status = _status(error)
        if status in (401, 403):
            return CheckpointError(
                f"the hub refuses {name} of {self.id!r} (status {status}): set HF_TOKEN to a token that may read it"
            )
        first_line = (str(error).splitlines() or [""])[0][:200]
        reason = f"status {status}" if status else f"{type(error).__name__}: {first_line}"
        return CheckpointError(
            f"the download of {name} of {self.id!r} failed ({reason}): try again, "
            "or set HF_HUB_OFFLINE=1 to use what is in the cache"
        )


class _NoRevisionError(CheckpointNotFoundError):
    """The model exists, the revision does not."""


def _status(error: Exception) -> int | None:
    """The HTTP status that an error of huggingface_hub carries, if it carries one."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _has_safetensors(snapshot: Path) -> bool:
    return weights_in(snapshot) in (SINGLE_NAME, INDEX_NAME)
