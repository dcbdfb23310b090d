"""What all pipelines share: checked texts to batches of ids that waste little on padding."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointMismatchError, ConfigError, InputError
from ..model import BodyModel

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

MAX_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Batch:
    """Some of the texts, padded on the right to one length."""

    indices: list[int]  # where in the list of texts they are
    lengths: list[int]  # tokens of each, without padding
    input_ids: np.ndarray  # (B, T)
    attention_mask: np.ndarray  # (B, T)
    token_type_ids: np.ndarray | None  # (B, T); None where all are 0

    @property
    def inputs(self) -> dict[str, Any]:
        """What a model is called with."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return inputs if self.token_type_ids is None else inputs | {"token_type_ids": self.token_type_ids}


class Pipeline:
    """A model and its tokenizer; subclasses are called with texts.

    Parameters
    ----------
    model : BodyModel
        A model of the class that the task needs.
    tokenizer : Tokenizer
        The tokenizer that the model was trained with.
    max_batch_tokens : int
        How many tokens, padding included, go through the model together. Texts are sorted by length first, so that
        few are padding, and answers come back in the order of the texts.
    """

    task: str
    model_class: type[BodyModel]
    remedy = "truncation=True to have it cut"  # for a text that is too long

    def __init__(self, model: Any, tokenizer: Tokenizer, *, max_batch_tokens: int = MAX_BATCH_TOKENS) -> None:
        if not isinstance(model, self.model_class):
            raise InputError(f"{self.task} needs a {self.model_class.__name__}, not a {type(model).__name__}")
        if not hasattr(tokenizer, "encode_rows"):
            raise InputError(f"tokenizer is a {type(tokenizer).__name__}; give a folder or an npprelnorm.Tokenizer")
        if type(max_batch_tokens) is not int or max_batch_tokens < 1:
            raise InputError(f"max_batch_tokens is {max_batch_tokens!r}; it must be a whole number from 1")
        self.model: Any = model
        self.tokenizer = tokenizer
        self.max_batch_tokens = max_batch_tokens
        limits = (model.config.max_tokens, tokenizer.model_max_length)
        self.max_tokens = min(limit for limit in limits if limit is not None)

    @classmethod
    def load_model(cls, path: str | os.PathLike[str], **options: Any) -> BodyModel:
        """The task's model from a folder or hub id; a head that the checkpoint lacks is an error, not a fresh one."""
        from ..auto import load_as

        try:
            return load_as(cls.model_class, path, init_missing=False, **options)
        except (CheckpointMismatchError, ConfigError) as error:
            raise type(error)(f"{cls.task} needs a checkpoint that was trained for it: {error}") from None

    @classmethod
    def settings(cls, path: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
        """Arguments of the class that files beside the model give."""
        return {}

    def encode(self, texts: Sequence[str], *, truncation: bool) -> list[np.ndarray]:
        """Ids of each text, checked against the model."""
        return self.encode_pairs([(text, None) for text in texts], truncation=truncation)[0]

    def encode_pairs(
        self, pairs: Sequence[tuple[str, str | None]], *, truncation: bool, names: Sequence[str] | None = None
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Ids and token types of each text, or pair of texts, checked against the model; errors call them `names`."""
        if not isinstance(truncation, bool):
            raise InputError(f"truncation is {truncation!r}; allowed: False, True")
        rows: list[np.ndarray] = [np.empty(0, np.int64)] * len(pairs)
        types = list(rows)
        for paired in {second is not None for _, second in pairs}:
            # the whole list for either kind, so that an error about a text has its place in the list
            firsts, seconds = [first for first, _ in pairs], [second or "" for _, second in pairs]
            length = self.max_tokens if truncation else None
            if paired:
                encoded = self.tokenizer.encode_pairs(firsts, seconds, truncation=truncation, max_length=length)
            else:
                alone = self.tokenizer.encode_rows(firsts, truncation=truncation, max_length=length)
                encoded = [(row, np.zeros_like(row)) for row in alone]
            for index, (row, row_types) in enumerate(encoded):
                if (pairs[index][1] is not None) == paired:
                    rows[index], types[index] = row, row_types
        self.check_rows(rows, [self.name_of(index, rows) for index in range(len(rows))] if names is None else names)
        return rows, types

    def check_rows(self, rows: Sequence[np.ndarray], names: Sequence[str]) -> None:
        """Raise for rows that the model cannot take, each by its name."""
        vocabulary = self.model.config.vocab_size
        for name, row in zip(names, rows, strict=True):
            if len(row) > self.max_tokens:
                raise InputError(
                    f"{name} has {len(row)} tokens, more than the {self.max_tokens} that this model takes; "
                    f"shorten it, or pass {self.remedy}"
                )
            if len(row) == 0:
                raise InputError(f"{name} has no tokens: the tokenizer puts none around it")
            largest = int(row.max())
            if largest >= vocabulary:
                raise InputError(
                    f"{name} holds {self.tokenizer.id_to_token(largest)!r}, id {largest}, but the model knows only "
                    f"{vocabulary} tokens: use the tokenizer that it was trained with"
                )

    @staticmethod
    def name_of(index: int, rows: Sequence[Any], what: str = "text") -> str:
        """How an error calls a text, or whatever `rows` are."""
        return f"the {what}" if len(rows) == 1 else f"{what} {index} (counted from 0)"

    def batches(self, rows: list[np.ndarray], types: list[np.ndarray] | None = None) -> Iterator[Batch]:
        """The rows by falling length, as many together as `max_batch_tokens` allows.

        Token types go with them where the model was trained to tell the texts of a pair by them.
        """
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        fill = self.model.config.pad_token_id or 0
        while order:
            longest = len(rows[order[0]])
            count = max(1, self.max_batch_tokens // longest)
            indices, order = order[:count], order[count:]
            ids = np.full((len(indices), longest), fill, np.int64)
            mask = np.zeros((len(indices), longest), np.int64)
            token_types = None
            if types is not None and self.model.config.family.pairs_by_token_type:
                token_types = np.zeros_like(ids)
            for line, index in enumerate(indices):
                ids[line, : len(rows[index])] = rows[index]
                mask[line, : len(rows[index])] = 1
                if token_types is not None and types is not None:
                    token_types[line, : len(rows[index])] = types[index]
            yield Batch(indices, [len(rows[index]) for index in indices], ids, mask, token_types)


def as_texts(texts: Any) -> list[str]:
    """One text or several as a list."""
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, list | tuple | np.ndarray):
        raise InputError(f"the input is a {type(texts).__name__}; give a string or a list of strings")
    return list(texts)
