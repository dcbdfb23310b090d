"""Every example once an epoch, little padding, and the same order for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npprelnorm.errors import InputError
from npprelnorm.training.batches import epoch_batches, pad


@given(st.integers(1, 700), st.integers(1, 9), st.integers(0, 1000), st.integers(0, 5))
def test_every_example_once(count: int, size: int, seed: int, epoch: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 50, count)
    batches = epoch_batches(lengths, size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    assert len(batches) == -(-count // size)
    assert sorted(len(batch) for batch in batches)[1:] == [size] * (len(batches) - 1)  # one may be shorter
    again = epoch_batches(lengths, size, seed, epoch)
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))


def test_epochs_and_seeds_differ() -> None:
    lengths = np.full(200, 5)
    orders = {tuple(np.concatenate(epoch_batches(lengths, 4, seed, epoch))) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 129, 3200)
    batches = epoch_batches(lengths, 16, 0, 0)
    places = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert lengths.sum() / places > 0.95  # unsorted batches of 16 would fill about 53 %
    # long and short batches alternate: the longest is not first every time
    longest = [int(lengths[batch].max()) for batch in batches]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_pad() -> None:
    assert pad([[1, 2], [3]], 9).tolist() == [[1, 2], [3, 9]]
    assert pad([[1, 2], [3]], 9).dtype == np.int64
    assert pad([[0.5]], 0.0, np.float32).dtype == np.float32
    with pytest.raises(InputError, match="there are no rows to pad"):
        pad([], 0)
