"""Whether the kernels compile here and give the reference's numbers, on an example that takes no time."""

from __future__ import annotations

import numpy as np

from ..body import encoder as reference
from ..config import RobertaPreLayerNormConfig
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
    x, bounds, keys = rng.standard_normal((7, 20), np.float32), np.array([0, 7]), np.arange(7) < 6
    computed = encoder(body_weights(View(params), config), x, bounds, keys, np.arange(7))
    # in float64, which is never given to the kernels
    exact = View({name: value.astype(np.float64) for name, value in params.items()})
    expected = reference(exact, config, x.astype(np.float64), bounds, keys, None)
    error = float(np.abs(computed - expected).max())
    if not error < 1e-4:
        raise ArithmeticError(f"compiled code is off by {error:.2g} on this processor")
