"""The largest logits: a stable sort, with the softmax over all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npprelnorm.ops.attention import softmax
from npprelnorm.ops.linear import linear
from npprelnorm.ops.top_k import largest, linear_top_k, top_k

FEW_VALUES = st.sampled_from([0, 0.125, 0.25, 0.5, 1, -np.inf])


@given(hnp.arrays(np.float32, st.integers(1, 30), elements=FEW_VALUES), st.integers(1, 40))
def test_the_largest_are_those_of_a_stable_sort(scores: np.ndarray, k: int) -> None:
    naive = sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:k]
    assert largest(scores, k).tolist() == naive


def test_nan_comes_last() -> None:
    scores = np.array([np.nan, 1.0, np.nan, -np.inf, np.inf])
    for k in range(6):
        assert largest(scores, k).tolist() == [4, 1, 3, 0, 2][:k]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(
    seed=st.integers(0, 99), rows=st.integers(0, 4), columns=st.integers(1, 30), k=st.integers(1, 40),
    share=st.sampled_from([None, 0.0, 0.5]),
)  # fmt: skip
def test_top_k_of_a_linear_map(dtype: str, seed: int, rows: int, columns: int, k: int, share: float | None) -> None:
    rng = np.random.default_rng(seed)
    x, weight, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((rows, 6), (columns, 6), columns))
    among = None if share is None else rng.random(columns) < share
    found = linear_top_k(x, weight, bias, k, among)
    logits, _ = linear(x, weight, bias)
    ids = np.arange(columns) if among is None else np.flatnonzero(among)
    assert found.ids.shape == (rows, min(k, len(ids)))
    assert {array.dtype for array in found[1:]} == {np.dtype(dtype)}
    assert found.ids.tolist() == [sorted(ids.tolist(), key=lambda n: -row[n])[:k] for row in logits]
    np.testing.assert_array_equal(found.logits, np.take_along_axis(logits, found.ids, axis=1))
    expected = np.take_along_axis(softmax(logits), found.ids, axis=1)
    np.testing.assert_allclose(found.probabilities(), expected, rtol=5e-6)


def test_infinite_logits_have_no_probabilities() -> None:
    found = top_k(np.array([[1.0, np.inf, 2.0], [-np.inf, 0.0, -np.inf], [-np.inf] * 3, [np.nan, 1.0, 0.0]]), 2)
    assert found.ids.tolist() == [[1, 2], [1, 0], [0, 1], [1, 2]]
    np.testing.assert_array_equal(found.probabilities(), [[np.nan] * 2, [1.0, 0.0], [np.nan] * 2, [np.nan] * 2])
