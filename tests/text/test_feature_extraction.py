"""feature-extraction on the embedded model: pooling by hand, padding, order, batches, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npprelnorm as nl
from npprelnorm.errors import InputError

EXTRACT = nl.pipeline("feature-extraction")
WORDS = ["The", "dog", "barks", "cat", "purrs", "Paris", "is", "capital", "of", "green", "<mask>", "世", "😀"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), min_size=1, max_size=6)
POOLINGS = ("none", "mean", "cls", "max")


def test_pooling_by_hand() -> None:
    text = "The capital of France is Paris."
    ids = EXTRACT.tokenizer(text).input_ids
    hidden = EXTRACT.model.base(ids).last_hidden_state[0]
    assert hidden.shape == (ids.shape[1], 128)
    expected = {"none": hidden, "mean": hidden.sum(axis=0) / len(hidden), "cls": hidden[0], "max": hidden.max(axis=0)}
    for pooling, value in expected.items():
        result = EXTRACT(text, pooling=pooling)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, value, atol=1e-6)
    assert np.array_equal(EXTRACT(text), EXTRACT(text, pooling="none"))


def test_the_result_is_that_of_the_masked_lm_body() -> None:
    whole = nl.pipeline("fill-mask").model
    other = nl.pipeline("feature-extraction", whole, EXTRACT.tokenizer)
    for text in ("The dog barks.", ""):
        assert np.array_equal(other(text), EXTRACT(text))


@settings(max_examples=25)
@given(TEXTS, st.sampled_from(POOLINGS), st.booleans(), st.integers(1, 80), st.randoms(use_true_random=False))
def test_padding_order_and_batches_change_nothing(
    texts: list[str], pooling: str, normalize: bool, max_batch_tokens: int, source: Any
) -> None:
    extract = nl.pipeline("feature-extraction", EXTRACT.model, EXTRACT.tokenizer, max_batch_tokens=max_batch_tokens)
    order = source.sample(range(len(texts)), len(texts))
    together = EXTRACT(texts, pooling=pooling, normalize=normalize)
    shuffled = extract([texts[index] for index in order], pooling=pooling, normalize=normalize)
    for place, index in enumerate(order):
        alone = EXTRACT(texts[index], pooling=pooling, normalize=normalize)
        assert together[index].shape == alone.shape
        np.testing.assert_allclose(together[index], alone, atol=2e-5)
        np.testing.assert_allclose(shuffled[place], alone, atol=2e-5)


def test_shapes() -> None:
    texts = ["The dog barks.", "", "a"]
    for pooling in ("mean", "cls", "max"):
        assert EXTRACT(texts, pooling=pooling).shape == (3, 128)
        assert EXTRACT([], pooling=pooling).shape == (0, 128)
        assert EXTRACT("", pooling=pooling).shape == (128,)
    assert [rows.shape for rows in EXTRACT(texts)] == [(6, 128), (2, 128), (3, 128)]
    assert EXTRACT([]) == []
    assert nl.pipeline("feature-extraction", dtype="float64")("a", pooling="mean").dtype == np.float64


def test_results_do_not_hold_on_to_the_batch() -> None:
    for pooling in POOLINGS:
        assert all(vector.base is None for vector in EXTRACT(["a", "b c d e"], pooling="none"))
        single = EXTRACT("a b c", pooling=pooling)
        single += 1  # ours to write to
        assert not np.allclose(EXTRACT("a b c", pooling=pooling), single)


def test_normalize() -> None:
    for pooling in POOLINGS:
        plain = EXTRACT("The dog barks.", pooling=pooling)
        unit = EXTRACT("The dog barks.", pooling=pooling, normalize=True)
        assert unit.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), 1, atol=1e-6)
        np.testing.assert_allclose(unit * np.linalg.norm(plain, axis=-1, keepdims=True), plain, atol=1e-5)


def test_normalizing_zeros_gives_zeros() -> None:
    silent = nl.RobertaPreLayerNormModel(EXTRACT.model.config)
    silent.params["LayerNorm.weight"] = np.zeros(128, np.float32)
    silent.params["LayerNorm.bias"] = np.zeros(128, np.float32)
    extract = nl.pipeline("feature-extraction", silent, EXTRACT.tokenizer)
    assert not extract("a", pooling="mean", normalize=True).any()


def test_similar_sentences_are_nearer() -> None:
    barks, sings, sum_ = EXTRACT(
        ["The dog barks.", "The bird sings.", "Two plus three is five."], pooling="mean", normalize=True
    )
    assert barks @ sings > barks @ sum_


def test_too_long_a_text() -> None:
    long = "The dog barks. " * 60
    with pytest.raises(InputError, match="more than the 128 that this model takes; shorten it, or pass trunc"):
        EXTRACT(long)
    assert EXTRACT(long, truncation=True).shape == (128, 128)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ("a", {"pooling": "sum"}, "pooling is 'sum'; allowed: 'mean', 'cls', 'max', 'none'"),
        ("a", {"pooling": True}, "pooling is True"),
        (None, {}, "the input is a NoneType; give a string or a list of strings"),
        (["a", None], {}, r"text\[1\] is a NoneType, not a string"),
    ],
)
def test_wrong_input(texts: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EXTRACT(texts, **options)
