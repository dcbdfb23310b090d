"""The folder that a run writes: whose it is, whether it is finished, and what is in it at the end.

``training.json``   what was asked for: written first, compared when a run is taken up
``metrics.jsonl``   the log; ``checkpoints/`` while the run is on
``config.json``, ``model.safetensors``, ``tokenizer.json``, ``tokenizer_config.json``   the result
``metrics.json``    written last: where it is, the run is finished
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, InputError
from ..files import read_json, write_json
from . import state

if TYPE_CHECKING:
    from ..model import BodyModel
    from ..tokenizer import Tokenizer

_REQUEST, _RESULT = "training.json", "metrics.json"
_BEFORE_TRAINING = {_REQUEST, "tokenizer.json", "tokenizer_config.json", ".lock"}


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    total = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return total.hexdigest()


def claim(folder: Path, request: Mapping[str, Any]) -> bool:
    """Make `folder` the one of a run, or find that it is already; whether that run is finished.

    Parameters
    ----------
    folder : Path
        Made if missing.
    request : mapping
        All that the result depends on, as JSON can hold it.

    Raises
    ------
    InputError
        If there is something else in it, or a run with another request; nothing is changed then.
    """
    own = json.loads(json.dumps(request))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _REQUEST).exists():
        other = sorted(item.name for item in folder.iterdir() if not _is_left_over(item))
        if other:
            raise InputError(f"{folder} holds something else ({other[0]}); name a new or empty folder")
        write_json(folder / _REQUEST, own)
    found = read_json(folder / _REQUEST)
    for name in sorted(own | found):
        if own.get(name) != found.get(name):
            raise InputError(
                f"{folder} holds a run with {name} {_short(found.get(name))}, not {_short(own.get(name))}; continue it "
                "with the same data and settings, or name an empty folder"
            )
    for item in folder.iterdir():
        if _is_left_over(item):
            item.unlink()
    return (folder / _RESULT).exists()


def unclaim(folder: Path) -> None:
    """Undo `claim` where no training has come of it, so that the next try may ask for something else.

    A folder in which another process trains is left alone.
    """
    with contextlib.suppress(InputError), state.alone(folder):
        if {item.name for item in folder.iterdir()} <= _BEFORE_TRAINING:
            for name in _BEFORE_TRAINING:
                (folder / name).unlink(missing_ok=True)


def _is_left_over(item: Path) -> bool:
    """Whether a killed process left this file while it wrote another."""
    return item.name.startswith(".") and item.name.endswith(".tmp") and item.is_file()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:76] + " ..."


def finish(folder: Path, model: BodyModel, tokenizer: Tokenizer, metrics: Mapping[str, Any]) -> None:
    """Write the result; from the moment that ``metrics.json`` is there, the run is finished."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / _RESULT, metrics)
    clean(folder)


def result(folder: Path) -> dict[str, Any]:
    """The metrics of a finished run."""
    return read_json(folder / _RESULT)


def clean(folder: Path) -> None:
    """Remove what only an unfinished run needs."""
    state.remove_all(folder / "checkpoints")
    (folder / ".lock").unlink(missing_ok=True)
