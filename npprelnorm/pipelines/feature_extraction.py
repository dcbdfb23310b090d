"""feature-extraction: the model's vectors of a text. T tokens of one text, C hidden, N texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import boolean
from ..errors import InputError
from ..model import BodyModel
from ..sentence_files import SentenceSettings, sentence_settings
from .base import Pipeline, as_texts

_POOLING = {
    "mean": lambda hidden: hidden.mean(axis=0),  # (T, C) -> (C,)
    "cls": lambda hidden: hidden[0],  # of the one row that is read
    "max": lambda hidden: hidden.max(axis=0),
    "none": lambda hidden: hidden,
}
_SMALLEST_NORM = 1e-12  # a vector of zeros stays one


class FeatureExtractionPipeline(Pipeline):
    """Turns texts into vectors; see `__call__`."""

    task = "feature-extraction"
    model_class = BodyModel  # every class has the body that this task needs

    @classmethod
    def load_model(cls, path: str | os.PathLike[str], **options: Any) -> BodyModel:
        """The body of any checkpoint; a head that it has is left out."""
        from ..auto import AutoModel

        model: BodyModel = AutoModel.from_pretrained(path, **options)
        return model

    @classmethod
    def settings(cls, path: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
        """What the files of a sentence-transformers checkpoint say."""
        return {"sentence": sentence_settings(path, **options)}

    def __init__(self, model: Any, tokenizer: Any, *, sentence: SentenceSettings | None = None, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        self.sentence = sentence
        if sentence is not None and sentence.max_tokens is not None:
            self.max_tokens = min(self.max_tokens, sentence.max_tokens)

    def __call__(
        self,
        texts: str | Sequence[str],
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        truncation: bool = False,
    ) -> Any:
        """Vectors of a text, or of several.

        Parameters
        ----------
        texts : str or sequence of str
            What to embed. It is lower-cased, and gets a prompt before it, where the checkpoint's sentence-transformers
            files say so.
        pooling : {"none", "mean", "cls", "max"}, optional
            How the vectors of a text's tokens become one: not at all, their mean, the first one (``<s>``), the
            largest value of each column. ``<s>`` and ``</s>`` count, as in sentence-transformers; padding never
            does. By default what those files say, where there are any, and "none" where not. A checkpoint that was
            only pretrained as a masked LM has no trained pooler; its mean is the usual choice.
        normalize : bool, optional
            Whether to scale every vector to length 1; by default as those files say, and no where there are none.
        truncation : bool
            Whether to cut texts that are too long for the model, instead of raising.

        Returns
        -------
        numpy.ndarray or list of numpy.ndarray
            For a list of N texts an array (N, C), with ``pooling="none"`` a list of N arrays (T, C); for a single
            text one array (C,) or (T, C). In the model's dtype, float32 by default.

        Raises
        ------
        InputError
            A text that is too long, an unknown pooling, or a `normalize` that is neither True nor False.
        TokenizerError
            A text that cannot be tokenized.
        """
        if pooling is None:
            pooling = self.sentence.pooling if self.sentence else "none"
        if normalize is None:
            normalize = self.sentence is not None and self.sentence.normalize
        normalize = boolean("normalize", normalize)
        if pooling not in _POOLING:
            raise InputError(f"pooling is {pooling!r:.80}; allowed: {', '.join(map(repr, _POOLING))}")
        listed = as_texts(texts)
        if self.sentence is not None:  # what is no text is left for the tokenizer to refuse
            listed = [self.sentence.prepared(text) if isinstance(text, str) else text for text in listed]
        rows = self.encode(listed, truncation=truncation)
        vectors: list[Any] = [None] * len(rows)
        for batch in self.batches(rows):
            read = batch.attention_mask == 1
            if pooling == "cls":
                read[:, 1:] = False
            hidden = self.model.base(batch.input_ids, batch.attention_mask, read=read).last_hidden_state  # (R, C)
            ends = np.cumsum(read.sum(axis=1))
            for index, own in zip(batch.indices, np.split(hidden, ends[:-1]), strict=True):
                # copied, so that no text keeps the whole batch alive
                vector = np.array(_POOLING[pooling](own))
                vectors[index] = _unit(vector) if normalize else vector
        if isinstance(texts, str):
            return vectors[0]
        if pooling == "none":
            return vectors
        return np.stack(vectors) if vectors else np.empty((0, self.model.config.hidden_size), self.model.dtype)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., C) divided by their lengths."""
    length = np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))
    result: np.ndarray = vectors / np.maximum(length, vectors.dtype.type(_SMALLEST_NORM))
    return result
