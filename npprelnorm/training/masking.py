"""Masked language modelling: which tokens are hidden, and what stands in their place."""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..heads import IGNORE

STRATEGIES = ("mask", "80-10-10")


def check_masking(rate: float, strategy: str) -> None:
    """Raise `InputError` for a rate or strategy that is not allowed."""
    if not 0.0 < rate <= 1.0:
        raise InputError(f"the masking rate is {rate}; allowed: above 0, up to 1")
    if strategy not in STRATEGIES:
        raise InputError(f"the masking strategy is {strategy!r}; allowed: {', '.join(STRATEGIES)}")


class Masked(NamedTuple):
    """A masked batch."""

    input_ids: np.ndarray  # (B, T)
    labels: np.ndarray  # (B, T), the true id where one is asked for, else -100


def mask_tokens(
    input_ids: np.ndarray,
    maskable: np.ndarray,
    *,
    rate: float,
    mask_id: int,
    vocab_size: int,
    rng: np.random.Generator,
    strategy: str = "mask",
    word_ids: np.ndarray | None = None,
) -> Masked:
    """Choose tokens (or whole words) to predict, and hide them.

    In each row the nearest whole number of `rate` times the maskable tokens (or words) is chosen, at least one.
    Wettig et al. 2022, arXiv:2202.08005, found 40 % with plain masks to beat the 15 % and 80-10-10 of BERT
    (Devlin et al. 2018, arXiv:1810.04805).

    Parameters
    ----------
    input_ids : integers (B, T)
        Not changed.
    maskable : booleans (B, T)
        False for special tokens and padding, which are never chosen.
    rate : float
        In (0, 1].
    mask_id, vocab_size : int
    rng : numpy.random.Generator
    strategy : {"mask", "80-10-10"}
        A chosen token becomes ``<mask>``; or that in 80 % of cases, a random token in 10 %, and itself in 10 %.
    word_ids : integers (B, T), optional
        Number of the word that each token belongs to; all tokens of a chosen word are chosen.

    Returns
    -------
    Masked

    Raises
    ------
    InputError
        For a rate or strategy that is not allowed.
    """
    check_masking(rate, strategy)
    chosen = np.zeros(input_ids.shape, np.bool_)
    for row in range(input_ids.shape[0]):
        places = np.flatnonzero(maskable[row])
        if not places.size:
            continue
        units = places if word_ids is None else np.unique(word_ids[row, places])
        count = max(1, round(rate * units.size))
        picked = rng.choice(units, count, replace=False)
        chosen[row, places] = np.isin(places if word_ids is None else word_ids[row, places], picked)
    labels = np.where(chosen, input_ids, IGNORE)
    hidden = input_ids.copy()
    if strategy == "mask":
        hidden[chosen] = mask_id
    else:
        lot = rng.random(input_ids.shape)
        hidden[chosen & (lot < 0.8)] = mask_id
        swapped = chosen & (lot >= 0.8) & (lot < 0.9)
        hidden[swapped] = rng.integers(0, vocab_size, int(swapped.sum()))
    return Masked(hidden, labels)


class Words:
    """Tells which tokens of a row make up one word, for a byte-level BPE vocabulary.

    A word is a run of letters and digits, with the space before it; each punctuation mark is one by itself, and so is
    a special token.

    Parameters
    ----------
    vocabulary : mapping of str to int
        As from `Tokenizer.get_vocab`.
    special_ids : collection of int

    Raises
    ------
    InputError
        If no token has a leading space: the vocabulary is of another kind.
    """

    def __init__(self, vocabulary: Mapping[str, int], special_ids: Collection[int]) -> None:
        if not any(token.startswith("Ġ") for token in vocabulary):
            raise InputError("no token of this vocabulary begins with a space (Ġ), so words are unknown: mask tokens")
        size = max(vocabulary.values()) + 1
        self._begins = np.zeros(size, np.bool_)  # it begins a word
        self._ends = np.zeros(size, np.bool_)  # it is a word by itself, so that whatever comes next begins one
        self._space = np.zeros(size, np.bool_)  # it is but the space before a word: what comes next belongs to it
        special = set(special_ids)
        for token, number in vocabulary.items():
            spelled = token.lstrip("ĠĊĉč")
            alone = number in special or (bool(spelled) and spelled[0] in string.punctuation)
            self._begins[number] = alone or spelled != token
            self._ends[number] = alone
            self._space[number] = not spelled

    def number(self, ids: np.ndarray) -> np.ndarray:
        """Number of the word that each token belongs to, rising along a row. (B, T) -> (B, T)."""
        new = self._begins[ids]
        new[:, 1:] |= self._ends[ids[:, :-1]]
        new[:, 1:] &= ~self._space[ids[:, :-1]]
        return new.cumsum(axis=1)
