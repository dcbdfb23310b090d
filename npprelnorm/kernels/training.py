"""The twins of the ops that training spends its time in, and whether they give the reference's numbers here."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..ops import activations, embedding, losses, normalization
from ..ops import adamw as optimizer
from ..ops import attention as ops_attention
from ..ops.embedding import EmbeddingCache
from .adamw import adamw
from .attention_training import attention, attention_backward
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
    "attention",
    "attention_backward",
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
    arrays = rng.standard_normal((3, 5, 20), np.float32)
    error = max(
        float(np.abs(computed - exact).max())
        for computed, exact in zip(
            _through(sys.modules[__name__], arrays), _through(_Reference, arrays.astype(np.float64)), strict=True
        )
    )
    if not error < 1e-4:
        raise ArithmeticError(f"compiled code is off by {error:.2g} on this processor")


class _Reference:
    """The reference's functions by name."""

    layer_norm = staticmethod(normalization.layer_norm)
    layer_norm_backward = staticmethod(normalization.layer_norm_backward)
    gelu = staticmethod(activations.gelu)
    gelu_backward = staticmethod(activations.gelu_backward)
    cross_entropy = staticmethod(losses.cross_entropy)
    cross_entropy_backward = staticmethod(losses.cross_entropy_backward)
    embedding_backward = staticmethod(embedding.embedding_backward)
    attention = staticmethod(ops_attention.attention)
    attention_backward = staticmethod(ops_attention.attention_backward)
    adamw = staticmethod(optimizer.adamw)


def _through(ops: Any, arrays: np.ndarray) -> list[np.ndarray]:
    """Results of one op after the other."""
    x, dy, (weight, bias, *_) = arrays
    labels, dloss = np.array([3, -100, 0, 19, 7]), np.asarray(2.0, x.dtype)
    y, norm_cache = ops.layer_norm(x, weight, bias, 1e-5)
    z, gelu_cache = ops.gelu(y)
    loss, loss_cache = ops.cross_entropy(z, labels)
    dz = dy + ops.cross_entropy_backward(dloss, loss_cache)
    dx, dweight, dbias = ops.layer_norm_backward(ops.gelu_backward(dz, gelu_cache), norm_cache)
    dtable = ops.embedding_backward(dx, EmbeddingCache(np.array([1, 0, 1, 2, 1]), 3), 0)
    q, k, v, dcontext = (a.reshape(1, 5, 2, 10).swapaxes(1, 2) for a in (x, dy, y, z))
    context, core = ops.attention(q, k, v, None)
    gradients = ops.attention_backward(dcontext, core)
    p, mean, square = x.copy(), dy.copy(), np.square(dx)
    step = {"decay": 0.9, "betas": (0.9, 0.98), "correction": 0.5, "eps": 1e-6, "step_size": 1e-3}
    ops.adamw(p, mean, square, dx, **step)
    return [loss, dx, dweight, dbias, dtable, context, *gradients[:3], p, mean, square]
