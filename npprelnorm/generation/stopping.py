"""Stopping rules: small functions ``f(ids) -> (B,) booleans`` that say which rows (B, T) end with their last token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

StoppingRule = Callable[[np.ndarray], np.ndarray]


def at_length(length: int) -> StoppingRule:
    """Every row ends at `length` tokens, the prompt included."""

    def rule(ids: np.ndarray) -> np.ndarray:
        return np.full(ids.shape[0], ids.shape[1] >= length)

    return rule


def at_tokens(tokens: Sequence[int]) -> StoppingRule:
    """A row ends with any of `tokens`."""

    def rule(ids: np.ndarray) -> np.ndarray:
        return np.isin(ids[:, -1], tokens)

    return rule


def at_strings(strings: Sequence[str], tokenizer: Any, prompt_length: int) -> StoppingRule:
    """A row ends once the text of its new tokens holds any of `strings`."""

    def rule(ids: np.ndarray) -> np.ndarray:
        texts = tokenizer.batch_decode(ids[:, prompt_length:])
        return np.array([any(string in text for string in strings) for text in texts], np.bool_)

    return rule


def any_of(rules: Sequence[StoppingRule], ids: np.ndarray) -> np.ndarray:
    """Which rows end by at least one of the rules. -> (B,)."""
    ended = np.zeros(ids.shape[0], np.bool_)
    for rule in rules:
        ended |= rule(ids)
    return ended
