"""Decoders: what a token may see, and a key/value cache that changes nothing.

The models have random parameters everywhere, so that a property fails by far more than rounding when it fails at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden_files import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import configs, main_result, random_ids, random_model, seeds, tiny_config

# a causal model that is no decoder
pytestmark = pytest.mark.filterwarnings("ignore::npprelnorm.errors.InputWarning")

decoders = configs(is_decoder=True)


def run(model: Any, ids: np.ndarray) -> np.ndarray:
    return main_result(model(ids))


@pytest.mark.parametrize("head", ["Model", "ForCausalLM"])
@settings(max_examples=30)
@given(config=decoders, seed=seeds, tokens=st.integers(2, 8), data=st.data())
def test_a_prefix_does_not_depend_on_what_follows(
    head: str, config: Any, seed: int, tokens: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, tokens - 1))
    model = random_model(head, config, seed)
    ids = random_ids(config, (2, tokens), seed)
    other = np.concatenate([ids[:, :cut], random_ids(config, (2, tokens - cut), seed + 1)], axis=1)
    np.testing.assert_array_equal(run(model, other)[:, :cut], run(model, ids)[:, :cut])
    assert_close(run(model, ids[:, :cut]), run(model, ids)[:, :cut], 1e-11, "shorter")


def test_an_encoder_sees_what_follows_and_a_decoder_its_own_token() -> None:
    for decoder in (False, True):
        model = random_model("Model", tiny_config(is_decoder=decoder))
        ids = random_ids(model.config, (1, 4), 0)
        changed = ids.copy()
        changed[0, 3] = (ids[0, 3] - 1) % 2 + 2 if ids[0, 3] not in (2, 3) else 5 - ids[0, 3]
        moved = np.abs(run(model, changed) - run(model, ids)).max(axis=-1)[0]
        assert moved[3] > 1e-2
        assert (moved[:3] > 1e-6).all() if not decoder else (moved[:3] == 0).all()


@settings(max_examples=60)
@given(config=decoders, seed=seeds, data=st.data(), dtype=st.sampled_from(("float64", "float32")))
def test_the_cache_changes_nothing(config: Any, seed: int, data: st.DataObject, dtype: str) -> None:
    """Any split into steps, with cross-attention and a padding mask or without, gives what one call gives."""
    parts = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    tokens = min(sum(parts), config.max_tokens)
    if dtype == "float32":
        config.layer_norm_eps = 1e-5
    model = random_model("ForCausalLM", config, seed, dtype)
    rng = np.random.default_rng(seed)
    ids = random_ids(config, (2, tokens), seed)
    encoder: dict[str, Any] = {}
    if config.add_cross_attention and data.draw(st.booleans()):
        encoder = {
            "encoder_hidden_states": rng.standard_normal((2, 4, config.hidden_size)),
            "encoder_attention_mask": [[1, 1, 1, 0], [1, 0, 1, 1]],
        }
    mask = None
    if data.draw(st.booleans()):
        mask = (rng.random((2, tokens)) < 0.7).astype(int)
        mask[:, 0] = 1
    whole = model(ids, mask, output_hidden_states=True, **encoder)
    past, seen = None, 0
    for part in parts:
        stop = min(seen + part, tokens)
        if stop == seen:
            break
        states = dict(encoder)
        if past is not None and data.draw(st.booleans()):
            states.pop("encoder_hidden_states", None)  # its keys and values are in the cache
        here = None if mask is None else mask[:, :stop]
        step = model(ids[:, seen:stop], here, past_key_values=past, output_hidden_states=True, **states)
        past = step.past_key_values
        assert past.length == stop
        bound = 1e-11 if dtype == "float64" else 2e-5
        assert_close(step.logits, whole.logits[:, seen:stop], bound, "logits")
        for ours, exact in zip(step.hidden_states, whole.hidden_states, strict=True):
            assert_close(ours, exact[:, seen:stop], bound, "hidden states")
        seen = stop
    for ours, exact in zip(past, whole.past_key_values, strict=True):
        for a, b in zip(ours, exact, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert_close(a, b, 1e-11 if dtype == "float64" else 2e-5, "cache")


def test_a_forward_does_not_change_the_cache_it_is_given() -> None:
    model = random_model("ForCausalLM", tiny_config(is_decoder=True))
    ids = random_ids(model.config, (2, 3), 0)
    past = model(ids).past_key_values
    before = [[array.copy() for array in layer[:2]] for layer in past]
    longer = model(ids[:, :1], past_key_values=past).past_key_values
    assert (past.length, longer.length, len(past)) == (3, 4, 2)
    for layer, copies in zip(past, before, strict=True):
        for array, copy in zip(layer[:2], copies, strict=True):
            np.testing.assert_array_equal(array, copy)


def test_a_cache_is_also_taken_as_plain_tuples() -> None:
    model = random_model("ForCausalLM", tiny_config(is_decoder=True))
    ids = random_ids(model.config, (1, 4), 0)
    past = model(ids[:, :3]).past_key_values
    plain = tuple((layer.key, layer.value) for layer in past)
    expected = model(ids[:, 3:], past_key_values=past).logits
    np.testing.assert_array_equal(model(ids[:, 3:], past_key_values=plain).logits, expected)
    embeds = model.params["roberta_prelayernorm.embeddings.word_embeddings.weight"][ids]
    np.testing.assert_array_equal(model(inputs_embeds=embeds[:, 3:], past_key_values=past).logits, expected)


def test_a_decoder_returns_its_cache_by_default_and_only_then() -> None:
    ids = np.array([[5, 6]])
    decoder = random_model("ForCausalLM", tiny_config(is_decoder=True))
    assert "past_key_values" in decoder(ids)
    assert "past_key_values" not in decoder(ids, use_cache=False)
    assert "past_key_values" not in decoder(ids, labels=ids)
    assert "past_key_values" not in random_model("ForCausalLM", tiny_config(is_decoder=True, use_cache=False))(ids)
    assert "past_key_values" not in random_model("ForCausalLM", tiny_config())(ids, use_cache=True)
