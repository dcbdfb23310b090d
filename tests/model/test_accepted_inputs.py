"""What models take, as it is or with a warning, and what they make of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models_for_inputs import IDS, MODELS
from strategies import class_of, main_result, random_ids, random_model, tiny_config

import npprelnorm as nl
from npprelnorm.errors import InputError, InputWarning


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i4"])
def test_every_integer_type_is_accepted(dtype: str) -> None:
    for name in ("decoder", "masked"):
        model = MODELS[name]
        expected = model(IDS, labels=IDS, token_type_ids=IDS % 3)
        ids = IDS.astype(dtype)
        ids.flags.writeable = False
        output = model(ids, labels=ids, token_type_ids=ids % 3, attention_mask=np.ones_like(ids))
        np.testing.assert_array_equal(output.logits, expected.logits)
        assert output.loss == expected.loss
        rows = np.arange(2, 5).astype(dtype)
        np.testing.assert_array_equal(model(ids, token_type_ids=ids % 3, position_ids=rows).logits, expected.logits)
    spans = {"start_positions": np.array([0, 9]), "end_positions": np.array([1, 2])}
    small = {key: value.astype(dtype) for key, value in spans.items()}
    assert MODELS["question"](IDS, **small).loss == MODELS["question"](IDS, **spans).loss


def test_a_span_position_in_uint8_of_a_text_longer_than_255() -> None:
    model = random_model("ForQuestionAnswering", tiny_config(max_position_embeddings=310))
    ids = np.full((1, 300), 5)
    spans = {"start_positions": np.array([7], np.uint8), "end_positions": np.array([255], np.uint8)}
    assert np.isfinite(model(ids, **spans).loss)


def test_lists_and_tuples_are_accepted() -> None:
    expected = MODELS["encoder"](IDS, attention_mask=np.ones((2, 3))).last_hidden_state
    output = MODELS["encoder"](tuple(map(tuple, IDS.tolist())), attention_mask=[[True] * 3] * 2)
    np.testing.assert_array_equal(output.last_hidden_state, expected)


@pytest.mark.parametrize("keep", [2, np.int64(2), [1, 2], [-2, -1], np.array([1, 2], np.uint8)])
def test_logits_to_keep(keep: Any) -> None:
    model = MODELS["decoder"]
    full = model(IDS).logits
    np.testing.assert_array_equal(model(IDS, logits_to_keep=keep).logits, full[:, 1:])
    np.testing.assert_array_equal(model(IDS, logits_to_keep=0).logits, full)
    np.testing.assert_array_equal(model(IDS, logits_to_keep=99).logits, full)
    np.testing.assert_array_equal(model(IDS, logits_to_keep=[2, 0, 2]).logits, full[:, [2, 0, 2]])


def test_causal_labels_are_shifted_by_one() -> None:
    model = MODELS["decoder"]
    labels = IDS.copy()
    labels[0, 1] = -100
    output = model(IDS, labels=labels)
    shifted = np.array([[-100, 7, -100], [9, 10, -100]])
    assert model(IDS, labels=labels, shift_labels=shifted).loss == output.loss
    rows = [(0, 1, 7), (1, 0, 9), (1, 1, 10)]
    logits = output.logits
    terms = [np.log(np.exp(logits[b, t]).sum()) - logits[b, t, label] for b, t, label in rows]
    np.testing.assert_allclose(output.loss, np.mean(terms), rtol=1e-12)
    scaled = model(IDS, labels=labels, num_items_in_batch=10).loss
    np.testing.assert_allclose(scaled, np.sum(terms) / 10, rtol=1e-12)


def test_span_losses_clamp_and_ignore_what_is_outside() -> None:
    model = MODELS["question"]
    output = model(IDS)
    logits = output.start_logits[:1], output.end_logits[1:]
    losses = [np.log(np.exp(logits[0]).sum()) - logits[0][0, 0], np.log(np.exp(logits[1]).sum()) - logits[1][0, 2]]
    loss = model(IDS, start_positions=[-5, 3], end_positions=[99, 2]).loss  # -5 is 0, 3 and 99 are outside
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-12)
    assert model(IDS, start_positions=[[-5], [3]], end_positions=[[99], [2]]).loss == loss
    assert model(IDS, start_positions=[0, 1]).loss is None


def test_all_labels_ignored_is_nan_and_a_warning() -> None:
    with pytest.warns(InputWarning, match="all labels are -100"):
        assert np.isnan(MODELS["masked"](IDS, labels=np.full((2, 3), -100)).loss)
    with pytest.warns(InputWarning, match="all start_positions are 3"):
        assert np.isnan(MODELS["question"](IDS, start_positions=[3, 3], end_positions=[0, 0]).loss)


def test_padding_without_a_mask_is_a_warning() -> None:
    padded = np.array([[5, 6, 1]])
    with pytest.warns(InputWarning, match=r"input_ids holds padding \(id 1\)") as caught:
        MODELS["encoder"](padded)
    assert caught[0].filename == __file__
    MODELS["encoder"](padded, attention_mask=[[1, 1, 0]])


def test_a_causal_model_that_is_no_decoder_is_a_warning() -> None:
    with pytest.warns(InputWarning, match="is no decoder"):
        random_model("ForCausalLM", tiny_config())(IDS)


@pytest.mark.parametrize("name", MODELS)
def test_an_empty_batch_is_an_empty_result(name: str) -> None:
    model = MODELS[name]
    shape = (0, 2, 3) if name == "choice" else (0, 3)
    result = main_result(model(np.zeros(shape, int), np.zeros(shape, int)))
    full = main_result(model(np.full((1, *shape[1:]), 5)))
    assert result.shape == (0, *full.shape[1:])
    if name != "choice":
        assert main_result(model(inputs_embeds=np.zeros((0, 3, 12)))).shape == result.shape


def test_the_longest_input_that_fits() -> None:
    for ids in (np.full((1, 14), 5), np.array([[1] * 10 + [5] * 14])):
        MODELS["encoder"](ids, attention_mask=np.ones_like(ids))
    MODELS["relative"](np.full((1, 16), 5))
    with pytest.raises(InputError, match="pad_token_id of the configuration is None"):
        random_model("Model", tiny_config(pad_token_id=None))(IDS)
    assert random_model("Model", tiny_config(pad_token_id=None))(IDS, position_ids=[0, 1, 2]).last_hidden_state.any()


def test_parameters_that_do_not_fit_are_all_listed() -> None:
    cls = class_of("Model")
    good = random_model("Model", tiny_config()).params
    bad = dict(good)
    del bad["LayerNorm.bias"], bad["encoder.layer.1.output.dense.bias"]
    bad["extra.weight"] = np.zeros(3)
    bad["LayerNorm.weight"] = np.zeros(5)
    bad["pooler.dense.bias"] = np.full(12, "x")
    with pytest.raises(nl.NpprelnormError) as caught:
        cls.from_params(tiny_config(), bad)
    message = str(caught.value)
    for part in (
        "missing: LayerNorm.bias", "missing: encoder.layer.1.output.dense.bias", "unexpected: extra.weight",
        "LayerNorm.weight has shape (5,), expected (12,)", "pooler.dense.bias has dtype <U1",
    ):  # fmt: skip
        assert part in message
    assert "\n" not in message


def test_given_parameters_of_the_right_type_are_not_copied() -> None:
    params = random_model("Model", tiny_config()).params
    model = class_of("Model").from_params(tiny_config(), params, dtype="float64")
    assert all(model.params[name] is params[name] for name in params)
    assert random_ids(tiny_config(), (2, 3), 0).shape == (2, 3)
