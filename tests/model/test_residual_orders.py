"""The two residual orders, each as a forward and backward pair around a block of one linear map and a tanh."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradcheck import check_backward
from hypothesis import given
from hypothesis import strategies as st

from npprelnorm.gradients import Gradients, GradientView
from npprelnorm.layers import post_ln, post_ln_backward, pre_ln, pre_ln_backward
from npprelnorm.ops.activations import tanh, tanh_backward
from npprelnorm.ops.linear import linear
from npprelnorm.ops.normalization import layer_norm

EPS = 1e-5
ORDERS = {"pre": (pre_ln, pre_ln_backward), "post": (post_ln, post_ln_backward)}
NAMES = ("block.weight", "block.bias", "norm.weight", "norm.bias")


def parameters(width: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = ((width, width), (width,), (width,), (width,))
    params = {name: rng.standard_normal(shape) for name, shape in zip(NAMES, shapes, strict=True)}
    params["norm.weight"] += 2.0
    return params


def pair(order: str, eps: float = EPS) -> tuple[Any, Any]:
    """The order as an op of x and the four parameters."""
    f, f_backward = ORDERS[order]

    def forward(x: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, Any]:
        weight, bias, *norm = values

        def block(u: np.ndarray) -> tuple[np.ndarray, Any]:
            h, linear_cache = linear(u, weight, bias)
            y, activation_cache = tanh(h)
            return y, (linear_cache, activation_cache)

        y, cache = f(block, x, norm, eps)
        return y, (cache, dict(zip(NAMES, values, strict=True)))

    def backward(dy: np.ndarray, cache: Any) -> tuple[np.ndarray, ...]:
        inner, params = cache
        g = GradientView(Gradients(params))

        def block_backward(d: np.ndarray, block_cache: Any) -> np.ndarray:
            linear_cache, activation_cache = block_cache
            return g.linear("block", tanh_backward(d, activation_cache), linear_cache)

        dx = f_backward(block_backward, dy, inner, g, "norm")
        grads = g.gradients.finish()
        return dx, *(grads[name] for name in NAMES)

    return forward, backward


@pytest.mark.parametrize("order", ORDERS)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 4), width=st.integers(8, 12))
def test_both_backwards_undo_their_forward(order: str, seed: int, rows: int, width: int) -> None:
    x = np.random.default_rng(seed).standard_normal((rows, width))
    check_backward(*pair(order), [x, *parameters(width, seed + 1).values()], seed + 2)


@pytest.mark.parametrize("order", ORDERS)
def test_what_each_order_computes(order: str) -> None:
    x, params = np.random.default_rng(0).standard_normal((3, 8)), parameters(8, 1)
    weight, bias, *norm = params.values()

    def normalised(u: np.ndarray) -> np.ndarray:
        mean, variance = u.mean(axis=-1, keepdims=True), u.var(axis=-1, keepdims=True)
        return (u - mean) / np.sqrt(variance + EPS) * norm[0] + norm[1]

    def block(u: np.ndarray) -> np.ndarray:
        return np.tanh(u @ weight.T + bias)

    expected = x + block(normalised(x)) if order == "pre" else normalised(x + block(x))
    np.testing.assert_allclose(pair(order)[0](x, *params.values())[0], expected, rtol=1e-12, atol=1e-12)


def test_only_pre_ln_has_an_identity_path() -> None:
    """With a block that is 0, pre-LN passes the gradient on as it is; post-LN projects it in every layer."""
    rng = np.random.default_rng(0)
    x, dy, params = rng.standard_normal((3, 8)), rng.standard_normal((3, 8)), parameters(8, 1)
    params["block.weight"][:] = params["block.bias"][:] = 0.0
    through = {}
    for order in ORDERS:
        forward, backward = pair(order, eps=1e-12)
        _, cache = forward(x, *params.values())
        through[order] = backward(dy, cache)[0]
    assert np.array_equal(through["pre"], dy)
    # a row's LayerNorm ignores a shift and a scaling of it, so its gradient has no part along either
    _, norm_cache = layer_norm(x, params["norm.weight"], params["norm.bias"], 1e-12)
    np.testing.assert_allclose(through["post"].sum(axis=-1), 0.0, atol=1e-12)
    np.testing.assert_allclose((through["post"] * norm_cache.x_hat).sum(axis=-1), 0.0, atol=1e-9)
    assert np.abs(through["post"] - dy).max() > 0.1
