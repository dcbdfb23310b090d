"""Layer normalisation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


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
