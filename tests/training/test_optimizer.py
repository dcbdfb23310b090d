"""AdamW and clipping against what the papers say, one number at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npprelnorm as nl
from npprelnorm.errors import InputError
from npprelnorm.training.optimizer import AdamW, clip_by_global_norm, decays, global_norm


def naive_adamw(
    start: float, gradients: list[float], rates: list[float], beta1: float, beta2: float, eps: float, decay: float
) -> float:
    """Algorithm 2 of arXiv:1711.05101 for one number, as it is printed there."""
    theta, m, v = start, 0.0, 0.0
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        theta = theta - rate * decay * theta - rate * m_hat / (math.sqrt(v_hat) + eps)
    return theta


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 8),
    st.floats(0.0, 0.95),
    st.floats(0.5, 0.999),
    st.sampled_from((1e-8, 1e-3)),
    st.sampled_from((0.0, 0.01, 0.3)),
)
def test_adamw_is_the_naive_one_in_every_number(
    seed: int, steps: int, beta1: float, beta2: float, eps: float, decay: float
) -> None:
    rng = np.random.default_rng(seed)
    names = {"layer.weight": (3, 2), "layer.bias": (2,), "LayerNorm.weight": (2,)}
    params = {name: rng.standard_normal(shape) for name, shape in names.items()}
    start = {name: value.copy() for name, value in params.items()}
    optimizer = AdamW(params, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    history = [{name: rng.standard_normal(shape) for name, shape in names.items()} for _ in range(steps)]
    rates = list(rng.uniform(0.0, 0.1, steps))
    for grads, rate in zip(history, rates, strict=True):
        optimizer.step(params, grads, rate)
    for name, value in params.items():
        own_decay = decay if name == "layer.weight" else 0.0
        for place in np.ndindex(value.shape):
            gradients = [float(grads[name][place]) for grads in history]
            expected = naive_adamw(float(start[name][place]), gradients, rates, beta1, beta2, eps, own_decay)
            assert abs(value[place] - expected) <= 1e-12


def test_decay_is_for_matrices_and_tables_only() -> None:
    config = nl.RobertaPreLayerNormConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = nl.RobertaPreLayerNormForMaskedLM(config)
    for name, value in model.params.items():
        assert decays(name) == (value.ndim == 2), name


def test_parameters_without_a_gradient_stay_even_under_decay() -> None:
    params = {"a.weight": np.ones((2, 2)), "b.weight": np.ones((2, 2))}
    AdamW(params, weight_decay=0.5).step(params, {"a.weight": np.ones((2, 2))}, 0.1)
    assert (params["b.weight"] == 1.0).all()
    assert (params["a.weight"] < 1.0).all()


def test_float32_stays_float32_and_equals_float64_nearly() -> None:
    rng = np.random.default_rng(0)
    wide = {"a.weight": rng.standard_normal((4, 3))}
    narrow = {"a.weight": wide["a.weight"].astype(np.float32)}
    one, other = AdamW(wide), AdamW(narrow)
    for _ in range(20):
        g = rng.standard_normal((4, 3))
        one.step(wide, {"a.weight": g}, 0.01)
        other.step(narrow, {"a.weight": g.astype(np.float32)}, 0.01)
    for array in (*narrow.values(), *other.state().values()):
        assert array.dtype == np.float32
    np.testing.assert_allclose(narrow["a.weight"], wide["a.weight"], atol=2e-6)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 10.0))
def test_clipping_keeps_the_direction_and_bounds_the_norm(seed: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    grads = {name: rng.standard_normal(shape) for name, shape in (("a", (3, 4)), ("b", (5,)))}
    before = {name: value.copy() for name, value in grads.items()}
    norm = clip_by_global_norm(grads, limit)
    every = np.concatenate([value.ravel() for value in before.values()])
    assert norm == pytest.approx(math.sqrt(sum(float(x) ** 2 for x in every)), rel=1e-12)
    assert global_norm(grads) <= limit * (1 + 1e-12)
    scale = min(1.0, limit / (norm + 1e-6))
    for name, value in grads.items():
        np.testing.assert_allclose(value, before[name] * scale, rtol=1e-14)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clipping_leaves_gradients_alone_that_are_not_finite(bad: float) -> None:
    grads = {"a": np.array([1.0, bad]), "b": np.array([2.0])}
    assert not math.isfinite(clip_by_global_norm(grads, 1.0))
    assert grads["b"][0] == 2.0


def test_the_state_goes_into_a_file_and_back() -> None:
    rng = np.random.default_rng(1)
    params = {"a.weight": rng.standard_normal((2, 3))}
    history = [{"a.weight": rng.standard_normal((2, 3))} for _ in range(6)]
    one = AdamW(params)
    for grads in history[:3]:
        one.step(params, grads, 0.01)
    copy = {name: value.copy() for name, value in params.items()}
    other = AdamW(copy)
    other.restore({name: value.copy() for name, value in one.state().items()}, one.steps)
    for grads in history[3:]:
        one.step(params, grads, 0.01)
        other.step(copy, grads, 0.01)
    assert np.array_equal(params["a.weight"], copy["a.weight"])
    with pytest.raises(InputError, match=r"no mean\.b of shape \(2,\): another model's"):
        AdamW({"b": np.zeros(2)}).restore(one.state(), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (1.0, 0.9)}, "beta1 is 1.0; allowed"),
        ({"betas": (0.9, -0.1)}, "beta2 is -0.1; allowed"),
        ({"eps": -1.0}, "eps is -1.0; allowed"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; allowed"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdamW({}, **options)  # type: ignore[arg-type]
