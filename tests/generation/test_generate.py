"""`generate`: that it continues what calling the model predicts, ends where it should, and refuses what cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_ids, random_model, seeds, tiny_config

import npprelnorm as nl
from npprelnorm.errors import ConfigError, InputError, InputWarning
from npprelnorm.generation import processors
from npprelnorm.generation.sampling import draw

PAD = 1


def decoder(seed: int = 0, **changes: Any) -> Any:
    return random_model("ForCausalLM", tiny_config(**{"is_decoder": True, "eos_token_id": None} | changes), seed)


def prompt(model: Any, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Ids without padding."""
    return np.random.default_rng(seed).integers(2, model.config.vocab_size, shape)


def by_forward(model: Any, ids: np.ndarray, new: int) -> np.ndarray:
    """Greedy search as anyone would write it: call the model on everything, take the best, start over."""
    for _ in range(new):
        logits = model(ids, np.ones_like(ids), use_cache=False).logits
        ids = np.concatenate([ids, logits[:, -1].argmax(axis=-1)[:, None]], axis=1)
    return ids


@settings(max_examples=30)
@given(seed=seeds, tokens=st.integers(1, 6), new=st.integers(1, 6), kind=st.sampled_from(["absolute", "relative_key"]))
def test_greedy_continues_what_forward_predicts(seed: int, tokens: int, new: int, kind: str) -> None:
    model = decoder(seed, position_embedding_type=kind)
    ids = prompt(model, (2, tokens), seed)
    expected = by_forward(model, ids, new)
    for use_cache in (True, False):
        np.testing.assert_array_equal(model.generate(ids, max_new_tokens=new, use_cache=use_cache), expected)


@pytest.mark.parametrize("scheme", ["forward", "hf_generate"])
@settings(max_examples=20)
@given(seed=seeds, padding=st.integers(1, 4))
def test_left_padding_and_company_change_nothing(scheme: str, seed: int, padding: int) -> None:
    model = decoder(seed)
    ids = prompt(model, (3, 5), seed)
    ids[1, :padding] = PAD
    alone = model.generate(ids[1:2, padding:], max_new_tokens=5, position_scheme=scheme)
    for mask in (None, ids != PAD):
        together = model.generate(ids, mask, max_new_tokens=5, position_scheme=scheme)
        np.testing.assert_array_equal(together[1, padding:], alone[0])
    beams = {"max_new_tokens": 5, "num_beams": 3, "position_scheme": scheme}
    np.testing.assert_array_equal(
        model.generate(ids, **beams)[1, padding:], model.generate(ids[1:2, padding:], **beams)[0]
    )


def test_the_two_ways_of_numbering_differ() -> None:
    model = decoder(3)
    ids = prompt(model, (8, 4))
    assert (
        model.generate(ids, max_new_tokens=8, position_scheme="hf_generate") != model.generate(ids, max_new_tokens=8)
    ).any()


def test_rows_end_at_any_of_the_ends_and_are_padded() -> None:
    model = decoder(1)
    ids = prompt(model, (4, 3))
    free = model.generate(ids, max_new_tokens=8)
    ends = sorted({int(free[0, 4]), int(free[1, 6])})
    rows = model.generate(ids, max_new_tokens=8, eos_token_id=ends)
    for row, unending in zip(rows, free, strict=True):
        hits = np.flatnonzero(np.isin(unending[3:], ends))
        last = 3 + int(hits[0]) if hits.size else len(unending) - 1
        np.testing.assert_array_equal(row[: last + 1], unending[: last + 1])
        assert (row[last + 1 :] == PAD).all()
    assert (rows[0, 5:] == PAD).all()
    again = model.generate(ids[:1], max_new_tokens=8, eos_token_id=ends)
    assert again.shape[1] <= 5  # nothing is computed after the last row has ended


def test_stop_strings_end_a_row() -> None:
    class Letters:
        def batch_decode(self, rows: np.ndarray) -> list[str]:
            return ["".join(chr(97 + int(token)) for token in row) for row in rows]

    model = decoder(2)
    ids = prompt(model, (2, 3))
    free = model.generate(ids, max_new_tokens=8)
    stop = Letters().batch_decode(free[:1, 4:6])[0]
    rows = model.generate(ids, max_new_tokens=8, stop_strings=stop, tokenizer=Letters())
    text = Letters().batch_decode(free[:1, 3:])[0]
    cut = 3 + text.index(stop) + 2
    np.testing.assert_array_equal(rows[0, :cut], free[0, :cut])
    assert (rows[0, cut:] == PAD).all()
    with pytest.raises(InputError, match="give tokenizer"):
        model.generate(ids, stop_strings=["a"])


