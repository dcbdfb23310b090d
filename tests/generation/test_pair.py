"""`EncoderDecoderModel.generate`: transformers' tokens, what it begins with, and what it refuses."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from pairs import GoldenPair, golden_pairs, random_pair

import npprelnorm as nl
from npprelnorm.errors import ConfigError, InputError, InputWarning

IDS = np.array([[4, 5, 6, 7], [8, 9, 10, 11]])


@pytest.mark.parametrize("golden", [pytest.param(pair, id=str(pair)) for pair in golden_pairs()])
def test_tokens_as_transformers(golden: GoldenPair) -> None:
    model = golden.model()
    ids, mask = golden.inputs["input_ids"], golden.inputs["attention_mask"]
    for settings, tokens in golden.searches:
        np.testing.assert_array_equal(
            model.generate(ids, mask, position_scheme="hf_generate", **settings), tokens, err_msg=f"{settings}"
        )
    assert len({tokens.tobytes() for _, tokens in golden.searches}) == len(golden.searches)


def test_greedy_continues_what_forward_predicts() -> None:
    for seed in range(5):
        model = random_pair(seed, decoder={"eos_token_id": None})
        ids = np.zeros((2, 1), np.int64)
        for _ in range(6):
            logits = model(
                IDS, np.ones_like(IDS), decoder_input_ids=ids, decoder_attention_mask=np.ones_like(ids)
            ).logits
            ids = np.concatenate([ids, logits[:, -1].argmax(axis=-1)[:, None]], axis=1)
        for use_cache in (True, False):
            np.testing.assert_array_equal(model.generate(IDS, max_new_tokens=6, use_cache=use_cache), ids)


def test_the_encoder_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_pair(1)
    calls = []
    run = nl.RobertaPreLayerNormModel.__call__
    monkeypatch.setattr(
        nl.RobertaPreLayerNormModel, "__call__", lambda self, *a, **k: calls.append(1) or run(self, *a, **k)
    )
    model.generate(IDS, max_new_tokens=5, num_beams=3, num_return_sequences=2)
    assert len(calls) == 1
    encoded = model.encoder(IDS)
    calls.clear()
    rows = model.generate(encoder_outputs=encoded, max_new_tokens=5)
    assert not calls
    np.testing.assert_array_equal(rows, model.generate(IDS, max_new_tokens=5))


def test_rows_do_not_meet() -> None:
    model = random_pair(2, encoder={"hidden_size": 8, "num_attention_heads": 2})
    ids = IDS.copy()
    ids[0, 2:] = 1
    for ways in ({}, {"num_beams": 3}, {"do_sample": True, "top_k": 1}):
        together = model.generate(ids, ids != 1, max_new_tokens=6, eos_token_id=[], rng=0, **ways)
        alone = model.generate(ids[:1, :2], max_new_tokens=6, eos_token_id=[], rng=0, **ways)
        np.testing.assert_array_equal(together[:1], alone)
    embedded = model.params["encoder.embeddings.word_embeddings.weight"][IDS]
    np.testing.assert_array_equal(
        model.generate(inputs_embeds=embedded, max_new_tokens=6), model.generate(IDS, max_new_tokens=6)
    )


def test_padding_without_a_mask_warns() -> None:
    with pytest.warns(InputWarning, match="padding will be attended to"):
        random_pair(2).generate([[5, 6], [5, 1]], max_new_tokens=1)


def test_sampling_and_streaming() -> None:
    model = random_pair(3)
    ways = {"do_sample": True, "max_new_tokens": 6, "num_return_sequences": 3}
    first = model.generate(IDS, rng=1, **ways)
    assert first.shape[0] == 6
    np.testing.assert_array_equal(model.generate(IDS, rng=1, **ways), first)
    assert (model.generate(IDS, rng=2, **ways)[:, :5] != first[:, :5]).any()

    class Streamer:
        def __init__(self) -> None:
            self.seen: list[np.ndarray] = []

        def put(self, ids: np.ndarray) -> None:
            self.seen.append(ids.reshape(2, -1))

        def end(self) -> None:
            self.seen.append(np.full((2, 1), -1))

    streamer = Streamer()
    rows = model.generate(IDS, max_new_tokens=5, streamer=streamer)
    np.testing.assert_array_equal(np.concatenate(streamer.seen, axis=1)[:, :-1], rows)
    assert (streamer.seen[-1] == -1).all()


def test_what_rows_begin_with() -> None:
    model = random_pair(4, decoder_start_token_id=None, decoder={"bos_token_id": 6})

    def first(**arguments: Any) -> list[int]:
        return model.generate(IDS, max_new_tokens=1, **arguments)[0, :-1].tolist()

    assert first() == [6]
    model.generation_config = nl.GenerationSettings(bos_token_id=7)
    assert first() == [7]
    model.config.decoder_start_token_id = 8
    assert first() == [8]
    assert first(decoder_start_token_id=9) == [9]
    assert first(decoder_input_ids=[[3, 4], [3, 5]]) == [8, 3, 4]
    assert first(decoder_input_ids=[[3, 4], [8, 5]]) == [3, 4]  # one row has it there
    model.config.decoder_start_token_id = model.config.decoder.bos_token_id = None
    model.generation_config = nl.GenerationSettings()
    with pytest.raises(InputError, match="no token to begin with; give decoder_start_token_id"):
        first()


def test_hidden_beginnings_are_not_read() -> None:
    model = random_pair(5, decoder={"eos_token_id": None})
    ids, mask = np.array([[0, 3, 4], [0, 5, 4]]), np.array([[1, 0, 1], [1, 0, 1]])
    rows = model.generate(IDS, decoder_input_ids=ids, decoder_attention_mask=mask, max_new_tokens=5)
    other = model.generate(
        IDS, decoder_input_ids=ids + np.array([0, 6, 0]), decoder_attention_mask=mask, max_new_tokens=5
    )
    np.testing.assert_array_equal(rows[:, 3:], other[:, 3:])
    put_in_front = model.generate(
        IDS, decoder_input_ids=ids[:, 1:], decoder_attention_mask=mask[:, 1:], max_new_tokens=5
    )
    np.testing.assert_array_equal(put_in_front, rows)


def test_settings_come_from_the_pair_and_its_decoder(tmp_path: Any) -> None:
    model = random_pair(
        6, extra={"num_beams": 3, "max_length": 20}, decoder={"extra": {"num_beams": 4, "min_length": 2}}
    )
    assert model.generation_config.given == {"num_beams": 3, "min_length": 2}
    model.save_pretrained(tmp_path)
    again = nl.EncoderDecoderModel.from_pretrained(tmp_path, dtype="float64")
    assert again.generation_config.num_beams == 3
    np.testing.assert_array_equal(again.generate(IDS), model.generate(IDS))
    (tmp_path / "generation_config.json").write_text('{"max_new_tokens": 2, "eos_token_id": 2}')
    assert nl.EncoderDecoderModel.from_pretrained(tmp_path).generation_config.given.keys() == {
        "max_new_tokens",
        "eos_token_id",
        "pad_token_id",
    }
    (tmp_path / "generation_config.json").write_text('{"num_beams": 0}')
    with pytest.raises(ConfigError, match=r"generation_config.json: num_beams is 0"):
        nl.EncoderDecoderModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoder_input_ids": [[3, 4]]}, "decoder_input_ids has shape (1, 2); expected (2, tokens), as many rows"),
        ({"decoder_input_ids": [[3, 99], [3, 4]]}, "decoder_input_ids holds 99 at [0, 1]; allowed: 0 to 22"),
        ({"decoder_attention_mask": [[1], [1]]}, "decoder_attention_mask is given without decoder_input_ids"),
        ({"decoder_input_ids": [[3], [4]], "decoder_attention_mask": [[1]]}, "decoder_attention_mask has shape (1, 1)"),
        ({"decoder_start_token_id": 40}, "decoder_start_token_id holds 40"),
        ({"input_ids": None}, "exactly one of input_ids or inputs_embeds"),
        ({"max_new_tokens": 40}, "only 14 are left of the 14"),
        ({"num_beam_groups": 2}, "asks for diverse beam search"),
        ({"generation_config": 3}, "generation_config is a int"),
    ],
)
@pytest.mark.parametrize("scheme", ["forward", "hf_generate"])
def test_what_cannot_be_is_one_clear_line(arguments: dict[str, Any], message: str, scheme: str) -> None:
    with pytest.raises((InputError, ConfigError), match=re.escape(message)) as caught:
        random_pair(7).generate(**{"input_ids": IDS, "position_scheme": scheme} | arguments)
    assert "\n" not in str(caught.value)
