"""Gradients of whole models: by central differences, and by what is known of them without any."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from gradcheck import (
    BATCH,
    CHOICES,
    CROSS,
    DROPOUT,
    HEAD_MASK,
    PROBLEMS,
    SHAPE,
    SOURCE,
    TOKENS,
    check_model,
    gradients_of,
    inputs_for,
    model_and_inputs,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import ACTIVATION_NAMES, HEADS, PADDING_SIDES, configs, random_ids, random_model, seeds, tiny_config

from npprelnorm import layers
from npprelnorm.errors import InputWarning
from npprelnorm.gradients import Gradients, GradientView
from npprelnorm.params import View
from npprelnorm.rows import whole_layout

# ---------------------------------------------------------------- every class, every option


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
@pytest.mark.parametrize("head", HEADS)
def test_every_class_with_every_activation(head: str, activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    smallest = [np.inf]

    def watch(x: np.ndarray) -> Any:
        smallest.append(float(np.abs(x).min()))
        return f(x)

    f, f_backward = layers.ACTIVATIONS[activation]
    monkeypatch.setitem(layers.ACTIVATIONS, activation, (watch, f_backward))
    model, inputs = model_and_inputs(head, 5, hidden_act=activation)
    check_model(model, inputs)
    assert len(smallest) > 4
    assert activation != "relu" or 1e-4 < min(smallest), "too near to the kink of relu: take another seed"


RELATIVE_KEY, RELATIVE_BOTH = ({"position_embedding_type": f"relative_key{end}"} for end in ("", "_query"))
RNG = np.random.default_rng(11)
EMBEDS = {"input_ids": None, "attention_mask": None, "inputs_embeds": RNG.standard_normal((BATCH, TOKENS, 12))}
LOWEST = float(np.finfo(np.float64).min)
SEEN = (RNG.random((BATCH, TOKENS, TOKENS)) < 0.6) | np.eye(TOKENS, dtype=bool)  # a row that sees nothing has no slope
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "untied masked": ("ForMaskedLM", {"tie_word_embeddings": False}, {}),
    "untied causal": ("ForCausalLM", {"tie_word_embeddings": False}, {}),
    "decoder": ("Model", {"is_decoder": True}, {}),
    "causal that sees all": ("ForCausalLM", {"is_decoder": False}, {}),
    "cross": ("Model", CROSS, {}),
    "cross, unmasked source": ("ForCausalLM", CROSS, {"encoder_attention_mask": None}),
    "cross, no source": ("ForCausalLM", CROSS, {"encoder_hidden_states": None, "encoder_attention_mask": None}),
    "cross, source mask for each token": (
        "Model", CROSS, {"encoder_attention_mask": SEEN[..., :SOURCE] | (np.arange(SOURCE) == 1)}
    ),
    "head mask": ("Model", {}, HEAD_MASK),
    "head mask, cross": ("ForCausalLM", CROSS, HEAD_MASK),
    "relative_key": ("Model", RELATIVE_KEY, {}),
    "relative_key_query": ("Model", RELATIVE_BOTH, {}),
    "relative_key_query, decoder, cross, head mask": ("ForCausalLM", RELATIVE_BOTH | CROSS, HEAD_MASK),
    "relative_key, dropout": ("ForMaskedLM", RELATIVE_KEY | DROPOUT, HEAD_MASK),
    "chunks of 1": ("Model", {"chunk_size_feed_forward": 1}, {}),
    "chunks of 4": ("ForMaskedLM", {"chunk_size_feed_forward": 4}, {}),  # the second of them is shorter
    "chunks, dropout": ("Model", {"chunk_size_feed_forward": 4} | DROPOUT, {}),
    "embeds": ("ForTokenClassification", {}, EMBEDS),
    "embeds, dropout": ("Model", DROPOUT, EMBEDS),
    "embeds of choices": (
        "ForMultipleChoice", {}, EMBEDS | {"inputs_embeds": RNG.standard_normal((BATCH, CHOICES, TOKENS, 12))}
    ),
    "token types": ("Model", {}, {"token_type_ids": RNG.integers(0, 3, (BATCH, TOKENS))}),
    "positions": ("Model", {}, {"position_ids": RNG.integers(0, 15, (BATCH, TOKENS))}),
    "positions, one row": ("Model", {}, {"position_ids": RNG.permutation(15)[None, :TOKENS]}),
    "mask 3-D": ("Model", {}, {"attention_mask": SEEN.astype(np.int64)}),
    "mask 3-D, decoder": ("ForCausalLM", {}, {"attention_mask": SEEN}),
    "mask 4-D": ("Model", {}, {"attention_mask": np.where(SEEN, 0.0, LOWEST)[:, None]}),
    "mask 4-D, biases": ("Model", {}, {"attention_mask": RNG.standard_normal((BATCH, 3, TOKENS, TOKENS))}),
    "no mask": ("Model", {}, {"padding": None, "attention_mask": None}),
    "no padding id": ("ForMaskedLM", {"pad_token_id": 0}, {"padding": None}),
    "tiny eps": ("Model", {"layer_norm_eps": 1e-12}, {}),
    "one head": ("Model", {"num_attention_heads": 1}, {}),
    "heads of one": ("Model", {"num_attention_heads": 12}, {}),
    "one layer": ("ForCausalLM", {"num_hidden_layers": 1}, {}),
    "one token": (
        "ForTokenClassification", {}, {"input_ids": np.array([[3], [4]]), "attention_mask": None, "labels": [[1], [0]]}
    ),
    "column of positions": ("ForQuestionAnswering", {}, {"start_positions": [[1], [2]], "end_positions": [[4], [6]]}),
    "start alone counts": ("ForQuestionAnswering", {}, {"end_positions": [0, 50]}),
    "one label": (
        "ForSequenceClassification", {"num_labels": 1, "problem_type": "regression"}, {"labels": [0.3, -1.0]}
    ),
    "one label, told from it": (
        "ForSequenceClassification", {"num_labels": 1, "problem_type": None}, {"labels": [[1.0], [2.0]]}
    ),
    "ignored label": ("ForSequenceClassification", {}, {"labels": [-100, 3]}),
    "items in the batch": ("ForCausalLM", {}, {"num_items_in_batch": 5}),
    "last tokens": ("ForCausalLM", {}, {"logits_to_keep": 3, "labels": [[1, 2, 3], [4, -100, 5]]}),
    "named tokens": (
        "ForCausalLM", {}, {"logits_to_keep": np.array([5, 0, -1, 2, 0]), "labels": RNG.integers(0, 19, (BATCH, 5))}
    ),
    "shifted labels": ("ForCausalLM", {}, {"shift_labels": RNG.integers(0, 19, (BATCH, TOKENS))}),
    "labelled only": ("ForMaskedLM", {}, {"labelled_only": True}),
} | {
    f"{problem}": ("ForSequenceClassification", {"problem_type": problem, "num_labels": 3}, {}) for problem in PROBLEMS
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*is no decoder")
@pytest.mark.parametrize("name", CASES)
def test_every_option(name: str) -> None:
    head, config, given = CASES[name]
    model, inputs = model_and_inputs(head, 2, given=given, **config)
    check_model(model, inputs, rng=5 if "dropout" in name else None)


@pytest.mark.parametrize("padding", [side for side in PADDING_SIDES if side != "left"])
@pytest.mark.parametrize("head", ["Model", "ForCausalLM"])
def test_padding(head: str, padding: str) -> None:
    check_model(*model_and_inputs(head, 3, given={"padding": padding}))


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
def test_padding_on_the_left(head: str) -> None:  # of an encoder: a decoder's first row would see nothing
    check_model(*model_and_inputs(head, 3, given={"padding": "left"}))


@pytest.mark.parametrize("head", HEADS)
def test_dropout(head: str) -> None:
    """The same seed is the same function, and these are its gradients; another seed is another one."""
    model, inputs = model_and_inputs(head, **DROPOUT)
    check_model(model, inputs, rng=8)
    first, again, other, none = (gradients_of(model, inputs, rng=rng) for rng in (1, 1, 2, None))
    for name, value in first.items():
        assert np.array_equal(again[name], value), name
    assert any(not np.array_equal(other[name], value) for name, value in first.items())
    assert any(not np.array_equal(none[name], value) for name, value in first.items())


def test_dropout_is_drawn_anew_for_each_layer_and_call() -> None:
    model, inputs = model_and_inputs("Model", attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    inputs |= {"attention_mask": None, "input_ids": random_ids(model.config, (4, 8), 0), "output_attentions": True}
    generator = np.random.default_rng(0)
    outputs = [model.vjp(lambda out: {"last_hidden_state": out[0]}, rng=generator, **inputs)[0] for _ in range(2)]
    dropped = [attention == 0 for output in outputs for attention in output.attentions]
    for index, one in enumerate(dropped):
        assert 0.35 < one.mean() < 0.65
        for another in dropped[:index]:
            assert 0.35 < (one == another).mean() < 0.65


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=12)
@given(data=st.data(), seed=seeds)
def test_random_models(head: str, data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    smooth = st.sampled_from([name for name in ACTIVATION_NAMES if name != "relu"])
    config = data.draw(configs(layer_norm_eps=1e-5, hidden_act=data.draw(smooth)))
    assume(config.hidden_size >= 8)
    config.chunk_size_feed_forward = data.draw(st.integers(0, 7))
    config.problem_type = data.draw(st.sampled_from(PROBLEMS))
    for name in DROPOUT:
        setattr(config, name, data.draw(st.sampled_from((0.0, 0.3))))
    more: dict[str, Any] = {}
    if data.draw(st.booleans()):
        more["head_mask"] = rng.standard_normal((config.num_hidden_layers, config.num_attention_heads))
    padding = data.draw(st.sampled_from((None, "right", "interior") if config.is_decoder else (None, *PADDING_SIDES)))
    model = random_model(head, config, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)  # a causal model that is no decoder
        inputs = inputs_for(head, config, seed, padding=padding, **more)
        check_model(model, inputs, rng=data.draw(st.sampled_from((None, 1))))


# ---------------------------------------------------------------- what the gradients are besides slopes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("head", HEADS)
def test_one_gradient_for_each_parameter(head: str, dtype: str) -> None:
    for config in ({}, {"tie_word_embeddings": False}, CROSS | RELATIVE_BOTH, DROPOUT):
        model, inputs = model_and_inputs(head, dtype=dtype, **config)
        before = {name: value.copy() for name, value in model.params.items()}
        ours = gradients_of(model, inputs, rng=0)
        assert ours.keys() == model.params.keys()
        for name, value in model.params.items():
            assert ours[name].shape == value.shape, name
            assert ours[name].dtype == value.dtype == dtype, name
            assert np.isfinite(ours[name]).all(), name
            assert np.array_equal(value, before[name]), name
            assert not np.shares_memory(ours[name], value), name
        arrays = list(ours.values())
        assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_a_tied_decoder_adds_to_the_embeddings() -> None:
    words = "roberta_prelayernorm.embeddings.word_embeddings.weight"
    tied, inputs = model_and_inputs("ForMaskedLM")
    decoder = {"lm_head.decoder.weight": tied.params[words], "lm_head.decoder.bias": tied.params["lm_head.bias"]}
    params = tied.params | decoder
    untied = type(tied).from_params(tiny_config(**SHAPE, tie_word_embeddings=False), params, dtype="float64")
    ours, apart = (model.loss_and_grads(**inputs)[1] for model in (tied, untied))
    pad = tied.config.pad_token_id
    assert np.array_equal(ours[words], apart[words] + apart["lm_head.decoder.weight"])
    assert not apart[words][pad].any()
    assert ours[words][pad].any(), "the padding row is trained as a row of the decoder"
    assert np.array_equal(ours["lm_head.bias"], apart["lm_head.decoder.bias"])
    assert not apart["lm_head.bias"].any(), "an untied model does not use it"


def test_padding_rows_and_unseen_ids_get_nothing() -> None:
    model, inputs = model_and_inputs("Model")
    ours = gradients_of(model, inputs)
    pad, seen = model.config.pad_token_id, np.unique(inputs["input_ids"])
    assert pad in seen
    words, positions = ours["embeddings.word_embeddings.weight"], ours["embeddings.position_embeddings.weight"]
    assert set(np.flatnonzero(words.any(axis=1))) == set(seen) - {pad}
    assert set(np.flatnonzero(positions.any(axis=1))) == set(range(pad + 1, pad + 1 + TOKENS))
    assert set(np.flatnonzero(ours["embeddings.token_type_embeddings.weight"].any(axis=1))) == {0}


def test_a_causal_loss_is_that_of_the_next_token() -> None:
    model, inputs = model_and_inputs("ForCausalLM")
    labels = inputs["labels"]
    output, ours = model.loss_and_grads(**inputs)
    shifted = np.concatenate([labels[:, 1:], np.full((BATCH, 1), -100)], axis=1)
    _, same = model.loss_and_grads(**(inputs | {"shift_labels": shifted}))
    counted = int((shifted != -100).sum())
    assert counted < labels.size
    other, divided = model.loss_and_grads(**inputs, num_items_in_batch=2 * counted)
    np.testing.assert_allclose(other.loss, output.loss / 2, rtol=1e-14)
    for name, value in ours.items():
        assert np.array_equal(same[name], value), name
        np.testing.assert_allclose(divided[name], value / 2, rtol=1e-11, atol=1e-17)
    changed = labels.copy()
    changed[:, 0] = 0  # nobody predicts the first token
    _, same = model.loss_and_grads(**(inputs | {"labels": changed}))
    assert all(np.array_equal(same[name], value) for name, value in ours.items())


def test_an_ignored_label_counts_for_nothing() -> None:
    """The mean over what is left is the mean that those rows alone have, whatever stands in the others."""
    model, inputs = model_and_inputs("ForTokenClassification", given={"padding": None})
    labels = np.where(np.arange(BATCH)[:, None] == 0, inputs["labels"], -100)
    _, ours = model.loss_and_grads(**(inputs | {"labels": labels}))
    alone = {name: value[:1] for name, value in inputs.items()}
    _, expected = model.loss_and_grads(**alone)
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-13 * max(1, np.abs(value).max()))


@pytest.mark.filterwarnings("ignore:all ")
def test_nothing_to_learn_from_is_no_gradient() -> None:
    for head, unusable in (
        ("ForMaskedLM", {"labels": np.full((BATCH, TOKENS), -100)}),
        ("ForQuestionAnswering", {"start_positions": [50, 50], "end_positions": [50, 50]}),
    ):
        model, inputs = model_and_inputs(head, given=unusable)
        output, ours = model.loss_and_grads(**inputs)
        assert np.isnan(output.loss)
        assert not any(value.any() for value in ours.values())


def test_labelled_tokens_alone_give_the_same_gradients() -> None:
    model, inputs = model_and_inputs("ForMaskedLM")
    output, ours = model.loss_and_grads(**inputs)
    short, same = model.loss_and_grads(**inputs, labelled_only=True)
    np.testing.assert_allclose(short.loss, output.loss, rtol=1e-14)
    assert len(short.logits) == (inputs["labels"] != -100).sum() < output.logits[..., 0].size
    for name, value in ours.items():
        np.testing.assert_allclose(same[name], value, rtol=0, atol=1e-13 * max(1, np.abs(value).max()))


def test_a_head_mask_for_all_layers_gets_a_row_for_each() -> None:
    model, inputs = model_and_inputs("ForMaskedLM")
    mask = np.array([1.0, 0.5, 0.0])
    one, each = (
        model.loss_and_grads(**inputs, head_mask=given, input_grads=["head_mask"])[1]["head_mask"]
        for given in (mask, np.tile(mask, (2, 1)))
    )
    assert np.array_equal(one, each)
    assert one.shape == (2, 3)
    assert one.all(), "a head that is switched off has a slope too"


def test_the_identity_path_is_untouched() -> None:
    """Where no block says anything (all output projections 0), dx is dy, bit for bit, through every layer."""
    model, _ = model_and_inputs("Model", **CROSS)
    config, rng = model.config, np.random.default_rng(0)
    for name, value in model.params.items():
        if "output.dense" in name:
            model.params[name] = np.zeros_like(value)
    g = Gradients(model.params, inputs=["encoder_hidden_states"])
    x, dy = rng.standard_normal((2, BATCH * TOKENS, config.hidden_size))
    layout = whole_layout(BATCH, TOKENS, TOKENS, encoder_tokens=SOURCE)
    states = rng.standard_normal((BATCH, SOURCE, config.hidden_size))
    down, up = dy, x
    for index in range(config.num_hidden_layers):
        prefix = f"encoder.layer.{index}."
        up, cache = layers.layer(up, View(model.params, prefix), config, layout, encoder_states=states)
        down = layers.layer_backward(down, cache, GradientView(g, prefix), config, index)
    assert np.array_equal(up, x)
    assert np.array_equal(down, dy)
    trained = {name for name, value in g.finish().items() if value.any()}
    assert trained == {n for n in model.params if "layer" in n and "output.dense" in n}
