"""Whether the kernels compile here and give the reference's numbers, on an example that takes no time."""

from __future__ import annotations

import numpy as np

from ..body import encoder as reference
from ..config import RobertaPreLayerNormConfig
from ..ops import linear, top_k
from ..params import View, body_shapes, initial
from .body_weights import body_weights
from .dots import few_rows_linear, linear_top_k
from .encoder import encoder


def prepare() -> None:
    """Compile every kernel of the forward, or load it from disk, and compare it with the reference.

    Raises
    ------
    ArithmeticError
        If the numbers differ by more than rounding.
    """
    for error in (_encoder_error(), _few_rows_error()):
        if not error < 1e-4:
            raise ArithmeticError(f"compiled code is off by {error:.2g} on this processor")


def _encoder_error() -> float:
    config = RobertaPreLayerNormConfig(
        vocab_size=4, hidden_size=20, num_hidden_layers=1, num_attention_heads=2, intermediate_size=40
    )
    rng = np.random.default_rng(0)
    dtype = np.dtype(np.float32)
    params = {n: initial(n, s, config, rng, dtype) for n, s in body_shapes(config, pooler=False).items()}
    x, bounds, keys = rng.standard_normal((7, 20), np.float32), np.array([0, 7]), np.arange(7) < 6
    computed = encoder(body_weights(View(params), config), x, bounds, keys, np.arange(7))
    # in float64, which is never given to the kernels
    exact = View({name: value.astype(np.float64) for name, value in params.items()})
    expected = reference(exact, config, x.astype(np.float64), bounds, keys, None)
    return float(np.abs(computed - expected).max())


def _few_rows_error() -> float:
    rng = np.random.default_rng(1)
    x, weight, bias = (rng.standard_normal(shape, np.float32) for shape in ((3, 21), (10, 21), 10))
    exact = x.astype(np.float64), weight.astype(np.float64), bias.astype(np.float64)
    computed, expected = linear_top_k(x, weight, bias, 10), top_k.linear_top_k(*exact, 10)
    if (computed.ids != expected.ids).any():
        return np.inf
    differences = [few_rows_linear(x, weight, bias)[0] - linear.linear(*exact)[0]]
    differences += [one - other for one, other in zip(computed[1:], expected[1:], strict=True)]
    return max(float(np.abs(difference).max()) for difference in differences)
