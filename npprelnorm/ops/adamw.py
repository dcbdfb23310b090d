"""One step of the optimizer."""

from __future__ import annotations

import numpy as np


def adamw(
    p: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    gradient: np.ndarray,
    *,
    decay: float,
    betas: tuple[float, float],
    correction: float,
    eps: float,
    step_size: float,
) -> None:
    """One parameter's step, which changes it and the two means in place. arXiv:1711.05101, algorithm 2.

    p decay - step_size * mean / (sqrt(square) / correction + eps); `step_size` and `correction`, which undo that both
    means began as 0, are numbers of the step.
    """
    beta1, beta2 = betas
    p *= decay
    mean += (gradient - mean) * (1.0 - beta1)
    square *= beta2
    square += gradient * gradient * (1.0 - beta2)
    denominator = np.sqrt(square)
    denominator /= correction
    denominator += eps
    p -= mean / denominator * step_size
