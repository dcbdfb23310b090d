"""Encoder-decoder pairs: against the numbers of transformers, against finite differences, and what they refuse."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from golden_files import assert_close
from gradcheck import assert_slope, norm, random_direction
from pairs import GoldenPair, batch, golden_pairs, pair_config, random_pair
from strategies import tiny_config

import npprelnorm as nl
from npprelnorm.errors import CheckpointMismatchError, ConfigError, InputError

GOLDEN = [pytest.param(pair, id=str(pair)) for pair in golden_pairs()]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
@pytest.mark.parametrize("golden", GOLDEN)
def test_forward_as_transformers(golden: GoldenPair, dtype: str, tolerance: float) -> None:
    output = golden.model(dtype)(**golden.inputs)
    for name, theirs in golden.results.items():
        assert output[name].dtype == dtype
        assert_close(output[name], theirs, tolerance, name)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("golden", GOLDEN)
def test_gradients_as_transformers(golden: GoldenPair, recompute: bool) -> None:
    model = golden.model()
    output, grads = model.loss_and_grads(**golden.inputs, recompute=recompute)
    assert list(grads) == list(model.params)
    assert grads.keys() == golden.gradients.keys()
    assert_close(output.loss, golden.results["loss"], 1e-12, "loss")
    assert "past_key_values" not in output
    for name, theirs in golden.gradients.items():
        # a key's bias shifts all scores of a query alike, so that its true gradient is 0
        by = golden.gradients[name.replace("key.bias", "query.bias")]
        assert np.linalg.norm(grads[name] - theirs) <= 1e-10 * np.linalg.norm(by), name


def test_the_golden_pairs_cover_the_options() -> None:
    configs = [golden.model().config for golden in golden_pairs()]
    assert {config.has_projection for config in configs} == {False, True}
    assert {config.decoder.tie_word_embeddings for config in configs} == {False, True}
    assert {config.decoder_start_token_id == config.pad_token_id for config in configs} == {False, True}


@pytest.mark.parametrize("width", [12, 8])
@pytest.mark.parametrize("field", ["loss", "logits", "encoder_last_hidden_state"])
def test_gradients_are_the_slope(width: int, field: str) -> None:
    model = random_pair(1, encoder={"hidden_size": width, "num_attention_heads": 2})
    rng = np.random.default_rng(5)
    inputs = batch(model)
    encoder_vectors = rng.standard_normal((2, 5, width))
    decoder_vectors = rng.standard_normal((2, 4, 12))
    values = dict(model.params) | {"inputs_embeds": encoder_vectors, "decoder_inputs_embeds": decoder_vectors}
    rest = {"attention_mask": inputs["attention_mask"], "labels": inputs["labels"]}
    cotangent = rng.standard_normal(np.shape(model(**rest, **vectors(values))[field]))

    def scalar(at: dict[str, np.ndarray]) -> float:
        params = {name: at[name] for name in model.params}
        moved = nl.EncoderDecoderModel.from_params(model.config, params, dtype="float64")
        return float((moved(**rest, **vectors(at))[field] * cotangent).sum())

    _, grads = model.vjp(
        {field: cotangent}, **rest, **vectors(values), input_grads=["inputs_embeds", "decoder_inputs_embeds"]
    )
    assert_slope(scalar, values, grads, random_direction(values, rng))


def vectors(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values[name] for name in ("inputs_embeds", "decoder_inputs_embeds")}


def test_cotangents_add_up() -> None:
    model = random_pair(2)
    inputs = batch(model)
    rng = np.random.default_rng(0)
    output = model(**inputs)
    parts = {n: rng.standard_normal(np.shape(output[n])) for n in ("loss", "logits", "encoder_last_hidden_state")}
    together = model.vjp(lambda out: {name: parts[name] for name in parts}, **inputs)[1]
    single = [model.vjp({name: part}, **inputs)[1] for name, part in parts.items()]
    for name, value in together.items():
        np.testing.assert_allclose(value, sum(one[name] for one in single), rtol=1e-9, atol=1e-9 * norm(together))


def test_what_is_frozen_has_no_gradient_and_changes_no_other() -> None:
    model = random_pair(3, encoder={"hidden_size": 8, "num_attention_heads": 2})
    inputs = batch(model)
    _, every = model.loss_and_grads(**inputs)
    for frozen in (["encoder.*"], ["decoder.*"], ["enc_to_dec_proj.*", "encoder.embeddings.*"]):
        _, grads = model.loss_and_grads(**inputs, frozen=frozen)
        prefixes = tuple(pattern.rstrip("*") for pattern in frozen)
        assert grads.keys() == {name for name in every if not name.startswith(prefixes)}
        for name, value in grads.items():
            np.testing.assert_array_equal(value, every[name])
    with pytest.raises(InputError, match="matches no parameter"):
        model.loss_and_grads(**inputs, frozen=["enocder.*"])


def test_dropout_repeats_with_its_generator() -> None:
    model = random_pair(4)
    inputs = batch(model)
    (first, grads), (again, same) = (model.loss_and_grads(**inputs, rng=3) for _ in range(2))
    assert first.loss == again.loss != model.loss_and_grads(**inputs, rng=4)[0].loss
    for name, value in grads.items():
        np.testing.assert_array_equal(value, same[name])


def test_learning_by_gradients_lowers_the_loss() -> None:
    model = nl.EncoderDecoderModel(pair_config(), rng=0)
    inputs = batch(model)
    before = model(**inputs).loss
    for _ in range(60):
        _, grads = model.loss_and_grads(**inputs)
        for name, gradient in grads.items():
            model.params[name] -= np.float32(0.3) * gradient
    assert model(**inputs).loss < 0.3 * before
    assert {value.dtype for value in model.params.values()} == {np.dtype(np.float32)}


def test_labels_become_the_decoders_input() -> None:
    model = random_pair(5, pad_token_id=1, decoder_start_token_id=6)
    inputs = batch(model)
    labels = np.array([[3, -100, 4, 5], [7, 8, -100, -100]])
    ids = np.array([[6, 3, 1, 4], [6, 7, 8, 1]])
    np.testing.assert_array_equal(model.shift_right(labels), ids)
    by_labels = model(**inputs | {"labels": labels})
    by_ids = model(
        inputs["input_ids"], inputs["attention_mask"], decoder_input_ids=ids, decoder_attention_mask=ids != 1
    )
    np.testing.assert_array_equal(by_labels.logits, by_ids.logits)
    assert "loss" not in by_ids
    for dtype in (np.uint8, np.int16):
        np.testing.assert_array_equal(
            model(**inputs | {"labels": np.abs(labels).astype(dtype) % 9}).logits.shape, (2, 4, 23)
        )


def test_the_parts_are_the_pair() -> None:
    model = random_pair(6, pooler=True, encoder={"hidden_size": 8, "num_attention_heads": 2})
    inputs = batch(model)
    states = model.encoder(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    projected = states @ model.params["enc_to_dec_proj.weight"].T + model.params["enc_to_dec_proj.bias"]
    ids = model.shift_right(inputs["labels"])
    decoded = model.decoder(
        ids, ids != 1, encoder_hidden_states=projected, encoder_attention_mask=inputs["attention_mask"]
    )
    np.testing.assert_array_equal(model(**inputs).logits, decoded.logits)
    assert "pooler.dense.weight" in model.encoder.params
    model.encoder.params["LayerNorm.bias"][...] += 1.0  # the same arrays
    assert (model(**inputs).logits != decoded.logits).any()
    assert model.num_parameters() == sum(value.size for value in model.params.values())
    assert repr(model).startswith(f"EncoderDecoderModel({model.num_parameters():,} parameters, float64, encoder=")


def test_padding_of_the_encoder_changes_nothing() -> None:
    model = random_pair(7)
    inputs = batch(model)
    alone = {name: value[1:] for name, value in inputs.items()}
    alone |= {name: alone[name][:, :3] for name in ("input_ids", "attention_mask")}
    np.testing.assert_allclose(model(**inputs).logits[1:], model(**alone).logits, rtol=1e-12, atol=1e-12)


def test_encoder_outputs_are_not_computed_again() -> None:
    model = random_pair(8)
    inputs = batch(model)
    whole = model(**inputs, output_hidden_states=True)
    encoded = model.encoder(inputs["input_ids"], inputs["attention_mask"], output_hidden_states=True)
    rest = {"attention_mask": inputs["attention_mask"], "labels": inputs["labels"]}
    for given in (encoded, encoded.last_hidden_state, (encoded.last_hidden_state,), encoded.to_tuple()):
        np.testing.assert_array_equal(model(encoder_outputs=given, **rest).logits, whole.logits)
    np.testing.assert_array_equal(
        model(encoder_outputs=encoded, **rest).encoder_hidden_states[0], whole.encoder_hidden_states[0]
    )
    with pytest.raises(InputError, match=r"encoder_outputs has shape \(2, 5\); expected \(any, any, 12\)"):
        model(encoder_outputs=encoded.last_hidden_state[..., 0], **rest)
    with pytest.raises(InputError, match="gradients do not go through encoder_outputs"):
        model.loss_and_grads(encoder_outputs=encoded, **rest)


def test_the_cache_changes_nothing() -> None:
    model = random_pair(9)
    inputs = batch(model)
    ids = np.abs(inputs.pop("labels")) % 20 + 2
    whole = model(**inputs, decoder_input_ids=ids)
    first = model(**inputs, decoder_input_ids=ids[:, :2])
    rest = model(**inputs, decoder_input_ids=ids[:, 2:], past_key_values=first.past_key_values)
    np.testing.assert_allclose(
        np.concatenate([first.logits, rest.logits], axis=1), whole.logits, rtol=1e-11, atol=1e-12
    )
    assert "past_key_values" not in model(**inputs, decoder_input_ids=ids, use_cache=False)


def test_arguments_reach_their_part() -> None:
    model = random_pair(10)
    inputs = batch(model)
    plain = model(**inputs).logits
    for name, shape in (("token_type_ids", (2, 5)), ("decoder_token_type_ids", (2, 4))):
        assert (model(**inputs, **{name: np.ones(shape, int)}).logits != plain).any()
    out = model(**inputs, output_attentions=True, output_hidden_states=True)
    assert [len(out[name]) for name in ("encoder_attentions", "decoder_attentions", "cross_attentions")] == [2, 2, 2]
    assert out.cross_attentions[0].shape == (2, 3, 4, 5)
    assert isinstance(model(**inputs, return_dict=False), tuple)
    model.config.extra["return_dict"] = False
    assert isinstance(model(**inputs), tuple)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "the decoder has nothing to read; give labels, or decoder_input_ids"),
        ({"labels": [[3, 99]] * 2}, "labels holds 99 at [0, 1]; allowed: 0 to 22"),
        ({"labels": [3, 4]}, "labels has shape (2,); expected (batch, tokens)"),
        ({"input_ids": None}, "exactly one of input_ids or inputs_embeds; neither is given"),
        ({"attention_mask": [[1, 1]]}, "attention_mask"),
        ({"labels": [[3, 4]]}, "encoder_hidden_states has shape (2, 5, 12); expected (1, any, 12)"),
    ],
)
def test_unusable_inputs(change: dict[str, Any], message: str) -> None:
    model = random_pair(11)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        model(**batch(model) | change)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_said() -> None:
    model = random_pair(12)
    inputs = batch(model)
    with pytest.raises(InputError, match="there is no loss without labels"):
        model.loss_and_grads(**inputs | {"labels": None})
    with pytest.raises(
        InputError, match="input_grads holds 'head_mask'; allowed: inputs_embeds, decoder_inputs_embeds"
    ):
        model.loss_and_grads(**inputs, input_grads=["head_mask"])
    with pytest.raises(InputError, match="cotangents holds 'past_key_values'; allowed for this output: loss, logits"):
        model.vjp({"past_key_values": 1.0}, **inputs)
    with pytest.raises(InputError, match=r"cotangents is empty; .*: loss, logits, encoder_last_hidden_state$"):
        model.vjp({}, **inputs)
    for name in ("decoder_start_token_id", "pad_token_id"):
        other = random_pair(12, **{name: None})
        with pytest.raises(InputError, match=f"{name} of the pair's configuration is None.*model.config.{name}"):
            other(**inputs)
        setattr(other.config, name, 1)
        other(**inputs)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decoder": {"is_decoder": False, "add_cross_attention": False}}, "decoder.is_decoder is False"),
        ({"decoder": {"add_cross_attention": False}}, "decoder.add_cross_attention is False"),
        ({"encoder": {"is_decoder": True}}, "encoder.is_decoder is True; the encoder of a pair needs"),
        ({"pad_token_id": -1}, "pad_token_id is -1; allowed: an integer, 0 or more"),
        ({"decoder_start_token_id": "</s>"}, "decoder_start_token_id is '</s>'"),
        ({"extra": {"tie_encoder_decoder": True}}, "tie_encoder_decoder is True, which this package does not have"),
        ({"decoder": {"extra": {"cross_attention_hidden_size": 7}}}, "decoder.cross_attention_hidden_size is 7, but"),
        (
            {"encoder": {"hidden_size": 24}, "decoder": {"extra": {"cross_attention_hidden_size": 12}}},
            "hidden_size is 24",
        ),
    ],
)
def test_configurations_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        pair_config(**values)


def test_configurations_go_round(tmp_path: Any) -> None:
    config = pair_config(extra={"eos_token_id": 5, "task": {"a": [1]}})
    assert config.task == {"a": [1]}
    config.save_pretrained(tmp_path)
    again = nl.EncoderDecoderConfig.from_pretrained(tmp_path)
    assert again == config
    assert again.to_dict() == config.to_dict()
    assert nl.EncoderDecoderConfig.from_pretrained(tmp_path, decoder_start_token_id=7).decoder_start_token_id == 7
    with pytest.raises(AttributeError, match="no field 'hidden_size'"):
        again.hidden_size  # noqa: B018
    made = nl.EncoderDecoderConfig.from_encoder_decoder_configs(tiny_config(), tiny_config(), pad_token_id=3)
    assert (made.decoder.is_decoder, made.decoder.add_cross_attention, made.pad_token_id) == (True, True, 3)
    for values, message in (
        ({"model_type": "t5"}, "model_type is 't5'; an encoder-decoder pair has 'encoder-decoder'"),
        ({"encoder": {}}, "has no 'decoder'; it needs both"),
        ({"encoder": {"model_type": "bert"}, "decoder": {}}, "the encoder's model_type is 'bert'"),
        ({"encoder": 3, "decoder": {}}, "encoder is a int"),
        ({"encoder": {"hidden_size": 0}, "decoder": {}}, "encoder: hidden_size is 0"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            nl.EncoderDecoderConfig.from_dict(values)


def test_parameters_are_checked() -> None:
    model = random_pair(13, encoder={"hidden_size": 8, "num_attention_heads": 2})
    params = dict(model.params)
    params["enc_to_dec_proj.weight"] = params["enc_to_dec_proj.weight"].T
    params["stranger"] = params.pop("decoder.lm_head.bias")
    with pytest.raises(
        CheckpointMismatchError, match=r"missing: decoder.lm_head.bias; unexpected: stranger; enc_to_dec"
    ):
        nl.EncoderDecoderModel.from_params(model.config, params)


def test_fresh_weights() -> None:
    config = pair_config(encoder={"hidden_size": 8, "num_attention_heads": 2, "initializer_range": 0.1})
    one, two, other = (nl.EncoderDecoderModel(config, rng=seed) for seed in (0, 0, 1))
    for name, value in one.params.items():
        np.testing.assert_array_equal(value, two.params[name])
    assert (one.params["enc_to_dec_proj.weight"] != other.params["enc_to_dec_proj.weight"]).all()
    assert one.params.keys() == nl.EncoderDecoderModel.shapes(config, pooler=True).keys()
    assert not one.params["enc_to_dec_proj.bias"].any()
