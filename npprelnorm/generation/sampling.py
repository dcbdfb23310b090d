"""Greedy search and sampling: one token a row and step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from .processors import Processor, apply, softmax
from .steps import Steps
from .stopping import StoppingRule, any_of

Progress = Callable[[int, int], Any]


class Streamer(Protocol):
    """Receives the prompt, then each step's tokens as they come."""

    def put(self, ids: np.ndarray) -> Any:
        """The prompt (B, T) at first, then (B,) tokens each step."""

    def end(self) -> Any:
        """Nothing more will come."""


def draw(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One token a row at random by its probability, (B, V) -> (B,); a token of -inf is never drawn."""
    sums = np.cumsum(softmax(scores).astype(np.float64), axis=1)
    # the first sum above the number drawn; it is at most the last sum's float below, so there always is one
    numbers = np.minimum(rng.random((scores.shape[0], 1)) * sums[:, -1:], np.nextafter(sums[:, -1:], 0.0))
    drawn: np.ndarray = (sums > numbers).argmax(axis=1)
    return drawn


def search(
    steps: Steps,
    ids: np.ndarray,
    length: int,
    processors: Sequence[Processor],
    rules: Sequence[StoppingRule],
    padding: int | None,
    *,
    rng: np.random.Generator | None = None,
    keep_scores: bool = False,
    streamer: Streamer | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Add tokens to `ids` (B, T) until every row has ended; the best each time, or with `rng` one drawn at random.

    Returns the rows, padded after their ends, and with `keep_scores` the processed scores of each step.
    """
    prompt = ids.shape[1]
    kept: list[np.ndarray] = []
    going = np.ones(ids.shape[0], np.bool_)
    if streamer is not None:
        streamer.put(ids)
    while going.any():
        scores = apply(processors, ids, steps.scores(ids))
        _require_choice(scores, going, ids.shape[1] - prompt)
        if keep_scores:
            kept.append(scores)
        tokens = scores.argmax(axis=1) if rng is None else draw(_with_choice(scores), rng)
        if padding is not None:
            tokens = np.where(going, tokens, padding)
        ids = np.concatenate([ids, tokens[:, None]], axis=1)
        if streamer is not None:
            streamer.put(tokens)
        if progress is not None:
            progress(ids.shape[1] - prompt, length - prompt)
        going &= ~any_of(rules, ids)
    if streamer is not None:
        streamer.end()
    return ids, kept


def _require_choice(scores: np.ndarray, going: np.ndarray, step: int) -> None:
    stuck = going & np.isneginf(scores).all(axis=1)
    if stuck.any():
        raise every_token_forbidden(int(stuck.argmax()), step)


def every_token_forbidden(row: int, step: int) -> InputError:
    """The error of a row that no token is left for."""
    return InputError(
        f"every token is forbidden for row {row} at new token {step + 1}; "
        "ask for less (no_repeat_ngram_size, bad_words_ids, suppress_tokens, min_new_tokens)"
    )


def _with_choice(scores: np.ndarray) -> np.ndarray:
    """A finished row may have no token left; what is drawn for it is replaced by padding anyway."""
    stuck = np.isneginf(scores).all(axis=1, keepdims=True)
    return np.where(stuck, np.zeros((), scores.dtype), scores)
