"""Activations. `f(x) -> (y, cache)`, element by element, in the dtype of x."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .erf import erf

Cache = tuple[np.ndarray, ...]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), from exp(-|x|) so that nothing overflows and small results keep their digits."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, np.ones((), x.dtype), e) / (1.0 + e)


def gelu(x: np.ndarray) -> tuple[np.ndarray, Cache]:
    """x * Phi(x) = x/2 * (1 + erf(x / sqrt 2)). Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2."""
    y = erf(x * math.sqrt(0.5))
    y += 1.0
    y *= x
    y *= 0.5
    return y, (x,)


def gelu_tanh(x: np.ndarray) -> tuple[np.ndarray, Cache]:
    """x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))). arXiv:1606.08415, section 2, the approximation."""
    y = x * x
    y *= 0.044715
    y += 1.0
    y *= x
    y *= math.sqrt(2.0 / math.pi)
    np.tanh(y, out=y)
    y += 1.0
    y *= x
    y *= 0.5
    return y, (x,)


def quick_gelu(x: np.ndarray) -> tuple[np.ndarray, Cache]:
    """x * sigmoid(1.702 x). arXiv:1606.08415, section 2, the sigmoid approximation."""
    return x * sigmoid(x * 1.702), (x,)


def relu(x: np.ndarray) -> tuple[np.ndarray, Cache]:
    """max(x, 0)."""
    return np.maximum(x, 0.0, dtype=x.dtype), (x,)


def silu(x: np.ndarray) -> tuple[np.ndarray, Cache]:
    """x * sigmoid(x). Elfwing et al. 2017, arXiv:1702.03118, equation 3; also called swish."""
    return x * sigmoid(x), (x,)


def tanh(x: np.ndarray) -> tuple[np.ndarray, Cache]:
    """tanh(x); keeps y, which is all that its derivative 1 - y^2 needs."""
    y = np.tanh(x)
    return y, (y,)


# a configuration's `hidden_act` -> the function; transformers has two names for one tanh form, and two for silu
ACTIVATIONS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, Cache]]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "silu": silu,
    "swish": silu,
    "tanh": tanh,
}
