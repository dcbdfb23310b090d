"""Processors: small functions ``f(ids, scores) -> scores`` that change what the next token may be.

Each factory below returns one. `ids` (B, T) are all tokens so far, `scores` (B, V) the logits (log probabilities in
beam search) of the next; nothing is written to. A user's own function of this form can be added to any call.
Names and meanings are those of transformers, and so is the order in `chosen`, on which results depend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .settings import GenerationSettings

Processor = Callable[[np.ndarray, np.ndarray], np.ndarray]


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Log probabilities of each row; -inf stays -inf."""
    shifted = scores - _finite(scores.max(axis=-1, keepdims=True))
    sums = np.exp(shifted).sum(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.where(sums == 0, np.ones_like(sums), sums))
    return result


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities of each row; those of -inf are 0."""
    exponentials = np.exp(scores - _finite(scores.max(axis=-1, keepdims=True)))
    sums = exponentials.sum(axis=-1, keepdims=True)
    result: np.ndarray = exponentials / np.where(sums == 0, np.ones_like(sums), sums)
    return result


def _finite(best: np.ndarray) -> np.ndarray:
    """A row may have no token left; that is reported later, and no reason for NaN here."""
    return np.where(np.isneginf(best), np.zeros_like(best), best)


def _without(scores: np.ndarray, removed: np.ndarray) -> np.ndarray:
    return np.where(removed, np.asarray(-np.inf, scores.dtype), scores)


def _without_tokens(scores: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    result = scores.copy()
    result[:, list(tokens)] = -np.inf
    return result


def _only(scores: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    result = np.full_like(scores, -np.inf)
    result[:, list(tokens)] = 0.0
    return result


def repetition_penalty(penalty: float) -> Processor:
    """Make tokens that occurred less likely: scores below 0 times the penalty, others over it (arXiv:1909.05858)."""

    def process(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        seen = np.take_along_axis(scores, ids, axis=1)
        result = scores.copy()
        np.put_along_axis(result, ids, np.where(seen < 0, seen * penalty, seen / penalty), axis=1)
        return result

    return process


def no_repeat_ngram(size: int) -> Processor:
    """Forbid every token that would complete a run of `size` tokens which the row already holds."""

    def process(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        tokens = ids.shape[1]
        if tokens < size:
            return scores
        windows = np.lib.stride_tricks.sliding_window_view(ids, size, axis=1)  # (B, T - size + 1, size)
        current = ids[:, None, tokens - size + 1 :]  # (B, 1, size - 1)
        rows, starts = np.nonzero((windows[..., :-1] == current).all(axis=-1))
        result = scores.copy()
        result[rows, windows[rows, starts, -1]] = -np.inf
        return result

    return process


def bad_words(words: Sequence[Sequence[int]]) -> Processor:
    """Forbid the last token of each word where the others precede it."""

    def process(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        result = scores.copy()
        for *before, last in words:
            if len(before) >= ids.shape[1]:  # transformers lets a word pass that would fill the row from its start
                continue
            matching = (ids[:, ids.shape[1] - len(before) :] == before).all(axis=1)
            result[matching, last] = -np.inf
        return result

    return process


def min_length(length: int, eos: Sequence[int]) -> Processor:
    """Forbid the end before the row holds `length` tokens, the prompt included."""

    def process(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return _without_tokens(scores, eos) if ids.shape[1] < length else scores

    return process


def forced_first(token: int) -> Processor:
    """After a prompt of one token, only `token` may come."""

    def process(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return _only(scores, [token]) if ids.shape[1] == 1 else scores

    return process


def forced_last(length: int, tokens: Sequence[int]) -> Processor:
    """The last token before `length` is reached is one of `tokens`."""

    def process(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return _only(scores, tokens) if ids.shape[1] == length - 1 else scores

    return process


def suppress(tokens: Sequence[int], at: int | None = None) -> Processor:
    """Forbid tokens always, or only where the row holds `at` tokens."""

    def process(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return _without_tokens(scores, tokens) if at is None or ids.shape[1] == at else scores

    return process


def temperature(value: float) -> Processor:
    """Divide the scores: below 1 sharpens the distribution, above 1 flattens it."""

    def process(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        result: np.ndarray = scores / value
        return result

    return process


def top_k(count: int, least: int = 1) -> Processor:
    """Keep the `count` best tokens, and those that tie with the last of them."""

    def process(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        kept = min(max(count, least), scores.shape[1])
        lowest = np.partition(scores, -kept, axis=1)[:, -kept, None]
        return _without(scores, scores < lowest)

    return process


def top_p(mass: float, least: int = 1) -> Processor:
    """Keep the smallest set of best tokens whose probability reaches `mass` (arXiv:1904.09751), at least `least`."""

    def process(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        order = np.argsort(scores, axis=1, kind="stable")  # from the worst up
        below = np.cumsum(softmax(np.take_along_axis(scores, order, axis=1)), axis=1) <= 1 - mass
        below[:, -least:] = False
        removed = np.empty_like(below)
        np.put_along_axis(removed, order, below, axis=1)
        return _without(scores, removed)

    return process


def min_p(share: float, least: int = 1) -> Processor:
    """Keep tokens with at least `share` of the best one's probability (arXiv:2407.01082), and the `least` best."""

    def process(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        probabilities = softmax(scores)
        removed = probabilities < share * probabilities.max(axis=1, keepdims=True)
        if least > 1:  # the best itself always stays
            np.put_along_axis(removed, np.argsort(-scores, axis=1, kind="stable")[:, :least], False, axis=1)
        return _without(scores, removed)

    return process


def typical_p(mass: float, least: int = 1) -> Processor:
    """Keep the tokens whose surprise is nearest to the entropy until they reach `mass` (arXiv:2202.00666).

    At least `least` are kept.
    """

    def process(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        logs = log_softmax(scores)
        probabilities = np.exp(logs)
        surprise = np.where(probabilities > 0, -logs, 0.0).astype(scores.dtype)  # 0 * inf would be NaN
        entropy = (probabilities * surprise).sum(axis=1, keepdims=True)
        distance = np.abs(-logs - entropy)
        order = np.argsort(distance, axis=1, kind="stable")
        reached = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)
        last = np.minimum((reached < mass).sum(axis=1), scores.shape[1] - 1)[:, None]
        farthest = np.take_along_axis(np.take_along_axis(distance, order, axis=1), last, axis=1)
        removed = distance > farthest
        np.put_along_axis(removed, order[:, :least], False, axis=1)
        return _without(scores, removed)

    return process


def beam_width(eos_count: int) -> int:
    """How many tokens of each beam are looked at: even if all ends are among them, one is left to go on with."""
    return max(2, 1 + eos_count)


def chosen(
    settings: GenerationSettings, prompt_length: int, length: int, eos: Sequence[int], own: Sequence[Processor] = ()
) -> list[Processor]:
    """The processors that `settings` asks for, in transformers' order; `own` come before those of sampling."""
    s = settings
    result: list[Processor] = []
    if s.repetition_penalty != 1.0:
        result.append(repetition_penalty(s.repetition_penalty))
    if s.no_repeat_ngram_size:
        result.append(no_repeat_ngram(s.no_repeat_ngram_size))
    words = [word for word in s.bad_words_ids or () if not (len(word) == 1 and word[0] in eos)]
    if words:
        result.append(bad_words(words))
    shortest = max(s.min_length, prompt_length + (s.min_new_tokens or 0))
    if eos and shortest > prompt_length:
        result.append(min_length(shortest, eos))
    if s.forced_bos_token_id is not None:
        result.append(forced_first(s.forced_bos_token_id))
    if s.forced_eos_token_id:
        result.append(forced_last(length, s.forced_eos_token_id))
    if s.suppress_tokens:
        result.append(suppress(s.suppress_tokens))
    if s.begin_suppress_tokens:
        # a forced first token is no beginning of its own
        forced = prompt_length == 1 and s.forced_bos_token_id is not None
        result.append(suppress(s.begin_suppress_tokens, prompt_length + forced))
    result.extend(own)
    if s.do_sample:
        # a beam keeps one token more than there are ends, so that it can go on
        least = beam_width(len(eos)) if s.num_beams > 1 else 1
        if s.temperature != 1.0:
            result.append(temperature(s.temperature))
        if s.top_k:
            result.append(top_k(s.top_k, least))
        if s.top_p < 1.0:
            result.append(top_p(s.top_p, least))
        if s.min_p is not None:
            result.append(min_p(s.min_p, least))
        if s.typical_p < 1.0:
            result.append(typical_p(s.typical_p, least))
    return result


def apply(processors: Sequence[Processor], ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """One after the other."""
    for process in processors:
        scores = process(ids, scores)
    return scores
