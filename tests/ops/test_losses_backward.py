"""The backward of the losses: by central differences, where no row counts, and far out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradcheck import STEP, TOLERANCE, check_backward
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import arrays, seeds

from npprelnorm.ops import losses

shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@given(seeds, st.integers(1, 5), st.integers(1, 6), st.sampled_from((None, 0.5, 7.0)), st.sampled_from((-100, 2)))
def test_cross_entropy(seed: int, rows: int, classes: int, divisor: float | None, ignore: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    labels[rng.random(rows) < 0.4] = ignore
    assume(classes > 1)  # else the loss is 0 whatever the logits
    assume((labels != ignore).any())
    logits = 3 * rng.standard_normal((rows, classes))

    def f(x: np.ndarray) -> Any:
        return losses.cross_entropy(x, labels, ignore, divisor)

    dlogits = losses.cross_entropy_backward(np.ones(()), f(logits)[1])
    np.testing.assert_allclose(dlogits.sum(axis=-1), 0, atol=1e-14)  # a shift of a row changes nothing
    assert not dlogits[labels == ignore].any()
    # the slope of a mean: each row that counts pulls its own label up by at most 1 / (how many count)
    total = (labels != ignore).sum() if divisor is None else divisor
    for row in np.flatnonzero(labels != ignore):
        softmax = np.exp(logits[row] - logits[row].max())
        expected = softmax / softmax.sum()
        expected[labels[row]] -= 1
        np.testing.assert_allclose(dlogits[row], expected / total, rtol=0, atol=1e-14)
    # where the right label is all but certain, a difference of losses is that of the logits' last digits
    assume(np.spacing(np.abs(logits).max()) / (2 * STEP) <= TOLERANCE * np.linalg.norm(dlogits))
    check_backward(f, losses.cross_entropy_backward, [logits], seed)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where_no_row_counts_the_gradient_is_zero(dtype: str) -> None:
    """As in torch, though the loss is NaN."""
    loss, cache = losses.cross_entropy(np.ones((2, 3), dtype), np.array([-100, -100]))
    assert np.isnan(loss)
    dlogits = losses.cross_entropy_backward(np.ones((), dtype), cache)
    assert np.array_equal(dlogits, np.zeros((2, 3), dtype))
    assert dlogits.dtype == dtype


@given(seeds, shapes)
def test_mean_squared_error(seed: int, shape: tuple[int, ...]) -> None:
    target = normal(seed + 1, *shape)
    check_backward(
        lambda x: losses.mean_squared_error(x, target), losses.mean_squared_error_backward, [normal(seed, *shape)], seed
    )


@given(seeds, shapes)
def test_binary_cross_entropy(seed: int, shape: tuple[int, ...]) -> None:
    target = np.random.default_rng(seed).random(shape)
    assume((np.abs(normal(seed, *shape)) > 1e-3).all())  # max(x, 0) and |x| have a kink at 0, their sum has none
    check_backward(
        lambda x: losses.binary_cross_entropy(x, target),
        losses.binary_cross_entropy_backward,
        [3 * normal(seed, *shape)],
        seed,
    )


@given(arrays(low=-1e5, high=1e5))
def test_losses_far_out(x: np.ndarray) -> None:
    """Where exp would overflow, the gradient of the logits goes to 0 or 1 over the count, as the formula says."""
    target = (np.arange(x.size) % 2).reshape(x.shape).astype(float)
    _, cache = losses.binary_cross_entropy(x, target)
    dx = losses.binary_cross_entropy_backward(np.ones(()), cache) * x.size
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(dx, 1 / (1 + np.exp(-x)) - target, rtol=1e-12, atol=1e-15)
