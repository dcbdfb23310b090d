"""text-classification: the labels of a text or of a pair of texts. K labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..classifiers import RobertaPreLayerNormForSequenceClassification
from ..errors import InputError
from ..ops.activations import sigmoid
from ..ops.attention import softmax
from ..ops.top_k import largest
from .base import Pipeline

_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sigmoid": sigmoid,
    "softmax": softmax,
    "none": lambda logits: logits,
}

Text = str | Mapping[str, str]
_DEFAULT: Any = object()


class TextClassificationPipeline(Pipeline):
    """Labels texts; see `__call__`."""

    task = "text-classification"
    model_class = RobertaPreLayerNormForSequenceClassification

    def __call__(
        self,
        texts: Text | Sequence[Text],
        *,
        top_k: Any = _DEFAULT,
        function_to_apply: str | None = None,
        truncation: bool = False,
    ) -> Any:
        """Classify a text, or several.

        Parameters
        ----------
        texts : str, dict, or sequence of them
            A dict ``{"text": ..., "text_pair": ...}`` is a pair.
        top_k : int or None, optional
            How many labels to give, best first; None for all. Without it only the best is given.
        function_to_apply : {"sigmoid", "softmax", "none"}, optional
            What turns logits into scores. By default nothing for regression, the sigmoid for several labels or a
            single output, the softmax otherwise.
        truncation : bool
            Whether to cut texts that are too long for the model, instead of raising.

        Returns
        -------
        list or dict
            Dicts of ``label`` and ``score``. Without `top_k`: a list of one for a text, the dict itself for a pair,
            and a list of dicts for a list. With `top_k`: a list of that many, or a list of such lists.

        Raises
        ------
        InputError
            A text that is too long, or an argument that is not allowed.
        """
        if top_k is not _DEFAULT and top_k is not None and (type(top_k) is not int or top_k < 1):
            raise InputError(f"top_k is {top_k!r}; it must be a whole number from 1, or None for all labels")
        if function_to_apply is not None and function_to_apply not in tuple(_FUNCTIONS):
            raise InputError(f"function_to_apply is {function_to_apply!r}; allowed: {', '.join(map(repr, _FUNCTIONS))}")
        single = isinstance(texts, str | Mapping)
        if not single and not isinstance(texts, list | tuple | np.ndarray):
            raise InputError(f"the input is a {type(texts).__name__}; give a string, a dict, or a list of them")
        pairs = [_as_pair(text) for text in ([texts] if single else texts)]
        rows, types = self.encode_pairs(pairs, truncation=truncation)
        function = _FUNCTIONS[function_to_apply or self._default_function()]
        answers: list[Any] = [None] * len(rows)
        for batch in self.batches(rows, types):
            logits = self.model(**batch.inputs).logits  # (B, K)
            for index, scores in zip(batch.indices, function(logits), strict=True):
                answers[index] = self._labels(scores, 1 if top_k is _DEFAULT else top_k)
        if top_k is _DEFAULT and not isinstance(texts, str):
            answers = [labels[0] for labels in answers]
        return answers[0] if single else answers

    def _default_function(self) -> str:
        config = self.model.config
        if config.problem_type == "regression":
            return "none"
        if config.problem_type == "multi_label_classification" or config.num_labels == 1:
            return "sigmoid"
        return "softmax"

    def _labels(self, scores: np.ndarray, count: int | None) -> list[dict[str, Any]]:
        order = largest(scores, len(scores) if count is None else count)
        return [{"label": self.model.config.id2label[int(i)], "score": float(scores[i])} for i in order]


def _as_pair(text: Any) -> tuple[str, str | None]:
    if isinstance(text, str):
        return text, None
    if isinstance(text, Mapping) and "text" in text and set(text) <= {"text", "text_pair"}:
        first, second = text["text"], text.get("text_pair")
        if isinstance(first, str) and (second is None or isinstance(second, str)):
            return first, second
    raise InputError(f"a text is {text!r:.80}; give a string, or {{'text': ..., 'text_pair': ...}} for a pair")