def test_a_cache_of_the_beginning_changes_nothing() -> None:
    model = decoder(4)
    ids = prompt(model, (2, 6))
    past = model(ids[:, :4]).past_key_values
    for ways in ({}, {"num_beams": 3, "num_return_sequences": 2}):
        expected = model.generate(ids, max_new_tokens=5, **ways)
        np.testing.assert_array_equal(model.generate(ids, max_new_tokens=5, past_key_values=past, **ways), expected)
    np.testing.assert_array_equal(
        model.generate(ids, past_key_values=model(ids).past_key_values.crop(3)), model.generate(ids)
    )
    with pytest.raises(InputError, match="past_key_values holds 4 tokens and input_ids 4"):
        model.generate(ids[:, :4], past_key_values=past)
    with pytest.raises(InputError, match="cache of another model"):
        decoder(num_hidden_layers=1).generate(ids, past_key_values=past)


def test_cross_attention_sees_the_same_states_in_every_beam() -> None:
    model = decoder(5, add_cross_attention=True)
    ids = prompt(model, (2, 3))
    states = np.random.default_rng(0).standard_normal((2, 4, 12))
    both = model.generate(ids, max_new_tokens=5, num_beams=3, encoder_hidden_states=states)
    for row in range(2):
        one = model.generate(ids[row, None], max_new_tokens=5, num_beams=3, encoder_hidden_states=states[row, None])
        np.testing.assert_array_equal(both[row], one[0])
    other = model.generate(ids, max_new_tokens=5, num_beams=3, encoder_hidden_states=-3 * states)
    assert (other != both).any()


def test_cross_attention_needs_something_to_attend_to() -> None:
    model = decoder(5, add_cross_attention=True)
    ids = prompt(model, (2, 3))
    states = np.random.default_rng(0).standard_normal((2, 4, 12))
    expected = model.generate(ids, max_new_tokens=5, encoder_hidden_states=states)
    with pytest.raises(InputError, match="has cross-attention, but there is nothing to attend to; give encoder_hidden"):
        model.generate(ids)
    with pytest.raises(InputError, match="nothing to attend to"):
        model.generate(ids, past_key_values=model(ids[:, :2]).past_key_values)
    past = model(ids[:, :2], encoder_hidden_states=states).past_key_values
    np.testing.assert_array_equal(model.generate(ids, max_new_tokens=5, past_key_values=past), expected)


def test_enough_beams_find_the_most_likely_continuation() -> None:
    """With a beam for every prefix nothing is lost, so brute force must agree."""
    model = decoder(6, vocab_size=6)
    ids = np.array([[3, 4, 2]])
    out = model.generate(
        ids,
        max_new_tokens=3,
        num_beams=36,
        num_return_sequences=5,
        output_scores=True,
        return_dict_in_generate=True,
    )
    rows = np.array([[3, 4, 2, a, b, c] for a in range(6) for b in range(6) for c in range(6)])
    # a generated padding token is numbered as forward numbers it, so forward is the judge
    logs = processors.log_softmax(model(rows, np.ones_like(rows)).logits[:, 2:5].reshape(-1, 6)).reshape(-1, 3, 6)
    sums = np.take_along_axis(logs, rows[:, 3:, None], axis=2).sum(axis=(1, 2))
    order = np.argsort(-sums)[:5]
    np.testing.assert_array_equal(out.sequences, rows[order])
    np.testing.assert_allclose(out.sequences_scores, sums[order] / 3, rtol=1e-12)
    assert len(out.scores) == 3


