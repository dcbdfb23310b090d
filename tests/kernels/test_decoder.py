"""The stack's kernel with masks for each query, a key/value cache and cross-attention, against the model in float64."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import THREADS, locked, norm_error
from strategies import class_of, random_ids, random_model, seeds, tiny_config

from npprelnorm import backend, use_backend
from npprelnorm.cache import KeyValueCache
from npprelnorm.kernels import encoder
from npprelnorm.kernels.attention import FEW_QUERIES
from npprelnorm.ops.attention import softmax

# numbers of order 1 to 10 with eps 1e-2, so that a row of nearly equal numbers is not blown up
ATOL = 5e-4


def twins(config: Any, seed: int = 0, head: str = "ForCausalLM") -> tuple[Any, Any]:
    """A model with random parameters in float32, and in float64: the same numbers."""
    exact = random_model(head, config, seed)
    params = {name: value.astype(np.float32) for name, value in exact.params.items()}
    return class_of(head, config.model_type).from_params(config, params, dtype="float32"), exact


def decoder_config(model_type: str = "roberta-prelayernorm", **changes: Any) -> Any:
    return tiny_config(model_type, is_decoder=True, layer_norm_eps=1e-2, max_position_embeddings=60, **changes)


def used(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the kernel is called with from now on: that it is must not be taken for granted."""
    calls: list[dict[str, Any]] = []
    kernels = backend.load_kernels()
    assert kernels is not None

    def spy(*arguments: Any, **more: Any) -> np.ndarray:
        calls.append(more)
        return encoder(*arguments, **more)

    monkeypatch.setattr(kernels, "encoder", spy)
    return calls


