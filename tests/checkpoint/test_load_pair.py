"""Checkpoints of encoder-decoder pairs: saved and loaded, joined from two others, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairs import batch, random_pair
from safetensors.numpy import load_file, save_file
from strategies import random_model, tiny_config

import npprelnorm as nl
from npprelnorm.errors import (
    CheckpointMismatchError,
    CheckpointNotFoundError,
    CheckpointWarning,
    ConfigError,
    InputError,
)

Pair = nl.EncoderDecoderModel


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "20KB"}])
@pytest.mark.parametrize("width", [12, 8])
def test_saved_and_loaded(tmp_path: Path, width: int, options: dict[str, Any]) -> None:
    model = random_pair(0, pooler=width == 8, encoder={"hidden_size": width, "num_attention_heads": 2})
    model.save_pretrained(tmp_path, **options)
    again = nl.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype="float64")
    assert type(again) is Pair
    assert list(again.params) == list(model.params)
    for name, value in model.params.items():
        np.testing.assert_array_equal(again.params[name], value)
    inputs = batch(model)
    np.testing.assert_array_equal(again(**inputs).logits, model(**inputs).logits)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["EncoderDecoderModel"]
    assert config["model_type"] == "encoder-decoder"
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {
        "bos_token_id": 0,
        "decoder_start_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


def test_overrides_and_float32(tmp_path: Path) -> None:
    random_pair(1).save_pretrained(tmp_path)
    again = Pair.from_pretrained(tmp_path, decoder_start_token_id=9)
    assert again.config.decoder_start_token_id == 9
    assert {value.dtype for value in again.params.values()} == {np.dtype(np.float32)}
    assert again.generate([[4, 5]], max_new_tokens=1)[0, 0] == 9


def test_an_untied_decoder_keeps_both_copies(tmp_path: Path) -> None:
    model = random_pair(2, decoder={"tie_word_embeddings": False})
    model.save_pretrained(tmp_path)
    again = Pair.from_pretrained(tmp_path, dtype="float64")
    assert not again.config.decoder.tie_word_embeddings
    np.testing.assert_array_equal(
        again.params["decoder.lm_head.decoder.weight"], model.params["decoder.lm_head.decoder.weight"]
    )


def test_two_checkpoints_are_joined(tmp_path: Path) -> None:
    masked = random_model("ForMaskedLM", tiny_config(), 3)
    masked.save_pretrained(tmp_path / "encoder")
    random_model("ForCausalLM", tiny_config(is_decoder=True, hidden_size=24), 4).save_pretrained(tmp_path / "decoder")
    with pytest.warns(CheckpointWarning, match="drawn fresh, train it before use: .*crossattention"):
        pair = Pair.from_encoder_decoder_pretrained(
            tmp_path / "encoder",
            str(tmp_path / "decoder"),
            dtype="float64",
            decoder_start_token_id=0,
            pad_token_id=1,
            decoder_hidden_dropout_prob=0.0,
        )
    assert (pair.config.decoder_start_token_id, pair.config.pad_token_id) == (0, 1)
    assert (pair.config.decoder.is_decoder, pair.config.decoder.add_cross_attention) == (True, True)
    assert (pair.config.decoder.hidden_dropout_prob, pair.config.encoder.hidden_dropout_prob) == (0.0, 0.1)
    assert pair.params["enc_to_dec_proj.weight"].shape == (24, 12)
    word = "embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(pair.params["encoder." + word], masked.params["roberta_prelayernorm." + word])
    assert np.isfinite(pair(**batch(pair)).loss)


def test_models_are_joined() -> None:
    encoder = random_model("Model", tiny_config(), 5)
    decoder = random_model("ForCausalLM", tiny_config(is_decoder=True, add_cross_attention=True), 6)
    pair = Pair.from_encoder_decoder_pretrained(encoder, decoder, dtype="float64")
    assert np.shares_memory(pair.params["encoder.LayerNorm.weight"], encoder.params["LayerNorm.weight"])
    with pytest.raises(
        InputError, match="encoder is a RobertaPreLayerNormForCausalLM; give a path, a hub id or a Roberta"
    ):
        Pair.from_encoder_decoder_pretrained(decoder, decoder)
    with pytest.raises(ConfigError, match=r"decoder.add_cross_attention is False"):
        Pair.from_encoder_decoder_pretrained(encoder, random_model("ForCausalLM", tiny_config(is_decoder=True), 6))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = random_pair(7, encoder={"hidden_size": 8, "num_attention_heads": 2})
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)

    def write(changes: dict[str, Any], *without: str) -> None:
        save_file({n: v for n, v in (whole | changes).items() if not n.startswith(without)}, file)

    write({}, "enc_to_dec_proj.bias")
    with pytest.raises(
        CheckpointMismatchError, match=r"lacks enc_to_dec_proj.bias, though its encoder and decoder differ"
    ):
        Pair.from_pretrained(tmp_path)
    with pytest.warns(CheckpointWarning, match=r"drawn fresh, train it before use: (pooler|enc_to_dec_proj)"):
        assert not Pair.from_pretrained(tmp_path, init_missing=True).params["enc_to_dec_proj.bias"].any()
    write({"enc_to_dec_proj.bias": np.zeros(3)})
    with pytest.raises(CheckpointMismatchError, match=r"enc_to_dec_proj.bias in .* has shape \(3,\), expected \(12,\)"):
        Pair.from_pretrained(tmp_path)
    write({"enc_to_dec_proj.bias": np.zeros(12, np.int32)})
    with pytest.raises(CheckpointMismatchError, match="weights must be floats"):
        Pair.from_pretrained(tmp_path)
    write({}, "decoder.roberta_prelayernorm.encoder.layer.1.output")
    with pytest.raises(
        CheckpointMismatchError, match=r"\(decoder\) does not fit RobertaPreLayerNormForCausalLM; missing: "
    ):
        Pair.from_pretrained(tmp_path)
    write({}, "encoder.")
    with pytest.raises(
        CheckpointMismatchError, match=r"holds no tensor named encoder\.\*, so it is no encoder-decoder"
    ):
        Pair.from_pretrained(tmp_path)
    write({"stranger": np.zeros(2)})
    with pytest.warns(CheckpointWarning, match="in the file but not used: stranger"):
        Pair.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="tied_weights is 'v3'"):
        Pair.from_pretrained(tmp_path, tied_weights="v3")
    with pytest.raises(CheckpointNotFoundError):
        Pair.from_pretrained(tmp_path / "nowhere")


def test_pairs_and_others_are_told_apart(tmp_path: Path) -> None:
    random_pair(8).save_pretrained(tmp_path / "pair")
    for cls in (nl.RobertaPreLayerNormForCausalLM, nl.RobertaPreLayerNormModel):
        with pytest.raises(
            CheckpointMismatchError, match="is an encoder-decoder pair: load it with EncoderDecoderModel"
        ):
            cls.from_pretrained(tmp_path / "pair")
    random_model("ForMaskedLM", tiny_config(), 0).save_pretrained(tmp_path / "other")
    with pytest.raises(
        ConfigError, match=r"config.json: model_type is 'roberta-prelayernorm'; an encoder-decoder pair has"
    ):
        Pair.from_pretrained(tmp_path / "other")
