"""Another size of the vocabulary; fresh weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    HEADS,
    class_of,
    configs,
    main_result,
    random_ids,
    random_model,
    required_arguments,
    seeds,
    tiny_config,
)

from npprelnorm.errors import ConfigError, InputError

WORDS = "embeddings.word_embeddings.weight"
LM = ("ForMaskedLM", "ForCausalLM")
IDS = np.array([[5, 6, 7]])


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=20)
@given(config=configs(is_decoder=True), seed=seeds, size=st.integers(7, 60))
def test_kept_rows_keep_their_numbers(head: str, config: Any, seed: int, size: int) -> None:
    model = random_model(head, config, seed)
    before = dict(model.params)
    old, kept = config.vocab_size, min(size, config.vocab_size)
    ids = random_ids(config, (2, 4), seed) % kept
    arguments = required_arguments(head, np.where(ids == config.pad_token_id, (config.pad_token_id + 1) % kept, ids))
    result = main_result(model(**arguments))
    table = model.resize_token_embeddings(size)
    assert table is model.params[model.base_prefix + WORDS]
    assert model.config.vocab_size == size
    assert config.vocab_size == old
    assert {n: v.shape for n, v in model.params.items()} == type(model).shapes(model.config, pooler=model.has_pooler)
    for name, value in before.items():
        if value.shape[0] == old and name.endswith((WORDS, "lm_head.bias", "decoder.weight", "decoder.bias")):
            np.testing.assert_array_equal(model.params[name][:kept], value[:kept])
            new = model.params[name][kept:]
            # transformers takes the mean of the biases only where the decoder is not tied
            expected = 0.0 if name.endswith("bias") and config.tie_word_embeddings else value.mean(axis=0)
            np.testing.assert_allclose(new, np.broadcast_to(expected, new.shape), rtol=1e-12, atol=1e-14)
            assert model.params[name].dtype == value.dtype
        else:
            assert model.params[name] is value
    again = main_result(model(**arguments))
    if head in LM:
        np.testing.assert_allclose(again[..., :kept], result[..., :kept], rtol=1e-10, atol=1e-11)
        assert again.shape[-1] == size
    else:
        np.testing.assert_array_equal(again, result)


def test_a_mean_row_scores_the_mean() -> None:
    """A new token's row is the mean of the others, so its logit is theirs; without the biases in a tied model."""
    for tied in (True, False):
        model = random_model("ForMaskedLM", tiny_config(tie_word_embeddings=tied))
        old = model(IDS).logits - (model.params["lm_head.bias"] if tied else 0.0)
        model.resize_token_embeddings(25)
        new = model(IDS).logits[..., 23:]
        np.testing.assert_allclose(new, old.mean(axis=-1, keepdims=True).repeat(2, -1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "multiple", "expected"), [
    (None, None, 23), (None, 8, 24), (24, 8, 24), (25, 8, 32), (np.int64(30), None, 30), (4, np.int32(3), 6),
])  # fmt: skip
def test_sizes(size: Any, multiple: Any, expected: int) -> None:
    model = random_model("ForMaskedLM", tiny_config())
    assert model.resize_token_embeddings(size, pad_to_multiple_of=multiple).shape == (expected, 12)
    assert type(model.config.vocab_size) is int
    assert model(np.array([[2, 3]])).logits.shape == (1, 2, expected)


def test_scattered_and_drawn_rows() -> None:
    config = tiny_config(vocab_size=400, initializer_range=0.5)
    mean = random_model("ForMaskedLM", config).params["roberta_prelayernorm." + WORDS].mean(axis=0)

    def new_rows(**options: Any) -> np.ndarray:
        model = random_model("ForMaskedLM", config)
        rows = model.resize_token_embeddings(1400, **options)[400:]
        assert model.params["lm_head.bias"].shape == (1400,)
        return np.asarray(rows)

    scattered = new_rows(rng=0)
    assert 1e-6 < np.abs(scattered - mean).max() < 1e-3  # 1e-9 times the covariance
    np.testing.assert_array_equal(new_rows(rng=0), scattered)
    assert not np.array_equal(new_rows(rng=1), scattered)
    drawn = new_rows(mean_resizing=False, rng=0)
    assert abs(drawn.std() - 0.5) < 0.02
    assert abs(drawn.mean()) < 0.02


