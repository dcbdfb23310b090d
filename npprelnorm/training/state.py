"""Checkpoints of a run: written beside the old ones and renamed, so that a killed run never leaves half of one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint.folder import open_tensors
from ..checkpoint.safetensors_file import SafetensorsFile, write_safetensors
from ..errors import CheckpointFormatError, CheckpointMismatchError, InputError
from ..files import read_json, write_json
from ..model import BodyModel
from .optimizer import AdamW

_NAME = re.compile(r"(step|best)-(\d{8})")
_OPTIMIZER, _STATE = "optimizer.safetensors", "state.json"


@dataclass
class Progress:
    """Where a run is: everything that the next step depends on besides parameters and optimizer."""

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    finished: bool = False
    loss_sum: float = 0.0  # since the last log line, over loss_steps steps
    loss_steps: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    data: str = ""  # fingerprint of the examples


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a folder; the system lets go of the lock when this one dies.

    Raises
    ------
    InputError
        If another process is training there.
    """
    try:
        import fcntl
    except ImportError:  # Windows: without a lock, as nothing else there is let go of by a killed process
        yield
        return
    with open(folder / ".lock", "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"another process is training in {folder}; wait for it, or choose another folder"
            ) from None
        yield


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # where a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _folders(root: Path, kind: str) -> list[Path]:
    """Whole checkpoints of a kind, oldest first; what a killed process left under a temporary name is not one."""
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if (match := _NAME.fullmatch(p.name)) and match.group(1) == kind)


def _discard(folder: Path) -> None:
    """Remove a folder; from the first moment on it is no checkpoint, however far the removal gets."""
    doomed = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(doomed, ignore_errors=True)  # by a process that was killed here
    if folder.exists():
        os.rename(folder, doomed)
        shutil.rmtree(doomed)


def save(root: Path, kind: str, model: BodyModel, optimizer: AdamW | None, progress: Progress) -> Path:
    """Write a checkpoint ``{kind}-{step}`` below `root`, then remove the older ones of its kind."""
    root.mkdir(parents=True, exist_ok=True)
    target = root / f"{kind}-{progress.step:08d}"
    temporary = root / f".{target.name}.new.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    if optimizer is not None:
        write_safetensors(temporary / _OPTIMIZER, optimizer.state())
    write_json(temporary / _STATE, asdict(progress) | {"optimizer_steps": optimizer.steps if optimizer else 0})
    _sync_folder(temporary)
    _discard(target)  # the same step again, after a resume from an older checkpoint
    os.rename(temporary, target)
    _sync_folder(root)
    for old in _folders(root, kind):
        if old != target:
            _discard(old)
    for left in root.glob(".*.tmp"):  # by a process that was killed while it wrote or removed
        shutil.rmtree(left)
    return target


def latest(root: Path, kind: str) -> Path | None:
    """The newest whole checkpoint of a kind, or None."""
    found = _folders(root, kind)
    return found[-1] if found else None


def restore(folder: Path, model: BodyModel, optimizer: AdamW) -> Progress:
    """Read a checkpoint back into a model of the same shape and its optimizer.

    Raises
    ------
    CheckpointMismatchError
        If it belongs to another model.
    CheckpointFormatError
        If its state file is not one of ours.
    """
    weights = open_tensors(folder)
    stored = {name: (weights.info(name).shape, weights.info(name).dtype) for name in weights.names()}
    dtype = "F64" if model.dtype.name == "float64" else "F32"
    if stored != {name: (value.shape, dtype) for name, value in model.params.items()}:
        raise CheckpointMismatchError(
            f"{folder} is the checkpoint of another model (other parameters, shapes or dtype than this {model.dtype} "
            f"{type(model).__name__}); start in an empty folder, or continue with the same model and settings"
        )
    for name, value in model.params.items():
        value[...] = weights.read(name)
    state = read_json(folder / _STATE)
    moments = SafetensorsFile(folder / _OPTIMIZER)
    try:
        optimizer.restore({name: moments.read(name) for name in moments.names()}, state.pop("optimizer_steps"))
        return Progress(**state)
    except (KeyError, TypeError) as error:
        raise CheckpointFormatError(f"{folder / _STATE} is not the state of a run: {error}") from None


def remove_all(root: Path) -> None:
    """Remove all checkpoints of a run that is done."""
    _discard(root)
