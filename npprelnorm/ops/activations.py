"""Activations. `f(x) -> (y, cache)` and `f_backward(dy, cache) -> dx`, element by element, in the dtype of x."""

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


def gelu_backward(dy: np.ndarray, cache: Cache) -> np.ndarray:
    """dy * (Phi(x) + x phi(x)), phi(x) = exp(-x^2 / 2) / sqrt(2 pi) being the derivative of Phi."""
    (x,) = cache
    density = np.exp(x * x * -0.5)
    density *= math.sqrt(0.5 / math.pi)
    density *= x
    cumulative = erf(x * math.sqrt(0.5))
    cumulative += 1.0
    cumulative *= 0.5
    cumulative += density
    cumulative *= dy
    return cumulative


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


def gelu_tanh_backward(dy: np.ndarray, cache: Cache) -> np.ndarray:
    """dy * ((1 + t) / 2 + x/2 (1 - t^2) u'), t = tanh(u), u' = sqrt(2/pi) (1 + 3 * 0.044715 x^2)."""
    (x,) = cache
    square = x * x
    t = np.tanh(math.sqrt(2.0 / math.pi) * x * (1.0 + 0.044715 * square))
    du = math.sqrt(2.0 / math.pi) * (1.0 + 3.0 * 0.044715 * square)
    return dy * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * du)


def quick_gelu(x: np.ndarray) -> tuple[np.ndarray, Cache]:
    """x * sigmoid(1.702 x). arXiv:1606.08415, section 2, the sigmoid approximation."""
    return x * sigmoid(x * 1.702), (x,)


def quick_gelu_backward(dy: np.ndarray, cache: Cache) -> np.ndarray:
    """dy * (s + 1.702 x s (1 - s)), s = sigmoid(1.702 x)."""
    (x,) = cache
    s = sigmoid(x * 1.702)
    return dy * (s + 1.702 * x * s * (1.0 - s))


def relu(x: np.ndarray) -> tuple[np.ndarray, Cache]:
    """max(x, 0)."""
    return np.maximum(x, 0.0, dtype=x.dtype), (x,)


def relu_backward(dy: np.ndarray, cache: Cache) -> np.ndarray:
    """dy where x > 0, else 0 (at 0 too, as in torch)."""
    (x,) = cache
    return dy * (x > 0)


def silu(x: np.ndarray) -> tuple[np.ndarray, Cache]:
    """x * sigmoid(x). Elfwing et al. 2017, arXiv:1702.03118, equation 3; also called swish."""
    return x * sigmoid(x), (x,)


def silu_backward(dy: np.ndarray, cache: Cache) -> np.ndarray:
    """dy * s (1 + x (1 - s)), s = sigmoid(x)."""
    (x,) = cache
    s = sigmoid(x)
    return dy * s * (1.0 + x * (1.0 - s))


def tanh(x: np.ndarray) -> tuple[np.ndarray, Cache]:
    """tanh(x); keeps y, which is all that its derivative 1 - y^2 needs."""
    y = np.tanh(x)
    return y, (y,)


def tanh_backward(dy: np.ndarray, cache: Cache) -> np.ndarray:
    """dy * (1 - y^2)."""
    (y,) = cache
    return dy * (1.0 - y * y)


Forward = Callable[[np.ndarray], tuple[np.ndarray, Cache]]
Backward = Callable[[np.ndarray, Cache], np.ndarray]

# a configuration's `hidden_act` -> the pair; transformers has two names for one tanh form, and two for silu
ACTIVATIONS: dict[str, tuple[Forward, Backward]] = {
    "gelu": (gelu, gelu_backward),
    "gelu_new": (gelu_tanh, gelu_tanh_backward),
    "gelu_pytorch_tanh": (gelu_tanh, gelu_tanh_backward),
    "quick_gelu": (quick_gelu, quick_gelu_backward),
    "relu": (relu, relu_backward),
    "silu": (silu, silu_backward),
    "swish": (silu, silu_backward),
    "tanh": (tanh, tanh_backward),
}
