"""Whether the kernels compile here and give the reference's numbers, on an example that takes no time."""

from __future__ import annotations

import numpy as np

from ..config import RobertaPreLayerNormConfig
from ..layers import layer
from ..ops.normalization import layer_norm
from ..params import View, body_shapes, initial
from .body_weights import body_weights
from .encoder import encoder


def prepare() -> None:
    """Compile every kernel of the forward, or load it from disk, and compare it with the reference.

    Raises
    ------
    ArithmeticError
        If the numbers differ by more than rounding.
    """
    config = RobertaPreLayerNormConfig(
        vocab_size=4, hidden_size=20, num_hidden_layers=1, num_attention_heads=2, intermediate_size=40
    )
    rng = np.random.default_rng(0)
    dtype = np.dtype(np.float32)
    params = {n: initial(n, s, config, rng, dtype) for n, s in body_shapes(config, pooler=False).items()}
    x = rng.standard_normal((1, 7, 20), np.float32)
    keys = np.array([True] * 6 + [False])
    bias = np.where(keys, dtype.type(0), np.finfo(dtype).min)
    p = View(params)
    expected, _ = layer(x, p.at("encoder.layer.0."), config, mask=bias)
    expected, _ = layer_norm(expected, *p.affine("LayerNorm"), config.layer_norm_eps)
    computed = encoder(body_weights(p, config), x[0], np.array([0, 7]), keys, np.arange(7))
    error = float(np.abs(computed - expected[0]).max())
    if not error < 1e-4:
        raise ArithmeticError(f"compiled code is off by {error:.2g} on this processor")
