"""multiple-choice: which of several texts goes best with a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..classifiers import RobertaPreLayerNormForMultipleChoice
from ..errors import InputError
from ..ops.attention import softmax
from .base import Pipeline


class MultipleChoicePipeline(Pipeline):
    """Ranks choices; see `__call__`. transformers has no such pipeline: the fields are ours."""

    task = "multiple-choice"
    model_class = RobertaPreLayerNormForMultipleChoice

    def __call__(self, prompt: str, choices: Sequence[str], *, truncation: bool = False) -> list[dict[str, Any]]:
        """Rank the choices for a prompt.

        Parameters
        ----------
        prompt : str
        choices : sequence of str
            Each makes a pair with the prompt.
        truncation : bool
            Whether to cut pairs that are too long for the model, instead of raising.

        Returns
        -------
        list
            Best first, dicts of ``index`` (into `choices`), ``choice`` (the text) and ``score`` (the softmax over
            the choices).

        Raises
        ------
        InputError
            Without choices, or for a pair that is too long.
        """
        if isinstance(choices, str) or not len(choices):
            raise InputError(f"choices is {choices!r:.80}; give a list of one or more texts")
        rows = self.encode_pairs([(prompt, choice) for choice in choices], truncation=truncation)
        (batch,) = self.batches(rows, together=True)
        logits = self.model(batch.input_ids[None], batch.attention_mask[None]).logits[0]  # (choices,)
        scores = softmax(logits)
        order = np.argsort(-scores, kind="stable")
        places = [(batch.indices[line], float(scores[line])) for line in order.tolist()]
        return [{"index": index, "choice": choices[index], "score": score} for index, score in places]
