"""Weights that a configuration calls tied or not, and what a file holds of them: by the readings of 5 and of 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_folders import BASE, masked_lm, same_params, write
from strategies import class_of, tiny_config

from npprelnorm.errors import CheckpointWarning, InputError

WORDS = BASE + "embeddings.word_embeddings.weight"
DECODER, DECODER_BIAS, HEAD_BIAS = "lm_head.decoder.weight", "lm_head.decoder.bias", "lm_head.bias"
IDS = np.array([[5, 6, 7, 8], [9, 10, 11, 12]])


def tied_file(folder: Path, tie: bool, **more: np.ndarray) -> dict[str, np.ndarray]:
    """A tied model's tensors and more of the LM head's, with a configuration that says `tie`."""
    params = masked_lm().params
    extra = {name.replace("__", "."): value for name, value in more.items()}
    write(folder, params | extra, tiny_config(tie_word_embeddings=tie))
    return params


OTHER = np.random.default_rng(5).standard_normal((23, 12)).astype(np.float32)
OTHER_BIAS = np.arange(23, dtype=np.float32)
READINGS = pytest.mark.parametrize("reading", ["v5", "v4"])


def lm(folder: Path, **options: Any) -> Any:
    return class_of("ForMaskedLM").from_pretrained(folder, **options)


@READINGS
def test_tied_with_equal_copies(reading: str, tmp_path: Path) -> None:
    params = masked_lm().params
    write(tmp_path, params | {DECODER: params[WORDS], DECODER_BIAS: params[HEAD_BIAS]}, tiny_config())
    loaded = lm(tmp_path, tied_weights=reading)
    same_params(loaded, params)
    assert loaded.config.tie_word_embeddings


@READINGS
def test_tied_with_two_biases_uses_the_decoders(reading: str, tmp_path: Path) -> None:
    params = tied_file(tmp_path, True, lm_head__decoder__bias=OTHER_BIAS)
    with pytest.warns(
        CheckpointWarning, match="lm_head.decoder.bias and a lm_head.bias that differ: the first is used"
    ):
        loaded = lm(tmp_path, tied_weights=reading)
    same_params(loaded, params | {HEAD_BIAS: OTHER_BIAS})


@READINGS
def test_tied_with_only_the_decoders_bias(reading: str, tmp_path: Path) -> None:
    params = masked_lm().params
    tensors = {name: value for name, value in params.items() if name != HEAD_BIAS} | {DECODER_BIAS: OTHER_BIAS}
    write(tmp_path, tensors, tiny_config())
    same_params(lm(tmp_path, tied_weights=reading), params | {HEAD_BIAS: OTHER_BIAS})


def test_tied_with_different_copies_is_untied_in_the_reading_of_5(tmp_path: Path) -> None:
    params = tied_file(tmp_path, True, lm_head__decoder__weight=OTHER)
    with pytest.warns(CheckpointWarning, match="both are kept and the model is untied, as in transformers 5") as caught:
        loaded = lm(tmp_path)
    assert caught[0].filename == __file__
    assert not loaded.config.tie_word_embeddings
    same_params(loaded, params | {DECODER: OTHER, DECODER_BIAS: params[HEAD_BIAS]})
    loaded.save_pretrained(tmp_path / "again")
    same_params(lm(tmp_path / "again"), loaded.params)


def test_tied_with_different_copies_lets_the_embeddings_win_in_the_reading_of_4(tmp_path: Path) -> None:
    params = tied_file(tmp_path, True, lm_head__decoder__weight=OTHER)
    with pytest.warns(CheckpointWarning, match="the embeddings are used, as in transformers 4"):
        loaded = lm(tmp_path, tied_weights="v4")
    assert loaded.config.tie_word_embeddings
    same_params(loaded, params)


@READINGS
def test_untied_with_both_biases_uses_the_decoders(reading: str, tmp_path: Path) -> None:
    params = tied_file(tmp_path, False, lm_head__decoder__weight=OTHER, lm_head__decoder__bias=OTHER_BIAS)
    loaded = lm(tmp_path, tied_weights=reading)
    same_params(loaded, params | {DECODER: OTHER, DECODER_BIAS: OTHER_BIAS})
    before = loaded(IDS).logits
    loaded.params[HEAD_BIAS] = loaded.params[HEAD_BIAS] + 1  # used by nobody
    np.testing.assert_array_equal(loaded(IDS).logits, before)
    loaded.params[DECODER_BIAS] = loaded.params[DECODER_BIAS] + 1
    np.testing.assert_allclose(loaded(IDS).logits, before + 1, rtol=1e-4, atol=1e-4)


@READINGS
@pytest.mark.parametrize("only", [HEAD_BIAS, DECODER_BIAS])
def test_untied_with_one_bias_uses_it(reading: str, only: str, tmp_path: Path) -> None:
    params = masked_lm().params
    tensors = {name: value for name, value in params.items() if name != HEAD_BIAS}
    write(tmp_path, tensors | {DECODER: OTHER, only: OTHER_BIAS}, tiny_config(tie_word_embeddings=False))
    loaded = lm(tmp_path, tied_weights=reading)
    same_params(loaded, params | {DECODER: OTHER, DECODER_BIAS: OTHER_BIAS, HEAD_BIAS: OTHER_BIAS})


def test_untied_without_a_decoder_draws_one(tmp_path: Path) -> None:
    tied_file(tmp_path, False)
    with pytest.warns(CheckpointWarning, match="drawn fresh, train it before use: lm_head.decoder.weight"):
        loaded = lm(tmp_path)
    assert not np.array_equal(loaded.params[DECODER], loaded.params[WORDS])


def test_the_decoder_is_the_embedding_where_they_are_tied() -> None:
    model = masked_lm()
    before = model(IDS).logits
    words = model.params[WORDS].copy()
    words[3] *= 2.0  # no token's id here: only the decoder reads it
    model.params[WORDS] = words
    after = model(IDS).logits
    bias = model.params[HEAD_BIAS][3]
    np.testing.assert_allclose(after[..., 3] - bias, 2.0 * (before[..., 3] - bias), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.delete(after, 3, axis=-1), np.delete(before, 3, axis=-1))


def test_a_reading_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tied_weights is 'v6'; allowed: 'v5', 'v4'"):
        lm(tmp_path, tied_weights="v6")
