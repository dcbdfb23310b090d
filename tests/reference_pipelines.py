"""transformers' answers to the cases of `task_models`; needs torch and transformers."""

from __future__ import annotations

import warnings
from typing import Any


def theirs(folder: str, task: str, options: dict[str, Any], inputs: list[Any]) -> list[Any]:
    """What transformers' pipeline answers to each input; None where it cannot."""
    import torch
    import transformers

    pipe = transformers.pipeline(task, model=folder, dtype=torch.float32, device="cpu", **_at_init(task, options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about words, and about pipelines used one after the other
        if task == "question-answering":
            return [_answer(pipe, one, options) for one in inputs]
        if task == "token-classification":
            return [_once(entities) for entities in pipe(inputs)]
        return list(pipe(inputs, **options))


def _once(entities: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In windows, it gives a first entity that is a lone space, from a place to the same place, twice."""
    return entities[1:] if len(entities) > 1 and entities[0] == entities[1] else entities


def _at_init(task: str, options: dict[str, Any]) -> dict[str, Any]:
    """transformers takes a stride only together with the strategy, when the pipeline is made."""
    return options if task == "token-classification" else {}


def _answer(pipe: Any, example: dict[str, str], options: dict[str, Any]) -> Any:
    try:
        found = pipe(**example, **options)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # its default stride is too large beside a long question
            raise
        return None
    if options.get("top_k", 1) == 1:
        return found
    # it fills up with spans that are none: from a later token to an earlier one, or of the first token
    found = found if isinstance(found, list) else [found]
    return [one for one in found if one["score"] > 0]
