"""Derivatives of the activations of one float32 number; `ops.activations` has the formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import vector_math as vm
from .compiling import inline

F = np.float32

_ZERO, _HALF, _ONE = F(0.0), F(0.5), F(1.0)


@inline
def gelu(x: Any) -> Any:
    """Phi(x) + x phi(x)."""
    return vm.normal_cumulative(x) + F(math.sqrt(0.5 / math.pi)) * x * vm.exp(-_HALF * x * x)


@inline
def gelu_tanh(x: Any) -> Any:
    """(1 + t) / 2 + x/2 (1 - t^2) u', t = tanh(u), u' = sqrt(2/pi) (1 + 3 * 0.044715 x^2)."""
    square = x * x
    t = vm.tanh(F(math.sqrt(2.0 / math.pi)) * x * (_ONE + F(0.044715) * square))
    du = F(math.sqrt(2.0 / math.pi)) * (_ONE + F(3.0 * 0.044715) * square)
    return _HALF * (_ONE + t) + _HALF * x * ((_ONE - t) * (_ONE + t)) * du


@inline
def quick_gelu(x: Any) -> Any:
    """s + z s (1 - s), z = 1.702 x, s = sigmoid(z); 1 - s = sigmoid(-z) keeps its digits."""
    z = F(1.702) * x
    s = vm.sigmoid(z)
    return s + z * s * vm.sigmoid(-z)


@inline
def relu(x: Any) -> Any:
    """1 where x > 0, else 0."""
    return _ONE if x > _ZERO else _ZERO


@inline
def silu(x: Any) -> Any:
    """s (1 + x (1 - s)), s = sigmoid(x), 1 - s = sigmoid(-x)."""
    return vm.sigmoid(x) * (_ONE + x * vm.sigmoid(-x))


@inline
def tanh(y: Any) -> Any:
    """1 - y^2, of the value y = tanh(x) and not of x."""
    return _ONE - y * y
