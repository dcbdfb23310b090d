"""fill-mask: the most likely tokens for each mask. M masks of all texts of a batch, C hidden, V vocabulary."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError, InputWarning
from ..language_models import RobertaPreLayerNormForMaskedLM
from ..ops.top_k import TopK
from .base import Batch, Pipeline, as_texts


class FillMaskPipeline(Pipeline):
    """Fills masks; see `__call__`."""

    task = "fill-mask"
    model_class = RobertaPreLayerNormForMaskedLM

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        if tokenizer.mask_token_id is None:
            raise InputError("this tokenizer has no mask_token, which fill-mask needs; was the model trained with one?")

    def __call__(
        self,
        texts: str | Sequence[str],
        *,
        top_k: int = 5,
        targets: str | Sequence[str] | None = None,
        truncation: bool = False,
    ) -> list[Any]:
        """Fill every mask of a text, or of several.

        Parameters
        ----------
        texts : str or sequence of str
            Each with at least one mask token, such as ``<mask>``.
        top_k : int
            How many candidates for each mask; at most as many as there are targets, or tokens.
        targets : str or sequence of str, optional
            Score only these, with their probabilities among all tokens. Each is a token as the vocabulary spells it,
            or else a text, of which the first token counts. Inside a sentence words begin with a space:
            ``targets=[" Paris", " Rome"]``.
        truncation : bool
            Whether to cut texts that are too long for the model, instead of raising.

        Returns
        -------
        list
            For one text with one mask its candidates, best first: dicts of ``score`` (probability), ``token`` (id),
            ``token_str`` (its text) and ``sequence`` (the text with the mask filled, without special tokens). For a
            text with several masks a list of such lists, one for each mask, each filled for itself: the sequences
            keep the special tokens and with them the other masks. For a list of texts a list of all this.

        Raises
        ------
        InputError
            A text without a mask or too long, a `top_k` below 1, or no usable target.
        TokenizerError
            A text that cannot be tokenized.
        """
        if type(top_k) is not int or top_k < 1:
            raise InputError(f"top_k is {top_k!r}; it must be a whole number from 1")
        among = None if targets is None else self._among(targets)
        rows = self.encode(as_texts(texts), truncation=truncation)
        masks = [np.flatnonzero(row == self.tokenizer.mask_token_id) for row in rows]
        for index, places in enumerate(masks):
            if len(places) == 0:
                where = f" in its first {self.max_tokens} tokens" if len(rows[index]) == self.max_tokens else ""
                raise InputError(
                    f"{self.name_of(index, rows)} has no {self.tokenizer.mask_token}{where}; "
                    f"write {self.tokenizer.mask_token} where the missing word is"
                )
        answers: list[Any] = [None] * len(rows)
        for batch in self.batches(rows):
            found = self._best(batch, top_k, among)
            scored = zip(found.ids.tolist(), found.probabilities().tolist(), strict=True)
            for index in batch.indices:
                filled = [
                    self._candidates(rows[index], place, *next(scored), alone=len(masks[index]) == 1)
                    for place in masks[index].tolist()
                ]
                answers[index] = filled[0] if len(filled) == 1 else filled
        return list(answers[0]) if isinstance(texts, str) else answers

    def _best(self, batch: Batch, top_k: int, among: np.ndarray | None) -> TopK:
        """The best tokens, mask after mask; only these rows meet the vocabulary, which is the costliest step of all."""
        masked = batch.input_ids == self.tokenizer.mask_token_id
        hidden = self.model.base(batch.input_ids, batch.attention_mask, read=masked).last_hidden_state  # (M, C)
        found: TopK = self.model.top_tokens(hidden, top_k, among)
        return found

    def _candidates(
        self, row: np.ndarray, place: int, tokens: list[int], scores: list[float], *, alone: bool
    ) -> list[dict[str, Any]]:
        """The best tokens for one mask of a text with their scores; `alone` if it is its only one."""
        candidates = []
        for token, score in zip(tokens, scores, strict=True):
            filled = row.copy()
            filled[place] = token
            if self.tokenizer.pad_token_id is not None:
                filled = filled[filled != self.tokenizer.pad_token_id]
            candidates.append(
                {
                    "score": score,
                    "token": token,
                    "token_str": self.tokenizer.decode(token),
                    # with several masks the others have to stay visible, and they are special tokens too
                    "sequence": self.tokenizer.decode(filled, skip_special_tokens=alone),
                }
            )
        return candidates

    def _among(self, targets: str | Sequence[str]) -> np.ndarray:
        """Which tokens are targets, (V,) booleans."""
        names = as_texts(targets)
        limit = self.model.config.vocab_size
        ids: set[int] = set()
        for name in names:
            known = self.tokenizer.token_to_id(name)
            found: list[int] = [] if known is None else [known]
            if known is None:
                found = self.tokenizer(name, add_special_tokens=False)["input_ids"][0].tolist()
                if len(found) > 1:
                    warnings.warn(
                        f"the target {name!r} is {len(found)} tokens, of which only the first, "
                        f"{self.tokenizer.decode(found[0])!r}, is scored",
                        InputWarning,
                        stacklevel=3,
                    )
            if not found:
                raise InputError(f"the target {name!r} has no tokens; leave it out")
            if found[0] >= limit:
                raise InputError(f"the target {name!r} has id {found[0]}, but the model knows only {limit} tokens")
            ids.add(found[0])
        if not ids:
            raise InputError("targets is empty; name at least one word, or leave it out to score all tokens")
        among = np.zeros(limit, np.bool_)
        among[list(ids)] = True
        return among
