"""The whole stack in one kernel, against the reference's layers in float64."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import THREADS, locked, norm_error
from strategies import ACTIVATION_NAMES, random_params, seeds, tiny_config

from npprelnorm import RobertaPreLayerNormConfig
from npprelnorm.body import encoder as reference
from npprelnorm.kernels import body_weights, encoder
from npprelnorm.params import Params, View, body_shapes


def float32_params(config: RobertaPreLayerNormConfig, seed: int = 0) -> Params:
    shapes = body_shapes(config, pooler=False)
    return {name: value.astype(np.float32) for name, value in random_params(shapes, seed).items()}


def exact(
    params: Params, config: RobertaPreLayerNormConfig, x: np.ndarray, bounds: np.ndarray, keys: np.ndarray | None
) -> np.ndarray:
    """The reference in float64."""
    p = View({name: value.astype(np.float64) for name, value in params.items()})
    return reference(p, config, x.astype(np.float64), bounds, keys, None)


def packed_batch(seed: int, lengths: list[int], width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return rng.standard_normal((int(bounds[-1]), width), np.float32), bounds


@settings(max_examples=60)
@given(
    seed=seeds,
    lengths=st.lists(st.integers(0, 21), max_size=4),
    heads=st.integers(1, 3),
    size=st.integers(1, 20),
    inner=st.integers(1, 40),
    layers=st.integers(1, 2),
    masked=st.booleans(),
    reading=st.booleans(),
    threads=st.sampled_from(THREADS),
    post_ln=st.booleans(),
)
def test_against_the_reference(
    seed: int, lengths: list[int], heads: int, size: int, inner: int, layers: int, masked: bool, reading: bool,
    threads: int, post_ln: bool,
) -> None:  # fmt: skip
    config = tiny_config(
        "roberta" if post_ln else "roberta-prelayernorm", num_hidden_layers=layers,
        num_attention_heads=heads, hidden_size=heads * size, intermediate_size=inner, layer_norm_eps=1e-2,
    )  # fmt: skip
    params = float32_params(config, seed)
    x, bounds = packed_batch(seed, lengths, config.hidden_size)
    rng = np.random.default_rng(seed)
    keys = rng.random(len(x)) < 0.6 if masked else None
    read = rng.integers(0, len(x), rng.integers(0, len(x) + 3)) if reading and len(x) else None
    y = encoder(body_weights(View(params), config, threads), x, bounds, keys, read, threads=threads)
    expected = exact(params, config, x, bounds, keys)
    if read is not None:
        expected = expected[read]
    assert y.dtype == np.float32
    # numbers of order 1 to 10 with eps 1e-2, so that a row of nearly equal numbers is not blown up
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_every_activation_at_real_head_sizes(name: str) -> None:
    config = tiny_config(hidden_size=128, num_attention_heads=2, intermediate_size=160, hidden_act=name)
    params = {name: value * np.float32(0.4) for name, value in float32_params(config).items()}
    x, bounds = packed_batch(0, [70, 1, 130], 128)
    y = encoder(body_weights(View(params), config), x, bounds)
    assert norm_error(y, exact(params, config, x, bounds, None)) < 2e-6


def test_threads_company_and_order_change_no_bit() -> None:
    config = tiny_config(hidden_size=48, intermediate_size=100)
    weights = body_weights(View(float32_params(config)), config)
    x, bounds = packed_batch(0, [30, 7, 200, 1], 48)
    keys = np.random.default_rng(1).random(len(x)) < 0.7
    whole = encoder(weights, x, bounds, keys)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(encoder(weights, x, bounds, keys, threads=threads), whole)
    for first, last in itertools.pairwise(bounds):
        alone = encoder(weights, x[first:last], np.array([0, last - first]), keys[first:last])
        np.testing.assert_array_equal(alone, whole[first:last])
    read = np.array([5, 236, 40, 5, 0])
    np.testing.assert_array_equal(encoder(weights, x, bounds, keys, read, threads=2), whole[read])


def test_a_sequence_without_keys_sees_all_its_rows_alike() -> None:
    """As the reference does under a mask of zeros: the lowest finite number swallows every score."""
    config = tiny_config()
    params = float32_params(config)
    x, bounds = packed_batch(0, [5, 6], 12)
    keys = np.array([False] * 5 + [True] * 6)
    y = encoder(body_weights(View(params), config), x, bounds, keys)
    np.testing.assert_allclose(y, exact(params, config, x, bounds, keys), rtol=0, atol=1e-4)


def test_nan_stays_in_its_sequence() -> None:
    config = tiny_config()
    weights = body_weights(View(float32_params(config)), config)
    x, bounds = packed_batch(0, [5, 6], 12)
    clean = encoder(weights, x, bounds)
    x[2, 3] = np.nan
    y = encoder(weights, x, bounds)
    assert np.isnan(y[:5]).all()
    np.testing.assert_array_equal(y[5:], clean[5:])


def test_arguments_are_not_written_to_and_may_lie_anywhere() -> None:
    config = tiny_config(hidden_size=48)
    params = float32_params(config)
    x, bounds = packed_batch(0, [9, 3], 48)
    expected = encoder(body_weights(View(params), config), x, bounds)
    strange = {name: locked(value) for name, value in params.items()}
    weights = body_weights(View(strange), config)
    np.testing.assert_array_equal(encoder(weights, locked(x), bounds), expected)
    np.testing.assert_array_equal(encoder(weights, np.asfortranarray(x), bounds), expected)


def run(params: Params, config: RobertaPreLayerNormConfig, x: np.ndarray) -> Any:
    return encoder(body_weights(View(params), config), x, np.array([0, len(x)]))


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layer.1.attention.self.value.weight",
        "encoder.layer.0.attention.self.value.bias",
        "encoder.layer.1.output.dense.weight",
        "encoder.layer.0.intermediate.LayerNorm.weight",
        "LayerNorm.bias",
    ],
)
@pytest.mark.parametrize("hidden", [12, 48])
def test_weights_that_change_in_place_or_are_replaced_are_noticed(name: str, hidden: int) -> None:
    config = tiny_config(hidden_size=hidden)
    params = float32_params(config)
    x, _ = packed_batch(0, [4], hidden)
    before = run(params, config, x)
    np.testing.assert_array_equal(run(params, config, x), before)
    kept = params[name].copy()
    params[name][:1] += 0.5
    changed = run(params, config, x)
    assert np.abs(changed - before).max() > 1e-4
    params[name][...] = kept
    np.testing.assert_array_equal(run(params, config, x), before)
    params[name] = params[name].copy()
    params[name][:1] += 0.5
    assert np.abs(run(params, config, x) - before).max() > 1e-4
    params[name] = kept
    for array in params.values():
        array.flags.writeable = False
    for _ in range(2):
        np.testing.assert_array_equal(run(params, config, x), before)
    other = kept.copy()
    other[:1] += 0.5
    other.flags.writeable = False
    params[name] = other
    np.testing.assert_array_equal(run(params, config, x), changed)
    other.flags.writeable = True
    other[...] = kept
    np.testing.assert_array_equal(run(params, config, x), before)


def test_settings_that_change_are_noticed() -> None:
    config = tiny_config()
    params = float32_params(config)
    for array in params.values():
        array.flags.writeable = False
    x, _ = packed_batch(0, [4], 12)
    before = run(params, config, x)
    for change in ({"layer_norm_eps": 0.5}, {"hidden_act": "relu"}, {"num_attention_heads": 2}):
        other = tiny_config(**change)
        y = run(params, other, x)
        np.testing.assert_allclose(y, exact(params, other, x, np.array([0, 4]), None), rtol=0, atol=2e-4)
        assert np.abs(y - before).max() > 1e-3
