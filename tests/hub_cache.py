"""A hub cache as huggingface_hub lays it out, made by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path

MAIN, OTHER, PROPOSED = "a" * 40, "b" * 40, "c" * 40


def make_cached(cache: Path, model: str, commit: str, files: dict[str, str], *revisions: str) -> Path:
    """A model as huggingface_hub caches it: blobs, links to them in the snapshot, and refs."""
    folder = cache / f"models--{model.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for path in (snapshot, folder / "blobs"):
        path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        digest = hashlib.sha256(content.encode()).hexdigest()
        (folder / "blobs" / digest).write_text(content)
        (snapshot / name).symlink_to(Path("../../blobs") / digest)
    for revision in revisions:
        (folder / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / revision).write_text(commit)
    return snapshot


FILES = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "{}"}
