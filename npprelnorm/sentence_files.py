"""What a checkpoint laid out as sentence-transformers says about how its vectors are made.

modules.json                        the steps: a Transformer, a Pooling, perhaps a Normalize
1_Pooling/config.json               how the vectors of the tokens become one
sentence_bert_config.json           how many tokens of a text count, and whether it is lower-cased first
config_sentence_transformers.json   what goes before every text
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

# as sentence-transformers wrote it until 5: one of these is true; from 6 on "pooling_mode" says which
_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}
_WAY_OUT = "to use the model without these steps, load it and its tokenizer and hand both to the pipeline"


@dataclass(frozen=True)
class SentenceSettings:
    """How one vector of a text is made.

    Attributes
    ----------
    pooling : {"mean", "cls", "max"}
    normalize : bool
        Whether it is scaled to length 1.
    max_tokens : int or None
        How many tokens of a text count; None: as many as the model and its tokenizer take.
    prompt : str
        What goes before every text.
    lowercase : bool
        Whether the text is lower-cased, the prompt included, before it is tokenized.
    """

    pooling: str
    normalize: bool
    max_tokens: int | None
    prompt: str = ""
    lowercase: bool = False

    def prepared(self, text: str) -> str:
        """The text as it goes to the tokenizer."""
        text = self.prompt + text
        return text.lower() if self.lowercase else text


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
    if modules[0][1]:
        raise InputError(
            f"{folder / 'modules.json'} keeps the model in the folder {modules[0][1]}, as sentence-transformers did "
            "before version 2: load it with a current one and save it again, or name that folder"
        )
    limits = _settings(folder / "sentence_bert_config.json")
    most, lowercase = limits.get("max_seq_length"), limits.get("do_lower_case", False)
    if most is not None and (type(most) is not int or most < 1):
        raise CheckpointFormatError(
            f"{folder / 'sentence_bert_config.json'}: max_seq_length is {most!r:.80}, not a whole number from 1"
        )
    if not isinstance(lowercase, bool):
        raise CheckpointFormatError(
            f"{folder / 'sentence_bert_config.json'}: do_lower_case is {lowercase!r:.80}, not true or false"
        )
    prompt = _prompt(folder / "config_sentence_transformers.json")
    pooling = _pooling(folder / modules[1][1] / "config.json", bool(prompt))
    return SentenceSettings(pooling, "Normalize" in kinds, most, prompt, lowercase)


def _settings(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file."""
    return read_json(path) if path.is_file() else {}


def _prompt(path: Path) -> str:
    """The prompt that is used where a caller names none."""
    values = _settings(path)
    name = values.get("default_prompt_name")
    if name is None:
        return ""
    prompts = values.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    if not isinstance(prompt, str):
        raise CheckpointFormatError(f"{path}: default_prompt_name is {name!r:.80}, which is none of its prompts")
    return prompt


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


def _pooling(path: Path, prompted: bool) -> str:
    if not path.is_file():
        raise CheckpointNotFoundError(f"{path} is missing, which modules.json names; {_WAY_OUT}")
    values = read_json(path)
    if prompted and values.get("include_prompt") is False:
        raise InputError(f"{path} leaves the prompt out of the pooling, which this package does not; {_WAY_OUT}")
    given = values.get("pooling_mode")
    if given is None:
        chosen = [key for key, value in values.items() if key.startswith("pooling_mode_") and value is True]
        modes = [_MODES.get(key) for key in chosen]
    else:
        chosen = given if isinstance(given, list) else [given]
        modes = [mode if mode in _MODES.values() else None for mode in chosen]
    if len(modes) != 1 or modes[0] is None:
        asked = ", ".join(map(str, chosen)) or "no pooling"
        raise InputError(
            f"{path} asks for {asked:.200}; this package knows one of {', '.join(_MODES.values())}; {_WAY_OUT}"
        )
    return modes[0]
