"""Layer normalisation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .linear import sum_rows


class LayerNormCache(NamedTuple):
    """What the backward needs."""

    x_hat: np.ndarray  # (..., C)
    inv_std: np.ndarray  # (..., 1)
    weight: np.ndarray  # (C,)


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> tuple[np.ndarray, LayerNormCache]:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis; var is the biased variance.

    Ba, Kiros & Hinton 2016, arXiv:1607.06450, equation 4. x (..., C), weight (C,), bias (C,) -> (..., C).
    """
    x_hat = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(x_hat).mean(axis=-1, keepdims=True)  # (..., C) -> (..., 1)
    inv_std = 1.0 / np.sqrt(variance + eps)
    x_hat *= inv_std
    return x_hat * weight + bias, LayerNormCache(x_hat, inv_std, weight)


def layer_norm_backward(dy: np.ndarray, cache: LayerNormCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dweight, dbias.

    With g = dy * weight:  dx = inv_std * (g - mean(g) - x_hat * mean(g * x_hat)). The two means are what moving
    the mean, and moving the variance, of the row takes back. They are 0 for a constant g and for a multiple of x_hat.
    """
    x_hat, inv_std, weight = cache
    g = dy * weight
    dx = g - g.mean(axis=-1, keepdims=True)
    dx -= x_hat * (g * x_hat).mean(axis=-1, keepdims=True)
    dx *= inv_std
    return dx, sum_rows(dy * x_hat), sum_rows(dy)