def test_the_padding_row_falls_out_of_a_table_that_ends_before_it() -> None:
    model = random_model("Model", tiny_config(pad_token_id=9))
    model.resize_token_embeddings(9)
    assert model.config.pad_token_id is None
    model = random_model("Model", tiny_config(pad_token_id=8))
    model.resize_token_embeddings(9)
    assert model.config.pad_token_id == 8


@pytest.mark.parametrize(("arguments", "match"), [
    ({"new_num_tokens": 0}, "new_num_tokens is 0"),
    ({"new_num_tokens": -3}, "new_num_tokens is -3; allowed: an integer of 1 or more"),
    ({"new_num_tokens": 3.0}, "new_num_tokens is 3.0"),
    ({"new_num_tokens": "30"}, "new_num_tokens is '30'"),
    ({"new_num_tokens": True}, "new_num_tokens is True"),
    ({"pad_to_multiple_of": 0}, "pad_to_multiple_of is 0"),
    ({"pad_to_multiple_of": 2.5}, "pad_to_multiple_of is 2.5"),
])  # fmt: skip
def test_bad_sizes(arguments: dict[str, Any], match: str) -> None:
    model = random_model("Model", tiny_config())
    with pytest.raises(InputError, match=match):
        model.resize_token_embeddings(**arguments)
    assert model.config.vocab_size == len(model.params[WORDS]) == 23


@pytest.mark.parametrize("size", [10**9, 10**12, 10**30])
def test_a_size_that_no_vocabulary_has_changes_nothing(size: int) -> None:
    model = random_model("Model", tiny_config())
    with pytest.raises(ConfigError, match=rf"vocab_size is {size}; allowed: an integer from 1 to 16777216"):
        model.resize_token_embeddings(size)
    assert model.config.vocab_size == len(model.params[WORDS]) == 23


# ---- fresh weights


@pytest.mark.parametrize("head", HEADS)
def test_fresh_weights(head: str) -> None:
    config = tiny_config(
        vocab_size=300, hidden_size=24, intermediate_size=50, initializer_range=0.5, pad_token_id=3,
        is_decoder=True, add_cross_attention=True, position_embedding_type="relative_key",
    )  # fmt: skip
    model = class_of(head)(config, rng=1)
    assert {name: value.shape for name, value in model.params.items()} == type(model).shapes(
        config, pooler=head in ("Model", "ForMultipleChoice")
    )
    matrices = []
    for name, value in model.params.items():
        assert value.dtype == np.float32
        if name.endswith(("LayerNorm.weight", "layer_norm.weight")):
            assert (value == 1).all(), name
        elif name.endswith("bias"):
            assert not value.any(), name
        else:
            if name.endswith(("word_embeddings.weight", "position_embeddings.weight")):
                assert not value[3].any()
                assert value[:3].all()
                value = np.delete(value, 3, axis=0)
            matrices.append(value.reshape(-1))
    numbers = np.concatenate(matrices)
    assert abs(numbers.std() - 0.5) < 0.01
    assert abs(numbers.mean()) < 0.02
    assert model.num_parameters() == sum(value.size for value in model.params.values())
    assert f"{model.num_parameters():,} parameters, float32" in repr(model)


def test_the_seed_decides() -> None:
    def draw(**options: Any) -> np.ndarray:
        return np.asarray(class_of("Model")(tiny_config(), **options).params[WORDS])

    np.testing.assert_array_equal(draw(), draw(rng=0))
    np.testing.assert_array_equal(draw(rng=np.random.default_rng(5)), draw(rng=5))
    assert not np.array_equal(draw(rng=5), draw())
    np.testing.assert_allclose(draw(dtype="float64"), draw(), rtol=1e-6)
    assert not class_of("Model")(tiny_config(), add_pooling_layer=False).has_pooler
