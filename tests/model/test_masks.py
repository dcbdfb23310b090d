"""Masks in every form, in self-attention and in cross-attention, and what cross-attention reads.

The models are float64 with random parameters everywhere, so that a property fails by far more than rounding when it
fails at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden_files import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import configs, layer_norm_of, padded_ids, random_ids, random_model, seeds, tiny_config

from npprelnorm.masks import positions_from_ids

pytestmark = pytest.mark.filterwarnings("ignore::npprelnorm.errors.InputWarning")  # padding without a mask

encoders = configs(is_decoder=False, add_cross_attention=False)
decoders = configs(is_decoder=True)
fewer = settings(max_examples=30)
lengths = st.integers(1, 8)


def run(model: Any, ids: np.ndarray, mask: Any = None, **more: Any) -> np.ndarray:
    return np.asarray(model(ids, attention_mask=mask, **more).last_hidden_state)


@fewer
@given(data=st.data(), seed=seeds)
def test_what_is_masked_has_no_influence(data: st.DataObject, seed: int) -> None:
    """Other ids in place of the padding (positions held fixed) change nothing elsewhere."""
    config = data.draw(encoders)
    ids, mask = data.draw(padded_ids(config))
    model = random_model("Model", config, seed)
    positions = positions_from_ids(ids, config.pad_token_id, 0)
    noise = np.where(mask == 1, ids, random_ids(config, ids.shape, seed))
    clean = run(model, ids, mask, position_ids=positions)
    noisy = run(model, noise, mask, position_ids=positions)
    np.testing.assert_array_equal(noisy[mask == 1], clean[mask == 1])


@fewer
@given(config=encoders, seed=seeds, data=st.data())
def test_all_forms_of_a_mask_are_equivalent(config: Any, seed: int, data: st.DataObject) -> None:
    ids, mask = data.draw(padded_ids(config))
    model = random_model("Model", config, seed)
    batch, tokens = ids.shape
    expected = run(model, ids, mask)
    lowest = np.finfo(np.float64).min
    full = np.broadcast_to(mask[:, None, None, :], (batch, 1, tokens, tokens))
    per_head = np.broadcast_to(full, (batch, config.num_attention_heads, tokens, tokens))
    for form in (
        mask.astype(bool), mask.astype(np.uint8), mask.astype(np.float32), mask.tolist(),
        full[:, 0], full[:, 0].astype(bool),
        full.astype(bool), full[:, :, :1].astype(bool), per_head.astype(bool),
        np.where(full, 0.0, lowest), np.where(full, 0.0, -np.inf), np.where(per_head, 0.0, lowest),
        np.where(full, 0, -np.inf).astype(np.float16), np.where(full, 0, -np.inf).astype(np.float32),
    ):  # fmt: skip
        np.testing.assert_array_equal(run(model, ids, form), expected)


@fewer
@given(config=decoders, seed=seeds, data=st.data())
def test_a_decoder_combines_a_2d_mask_with_causality(config: Any, seed: int, data: st.DataObject) -> None:
    ids, mask = data.draw(padded_ids(config, sides=("right", "interior")))
    model = random_model("Model", config, seed)
    full = (mask[:, None, None, :] == 1) & np.tri(ids.shape[1], dtype=bool)
    np.testing.assert_array_equal(run(model, ids, full), run(model, ids, mask))
    np.testing.assert_array_equal(run(model, ids, full[:, 0].astype(int)), run(model, ids, mask))


@fewer
@given(config=configs(add_cross_attention=False), seed=seeds, tokens=lengths)
def test_a_mask_of_ones_is_no_mask(config: Any, seed: int, tokens: int) -> None:
    model = random_model("Model", config, seed)
    ids = random_ids(config, (2, tokens), seed)
    np.testing.assert_array_equal(run(model, ids, np.ones_like(ids)), run(model, ids))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("decoder", [False, True])
def test_a_row_that_may_see_nothing_sees_everything_evenly(dtype: str, decoder: bool) -> None:
    model = random_model("Model", tiny_config(is_decoder=decoder), dtype=dtype)
    ids = random_ids(model.config, (2, 4), 0)
    output = model(ids, [[0, 0, 0, 0], [1, 1, 1, 1]], output_attentions=True)
    for weights in output.attentions:
        np.testing.assert_array_equal(weights[0], np.full_like(weights[0], 0.25))
        assert weights[1].std() > 1e-3
    assert np.isfinite(output.last_hidden_state).all()


@fewer
@given(config=configs(), seed=seeds, tokens=lengths)
def test_attentions_are_distributions_over_the_keys(config: Any, seed: int, tokens: int) -> None:
    model = random_model("Model", config, seed)
    encoder = np.random.default_rng(seed).standard_normal((2, 3, config.hidden_size))
    more = {"encoder_hidden_states": encoder} if config.add_cross_attention else {}
    output = model(random_ids(config, (2, tokens), seed), output_attentions=True, **more)
    for weights in output.attentions:
        assert weights.shape == (2, config.num_attention_heads, tokens, tokens)
        np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-13)
        if config.is_decoder:
            assert not np.triu(weights, 1).any()
    assert ("cross_attentions" in output) == bool(more)
    for weights in output.cross_attentions or ():
        assert weights.shape == (2, config.num_attention_heads, tokens, 3)


# ---- cross-attention


@fewer
@given(config=configs(is_decoder=True, add_cross_attention=True), seed=seeds, tokens=lengths)
def test_masked_encoder_tokens_have_no_influence(config: Any, seed: int, tokens: int) -> None:
    model = random_model("ForCausalLM", config, seed)
    ids = random_ids(config, (2, tokens), seed)
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((2, 4, config.hidden_size))
    mask = np.array([[1, 1, 0, 0], [1, 0, 1, 0]])
    noisy = np.where(mask[..., None] == 1, states, 10 * rng.standard_normal(states.shape))

    def logits(encoder: np.ndarray, form: Any) -> np.ndarray:
        return np.asarray(model(ids, encoder_hidden_states=encoder, encoder_attention_mask=form).logits)

    expected = logits(states, mask)
    np.testing.assert_array_equal(logits(noisy, mask), expected)
    assert_close(logits(states[:, :3], mask[:, :3]), expected, 1e-11, "shorter")
    full = np.broadcast_to(mask[:, None, None, :], (2, 1, tokens, 4))
    for form in (mask.astype(bool), full[:, 0], full.astype(bool), np.where(full, 0.0, -np.inf)):
        np.testing.assert_array_equal(logits(states, form), expected)
    np.testing.assert_array_equal(logits(states, np.ones_like(mask)), logits(states, None))


def test_cross_attention_reads_the_states_as_they_are() -> None:
    """The states are normed by the encoder, not here again: scaling them changes what comes out."""
    model = random_model("Model", tiny_config(is_decoder=True, add_cross_attention=True))
    states = np.random.default_rng(0).standard_normal((1, 3, 12))
    ids = np.array([[5, 6]])
    once = model(ids, encoder_hidden_states=states).last_hidden_state
    assert np.abs(model(ids, encoder_hidden_states=3 * states).last_hidden_state - once).max() > 1e-2
    plain = model(ids).last_hidden_state  # without states there is no cross-attention
    assert np.abs(plain - once).max() > 1e-2


def test_the_weights_of_cross_attention_by_hand() -> None:
    """Queries from LN(y), keys from the raw states."""
    config = tiny_config(is_decoder=True, add_cross_attention=True, num_hidden_layers=1)
    model = random_model("Model", config)
    p = model.params
    states = np.random.default_rng(0).standard_normal((1, 3, 12))
    ids = np.array([[5, 6]])
    output = model(
        ids,
        encoder_hidden_states=states,
        output_attentions=True,
        output_hidden_states=True,
        hidden_states_convention="v4",
    )
    name = "encoder.layer.0."
    attention, crossed = f"{name}attention.", f"{name}crossattention."

    def linear(x: np.ndarray, module: str) -> np.ndarray:
        return x @ p[f"{module}.weight"].T + p[f"{module}.bias"]

    def heads_of(x: np.ndarray) -> np.ndarray:
        return x.reshape(1, -1, 3, 4).transpose(0, 2, 1, 3)

    x = output.hidden_states[0]
    value = heads_of(
        linear(
            layer_norm_of(x, p[f"{attention}LayerNorm.weight"], p[f"{attention}LayerNorm.bias"], 1e-5),
            f"{attention}self.value",
        )
    )
    context = (output.attentions[0] @ value).transpose(0, 2, 1, 3).reshape(1, 2, 12)
    y = x + linear(context, f"{attention}output.dense")
    u = layer_norm_of(y, p[f"{crossed}LayerNorm.weight"], p[f"{crossed}LayerNorm.bias"], 1e-5)
    scores = heads_of(linear(u, f"{crossed}self.query")) @ heads_of(linear(states, f"{crossed}self.key")).swapaxes(2, 3)
    weights = np.exp(scores / 2.0)  # sqrt of the head size 4
    assert_close(output.cross_attentions[0], weights / weights.sum(axis=-1, keepdims=True), 1e-12, "cross attention")


def test_an_encoder_ignores_encoder_states() -> None:
    model = random_model("Model", tiny_config())
    ids = np.array([[5, 6]])
    ignored = model(ids, encoder_hidden_states=np.ones((1, 3, 12)), encoder_attention_mask=[[1, 1, 0]])
    np.testing.assert_array_equal(ignored.last_hidden_state, model(ids).last_hidden_state)
