"""multiple-choice: which of several texts goes best with a prompt. R prompts with one of their choices each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..classifiers import RobertaPreLayerNormForMultipleChoice
from ..errors import InputError
from ..ops.attention import softmax
from ..ops.top_k import largest
from .base import Pipeline


class MultipleChoicePipeline(Pipeline):
    """Ranks choices; see `__call__`. transformers has no such pipeline: the fields are ours."""

    task = "multiple-choice"
    model_class = RobertaPreLayerNormForMultipleChoice

    def __call__(
        self,
        prompt: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        choices: Sequence[str] | None = None,
        *,
        truncation: bool = False,
    ) -> list[Any]:
        """Rank the choices for a prompt, or for several.

        Parameters
        ----------
        prompt : str, dict, or sequence of dicts
            A prompt, with `choices` beside it; or dicts ``{"prompt": ..., "choices": [...]}``.
        choices : sequence of str, optional
            Each makes a pair with the prompt.
        truncation : bool
            Whether to cut pairs that are too long for the model, instead of raising.

        Returns
        -------
        list
            Best first, dicts of ``index`` (into `choices`), ``choice`` (the text) and ``score`` (the softmax over
            the choices). For a sequence of prompts a list of such lists.

        Raises
        ------
        InputError
            Without choices, or for a pair that is too long.
        """
        examples = _examples(prompt, choices)
        pairs, names = [], []
        for index, (text, options) in enumerate(examples):
            where = "" if len(examples) == 1 else f"{self.name_of(index, examples, 'prompt')}, "
            pairs += [(text, option) for option in options]
            names += [f"{where}choice {place} (counted from 0) with its prompt" for place in range(len(options))]
        rows, types = self.encode_pairs(pairs, truncation=truncation, names=names)
        logits = np.zeros(len(rows), self.model.dtype)
        for batch in self.batches(rows, types):
            # a choice has its score from itself alone; only the softmax knows of the others
            out = self.model(**{name: array[:, None] for name, array in batch.inputs.items()})  # (R, 1, T)
            logits[batch.indices] = out.logits[:, 0]
        answers, start = [], 0
        for _, options in examples:
            answers.append(_ranked(options, softmax(logits[start : start + len(options)])))
            start += len(options)
        return answers[0] if isinstance(prompt, str | Mapping) else answers


def _ranked(options: list[str], scores: np.ndarray) -> list[dict[str, Any]]:
    order = largest(scores, len(options)).tolist()
    return [{"index": index, "choice": options[index], "score": float(scores[index])} for index in order]


def _examples(prompt: Any, choices: Any) -> list[tuple[str, list[str]]]:
    if isinstance(prompt, str):
        prompt = {"prompt": prompt, "choices": choices}
    elif choices is not None:
        raise InputError("choices are given twice; dicts bring their own")
    if not isinstance(prompt, Mapping | list | tuple):
        raise InputError(f"the prompt is a {type(prompt).__name__}; give a string, a dict, or a list of dicts")
    examples = []
    for example in [prompt] if isinstance(prompt, Mapping) else prompt:
        if not isinstance(example, Mapping) or set(example) != {"prompt", "choices"}:
            raise InputError(f"a prompt is {example!r:.80}; give {{'prompt': ..., 'choices': [...]}}")
        text, options = example["prompt"], example["choices"]
        if not isinstance(text, str):
            raise InputError(f"the prompt is {text!r:.80}; give a string")
        if not isinstance(options, list | tuple | np.ndarray) or not len(options):
            raise InputError(f"choices is {options!r:.80}; give a list of one or more texts")
        for option in options:
            if not isinstance(option, str):
                raise InputError(f"a choice is {option!r:.80}; give a string")
        examples.append((text, list(options)))
    return examples
