"""token-classification: a label for each token, or for each group of tokens that belongs together.

T tokens of one text, K labels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..classifiers import RobertaPreLayerNormForTokenClassification
from ..errors import InputError
from ..ops.attention import softmax
from .base import Pipeline, as_texts

STRATEGIES = ("none", "simple", "first", "average", "max")


class Piece(NamedTuple):
    """A token, or the tokens of one word, before grouping."""

    tokens: list[str]
    scores: np.ndarray  # (K,)
    start: int
    end: int
    place: int  # in the row, special tokens included
    continues: bool  # a word that began with an earlier token


class TokenClassificationPipeline(Pipeline):
    """Labels tokens; see `__call__`."""

    task = "token-classification"
    model_class = RobertaPreLayerNormForTokenClassification
    remedy = "truncation=True to have it cut, or a stride and an aggregation_strategy to have it read in windows"

    def __call__(
        self,
        texts: str | Sequence[str],
        *,
        aggregation_strategy: str = "none",
        ignore_labels: Collection[str] = ("O",),
        stride: int | None = None,
        truncation: bool = False,
    ) -> list[Any]:
        """Label the tokens of a text, or of several.

        Parameters
        ----------
        texts : str or sequence of str
        aggregation_strategy : {"none", "simple", "first", "average", "max"}
            ``"none"``: a dict for each token. ``"simple"``: neighbours of one label are grouped (a ``B-`` begins a
            new group). The others first make the tokens of each word agree: on the label of its first token, of the
            mean of its scores, or of its most certain token.
        ignore_labels : collection of str
            Labels, or names of groups, that are left out.
        stride : int, optional
            Take texts that are too long in windows that share this many tokens; of overlapping groups the longer,
            or else the more certain, is kept. It needs an aggregation strategy.
        truncation : bool
            Whether to cut texts that are too long for the model, instead of raising.

        Returns
        -------
        list
            For a text its tokens, dicts of ``entity``, ``score``, ``index``, ``word``, ``start``, ``end`` (characters
            of the text), or its groups, with ``entity_group`` in place of ``entity`` and no ``index``. For a list of
            texts a list of such lists.

        Raises
        ------
        InputError
            A text that is too long, or an argument that is not allowed.
        """
        if aggregation_strategy not in STRATEGIES:
            raise InputError(
                f"aggregation_strategy is {aggregation_strategy!r}; allowed: {', '.join(map(repr, STRATEGIES))}"
            )
        if isinstance(ignore_labels, str) or not isinstance(ignore_labels, Collection):
            raise InputError(f"ignore_labels is {ignore_labels!r:.80}; give a list of labels")
        if not isinstance(truncation, bool):
            raise InputError(f"truncation is {truncation!r}; allowed: False, True")
        if stride is not None and aggregation_strategy == "none":
            raise InputError("stride needs an aggregation_strategy: tokens of two windows cannot be told apart")
        if stride is not None and truncation:
            raise InputError("stride reads the whole of a long text and truncation cuts it; give one of the two")
        every = as_texts(texts)
        windows, owners = [], []
        for index, text in enumerate(every):
            if not isinstance(text, str):
                raise InputError(f"text[{index}] is a {type(text).__name__}, not a string; give strings")
            pieces = self._windows(text, stride, truncation)
            windows += pieces
            owners += [index] * len(pieces)
        rows = [np.array(window.ids, np.int64) for window in windows]
        self.check_rows(rows, [self.name_of(owner, every) for owner in owners])
        found: list[list[dict[str, Any]]] = [[] for _ in windows]
        for batch in self.batches(rows):
            logits = self.model(batch.input_ids, batch.attention_mask, packed=True).logits  # (B, T, K)
            for line, (index, length) in enumerate(zip(batch.indices, batch.lengths, strict=True)):
                scores = softmax(logits[line, :length])
                entities = self._entities(every[owners[index]], windows[index], scores, aggregation_strategy)
                found[index] = [e for e in entities if e.get("entity", e.get("entity_group")) not in ignore_labels]
        answers: list[list[dict[str, Any]]] = [[] for _ in every]
        for owner, entities in zip(owners, found, strict=True):
            answers[owner] += entities
        for index, owner_count in enumerate(np.bincount(owners, minlength=len(every)).tolist()):
            if owner_count > 1:
                answers[index] = _without_overlaps(answers[index])
        return answers[0] if isinstance(texts, str) else answers

    def _windows(self, text: str, stride: int | None, truncation: bool) -> list[Any]:
        if stride is None and not truncation:
            return self.tokenizer.windows(text)
        windows = self.tokenizer.windows(text, truncation=True, max_length=self.max_tokens, stride=stride or 0)
        return windows[:1] if truncation else windows

    def _entities(self, text: str, window: Any, scores: np.ndarray, strategy: str) -> list[dict[str, Any]]:
        """The tokens or groups of one window; scores (T, K)."""
        pieces = []
        for index, special in enumerate(window.special_tokens_mask):
            if special:
                continue
            start, end = window.offsets[index]
            if window.ids[index] == self.tokenizer.unk_token_id:
                token, continues = text[start:end], False  # what is unknown is a word, and shown as it stands
            else:
                # a token with no space before or at its first character goes on with the word before it
                token, continues = window.tokens[index], start > 0 and " " not in text[start - 1 : start + 1]
            pieces.append(Piece([token], scores[index], start, end, index, continues))
        if strategy == "none":
            return [self._token(piece) for piece in pieces]
        if strategy != "simple":
            pieces = [_word(group, strategy) for group in _words(pieces)]
        groups: list[list[Piece]] = []
        for piece in pieces:
            begins, name = _split(self._label(piece.scores))
            if groups and not begins and name == _split(self._label(groups[-1][-1].scores))[1]:
                groups[-1].append(piece)
            else:
                groups.append([piece])
        return [self._group(group) for group in groups]

    def _label(self, scores: np.ndarray) -> str:
        label: str = self.model.config.id2label[int(scores.argmax())]
        return label

    def _token(self, piece: Piece) -> dict[str, Any]:
        return {
            "entity": self._label(piece.scores),
            "score": float(piece.scores.max()),
            "index": piece.place,
            "word": piece.tokens[0],
            "start": piece.start,
            "end": piece.end,
        }

    def _group(self, pieces: list[Piece]) -> dict[str, Any]:
        return {
            "entity_group": self._label(pieces[0].scores).split("-", 1)[-1],
            "score": float(np.mean([piece.scores.max() for piece in pieces])),
            "word": self.tokenizer.convert_tokens_to_string([token for piece in pieces for token in piece.tokens]),
            "start": pieces[0].start,
            "end": pieces[-1].end,
        }


def _words(pieces: list[Piece]) -> list[list[Piece]]:
    words: list[list[Piece]] = []
    for piece in pieces:
        if words and piece.continues:
            words[-1].append(piece)
        else:
            words.append([piece])
    return words


def _word(pieces: list[Piece], strategy: str) -> Piece:
    """The pieces of a word as one, with scores (K,) by the strategy."""
    if strategy == "first":
        scores = pieces[0].scores
    elif strategy == "max":
        scores = max((piece.scores for piece in pieces), key=np.max)
    else:
        scores = np.stack([piece.scores for piece in pieces]).mean(axis=0)
    tokens = [token for piece in pieces for token in piece.tokens]
    return Piece(tokens, scores, pieces[0].start, pieces[-1].end, pieces[0].place, False)


def _split(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and the entity's name: ``B-PER`` and ``I-PER`` both are PER."""
    if label[:2] in ("B-", "I-"):
        return label[0] == "B", label[2:]
    return False, label


def _without_overlaps(entities: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of entities that overlap, in two windows of one text, the longer, or else the more certain."""
    result: list[dict[str, Any]] = []
    for entity in sorted(entities, key=lambda e: int(e["start"])):
        last = result[-1] if result else None
        if last is None or not last["start"] <= entity["start"] < last["end"]:
            result.append(entity)
        elif (entity["end"] - entity["start"], entity["score"]) > (last["end"] - last["start"], last["score"]):
            result[-1] = entity
    return result
