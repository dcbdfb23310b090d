"""Twin of `ops.adamw.adamw`: each number of the parameter and its means is read and written once."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiling import entry, inline
from .primitives import floats
from .shapes import expect
from .team import counters, hand_in, spread, stages_at, take, wait
from .weights import address

_PIECE = 1 << 14  # numbers of one task


@inline
def _moved_mean(mean: Any, gradient: Any, rate: Any) -> Any:
    return mean + (gradient - mean) * rate


@inline
def _moved_square(square: Any, gradient: Any, beta: Any, rate: Any) -> Any:
    return square * beta + gradient * gradient * rate


@inline
def _moved(p: Any, mean: Any, square: Any, decay: Any, correction: Any, eps: Any, step_size: Any) -> Any:
    return p * decay - mean / (np.sqrt(square) / correction + eps) * step_size


@entry
def run_adamw(
    p_at: int, mean_at: int, square_at: int, gradient_at: int, count: int, factors_at: int, piece: int, counters_at: int
) -> None:
    """One step, by pieces."""
    factors = floats(factors_at, 7)
    decay, mean_rate, beta2, square_rate = factors[0], factors[1], factors[2], factors[3]
    correction, eps, step_size = factors[4], factors[5], factors[6]
    pieces = -(-count // piece)
    stages = stages_at(counters_at, 1)
    task = take(stages, 0)
    while task < pieces:
        size, at = min(piece, count - task * piece), 4 * task * piece
        p, gradient = floats(p_at + at, size), floats(gradient_at + at, size)
        mean, square = floats(mean_at + at, size), floats(square_at + at, size)
        for i in range(size):
            m = _moved_mean(mean[i], gradient[i], mean_rate)
            v = _moved_square(square[i], gradient[i], beta2, square_rate)
            mean[i] = m
            square[i] = v
            p[i] = _moved(p[i], m, v, decay, correction, eps, step_size)
        hand_in(stages, 0)
        task = take(stages, 0)
    wait(stages, 0, pieces)


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
    threads: int = 1,
) -> None:
    """Twin of `ops.adamw.adamw`, in float32."""
    for name, array in (("the mean", mean), ("the mean square", square), ("the gradient", gradient)):
        expect(f"{name} of a parameter", array, *p.shape)
    changed = tuple(np.require(array, np.float32, ("C", "A", "W")) for array in (p, mean, square))
    slope, shared = np.require(gradient, np.float32, ("C", "A")), counters(1)
    factors = np.array([decay, 1.0 - betas[0], betas[1], 1.0 - betas[1], correction, eps, step_size], np.float32)
    arguments = (*map(address, (*changed, slope)), slope.size, address(factors), _PIECE, address(shared))
    spread(lambda thread: run_adamw(*arguments), slope.size, threads)
    for given, array in zip((p, mean, square), changed, strict=True):
        if array is not given:  # what was given lies otherwise in memory
            given[...] = array
