"""The post-LN model types: what sets each apart from RoBERTa-PreLayerNorm, and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradcheck import CROSS, DROPOUT, HEAD_MASK, check_model, gradients_of, model_and_inputs
from strategies import CLASSES, COUSINS, HEADS, class_of, layer_norm_of, main_result, random_model, tiny_config

import npprelnorm as nl
from npprelnorm import body, heads
from npprelnorm.errors import CheckpointMismatchError, ConfigError, InputError

IDS = np.array([[5, 6, 7, 8], [9, 10, 11, 12]])
LAYER = "encoder.layer.0."


# ---- what they are made of


@pytest.mark.parametrize("model_type", COUSINS)
def test_defaults_of_the_configurations(model_type: str) -> None:
    """As transformers' classes of 4.56 and 5.2 have them; all others are those of RobertaPreLayerNormConfig."""
    kind = type(tiny_config(model_type))
    config = kind()
    assert config.to_dict()["model_type"] == kind.model_type == model_type
    expected = nl.RobertaPreLayerNormConfig().to_dict() | {"model_type": model_type}
    expected["vocab_size"] = 50265 if model_type == "roberta" else 30522
    if model_type == "bert":
        expected |= {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    assert config.to_dict() == expected
    assert kind.from_dict(config.to_dict()) == config
    assert type(kind.from_dict({})) is kind
    assert config.extra == {}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("model_type", COUSINS)
def test_names_are_those_of_post_ln(model_type: str, head: str) -> None:
    model = random_model(head, tiny_config(model_type, **CROSS))
    prefix = "" if head == "Model" else "bert." if model_type == "bert" else "roberta."
    assert model.base_prefix == prefix
    for name in ("attention.output.LayerNorm", "crossattention.output.LayerNorm", "output.LayerNorm"):
        assert f"{prefix}{LAYER}{name}.weight" in model.params
    ours = {"attention.LayerNorm", "crossattention.LayerNorm", "intermediate.LayerNorm"}
    assert not [name for name in model.params if any(f"{LAYER}{part}." in name for part in ours)]
    assert f"{prefix}LayerNorm.weight" not in model.params
    assert f"{prefix}embeddings.LayerNorm.weight" in model.params


@pytest.mark.parametrize("order", ["pre-LN", "post-LN"])
def test_a_layer_by_hand(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With attention and feed-forward replaced by 0 and by x, what is left is where the LayerNorms stand."""
    config = tiny_config("roberta" if order == "post-LN" else "roberta-prelayernorm", num_hidden_layers=1)
    model = random_model("Model", config, pooler=False)
    p = model.params
    for name in ("attention.output.dense", "output.dense"):
        for part in ("weight", "bias"):
            p[f"{LAYER}{name}.{part}"] = np.zeros_like(p[f"{LAYER}{name}.{part}"])
    output = model(IDS, output_hidden_states=True)
    first, last = output.hidden_states

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        return layer_norm_of(x, p[f"{name}.weight"], p[f"{name}.bias"], config.layer_norm_eps)

    if order == "post-LN":
        expected = norm(LAYER + "output.LayerNorm", norm(LAYER + "attention.output.LayerNorm", first))
    else:
        expected = norm("LayerNorm", first)
    np.testing.assert_allclose(output.last_hidden_state, expected, rtol=0, atol=1e-12)
    assert np.array_equal(last, output.last_hidden_state)


@pytest.mark.parametrize("model_type", COUSINS)
def test_both_conventions_of_hidden_states_are_the_same_without_a_final_norm(model_type: str) -> None:
    model = random_model("ForMaskedLM", tiny_config(model_type))
    for convention in ("v4", "v5"):
        output = model.base(IDS, output_hidden_states=True, hidden_states_convention=convention)
        assert len(output.hidden_states) == 3
        np.testing.assert_array_equal(output.hidden_states[-1], output.last_hidden_state)


# ---- positions


def test_bert_counts_positions_from_zero_and_padding_too() -> None:
    model = random_model("Model", tiny_config("bert"))
    ids = IDS.copy()
    ids[1, :2] = model.config.pad_token_id
    mask = (ids != model.config.pad_token_id).astype(int)
    given = model(ids, mask, position_ids=np.arange(4))
    np.testing.assert_array_equal(model(ids, mask).last_hidden_state, given.last_hidden_state)
    embeds = model.params["embeddings.word_embeddings.weight"][ids]
    by_vectors = model(inputs_embeds=embeds, attention_mask=mask)
    np.testing.assert_array_equal(by_vectors.last_hidden_state, given.last_hidden_state)
    none = random_model("Model", tiny_config("bert", pad_token_id=None))
    assert none(IDS).last_hidden_state.shape == (2, 4, 12)


def test_room_for_tokens() -> None:
    config = tiny_config("bert", max_position_embeddings=4)
    assert config.max_tokens == 4
    model = random_model("Model", config)
    assert model(IDS).last_hidden_state.shape == (2, 4, 12)
    with pytest.raises(InputError, match="the input has 5 non-padding tokens; this checkpoint supports 4"):
        model(np.ones((1, 5), int))
    assert tiny_config("roberta", max_position_embeddings=6).max_tokens == 4
    assert tiny_config("bert", max_position_embeddings=2, pad_token_id=3).pad_token_id == 3  # no row of the positions
    with pytest.raises(ConfigError, match="pad_token_id is 3; allowed: below max_position_embeddings"):
        tiny_config("roberta", max_position_embeddings=2, pad_token_id=3)
    with pytest.raises(ConfigError, match="pad_token_id is 23; allowed: below vocab_size"):
        tiny_config("bert", pad_token_id=23)


def test_a_bert_decoder_with_a_cache_goes_on_counting() -> None:
    model = random_model("ForCausalLM", tiny_config("bert", **CROSS))
    states = np.random.default_rng(1).standard_normal((2, 3, 12))
    whole = model(IDS, encoder_hidden_states=states)
    begun = model(IDS[:, :3], encoder_hidden_states=states, use_cache=True)
    ended = model(IDS[:, 3:], encoder_hidden_states=states, past_key_values=begun.past_key_values)
    np.testing.assert_allclose(ended.logits[:, 0], whole.logits[:, 3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("model_type", list(CLASSES))
def test_rows_of_padding_in_a_fresh_model(model_type: str) -> None:
    config = tiny_config(model_type)
    params = class_of("Model", model_type)(config, rng=3).params
    words, positions = (params[f"embeddings.{table}_embeddings.weight"] for table in ("word", "position"))
    assert not words[config.pad_token_id].any()
    assert positions[config.pad_token_id].any() == (model_type == "bert")
    assert (params["embeddings.LayerNorm.weight"] == 1).all()
    assert (params[LAYER + ("intermediate" if "pre" in model_type else "output") + ".LayerNorm.weight"] == 1).all()


# ---- heads


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("model_type", list(CLASSES))
def test_only_berts_lm_head_follows_hidden_act(
    model_type: str, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model("ForMaskedLM", tiny_config(model_type, hidden_act=activation))
    seen = []

    def watched(name: str, f: Any) -> Any:
        return lambda x: (seen.append(name), f(x))[1]

    for name, (f, f_backward) in heads.ACTIVATIONS.items():
        monkeypatch.setitem(heads.ACTIVATIONS, name, (watched(name, f), f_backward))
    model(IDS)
    assert len(seen) == 3  # two layers and the head
    assert seen[-1] == (activation if model_type == "bert" else "gelu")


def test_berts_sequence_classifier_is_one_map_of_the_pooler() -> None:
    model = random_model("ForSequenceClassification", tiny_config("bert", num_labels=5))
    assert {name for name in model.params if not name.startswith("bert.")} == {"classifier.weight", "classifier.bias"}
    p = model.params
    row = model.base(IDS).last_hidden_state[:, 0]
    pooled = np.tanh(row @ p["bert.pooler.dense.weight"].T + p["bert.pooler.dense.bias"])
    expected = pooled @ p["classifier.weight"].T + p["classifier.bias"]
    np.testing.assert_allclose(model(IDS).logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("model_type", "used"), [("roberta", 0.2), ("bert", 0.4)])
def test_dropout_of_a_multiple_choice_head(model_type: str, used: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' RoBERTa takes the body's there, its BERT the classifier's own."""
    model, inputs = model_and_inputs("ForMultipleChoice", model_type=model_type, **DROPOUT)
    drawn = []

    def watch(x: np.ndarray, p: float, rng: Any) -> Any:
        drawn.append(p)
        return x, None

    monkeypatch.setattr(heads, "dropout", watch)
    model.loss_and_grads(**inputs, rng=1)
    assert drawn == [used]


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForCausalLM"])
def test_resizing_takes_the_decoder_of_bert_along(head: str) -> None:
    for tied in (True, False):
        model = random_model(head, tiny_config("bert", tie_word_embeddings=tied, is_decoder=True))
        before = main_result(model(IDS))
        model.resize_token_embeddings(30)
        assert {name: value.shape for name, value in model.params.items()} == type(model).shapes(
            model.config, pooler=False
        )
        np.testing.assert_array_equal(main_result(model(IDS))[..., :23], before)


# ---- gradients


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("model_type", ["roberta", "bert"])  # the others differ by names alone
def test_gradients_of_every_class(model_type: str, head: str) -> None:
    model, inputs = model_and_inputs(head, model_type=model_type)
    check_model(model, inputs)


OPTIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "cross, head mask": ("ForCausalLM", CROSS, HEAD_MASK),
    "untied": ("ForMaskedLM", {"tie_word_embeddings": False}, {}),
    "relative": ("Model", {"position_embedding_type": "relative_key_query"}, {}),
    "chunks, dropout": ("ForMaskedLM", {"chunk_size_feed_forward": 4} | DROPOUT, {}),
    "regression, dropout": ("ForSequenceClassification", {"problem_type": "regression", "num_labels": 1} | DROPOUT, {}),
    "token types": ("Model", {}, {"token_type_ids": np.arange(12).reshape(2, 6) % 3}),
    "padding on the left": ("ForTokenClassification", {}, {"padding": "left"}),
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("model_type", ["roberta", "bert"])
def test_gradients_with_every_option(model_type: str, name: str) -> None:
    head, config, given = OPTIONS[name]
    model, inputs = model_and_inputs(head, given=given, model_type=model_type, **config)
    check_model(model, inputs, rng=5 if "dropout" in name else None)


def test_the_padding_row_of_positions_is_trained_in_bert_alone() -> None:
    for model_type in ("roberta", "bert"):
        model, inputs = model_and_inputs("ForMaskedLM", model_type=model_type, tie_word_embeddings=False)
        pad = model.config.pad_token_id
        assert (inputs["input_ids"] == pad).any()
        grads = gradients_of(model, inputs)
        prefix = model.base_prefix + "embeddings."
        assert not grads[prefix + "word_embeddings.weight"][pad].any()
        assert grads[prefix + "position_embeddings.weight"][pad].any() == (model_type == "bert")


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("frozen", "reached"), [
    (["roberta.*"], 0),
    (["roberta.embeddings.*", "roberta.encoder.layer.[01].*"], 1),
    (["roberta.embeddings.*"], 3),
    ([], 3),
])  # fmt: skip
def test_what_is_frozen_is_not_computed(
    frozen: list[str], reached: int, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = model_and_inputs(
        "ForTokenClassification", model_type="roberta", num_hidden_layers=3, **DROPOUT
    )  # fmt: skip
    whole = gradients_of(model, inputs, rng=1)
    calls = []
    run = body.layer_backward
    monkeypatch.setattr(body, "layer_backward", lambda *arguments: (calls.append(1), run(*arguments))[1])
    ours = gradients_of(model, inputs, rng=1, frozen=frozen, recompute=recompute)
    assert len(calls) == reached
    assert 0 < len(ours) <= len(whole)
    for name, value in ours.items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)


# ---- the wrong configuration


@pytest.mark.parametrize("model_type", list(CLASSES))
def test_a_class_takes_the_configurations_of_its_own_type_alone(model_type: str) -> None:
    for other in CLASSES:
        for head in HEADS:
            config, cls = tiny_config(other), class_of(head, model_type)
            if other == model_type:
                assert type(cls(config).config) is type(config)
                continue
            match = f"{cls.__name__} needs a {CLASSES[model_type]}Config, not a {CLASSES[other]}Config"
            with pytest.raises(ConfigError, match=match):
                cls(config)
            with pytest.raises(ConfigError, match=match):
                cls.from_params(config, {})


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("model_type", list(CLASSES))
def test_auto_classes_take_a_configuration_of_any_type(model_type: str, head: str) -> None:
    auto = getattr(nl, "AutoModel" if head == "Model" else f"AutoModel{head}")
    model = auto.from_config(tiny_config(model_type), rng=2, dtype="float64")
    assert type(model) is class_of(head, model_type)
    assert model.dtype == np.float64


def test_auto_classes_refuse_what_is_no_configuration() -> None:
    with pytest.raises(ConfigError, match="config is a dict; give one of this package's configurations"):
        nl.AutoModel.from_config({"model_type": "bert"})


def test_parameters_of_the_other_order_do_not_fit() -> None:
    model = random_model("Model", tiny_config())
    with pytest.raises(CheckpointMismatchError, match=r"missing: .*attention.output.LayerNorm.*unexpected: "):
        nl.RobertaModel.from_params(tiny_config("roberta"), model.params)
