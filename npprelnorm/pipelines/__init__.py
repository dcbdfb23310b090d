"""Text in, answers out: `pipeline("fill-mask")` and its like. A task is a class in a module of its own."""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .base import MAX_BATCH_TOKENS, Pipeline

if TYPE_CHECKING:
    from ..model import BodyModel
    from ..tokenizer import Tokenizer

_TASKS = {
    "fill-mask": ("fill_mask", "FillMaskPipeline"),
    "feature-extraction": ("feature_extraction", "FeatureExtractionPipeline"),
    "text-classification": ("text_classification", "TextClassificationPipeline"),
    "token-classification": ("token_classification", "TokenClassificationPipeline"),
    "question-answering": ("question_answering", "QuestionAnsweringPipeline"),
    "multiple-choice": ("multiple_choice", "MultipleChoicePipeline"),
}

_log = logging.getLogger("npprelnorm")


def pipeline(
    task: str,
    model: str | os.PathLike[str] | BodyModel | None = None,
    tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    allow_convert_pr: bool = False,
    dtype: str = "float32",
    weight_dtype: str = "float32",
    max_batch_tokens: int = MAX_BATCH_TOKENS,
) -> Any:
    """Make a function of texts out of a model and its tokenizer.

    Parameters
    ----------
    task : str
        What to do with the texts: "fill-mask", "feature-extraction", "text-classification", "token-classification",
        "question-answering" or "multiple-choice"; see `FillMaskPipeline` and its like for how to call the result.
    model : str, os.PathLike or model, optional
        A folder, the id of a model on the hub, or a model that is already loaded. By default the small model inside
        the package, which knows a toy world only (its folder is `npprelnorm.embedded_model_path`).
    tokenizer : str, os.PathLike or Tokenizer, optional
        By default the one beside the model; a model that is already loaded needs one named.
    revision : str, optional
        Branch, tag or commit of a hub model.
    local_files_only : bool
        Whether to look for a hub model in the cache only.
    allow_convert_pr : bool
        Whether to take safetensors that the hub's conversion bot offers, where the model itself has none.
    dtype : {"float32", "float64"}
        Compute type of a model that is loaded here.
    weight_dtype : {"float32", "float16", "bfloat16", "int12"}
        How the Numba kernels store the weights of a model that is loaded here; see its ``from_pretrained``.
    max_batch_tokens : int
        How many tokens, padding included, go through the model together.

    Returns
    -------
    Pipeline

    Raises
    ------
    InputError
        For an unknown task, or arguments that do not go together.
    CheckpointError, TokenizerError
        If the model or its tokenizer cannot be loaded.
    """
    if task not in _TASKS:
        raise InputError(f"task is {task!r:.80}; allowed: {', '.join(map(repr, _TASKS))}")
    module, name = _TASKS[task]
    kind: type[Pipeline] = getattr(importlib.import_module(f".{module}", __name__), name)
    if model is None:
        from ..assets import embedded_model_path

        model = embedded_model_path()
        _log.info("no model named: using the embedded one, which knows a toy world only (%s)", model)
    if tokenizer is None:
        if not isinstance(model, str | os.PathLike):
            raise InputError("a model that is already loaded needs its tokenizer: pass a folder or a Tokenizer")
        tokenizer = model
    if isinstance(tokenizer, str | os.PathLike):
        from ..tokenizer import Tokenizer

        tokenizer = Tokenizer.from_pretrained(tokenizer, revision=revision, local_files_only=local_files_only)
    options: dict[str, Any] = {}
    if isinstance(model, str | os.PathLike):
        options = kind.settings(model, revision=revision, local_files_only=local_files_only)
        model = kind.load_model(
            model,
            revision=revision,
            local_files_only=local_files_only,
            allow_convert_pr=allow_convert_pr,
            dtype=dtype,
            weight_dtype=weight_dtype,
        )
    return kind(model, tokenizer, max_batch_tokens=max_batch_tokens, **options)