def test_sampling_repeats_with_its_generator_and_differs_without() -> None:
    model = decoder(7)
    ids = prompt(model, (2, 3))
    ways = {"do_sample": True, "max_new_tokens": 8, "num_return_sequences": 3}
    first = model.generate(ids, rng=5, **ways)
    assert first.shape == (6, 11)
    np.testing.assert_array_equal(first[:, :3], np.repeat(ids, 3, axis=0))
    np.testing.assert_array_equal(model.generate(ids, rng=np.random.default_rng(5), **ways), first)
    assert (model.generate(ids, rng=6, **ways) != first).any()
    np.testing.assert_array_equal(
        model.generate(ids, do_sample=True, top_k=1, max_new_tokens=8), model.generate(ids, max_new_tokens=8)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_draws_follow_the_distribution(dtype: Any) -> None:
    """Chi-square over 200,000 draws: 99.99 % of right samplers stay below 33.7 with 9 degrees of freedom."""
    scores = np.random.default_rng(0).standard_normal(12).astype(dtype) * 1.5
    scores[[0, 5]] = -np.inf
    count = 200_000
    drawn = draw(np.broadcast_to(scores, (count, 12)), np.random.default_rng(1))
    seen = np.bincount(drawn, minlength=12)
    expected = processors.softmax(scores[None].astype(np.float64))[0] * count
    possible = expected > 0
    assert possible.sum() == 10
    assert (seen[~possible] == 0).all()
    assert ((seen - expected)[possible] ** 2 / expected[possible]).sum() < 33.7


def test_streamer_progress_scores_and_own_functions() -> None:
    class Streamer:
        def __init__(self) -> None:
            self.seen: list[list[int]] = []
            self.ended = 0

        def put(self, ids: np.ndarray) -> None:
            self.seen.append(np.asarray(ids).ravel().tolist())

        def end(self) -> None:
            self.ended += 1

    model, streamer, steps = decoder(8), Streamer(), []
    ids = prompt(model, (1, 3))
    out = model.generate(
        ids,
        max_new_tokens=6,
        streamer=streamer,
        progress=lambda done, most: steps.append((done, most)),
        logits_processor=[lambda ids, scores: np.where(np.arange(23) == 9, 1e3 + ids.shape[1], scores)],
        stopping_criteria=[lambda ids: np.full(len(ids), ids.shape[1] == 7)],
        output_scores=True,
        return_dict_in_generate=True,
    )
    np.testing.assert_array_equal(out.sequences[0, 3:], [9, 9, 9, 9])
    assert streamer.seen == [ids[0].tolist(), [9], [9], [9], [9]]
    assert streamer.ended == 1
    assert steps == [(1, 6), (2, 6), (3, 6), (4, 6)]
    assert [float(scores[0, 9]) for scores in out.scores] == [1003.0, 1004.0, 1005.0, 1006.0]
    assert out.past_key_values.length == 6
    with pytest.raises(InputError, match="streamer needs num_beams=1"):
        model.generate(ids, num_beams=2, streamer=streamer)


def test_a_float32_model_stays_float32() -> None:
    model = random_model("ForCausalLM", tiny_config(is_decoder=True), 0, "float32")
    ids = prompt(model, (2, 3))
    for ways in (
        {"do_sample": True, "top_p": 0.9, "typical_p": 0.9, "min_p": 0.01, "temperature": 0.7},
        {"num_beams": 2},
    ):
        out = model.generate(
            ids, repetition_penalty=1.2, output_scores=True, return_dict_in_generate=True, rng=0, **ways
        )
        assert {scores.dtype for scores in out.scores} == {np.dtype(np.float32)}


def test_lengths_and_room() -> None:
    model = decoder(9)  # 16 rows of positions: 14 tokens
    ids = prompt(model, (1, 4))
    assert model.generate(ids).shape == (1, 15)  # 20 by default, but there is room for 10 and one that is not read
    assert model.generate(ids, max_length=6).shape == (1, 6)
    assert model.generate(ids, max_new_tokens=11).shape == (1, 15)
    with pytest.raises(InputError, match=r"12 new tokens .* only 11 are left of the 14 .* max_new_tokens=11"):
        model.generate(ids, max_new_tokens=12)
    with pytest.raises(InputError, match="max_length is 4, but the prompt has 4 tokens"):
        model.generate(ids, max_length=4)
    with pytest.raises(InputError, match="the prompt of 16 tokens leaves no room"):
        model.generate(prompt(model, (1, 16)))
    with pytest.raises(InputError, match="at least 9 new tokens are asked for, and at most 5"):
        model.generate(ids, max_length=9, min_new_tokens=9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.5}, "temperature=0.5 does nothing without do_sample=True"),
        ({"length_penalty": 2.0}, "length_penalty=2.0 does nothing without num_beams"),
        ({"do_sample": True, "temperature": 0.0}, "temperature is 0.0; allowed: 1e-6 to 1e6"),
        ({"do_sample": True, "temperature": float("nan")}, "temperature is nan"),
        ({"repetition_penalty": -1.0}, "repetition_penalty is -1.0; allowed: 1e-6 to 1e6"),
        ({"num_beams": 2, "length_penalty": 1e9}, "length_penalty is 1000000000.0; allowed: -10 to 10"),
        ({"do_sample": True, "top_p": 1.5}, "top_p is 1.5; allowed: above 0 to 1"),
        ({"num_beams": 2, "suppress_tokens": list(range(23))}, "every token is forbidden for row 0 at new token 1"),
        ({"num_beams": 4, "num_beam_groups": 2}, "num_beam_groups=2 asks for diverse beam search, which"),
        ({"force_words_ids": [[3]]}, "asks for constrained beam search"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "asks for contrastive search"),
        ({"assistant_model": object()}, "asks for assisted generation"),
        ({"prompt_lookup_num_tokens": 3}, "asks for assisted generation by prompt lookup"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences is 3; allowed: up to num_beams, 2"),
        ({"num_return_sequences": 2}, "greedy search has one result"),
        ({"max_length": 8, "max_new_tokens": 2}, "give one of them"),
        ({"min_length": 8, "min_new_tokens": 2}, "both set the least length; give one of them"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; allowed: a whole number of at least 1"),
        ({"max_new_tokens": 2, "min_new_tokens": 3}, "min_new_tokens is 3, but max_new_tokens is 2"),
        ({"num_beams": 2, "early_stopping": "soon"}, "early_stopping is 'soon'"),
        ({"position_scheme": "v4"}, "position_scheme is 'v4'"),
        ({"bad_words_ids": [[]]}, r"bad_words_ids is \[\[\]\]"),
        ({"suppress_tokens": [23]}, "suppress_tokens holds 23; allowed: 0 to 22"),
        ({"stop_strings": [""]}, "stop_strings is"),
        ({"max_tokens": 3}, "generate has no argument 'max_tokens'"),
        ({"suppress_tokens": list(range(23))}, "every token is forbidden for row 0 at new token 1"),
        ({"do_sample": True, "top_p": 0.5, "suppress_tokens": list(range(23))}, "every token is forbidden"),
        ({"generation_config": 3}, "generation_config is a int"),
        ({"attention_mask": [[1, 1]]}, r"attention_mask has shape \(1, 2\)"),
    ],
)
def test_what_cannot_be_is_one_clear_line(arguments: dict[str, Any], message: str) -> None:
    model = decoder()
    with pytest.raises((InputError, ConfigError), match=message) as caught:
        model.generate(prompt(model, (1, 3)), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ids", [[3, 4], [[]], [[3, 99]], [[3.5]]])
def test_prompts_are_checked(ids: Any) -> None:
    with pytest.raises(InputError, match="input_ids"):
        decoder().generate(ids)


def test_models_without_a_decoder_warn_once_and_see_everything() -> None:
    model = random_model("ForCausalLM", tiny_config(eos_token_id=None), 1)
    ids = prompt(model, (2, 3))
    with pytest.warns(InputWarning, match="no decoder") as caught:
        rows = model.generate(ids, max_new_tokens=4)
    assert len(caught) == 1
    with pytest.warns(InputWarning, match="no decoder"):
        np.testing.assert_array_equal(rows, by_forward(model, ids, 4))


def test_prompts_that_end_with_padding_warn() -> None:
    model = decoder()
    with pytest.warns(InputWarning, match="row 1 of the prompt ends with padding"):
        model.generate([[5, 6], [5, PAD]], max_new_tokens=1)


def test_a_cache_reorders_and_crops() -> None:
    model = decoder(11)
    ids = random_ids(model.config, (3, 4), 0)
    cache = model(ids, np.ones_like(ids)).past_key_values
    swapped, cropped = cache.reorder([2, 0]), cache.crop(2)
    for old, new, short in zip(cache, swapped, cropped, strict=True):
        np.testing.assert_array_equal(new.key, old.key[[2, 0]])
        np.testing.assert_array_equal(new.value, old.value[[2, 0]])
        np.testing.assert_array_equal(short.key, old.key[:, :, :2])
    for length in (0, 5):
        with pytest.raises(InputError, match="allowed: 1 to 4"):
            cache.crop(length)


def test_damaged_weights_are_reported() -> None:
    model = decoder()
    model.params["lm_head.bias"] = np.full(23, np.nan)
    with pytest.raises(nl.errors.NpprelnormError, match="are the weights damaged"):
        model.generate([[3, 4]])
