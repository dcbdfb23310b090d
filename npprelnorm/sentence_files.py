"""What a checkpoint laid out as sentence-transformers says about how its vectors are made.

modules.json                 the steps: a Transformer, a Pooling, perhaps a Normalize
1_Pooling/config.json        how the vectors of the tokens become one
sentence_bert_config.json    how many tokens of a text count
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoint.hub import SENTENCE_FILES, resolve
from .errors import CheckpointFormatError, CheckpointNotFoundError, InputError
from .files import parse_json, read_json

_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}
_WAY_OUT = "to use the model without these steps, load it and its tokenizer and hand both to the pipeline"


@dataclass(frozen=True)
class SentenceSettings:
    """How one vector of a text is made: ``"mean"``, ``"cls"`` or ``"max"``; scaled to length 1; of how many tokens."""

    pooling: str
    normalize: bool
    max_tokens: int | None


def sentence_settings(
    path: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False
) -> SentenceSettings | None:
    """Read the settings of a folder or hub id; None where it has no ``modules.json``.

    Raises
    ------
    CheckpointFormatError
        If a file is damaged.
    InputError
        For a step that this package does not know.
    """
    try:
        folder = resolve(
            path, revision=revision, local_files_only=local_files_only, files=SENTENCE_FILES, weights=False
        )
    except CheckpointNotFoundError:  # a hub model with none of the files
        return None
    if not (folder / "modules.json").is_file():
        return None
    modules = _modules(folder / "modules.json")
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(
            f"{folder / 'modules.json'} lists the steps {', '.join(kinds) or 'none'}; this package knows Transformer, "
            f"Pooling, Normalize, in this order; {_WAY_OUT}"
        )
    limits = folder / "sentence_bert_config.json"
    most = read_json(limits).get("max_seq_length") if limits.is_file() else None
    if most is not None and (type(most) is not int or most < 1):
        raise CheckpointFormatError(f"{limits}: max_seq_length is {most!r:.80}, not a whole number from 1")
    return SentenceSettings(_pooling(folder / modules[1][1] / "config.json"), "Normalize" in kinds, most)


def _modules(path: Path) -> list[tuple[str, str]]:
    """Kind and folder of each step."""
    with open(path, "rb") as file:
        text = file.read(1 << 20)
    # the parser takes objects alone, and this file is a list
    listed = parse_json(b'{"modules": ' + text + b"}", str(path))["modules"]
    result = []
    for module in listed if isinstance(listed, list) else [None]:
        kind, place = (module.get("type"), module.get("path")) if isinstance(module, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(place, str) or not re.fullmatch(r"\w*", place):
            raise CheckpointFormatError(f"{path} is not a list of steps, each with a type and a folder: {module!r:.80}")
        result.append((kind.rpartition(".")[2], place))
    return result


def _pooling(path: Path) -> str:
    if not path.is_file():
        raise CheckpointNotFoundError(f"{path} is missing, which modules.json names; {_WAY_OUT}")
    values: dict[str, Any] = read_json(path)
    chosen = [key for key, value in values.items() if key.startswith("pooling_mode_") and value is True]
    if len(chosen) != 1 or chosen[0] not in _MODES:
        raise InputError(
            f"{path} asks for {', '.join(chosen) or 'no pooling'}; this package knows one of "
            f"{', '.join(_MODES)}; {_WAY_OUT}"
        )
    return _MODES[chosen[0]]
