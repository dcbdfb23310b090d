"""A tag for each word: named entities, parts of speech."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...classifiers import RobertaPreLayerNormForTokenClassification
from ...config import RobertaPreLayerNormConfig
from ...heads import IGNORE
from ..batches import pad
from ..loop import Inputs
from .base import (
    Evaluator,
    MeanLoss,
    Task,
    TaskOptions,
    check_vocabulary,
    lengths_of,
    ordered_labels,
    outputs,
    padded,
    token_limit,
)
from .metrics import accuracy, entity_scores, macro_f1
from .records import Record, show

if TYPE_CHECKING:
    from ...tokenizer import Tokenizer


class TokenClassification(Task):
    """Fine-tuning of `RobertaPreLayerNormForTokenClassification`.

    The words are joined by single spaces and tokenized as one text, as they will be when the model is used. The first
    token of a word has its tag; its other tokens and the special ones do not count. A sentence that is longer than a
    row becomes several, cut between words.

    Fields of a line
    ----------------
    tokens : list of str
        The words. In CSV, with spaces between them.
    tags : list of str
        One for each word, such as ``B-PER``, ``I-PER``, ``O``. In CSV, with spaces between them.
    """

    model_class = RobertaPreLayerNormForTokenClassification
    greater_is_better = True

    def __init__(
        self, train: str | os.PathLike[str], evaluation: str | os.PathLike[str] | None, options: TaskOptions
    ) -> None:
        super().__init__(train, evaluation, options)
        self._sentences = [[_sentence(record) for record in part] for part in self.records]
        self._names = {tag for _, tags in self._sentences[0] for tag in tags}
        if len(self._names) < 2:
            self.records[0][-1].fail(f"up to here all tags are {show(min(self._names))}; at least 2 are needed")
        for record, (_, tags) in zip(self.records[1], self._sentences[1], strict=True):
            for tag in tags:
                if tag not in self._names:
                    known = ", ".join(sorted(self._names)[:8]) + (", ..." if len(self._names) > 8 else "")
                    record.fail(f"the tag {show(tag)} is not in the training file, which has {known}")
        self.metric = "f1" if any(tag.startswith(("B-", "I-")) for tag in self._names) else "accuracy"

    def config_changes(self, config: RobertaPreLayerNormConfig) -> dict[str, Any]:
        """The tags."""
        return {"id2label": ordered_labels(self._names, config)} | self.changes_to_encoder(config)

    def data(self, part: int, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> TokenData:
        """The examples of a file."""
        limit = token_limit(tokenizer, config, self.options.max_length)
        rows = []
        for index, (words, tags) in enumerate(self._sentences[part]):
            ids = np.array([config.label2id[tag] for tag in tags], np.int64)
            rows += word_rows(tokenizer, index, words, ids, limit)
        check_vocabulary([row.ids for row in rows], tokenizer, config)
        return TokenData(rows, config)

    def evaluator(self, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> Evaluator:
        """Loss, accuracy and macro F1 over words; for ``B-`` and ``I-`` tags those of whole entities besides."""
        data, sentences = self.data(1, tokenizer, config), self._sentences[1]

        def evaluate(model: Any) -> dict[str, float]:
            loss = MeanLoss()
            # a word without tokens of its own gets what stands for nothing, where there is such a tag
            answers = [np.full(len(tags), config.label2id.get("O", 0)) for _, tags in sentences]
            for indices, inputs, output in outputs(model, data):
                loss.add(model, inputs, output.loss)
                for index, logits in zip(indices, output.logits, strict=True):
                    row = data.rows[index]
                    places = np.flatnonzero(row.labels != IGNORE)
                    answers[row.sentence][row.words] = logits[places].argmax(axis=1)
            true = [list(tags) for _, tags in sentences]
            predicted = [[config.id2label[int(i)] for i in answer] for answer in answers]
            flat = [np.array(list(itertools.chain(*tags))) for tags in (true, predicted)]
            result = {"loss": loss.value, "accuracy": accuracy(*flat), "macro_f1": macro_f1(*flat)}
            return result | (entity_scores(true, predicted) if self.metric == "f1" else {})

        return evaluate


def _sentence(record: Record) -> tuple[list[str], list[str]]:
    words, tags = record.texts("tokens", None), record.texts("tags", None)
    if not words:
        record.fail("tokens is empty; remove the line, or fill it in")
    for name, values in (("tokens", words), ("tags", tags)):
        for index, value in enumerate(values):
            if not value.strip():
                record.fail(f"{name}[{index}] is empty; remove it, or fill it in")
    if len(words) != len(tags):
        record.fail(f"it has {len(words)} tokens but {len(tags)} tags; give one tag for each token")
    return words, tags


class WordRow(NamedTuple):
    """A row of tokens of one sentence."""

    sentence: int
    words: np.ndarray  # (W,), which words of the sentence have a label here, in order
    ids: np.ndarray  # (T,)
    labels: np.ndarray  # (T,), -100 where none counts


def word_rows(tokenizer: Tokenizer, sentence: int, words: Sequence[str], tags: np.ndarray, limit: int) -> list[WordRow]:
    """The rows of a sentence: as many whole words in each as fit into `limit` tokens, special ones included."""
    ends = np.cumsum([len(word) + 1 for word in words])  # one past each word's space
    text = " ".join(words)
    whole = tokenizer(text, return_offsets=True, return_special_tokens_mask=True)
    ids, special = whole.input_ids[0], whole.special_tokens_mask[0] == 1
    inner = np.flatnonzero(~special)
    head, tail = (ids[: inner[0]], ids[inner[-1] + 1 :]) if inner.size else (ids, ids[:0])
    # a token belongs to the word that its last character is in: before the first there may be a space
    last = np.maximum(whole.offset_mapping[0, inner, 1] - 1, 0)
    owner = np.minimum(np.searchsorted(ends, last, side="right"), len(words) - 1)
    # a lone space token is the beginning of the word after it
    lone = whole.offset_mapping[0, inner, 0] >= whole.offset_mapping[0, inner, 1]
    owner[lone] = np.minimum(np.searchsorted(ends, last[lone] + 1, side="right"), len(words) - 1)
    owner = np.maximum.accumulate(owner) if owner.size else owner
    first = np.ones(len(owner), np.bool_)
    first[1:] = owner[1:] != owner[:-1]
    room = limit - len(head) - len(tail)
    rows, start = [], 0
    while start < len(inner):
        stop = min(start + room, len(inner))
        if stop < len(inner) and not first[stop]:
            begin = start + int(np.flatnonzero(first[start:stop])[-1]) if first[start:stop].any() else start
            stop = begin if begin > start else stop  # a word longer than a row is cut itself
        labels = np.where(first[start:stop], tags[owner[start:stop]], IGNORE)
        around = np.full(len(head), IGNORE), labels, np.full(len(tail), IGNORE)
        rows.append(
            WordRow(
                sentence,
                owner[start:stop][first[start:stop]],
                np.concatenate([head, ids[inner[start:stop]], tail]),
                np.concatenate(around),
            )
        )
        start = stop
    return rows


class TokenData:
    """Rows of ids with a label for the first token of each word."""

    def __init__(self, rows: list[WordRow], config: RobertaPreLayerNormConfig) -> None:
        self.rows, self.config = rows, config
        self.lengths = lengths_of([row.ids for row in rows])

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> Inputs:
        """`input_ids`, `attention_mask` and `labels`."""
        chosen = [self.rows[i] for i in indices]
        return padded([row.ids for row in chosen], self.config) | {"labels": pad([r.labels for r in chosen], IGNORE)}
