"""The processors one by one, on scores small enough to work out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npprelnorm.generation import processors as p

LOGS = np.log([[0.5, 0.3, 0.15, 0.05]])
IDS = np.array([[1, 2, 1]])


@pytest.mark.parametrize(
    ("process", "left"),
    [
        (p.top_k(2), [0, 1]),
        (p.top_k(9), [0, 1, 2, 3]),
        (p.top_p(0.6), [0, 1]),
        (p.top_p(0.4), [0]),
        (p.min_p(0.2), [0, 1, 2]),
        (p.min_p(1.0), [0]),
        (p.typical_p(0.2), [1]),  # the entropy is 1.142 nats; the surprises 0.69, 1.20, 1.90, 3.00
        (p.typical_p(0.7), [0, 1]),
        (p.no_repeat_ngram(2), [0, 1, 3]),
        (p.no_repeat_ngram(1), [0, 3]),
        (p.no_repeat_ngram(3), [0, 1, 2, 3]),
        (p.no_repeat_ngram(5), [0, 1, 2, 3]),
        (p.bad_words([[0], [2, 1, 3], [2, 2]]), [1, 2]),
        (p.bad_words([[2, 1, 0]]), [1, 2, 3]),
        (p.bad_words([[1, 2, 1, 0]]), [0, 1, 2, 3]),  # as in transformers, more must precede than the word's own
        (p.bad_words([[1, 1, 2, 1, 0]]), [0, 1, 2, 3]),
        (p.min_length(4, [0, 3]), [1, 2]),
        (p.min_length(3, [0, 3]), [0, 1, 2, 3]),
        (p.forced_first(2), [0, 1, 2, 3]),
        (p.forced_last(4, [2]), [2]),
        (p.forced_last(5, [2]), [0, 1, 2, 3]),
        (p.suppress([1]), [0, 2, 3]),
        (p.suppress([1], at=3), [0, 2, 3]),
        (p.suppress([1], at=2), [0, 1, 2, 3]),
    ],
)
def test_what_is_left(process: Any, left: list[int]) -> None:
    before = LOGS.copy()
    result = process(IDS, LOGS)
    assert np.flatnonzero(np.isfinite(result[0])).tolist() == left
    np.testing.assert_array_equal(LOGS, before)  # nothing is written to
    if len(left) > 1:
        np.testing.assert_array_equal(result[0, left], LOGS[0, left])


def test_forced_first_comes_after_a_prompt_of_one() -> None:
    assert np.flatnonzero(np.isfinite(p.forced_first(2)(IDS[:, :1], LOGS)[0])).tolist() == [2]


def test_penalty_and_temperature() -> None:
    scores = np.array([[1.0, 2.0, -3.0, 4.0]])
    np.testing.assert_array_equal(p.repetition_penalty(2.0)(IDS, scores), [[1.0, 1.0, -6.0, 4.0]])
    np.testing.assert_array_equal(p.temperature(0.5)(IDS, scores), [[2.0, 4.0, -6.0, 8.0]])


def test_softmax_of_forbidden_tokens() -> None:
    scores = np.array([[0.0, -np.inf, 0.0], [-np.inf, -np.inf, -np.inf]])
    np.testing.assert_array_equal(p.softmax(scores), [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(np.exp(p.log_softmax(scores)), p.softmax(scores))
