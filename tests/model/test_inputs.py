"""Every wrong input is an InputError of one line that names the argument, what it holds and what is expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models_for_inputs import IDS, MODELS
from strategies import random_model, tiny_config

import npprelnorm as nl
from npprelnorm.cache import LayerKeyValues
from npprelnorm.errors import ConfigError, InputError

CACHE = MODELS["decoder"](IDS).past_key_values

K = CACHE[0].key

CROSS_CACHE = MODELS["cross"](IDS, encoder_hidden_states=np.ones((2, 4, 12))).past_key_values

LONG = np.full((1, 15), 5)


class Case:
    """A wrong call, and what its message must say."""

    def __init__(self, model: str, *parts: str, **arguments: Any) -> None:
        self.model, self.parts, self.arguments = model, parts, arguments


def with_ids(model: str, *parts: str, **arguments: Any) -> Case:
    return Case(model, *parts, input_ids=IDS, **arguments)


CASES = {
    # ids and embeddings
    "nothing": Case("encoder", "exactly one of input_ids or inputs_embeds", "neither"),
    "both": with_ids("encoder", "exactly one of input_ids or", "both", inputs_embeds=np.zeros((2, 3, 12))),
    "id too large": Case("encoder", "holds 23 at [1, 0]", "0 to 22", "vocab_size is 23", input_ids=[[5], [23]]),
    "id negative": Case("encoder", "input_ids holds -1 at [0, 1]", "0 to 22", input_ids=[[5, -1]]),
    "id of 64 bits": Case("encoder", "holds 18446744073709551615", input_ids=np.array([[2**64 - 1]], np.uint64)),
    "id too large for any": Case("encoder", "input_ids is not an array of numbers", input_ids=[[2**70]]),
    "one sequence": Case("encoder", "input_ids has shape (3,)", "(batch, tokens)", "wrap", input_ids=[5, 6, 7]),
    "ids of rank 3": Case("encoder", "input_ids has shape (1, 1, 2)", "(batch, tokens)", input_ids=[[[5, 6]]]),
    "one id": Case("encoder", "input_ids has shape ()", input_ids=5),
    "float ids": Case("encoder", "input_ids must be integers", "float64", ".astype(int)", input_ids=[[5.0, 6.0]]),
    "bool ids": Case("encoder", "input_ids must be integers", "bool", input_ids=[[True, False]]),
    "complex ids": Case("encoder", "input_ids must be integers", input_ids=[[5 + 0j]]),
    "text": Case("encoder", "input_ids must be integers", input_ids="a text"),
    "list of texts": Case("encoder", "input_ids must be integers", input_ids=[["a", "b"]]),
    "ragged ids": Case("encoder", "input_ids has rows of different lengths", "pad", input_ids=[[5, 6], [7]]),
    "object ids": Case("encoder", "input_ids is not an array of numbers", input_ids=np.array([[5, None]])),
    "a set": Case("encoder", "input_ids is not an array of numbers", input_ids={5, 6}),
    "no ids": Case("encoder", "input_ids has shape (0,)", input_ids=[]),
    "no tokens": Case("encoder", "(1, 0)", "no tokens; give at least one", input_ids=[[]]),
    "embeds of rank 2": Case("encoder", "inputs_embeds has shape (3, 12)", "12)", inputs_embeds=np.zeros((3, 12))),
    "embeds of another width": Case("encoder", "has shape (1, 3, 11)", inputs_embeds=np.zeros((1, 3, 11))),
    "embeds of text": Case("encoder", "inputs_embeds has dtype <U1; give floats", inputs_embeds=[[["a"] * 12]]),
    "embeds of bool": Case("encoder", "inputs_embeds has dtype bool", inputs_embeds=np.ones((1, 1, 12), bool)),
    "ragged embeds": Case("encoder", "inputs_embeds has rows of different", inputs_embeds=[[[0.0] * 12], [[0.0] * 11]]),
    "embeds without tokens": Case("encoder", "(2, 0, 12)", "no tokens", inputs_embeds=np.zeros((2, 0, 12))),
    # too long: 16 positions, padding id 1, so 14 tokens
    "too long": Case("encoder", "row 0 of the input has 15 non-padding", "supports 14", "shorten", input_ids=LONG),
    "one row too long": Case(
        "encoder", "row 1 of the input has 15", "supports 14",
        input_ids=np.vstack([[1] * 5 + [5] * 10, LONG[0]]), attention_mask=np.ones((2, 15)),
    ),
    "embeds too long": Case("encoder", "15 non-padding tokens", "supports 14", inputs_embeds=np.zeros((1, 15, 12))),
    "too long with cache": Case(
        "decoder", "15 non-padding tokens (3 of them in the cache)", "supports 14",
        input_ids=np.full((2, 12), 5), past_key_values=CACHE,
    ),
    "too long, relative": Case("relative", "17 non-padding tokens", "supports 16", input_ids=np.full((1, 17), 5)),
    # masks
    "mask too short": with_ids("encoder", "attention_mask has shape (2, 2)", "(2, 3)", attention_mask=[[1, 1], [1, 1]]),
    "mask of another batch": with_ids("encoder", "mask has shape (1, 3)", "(2, 3)", attention_mask=[[1, 1, 1]]),
    "mask of rank 1": with_ids("encoder", "attention_mask has shape (3,)", attention_mask=[1, 1, 1]),
    "mask of rank 0": with_ids("encoder", "attention_mask has shape ()", attention_mask=1),
    "mask of rank 5": with_ids("encoder", "has shape (1, 1, 1, 1, 3)", attention_mask=np.ones((1, 1, 1, 1, 3))),
    "3-D mask of another size": with_ids("encoder", "(2, 3, 2)", "(2, 3, 3)", attention_mask=np.ones((2, 3, 2))),
    "4-D mask of another size": with_ids("encoder", "(2, 1, 3, 2)", attention_mask=np.ones((2, 1, 3, 2), bool)),
    "mask of other heads": with_ids("encoder", "(2, 2, 3, 3)", attention_mask=np.ones((2, 2, 3, 3), bool)),
    "fractional mask": with_ids("encoder", "attention_mask holds 0.5", "0", "1", attention_mask=np.full((2, 3), 0.5)),
    "fractional 3-D mask": with_ids("encoder", "attention_mask holds 0.25", attention_mask=np.full((2, 3, 3), 0.25)),
    "mask of twos": with_ids("encoder", "attention_mask holds 2", attention_mask=np.full((2, 3), 2)),
    "mask of NaN": with_ids("encoder", "attention_mask holds nan", attention_mask=np.full((2, 3), np.nan)),
    "4-D mask of NaN": with_ids("encoder", "NaN or +inf", attention_mask=np.full((1, 1, 1, 3), np.nan)),
    "4-D mask of inf": with_ids("encoder", "NaN or +inf", attention_mask=np.full((1, 1, 1, 3), np.inf)),
    "4-D mask of integers": with_ids("encoder", "dtype int64", "booleans", attention_mask=np.ones((1, 1, 1, 3), int)),
    "mask of text": with_ids("encoder", "attention_mask has dtype <U1", attention_mask=[["a"] * 3] * 2),
    "ragged mask": with_ids("encoder", "attention_mask has rows of different", attention_mask=[[1, 1, 1], [1]]),
    "mask without the cache": with_ids(
        "decoder", "attention_mask has shape (2, 3)", "6 keys (3 of them in the cache)", "(2, 6)",
        attention_mask=np.ones((2, 3)), past_key_values=CACHE,
    ),
    # positions, token types, heads
    "token type": with_ids("encoder", "token_type_ids holds 3", "type_vocab_size is 3", token_type_ids=[[0, 1, 3]] * 2),
    "token type negative": with_ids("encoder", "token_type_ids holds -1", token_type_ids=[[0, 1, -1]] * 2),
    "token type shape": with_ids("encoder", "token_type_ids has shape (2, 2)", "(2, 3)", token_type_ids=[[0, 0]] * 2),
    "float token type": with_ids("encoder", "token_type_ids must be integers", token_type_ids=[[0.0] * 3] * 2),
    "position": with_ids("encoder", "position_ids holds 16", "max_position_embeddings is 16", position_ids=[0, 1, 16]),
    "position negative": with_ids("encoder", "position_ids holds -2", position_ids=[0, 1, -2]),
    "position shape": with_ids("encoder", "position_ids has shape (3, 3)", position_ids=np.zeros((3, 3), int)),
    "float positions": with_ids("encoder", "position_ids must be integers", position_ids=[0.0, 1.0, 2.0]),
    "head mask shape": with_ids("encoder", "head_mask has shape (2,)", "(3,) or (2, 3)", head_mask=[1, 1]),
    "head mask of text": with_ids("encoder", "head_mask has shape ()", head_mask="all"),
    "ragged head mask": with_ids("encoder", "head_mask has rows of different", head_mask=[[1, 1, 1], [1]]),
    "convention": with_ids("encoder", "hidden_states_convention is 'v6'", "'v5', 'v4'", hidden_states_convention="v6"),
    # caches
    "cache for an encoder": with_ids("encoder", "past_key_values", "is no decoder", past_key_values=CACHE),
    "cache of no layers": with_ids("decoder", "past_key_values has 0 layers, this model has 2", past_key_values=[]),
    "cache of fewer layers": with_ids("decoder", "past_key_values has 1 layers", past_key_values=[CACHE[0]]),
    "cache of another batch": with_ids(
        "decoder", "the keys of layer 0", "(1, 3, 3, 4)", "(2, 3, 3, 4)",
        past_key_values=[LayerKeyValues(K[:1], K[:1])] * 2,
    ),
    "cache of other heads": with_ids("decoder", "the keys of layer 0", past_key_values=[(K[:, :2], K[:, :2])] * 2),
    "cache of another width": with_ids("decoder", "the values of layer 0", past_key_values=[(K, K[..., :2])] * 2),
    "cache of two lengths": with_ids(
        "decoder", "the keys of layer 1", past_key_values=[(K, K), (K[:, :, :2], K[:, :, :2])]
    ),
    "cache of another rank": with_ids("decoder", "layer 0", "shape (3, 4)", past_key_values=[(K[0, 0], K[0, 0])] * 2),
    "cache without values": with_ids("decoder", "layer 0 of past_key_values lacks", past_key_values=[(K, None)] * 2),
    "cache of triples": with_ids("cross", "lacks its keys or its values", past_key_values=[(K, K, K)] * 2),
    "cache of text": with_ids("decoder", "past_key_values is a str", past_key_values="ab"),
    "cache of texts": with_ids("decoder", "layer 0 of past_key_values holds a str", past_key_values=[("ab", "cd")] * 2),
    "ragged cache": with_ids("decoder", "holds a list that is no array", past_key_values=[([[1], [2, 3]], K)] * 2),
    "cache of a number": with_ids("decoder", "past_key_values is a int", past_key_values=5),
    "cache with an encoder's keys": with_ids("decoder", "no cross-attention", past_key_values=CROSS_CACHE),
    "cross keys of another rank": with_ids("cross", "the keys of layer 0", past_key_values=[(K, K, K[0], K[0])] * 2),
    "cross keys of one layer": with_ids("cross", "layers 0 and 1", past_key_values=[(K, K, K, K), (K, K)]),
    "cross keys of the other layer": with_ids("cross", "layers 0 and 1", past_key_values=[(K, K), (K, K, K, K)]),
    # encoders
    "states without cross-attention": with_ids(
        "decoder", "`encoder_hidden_states`", "`config.add_cross_attention=True`",
        encoder_hidden_states=np.ones((2, 4, 12)),
    ),
    "states of another batch": with_ids("cross", "(1, 4, 12)", "(2, any", encoder_hidden_states=np.ones((1, 4, 12))),
    "states of another width": with_ids("cross", "(2, 4, 11)", "12)", encoder_hidden_states=np.ones((2, 4, 11))),
    "states without tokens": with_ids("cross", "(2, 0, 12)", "no tokens", encoder_hidden_states=np.ones((2, 0, 12))),
    "encoder mask alone": with_ids("cross", "both or neither", encoder_attention_mask=np.ones((2, 4))),
    "encoder mask of another size": with_ids(
        "cross", "encoder_attention_mask has shape (2, 3)", "4 keys", "(2, 4)",
        encoder_hidden_states=np.ones((2, 4, 12)), encoder_attention_mask=np.ones((2, 3)),
    ),
    "fractional encoder mask": with_ids(
        "cross", "encoder_attention_mask holds 0.5",
        encoder_hidden_states=np.ones((2, 4, 12)), encoder_attention_mask=np.full((2, 4), 0.5),
    ),
    # labels
    "label too large": with_ids("masked", "labels holds 23 at [0, 0]", "0 to 22", labels=np.full((2, 3), 23)),
    "label negative": with_ids("masked", "labels holds -1", labels=np.full((2, 3), -1)),
    "labels of another shape": with_ids("masked", "labels has shape (2, 2)", "(2, 3)", labels=np.zeros((2, 2), int)),
    "float labels": with_ids("masked", "labels must be integers", "float64", labels=np.zeros((2, 3))),
    "ragged labels": with_ids("masked", "labels has rows of different", labels=[[1, 2, 3], [1]]),
    "text labels": with_ids("masked", "labels must be integers", labels=[["a"] * 3] * 2),
    "causal labels of another shape": with_ids("decoder", "labels has shape (2, 2)", labels=np.zeros((2, 2), int)),
    "causal labels of rank 1": with_ids("decoder", "labels has shape (3,)", labels=np.zeros(3, int)),
    "causal labels for fewer logits": with_ids("decoder", "labels has shape (2, 3)", labels=IDS, logits_to_keep=2),
    "causal float labels": with_ids("decoder", "labels must be integers", labels=IDS.astype(float)),
    "shifted labels too large": with_ids("decoder", "labels holds 23", labels=IDS, shift_labels=np.full((2, 3), 23)),
    "items of zero": with_ids("decoder", "num_items_in_batch is 0", "above 0", labels=IDS, num_items_in_batch=0),
    "items of text": with_ids("decoder", "num_items_in_batch is 'x'", labels=IDS, num_items_in_batch="x"),
    "items of NaN": with_ids("decoder", "num_items_in_batch is nan", labels=IDS, num_items_in_batch=float("nan")),
    "keep negative": with_ids("decoder", "logits_to_keep is -1", "allowed", logits_to_keep=-1),
    "keep outside": with_ids("decoder", "logits_to_keep holds 3", "-3 to 2", logits_to_keep=[0, 3]),
    "keep of rank 2": with_ids("decoder", "logits_to_keep has shape (2, 3)", logits_to_keep=IDS),
    "keep of floats": with_ids("decoder", "logits_to_keep has shape (1,) and dtype float64", logits_to_keep=[1.0]),
    "keep of bool": with_ids("decoder", "logits_to_keep has shape () and dtype bool", logits_to_keep=True),
    "class too large": with_ids("sequence", "labels holds 3", "0 to 2", labels=[0, 3]),
    "classes of another batch": with_ids("sequence", "labels has shape (3,)", "(2,)", labels=[0, 1, 2]),
    "multi-label shape": with_ids("multi", "labels has shape (2, 2)", "(2, 3)", labels=np.zeros((2, 2))),
    "multi-label text": with_ids("multi", "labels has dtype <U1", labels=[["a"] * 3] * 2),
    "regression shape": with_ids("regression", "labels has shape (3,)", "(2, 1)", labels=[0.1, 0.2, 0.3]),
    "token label": with_ids("token", "labels holds 3", "0 to 2", labels=np.full((2, 3), 3)),
    "token labels of another shape": with_ids("token", "labels has shape (2,)", labels=[0, 1]),
    "choice ids of rank 2": with_ids("choice", "input_ids has shape (2, 3)", "(batch, choices, tokens"),
    "no choices": Case("choice", "input_ids has shape (2, 0, 3)", input_ids=np.zeros((2, 0, 3), int)),
    "choices without tokens": Case("choice", "no tokens", input_ids=np.zeros((2, 4, 0), int)),
    "choices that disagree": Case(
        "choice", "attention_mask has shape (2, 3, 3)",
        input_ids=np.full((2, 4, 3), 5), attention_mask=np.ones((2, 3, 3)),
    ),
    "ragged choices": Case("choice", "input_ids has rows of different", input_ids=[[[5, 6], [7]]]),
    "choice too large": Case("choice", "labels holds 4", "0 to 3", input_ids=np.full((2, 4, 3), 5), labels=[0, 4]),
    "span of floats": with_ids(
        "question", "start_positions must be integers", start_positions=[0.0, 1.0], end_positions=[0, 1]
    ),
    "span of text": with_ids(
        "question", "end_positions must be integers", start_positions=[0, 1], end_positions=["a", "b"]
    ),
    "span of bool": with_ids("question", "must be integers", start_positions=[True, False], end_positions=[0, 1]),
    "spans of another batch": with_ids(
        "question", "start_positions has shape (3,)", "(2,)", start_positions=[0, 1, 2], end_positions=[0, 1]
    ),
    "spans of rank 3": with_ids(
        "question", "start_positions has shape (2, 1, 1)", start_positions=[[[0]], [[1]]], end_positions=[0, 1]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_wrong_input_is_one_clear_line(name: str) -> None:
    case = CASES[name]
    with pytest.raises(InputError) as caught:
        MODELS[case.model](**case.arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    for part in case.parts:
        assert part in message, message
    assert isinstance(caught.value, ValueError)


def test_wrong_labels_do_not_decide_the_problem_type() -> None:
    model = random_model("ForSequenceClassification", tiny_config(num_labels=3))
    for labels in (np.zeros((2, 2)), [0, 7]):
        with pytest.raises(InputError, match="labels"):
            model(IDS, labels=labels)
        assert model.config.problem_type is None
    model(IDS, labels=[0, 2])
    assert model.config.problem_type == "single_label_classification"


@pytest.mark.parametrize(
    ("labels", "classes", "told"),
    [
        ([0, 2], 3, "single_label_classification"),
        (np.array([0, 2], np.int32), 3, "single_label_classification"),
        (np.array([[0, 1, 1]] * 2, np.int8), 3, "multi_label_classification"),
        (np.ones((2, 3)), 3, "multi_label_classification"),
        ([0.5, 1.5], 1, "regression"),
        ([[0], [1]], 1, "regression"),
    ],
)
def test_the_problem_type_is_told_from_the_labels_and_kept(labels: Any, classes: int, told: str) -> None:
    config = tiny_config(num_labels=classes)
    model = random_model("ForSequenceClassification", config)
    assert np.isfinite(model(IDS, labels=labels).loss)
    assert model.config.problem_type == told
    assert config.problem_type is None


def test_question_answering_needs_two_labels() -> None:
    with pytest.raises(ConfigError, match="num_labels is 3; question answering needs 2"):
        nl.RobertaPreLayerNormForQuestionAnswering(tiny_config(num_labels=3))


def test_hidden_rows_for_the_lm_head() -> None:
    for wrong in (3.0, "abc", np.zeros(0), np.zeros((2, 11)), np.zeros((2, 12, 1))):
        with pytest.raises(InputError, match="hidden has "):
            MODELS["masked"].lm_head(wrong)
    assert MODELS["masked"].lm_head(np.zeros(12)).shape == (23,)
    assert MODELS["masked"].lm_head(np.zeros((0, 12))).shape == (0, 23)


def test_what_top_tokens_takes() -> None:
    model, hidden = MODELS["masked"], np.random.default_rng(0).standard_normal((3, 12))
    for wrong in (3.0, np.zeros(12), np.zeros((2, 11)), np.zeros((2, 1, 12))):
        with pytest.raises(InputError, match="hidden has shape"):
            model.top_tokens(wrong, 1)
    for k in (0, -1, 1.5, True, None):
        with pytest.raises(InputError, match=r"k is .*; it must be a whole number from 1"):
            model.top_tokens(hidden, k)
    for among in (np.ones(22, np.bool_), np.ones(23), [1, 2], "abc"):
        with pytest.raises(InputError, match=r"among has shape .* and dtype .*; expected booleans of shape \(23,\)"):
            model.top_tokens(hidden, 1, among)
    logits = model.lm_head(hidden)
    among = np.arange(23) % 2 == 1
    found = model.top_tokens(hidden, 99, among)
    np.testing.assert_array_equal(found.ids, 1 + 2 * np.argsort(-logits[:, 1::2], axis=1, kind="stable"))
    whole = model.top_tokens(hidden, 99).probabilities()
    np.testing.assert_allclose(whole.sum(axis=1), 1.0, rtol=1e-5)
    assert model.top_tokens(np.zeros((0, 12)), 4).ids.shape == (0, 4)


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16", "int32", "torch.float32", {"a": 1}, object()])
def test_a_compute_type_that_is_none(dtype: Any) -> None:
    with pytest.raises(InputError, match="allowed: 'float32', 'float64'") as caught:
        nl.RobertaPreLayerNormModel(tiny_config(), dtype=dtype)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32"), ">f4", "<f4"])
def test_spellings_of_float32(dtype: Any) -> None:
    model = nl.RobertaPreLayerNormModel(tiny_config(), dtype=dtype)
    assert model.dtype == np.dtype("float32")
    assert model.dtype.isnative
    assert model(IDS).last_hidden_state.dtype == np.float32
