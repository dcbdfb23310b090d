"""Packed rows: attention among sequences of any lengths, and picking rows."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from gradcheck import check_backward
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from npprelnorm.ops.attention import attention
from npprelnorm.ops.packed import Span, packed_attention, packed_attention_backward, put_rows, spans, take_rows

lengths = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), min_size=1, max_size=6)  # queries, keys of each
HEADS, SIZE = 2, 3


def bounds(counts: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(int)


def laid_out(pairs: list[tuple[int, int]], seed: int) -> tuple[tuple[Span, ...], tuple[np.ndarray, ...]]:
    """Spans, some with a mask, and random q (R, C), k and v (N, C)."""
    rng = np.random.default_rng(seed)
    queries, keys = (bounds([pair[axis] for pair in pairs]) for axis in (0, 1))
    masked = tuple(
        span._replace(mask=rng.standard_normal((span.sequences.stop - span.sequences.start, 1, 1, span.seen)))
        if rng.random() < 0.5
        else span
        for span in spans(queries, keys)
    )
    q, k, v = (rng.standard_normal((rows[-1], HEADS * SIZE)) for rows in (queries, keys, keys))
    return masked, (q, k, v)


@given(lengths)
def test_spans_hold_every_query_once_and_are_as_long_as_they_can_be(pairs: list[tuple[int, int]]) -> None:
    queries, keys = (bounds([pair[axis] for pair in pairs]) for axis in (0, 1))
    found = list(spans(queries, keys))
    covered = [index for span in found for index in range(span.sequences.start, span.sequences.stop)]
    assert covered == [index for index, pair in enumerate(pairs) if pair[0]]
    for span in found:
        first, last = span.sequences.start, span.sequences.stop
        assert {pairs[index] for index in range(first, last)} == {(span.tokens, span.seen)}
        assert (span.queries, span.keys) == (
            slice(queries[first], queries[last]), slice(keys[first], keys[last])
        )  # fmt: skip
    for one, following in itertools.pairwise(found):
        alike = (one.tokens, one.seen) == (following.tokens, following.seen)
        assert not (alike and one.sequences.stop == following.sequences.start)


def test_no_sequences_have_no_spans() -> None:
    assert list(spans(np.zeros(1, int), np.zeros(1, int))) == []


@given(lengths, seeds, st.booleans())
def test_each_sequence_computes_what_it_would_alone(pairs: list[tuple[int, int]], seed: int, by_head: bool) -> None:
    layout, (q, k, v) = laid_out(pairs, seed)
    if by_head and len({seen for _, seen in pairs}) > 1:
        by_head = False  # keys as a cache has them are as many for all
    head_mask = np.random.default_rng(seed).random((HEADS, 1, 1))
    queries, keys = (bounds([pair[axis] for pair in pairs]) for axis in (0, 1))
    expected = np.zeros_like(q)
    for span in layout:
        for index in range(span.sequences.start, span.sequences.stop):
            rows, others = slice(*queries[index : index + 2]), slice(*keys[index : index + 2])
            bias = 0.0 if span.mask is None else span.mask[index - span.sequences.start, 0]
            for head in range(HEADS):
                columns = slice(head * SIZE, (head + 1) * SIZE)
                scores = q[rows, columns] @ k[others, columns].T / np.sqrt(SIZE) + bias
                weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True) * head_mask[head]
                expected[rows, columns] = weights @ v[others, columns]
    if by_head:
        k, v = (x.reshape(len(pairs), -1, HEADS, SIZE).swapaxes(1, 2) for x in (k, v))
    y, _ = packed_attention(q, k, v, layout, HEADS, head_mask=head_mask)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@given(lengths, seeds, st.booleans())
def test_the_backward_undoes_the_forward(pairs: list[tuple[int, int]], seed: int, dropped: bool) -> None:
    layout, arguments = laid_out([*pairs, (2, 3)], seed)
    rows = len(arguments[1])

    def forward(q: np.ndarray, k: np.ndarray, v: np.ndarray, head_mask: np.ndarray) -> tuple[np.ndarray, Any]:
        rng = np.random.default_rng(seed) if dropped else None
        return packed_attention(q, k, v, layout, HEADS, head_mask=head_mask, drop=0.3, rng=rng)

    def backward(dy: np.ndarray, cache: Any) -> tuple[Any, ...]:
        return packed_attention_backward(dy, cache, HEADS, rows)[:4]

    check_backward(forward, backward, [*arguments, np.random.default_rng(seed).random((HEADS, 1, 1))], seed)


def test_keys_that_no_query_saw_get_nothing_and_what_was_not_given_has_no_gradient() -> None:
    layout, (q, k, v) = laid_out([(2, 2), (0, 3), (1, 1)], 0)
    y, cache = packed_attention(q, k, v, layout, HEADS)
    gradients = packed_attention_backward(np.ones_like(y), cache, HEADS, 6)
    for d in (gradients.dk, gradients.dv):
        assert d.shape == (6, HEADS * SIZE)
        assert not d[2:5].any()
    assert gradients.dv[:2].any()
    assert gradients.dv[5:].any()
    assert gradients.dhead_mask is None
    assert gradients.dtable is None


def test_weights_are_those_of_one_span() -> None:
    layout, (q, k, v) = laid_out([(2, 3), (2, 3)], 1)
    _, cache = packed_attention(q, k, v, layout, HEADS)
    heads = [x.reshape(2, -1, HEADS, SIZE).swapaxes(1, 2) for x in (q, k, v)]
    _, whole = attention(*heads, layout[0].mask)
    np.testing.assert_array_equal(cache.weights(), whole.weights())


@pytest.mark.parametrize("rows", [None, np.array([0, 3]), np.array([], int)])
def test_taking_and_putting_rows(rows: np.ndarray | None) -> None:
    x = np.arange(1.0, 9.0).reshape(4, 2)
    taken = take_rows(x, rows)
    back = put_rows(taken, rows, 4)
    assert back.dtype == x.dtype
    for row in range(4):
        there = rows is None or row in rows
        assert np.array_equal(back[row], x[row] if there else np.zeros(2))
    assert taken.shape == (4 if rows is None else len(rows), 2)
