"""Beams whose continuations are drawn: that draws follow their probabilities, and what is kept of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from strategies import random_model, tiny_config

from npprelnorm.errors import InputError
from npprelnorm.generation import beam, processors


def decoder(seed: int = 0, **changes: Any) -> Any:
    return random_model("ForCausalLM", tiny_config(**{"is_decoder": True, "eos_token_id": None} | changes), seed)


def prompt(model: Any, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(2, model.config.vocab_size, shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_draws_without_replacement_follow_their_probabilities(dtype: Any) -> None:
    """Chi-square over ordered triples: 99.99 % of right samplers stay below 112 with 59 degrees of freedom."""
    scores = np.array([0.3, -np.inf, 1.4, -0.8, 0.0, -1.9, beam.FAR]).astype(dtype)
    p = processors.softmax(scores[None].astype(np.float64))[0]
    count = 100_000
    drawn = beam.drawn(np.broadcast_to(scores, (count, 7)), 3, np.random.default_rng(2))
    possible = [0, 2, 3, 4, 5]
    assert np.isin(drawn, possible).all()
    statistic = 0.0
    for first, second, third in itertools.permutations(possible, 3):
        expected = count * p[first] * p[second] / (1 - p[first]) * p[third] / (1 - p[first] - p[second])
        seen = int((drawn == (first, second, third)).all(axis=1).sum())
        statistic += (seen - expected) ** 2 / expected
    assert statistic < 112


def test_what_cannot_be_drawn_comes_last() -> None:
    scores = np.array([[-np.inf, beam.FAR, 0.0, -np.inf, 1.0, beam.FAR - 1.0]], np.float32)
    orders = {tuple(beam.drawn(scores, 6, np.random.default_rng(seed))[0]) for seed in range(40)}
    for order in orders:
        assert set(order[:2]) == {2, 4}
        assert set(order[2:4]) == {1, 5}
        assert order[4:] == (0, 3)
    assert len(orders) >= 3


def test_a_generator_repeats_it_and_another_differs() -> None:
    model = decoder(1)
    ids = prompt(model, (2, 3))
    ways = {"do_sample": True, "num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 8}
    first = model.generate(ids, rng=5, **ways)
    assert first.shape == (4, 11)
    np.testing.assert_array_equal(model.generate(ids, rng=np.random.default_rng(5), **ways), first)
    assert (model.generate(ids, rng=6, **ways) != first).any()


def test_cold_beams_are_searched_and_hot_ones_wander() -> None:
    """At a low temperature draws come out in the order of their scores, as the search takes them."""
    model = decoder(2)
    ids = prompt(model, (2, 3))
    ways = {"num_beams": 3, "max_new_tokens": 6}
    cold = model.generate(ids, do_sample=True, temperature=1e-4, top_k=0, rng=0, **ways)
    np.testing.assert_array_equal(cold, model.generate(ids, **ways))
    hot = [model.generate(ids[:1], do_sample=True, temperature=50.0, top_k=0, rng=seed, **ways) for seed in range(20)]
    assert len({row.tobytes() for row in hot}) > 10


def test_scores_are_those_of_the_processed_steps() -> None:
    model = decoder(3)
    ids = prompt(model, (2, 3))
    out = model.generate(
        ids,
        do_sample=True,
        num_beams=3,
        num_return_sequences=3,
        top_p=0.8,
        max_new_tokens=5,
        output_scores=True,
        return_dict_in_generate=True,
        rng=1,
    )
    for row, origins, score in zip(out.sequences, out.beam_indices, out.sequences_scores, strict=True):
        if not np.isfinite(score):  # fewer rows than asked for were possible
            continue
        steps = zip(out.scores, origins, row[3:], strict=True)
        np.testing.assert_allclose(score, sum(scores[origin, token] for scores, origin, token in steps) / 5, rtol=1e-12)


def test_one_more_token_than_ends_is_kept() -> None:
    model = decoder(4)
    ids = prompt(model, (1, 3))
    for settings in ({"top_k": 1}, {"top_p": 1e-9, "top_k": 0}, {"min_p": 1.0, "top_k": 0}, {"typical_p": 1e-9}):
        out = model.generate(
            ids,
            do_sample=True,
            num_beams=2,
            eos_token_id=[3, 4, 5],
            max_new_tokens=2,
            output_scores=True,
            return_dict_in_generate=True,
            **settings,
        )
        for scores in out.scores:
            assert (np.isfinite(scores).sum(axis=1) == 4).all(), settings


def test_nothing_left_to_draw_is_an_error() -> None:
    model = decoder(5)
    with pytest.raises(InputError, match="every token is forbidden for row 0 at new token 1"):
        model.generate(prompt(model, (1, 3)), do_sample=True, num_beams=2, suppress_tokens=list(range(23)))
