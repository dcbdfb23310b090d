"""The twins of the ops that training spends its time in, and whether they give the reference's numbers here."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops import activations as ops_activations
from ..ops import losses as ops_losses
from ..ops import normalization as ops_normalization
from .adamw import adamw
from .elementwise import (
    gelu,
    gelu_backward,
    gelu_tanh,
    gelu_tanh_backward,
    quick_gelu,
    quick_gelu_backward,
    relu,
    relu_backward,
    silu,
    silu_backward,
    tanh,
    tanh_backward,
)
from .embedding import embedding_backward
from .losses import cross_entropy, cross_entropy_backward
from .normalization import layer_norm, layer_norm_backward

__all__ = [
    "adamw",
    "cross_entropy",
    "cross_entropy_backward",
    "embedding_backward",
    "gelu",
    "gelu_backward",
    "gelu_tanh",
    "gelu_tanh_backward",
    "layer_norm",
    "layer_norm_backward",
    "prepare",
    "quick_gelu",
    "quick_gelu_backward",
    "relu",
    "relu_backward",
    "silu",
    "silu_backward",
    "tanh",
    "tanh_backward",
]


def prepare() -> None:
    """Compile the twins, or load them from disk, and compare them with the reference.

    Raises
    ------
    ArithmeticError
        If the numbers differ by more than rounding.
    """
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((5, 20), np.float32), rng.standard_normal((5, 20), np.float32)
    weight, bias = rng.standard_normal((2, 20), np.float32)
    labels, dloss = np.array([3, -100, 0, 19, 7]), 2.0

    def through(norm: Any, norm_backward: Any, gelu: Any, gelu_backward: Any, entropy: Any, entropy_backward: Any,
                dtype: str) -> list[np.ndarray]:  # fmt: skip
        a, d, w, b = (np.asarray(array, dtype) for array in (x, dy, weight, bias))
        y, norm_cache = norm(a, w, b, 1e-5)
        z, gelu_cache = gelu(y)
        loss, loss_cache = entropy(z, labels)
        dz = entropy_backward(np.asarray(dloss, dtype), loss_cache)
        return [loss, *norm_backward(gelu_backward(d + dz, gelu_cache), norm_cache)]

    computed = through(
        layer_norm, layer_norm_backward, gelu, gelu_backward, cross_entropy, cross_entropy_backward, "float32"
    )
    exact = through(
        ops_normalization.layer_norm, ops_normalization.layer_norm_backward, ops_activations.gelu,
        ops_activations.gelu_backward, ops_losses.cross_entropy, ops_losses.cross_entropy_backward, "float64",
    )  # fmt: skip
    error = max(float(np.abs(a - b).max()) for a, b in zip(computed, exact, strict=True))
    if not error < 1e-4:
        raise ArithmeticError(f"compiled code is off by {error:.2g} on this processor")
