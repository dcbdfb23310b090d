"""Checkpoints of a run: written beside the old ones and renamed, so that a killed run never leaves half of one."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint.safetensors_file import SafetensorsFile, write_safetensors
from ..errors import CheckpointFormatError, CheckpointMismatchError
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
    settings: dict[str, Any] = field(default_factory=dict)


def _sync_folder(folder: Path) -> None:
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


def save(root: Path, kind: str, model: BodyModel, optimizer: AdamW | None, progress: Progress) -> Path:
    """Write a checkpoint ``{kind}-{step}`` below `root`, then remove the older ones of its kind."""
    root.mkdir(parents=True, exist_ok=True)
    target = root / f"{kind}-{progress.step:08d}"
    temporary = root / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    if optimizer is not None:
        write_safetensors(temporary / _OPTIMIZER, optimizer.state())
    write_json(temporary / _STATE, asdict(progress) | {"optimizer_steps": optimizer.steps if optimizer else 0})
    _sync_folder(temporary)
    if target.exists():  # the same step again, after a resume from an older checkpoint
        shutil.rmtree(target)
    os.rename(temporary, target)
    _sync_folder(root)
    for old in _folders(root, kind):
        if old != target:
            shutil.rmtree(old)
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
    weights = SafetensorsFile(folder / "model.safetensors")
    shapes = {name: weights.info(name).shape for name in weights.names()}
    if shapes != {name: value.shape for name, value in model.params.items()}:
        raise CheckpointMismatchError(
            f"{folder} is the checkpoint of another model; start in an empty folder, or continue with the same settings"
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
    shutil.rmtree(root, ignore_errors=True)