@settings(max_examples=40)
@given(
    seed=seeds,
    batch=st.integers(1, 3),
    tokens=st.integers(1, 14),
    cuts=st.lists(st.integers(1, 13), max_size=3),
    heads=st.integers(1, 3),
    size=st.integers(1, 20),
    masked=st.booleans(),
    model_type=st.sampled_from(("roberta-prelayernorm", "bert")),
    threads=st.sampled_from(THREADS),
)
def test_any_split_into_steps(
    seed: int, batch: int, tokens: int, cuts: list[int], heads: int, size: int, masked: bool, model_type: str,
    threads: int,
) -> None:  # fmt: skip
    """Causal attention, with a mask of real tokens or without, at once and in steps: as float64 at once."""
    config = decoder_config(model_type, hidden_size=heads * size, num_attention_heads=heads)
    model, exact = twins(config, seed)
    ids = random_ids(config, (batch, tokens), seed)
    mask = np.random.default_rng(seed).random((batch, tokens)) < 0.7 if masked else np.ones((batch, tokens), bool)
    mask[:, 0] = True  # a query that sees nothing real is another test's
    expected = exact(ids, mask).logits
    places = [0, *sorted({cut for cut in cuts if cut < tokens}), tokens]
    with use_backend("numba"):
        backend.set_threads(threads)
        try:
            np.testing.assert_allclose(model(ids, mask).logits, expected, rtol=0, atol=ATOL)
            past, steps = None, []
            for begin, end in itertools.pairwise(places):
                step = model(ids[:, begin:end], mask[:, :end], past_key_values=past)
                past = step.past_key_values
                steps.append(step.logits)
        finally:
            backend.set_threads(None)
    np.testing.assert_allclose(np.concatenate(steps, axis=1), expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("tokens", [1, FEW_QUERIES, FEW_QUERIES + 1, 30])
@pytest.mark.parametrize("size", [4, 64])
def test_what_is_kept_is_what_the_reference_keeps(tokens: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On both sides of the number of queries from which keys are packed; and either backend goes on from the other."""
    calls = used(monkeypatch)
    config = decoder_config(hidden_size=3 * size)
    model, exact = twins(config)
    ids = random_ids(config, (2, 40), 1)
    whole = exact(ids)
    for first, second in (("numba", "numba"), ("numba", "numpy"), ("numpy", "numba")):
        with use_backend(first):
            past = model(ids[:, :-tokens]).past_key_values
        with use_backend(second):
            step = model(ids[:, -tokens:], past_key_values=past)
        assert norm_error(step.logits, whole.logits[:, -tokens:]) < 5e-6
        for kept, truth in zip(step.past_key_values, whole.past_key_values, strict=True):
            assert norm_error(kept.key, truth.key) < 5e-6
            assert norm_error(kept.value, truth.value) < 5e-6
    assert len(calls) == 4


def test_steps_of_many_threads_and_rows_are_the_same_bits() -> None:
    config = decoder_config(hidden_size=48, num_attention_heads=6)
    model, _ = twins(config)
    ids = random_ids(config, (5, 20), 0)

    def run(rows: slice, threads: int) -> np.ndarray:
        backend.set_threads(threads)
        past = model.base(ids[rows, :12]).past_key_values
        result: np.ndarray = model.base(ids[rows, 12:], past_key_values=past).last_hidden_state
        return result

    with use_backend("numba"):
        try:
            alone = run(slice(None), 1)
            for threads in (2, 3, 8):
                np.testing.assert_array_equal(run(slice(None), threads), alone)
            np.testing.assert_array_equal(run(slice(2, 3), 2), alone[2:3])
        finally:
            backend.set_threads(None)


@pytest.mark.parametrize("shape", ["3-D", "4-D", "4-D by head", "4-D of booleans", "4-D shared"])
@pytest.mark.parametrize("is_decoder", [False, True])
def test_a_mask_for_each_query(shape: str, is_decoder: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = used(monkeypatch)
    config = tiny_config(is_decoder=is_decoder, layer_norm_eps=1e-2)
    model, exact = twins(config, head="Model")
    ids, rng = random_ids(config, (3, 9), 0), np.random.default_rng(0)
    seen = rng.random((3, 9, 9)) < 0.6
    seen[0, 2] = False  # a query that sees nothing: all alike
    masks = {
        "3-D": seen.astype(np.int64),
        "4-D": rng.standard_normal((3, 1, 9, 9)),
        "4-D by head": rng.standard_normal((3, 3, 9, 9)),
        "4-D of booleans": seen[:, None],
        "4-D shared": rng.standard_normal((1, 3, 1, 9)),
    }
    with use_backend("numba"):
        y = model(ids, masks[shape], use_cache=False).last_hidden_state
        one = model.base(ids, masks[shape], use_cache=False, read=np.arange(9)[None] == np.array([[8], [0], [2]]))
    expected = exact(ids, masks[shape], use_cache=False).last_hidden_state
    np.testing.assert_allclose(y, expected, rtol=0, atol=ATOL)
    np.testing.assert_allclose(one.last_hidden_state, expected[np.arange(3), [8, 0, 2]], rtol=0, atol=ATOL)
    assert [call["bias"] is not None for call in calls] == [True, True]


@settings(max_examples=20)
@given(
    seed=seeds,
    batch=st.integers(1, 3),
    tokens=st.integers(2, 9),
    encoder_tokens=st.integers(1, 9),
    masked=st.sampled_from((None, 2, 3, 4)),
    model_type=st.sampled_from(("roberta-prelayernorm", "bert")),
)
def test_cross_attention(
    seed: int, batch: int, tokens: int, encoder_tokens: int, masked: int | None, model_type: str
) -> None:
    config = decoder_config(model_type, add_cross_attention=True)
    model, exact = twins(config, seed)
    ids, rng = random_ids(config, (batch, tokens), seed), np.random.default_rng(seed)
    states = rng.standard_normal((batch, encoder_tokens, config.hidden_size)).astype(np.float32)
    shapes = {2: (batch, encoder_tokens), 3: (batch, tokens, encoder_tokens), 4: (batch, 1, tokens, encoder_tokens)}
    mask = None if masked is None else rng.random(shapes[masked]) < 0.7
    expected = exact(ids, encoder_hidden_states=states, encoder_attention_mask=mask)

    def some(first: int, last: int) -> Any:
        return mask if mask is None or masked == 2 else mask[..., first:last, :]

    with use_backend("numba"):
        whole = model(ids, encoder_hidden_states=states, encoder_attention_mask=mask)
        start = model(ids[:, :-1], encoder_hidden_states=states, encoder_attention_mask=some(0, tokens - 1))
        # the encoder's keys are in the cache: its states are not needed again
        last = model(
            ids[:, -1:], past_key_values=start.past_key_values, encoder_attention_mask=some(tokens - 1, tokens)
        )
    np.testing.assert_allclose(whole.logits, expected.logits, rtol=0, atol=ATOL)
    np.testing.assert_allclose(start.logits, expected.logits[:, :-1], rtol=0, atol=ATOL)
    np.testing.assert_allclose(last.logits, expected.logits[:, -1:], rtol=0, atol=ATOL)
    for kept, truth in zip(last.past_key_values, expected.past_key_values, strict=True):
        np.testing.assert_allclose(kept.cross_key, truth.cross_key, rtol=0, atol=ATOL)
        np.testing.assert_allclose(kept.cross_value, truth.cross_value, rtol=0, atol=ATOL)


def test_a_cache_is_not_written_to_before_its_end_and_places_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = used(monkeypatch)
    config = decoder_config()
    model, _ = twins(config)
    ids = random_ids(config, (2, 10), 0)
    with use_backend("numba"):
        past = model(ids[:, :6]).past_key_values
        before = [array.copy() for layer in past for array in layer[:2]]
        model(ids[:, 6:8], past_key_values=past, use_cache=False)
        one = model(ids[:, 6:8], past_key_values=past).past_key_values
        other = model(ids[:, 8:], past_key_values=past).past_key_values  # from the same place: in a buffer of its own
    assert len(calls) == 4
    for array, old in zip([array for layer in past for array in layer[:2]], before, strict=True):
        np.testing.assert_array_equal(array, old)
    assert np.shares_memory(one[0].key, past[0].key)
    assert not np.shares_memory(other[0].key, past[0].key)
    np.testing.assert_array_equal(other[1].value[:, :, :6], past[1].value)


def test_head_masks_relative_positions_and_attentions_are_the_references(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = used(monkeypatch)
    config = decoder_config()
    model, exact = twins(config)
    relative, exact_relative = twins(decoder_config(position_embedding_type="relative_key"))
    ids = random_ids(config, (2, 7), 0)
    with use_backend("numba"):
        for own, other, more in (
            (model, exact, {"head_mask": np.array([1.0, 0.0, 0.5])}),
            (model, exact, {"output_attentions": True}),
            (relative, exact_relative, {}),
        ):
            np.testing.assert_allclose(own(ids, **more).logits, other(ids, **more).logits, rtol=0, atol=ATOL)
    assert not calls


@pytest.mark.parametrize("weight_dtype", ["float16", "bfloat16", "int12"])
def test_steps_with_stored_weights_are_those_of_all_at_once(weight_dtype: str) -> None:
    config = decoder_config(hidden_size=48, intermediate_size=100)
    model, exact = twins(config)
    model.weight_dtype = weight_dtype
    ids = random_ids(config, (2, 12), 0)
    with use_backend("numba"):
        whole = model(ids).logits
        past = model(ids[:, :11]).past_key_values
        last = model(ids[:, 11:], past_key_values=past).logits
    error = norm_error(whole, exact(ids).logits)
    assert 1e-5 < error < 3e-2  # fewer bits, and used
    assert norm_error(last, whole[:, 11:]) < 1e-3


def test_locked_and_strange_arrays() -> None:
    """Masks and encoder's keys may be read-only and at any address."""
    config = decoder_config(add_cross_attention=True)
    model, exact = twins(config)
    ids = random_ids(config, (2, 6), 0)
    rng = np.random.default_rng(0)
    states, bias = rng.standard_normal((2, 5, 12)).astype(np.float32), rng.standard_normal((2, 1, 6, 6))
    expected = exact(ids, bias, encoder_hidden_states=states).logits
    with use_backend("numba"):
        y = model(ids, locked(bias.astype(np.float32)), encoder_hidden_states=locked(states)).logits
        cache = model(ids[:, :5], encoder_hidden_states=states).past_key_values
        again = KeyValueCache.from_arrays(
            [tuple(locked(array) for array in layer) for layer in cache], config, 2, np.dtype("float32")
        )
        last = model(ids[:, 5:], past_key_values=again).logits
        alone = model(ids, encoder_hidden_states=states).logits
    np.testing.assert_allclose(y, expected, rtol=0, atol=ATOL)
    np.testing.assert_allclose(last, alone[:, 5:], rtol=0, atol=ATOL)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_stay_in_their_sequence(value: float) -> None:
    """There they reach every row, also those before them, as in the reference: a weight of 0 times NaN is NaN."""
    config = decoder_config()
    model, _ = twins(config, head="Model")
    embeds = np.random.default_rng(0).standard_normal((2, 8, 12)).astype(np.float32)
    with use_backend("numba"):
        clean = model(inputs_embeds=embeds).last_hidden_state
        embeds[0, 5] = value
        y = model(inputs_embeds=embeds).last_hidden_state
    np.testing.assert_array_equal(y[1], clean[1])
    with np.errstate(invalid="ignore"):
        expected = model(inputs_embeds=embeds).last_hidden_state
    assert np.isnan(expected[0]).all()
    assert np.isnan(y[0]).all()


def test_a_query_that_sees_nothing_real_spreads_evenly() -> None:
    """The lowest finite number swallows every score, so that the weights are alike: as in the reference."""
    config = decoder_config(num_hidden_layers=1)
    model, exact = twins(config, head="Model")
    ids = random_ids(config, (1, 5), 0)
    mask = np.zeros((1, 5, 5), np.int64)
    with use_backend("numba"):
        y = model(ids, mask, use_cache=False).last_hidden_state
    assert softmax(np.full(3, np.finfo(np.float32).min)) == pytest.approx(1 / 3)
    np.testing.assert_allclose(y, exact(ids, mask, use_cache=False).last_hidden_state, rtol=0, atol=ATOL)
