"""Twins of `ops.activations`, forward and backward, and of softmax, in float32: one pass in pieces for a team."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import derivatives
from .attention import exp_row
from .compiling import entry, part
from .gemm import GELU, GELU_TANH, QUICK_GELU, RELU, SILU, TANH, activate
from .primitives import floats
from .team import counters, hand_in, spread, stages_at, take, wait
from .weights import address

Cache = tuple[np.ndarray, ...]

_PIECE = 1 << 14  # numbers of one task


@entry
def run_activation(what: int, x_at: int, y_at: int, count: int, piece: int, counters_at: int) -> None:
    """y = activation(x), by pieces."""
    pieces = -(-count // piece)
    stages = stages_at(counters_at, 1)
    task = take(stages, 0)
    while task < pieces:
        size = min(piece, count - task * piece)
        x, y = floats(x_at + 4 * task * piece, size), floats(y_at + 4 * task * piece, size)
        for i in range(size):
            y[i] = x[i]
        activate(what, y, size)
        hand_in(stages, 0)
        task = take(stages, 0)
    wait(stages, 0, pieces)


@part
def _times_derivative(what: int, x: Any, dy: Any, dx: Any, count: int) -> None:
    """dx = dy * activation'(x): one long loop each, which LLVM vectorises."""
    if what == GELU:
        for i in range(count):
            dx[i] = dy[i] * derivatives.gelu(x[i])
    elif what == GELU_TANH:
        for i in range(count):
            dx[i] = dy[i] * derivatives.gelu_tanh(x[i])
    elif what == QUICK_GELU:
        for i in range(count):
            dx[i] = dy[i] * derivatives.quick_gelu(x[i])
    elif what == RELU:
        for i in range(count):
            dx[i] = dy[i] * derivatives.relu(x[i])
    elif what == SILU:
        for i in range(count):
            dx[i] = dy[i] * derivatives.silu(x[i])
    elif what == TANH:
        for i in range(count):
            dx[i] = dy[i] * derivatives.tanh(x[i])


@entry
def run_activation_backward(
    what: int, x_at: int, dy_at: int, dx_at: int, count: int, piece: int, counters_at: int
) -> None:
    """dx = dy * activation'(x), by pieces; x is what the forward kept."""
    pieces = -(-count // piece)
    stages = stages_at(counters_at, 1)
    task = take(stages, 0)
    while task < pieces:
        size, at = min(piece, count - task * piece), 4 * task * piece
        _times_derivative(what, floats(x_at + at, size), floats(dy_at + at, size), floats(dx_at + at, size), size)
        hand_in(stages, 0)
        task = take(stages, 0)
    wait(stages, 0, pieces)


@entry
def run_softmax(x_at: int, y_at: int, rows: int, width: int, block: int, counters_at: int) -> None:
    """y = softmax(x) of each row, by blocks of rows."""
    x, y = floats(x_at, rows * width), floats(y_at, rows * width)
    tasks = -(-rows // block)
    stages = stages_at(counters_at, 1)
    task = take(stages, 0)
    while task < tasks:
        for row in range(task * block, min(rows, (task + 1) * block)):
            x_row, y_row = x[row * width : (row + 1) * width], y[row * width : (row + 1) * width]
            for i in range(width):
                y_row[i] = x_row[i]
            inverse = np.float32(1.0) / exp_row(y_row, 0, width)
            for i in range(width):
                y_row[i] *= inverse
        hand_in(stages, 0)
        task = take(stages, 0)
    wait(stages, 0, tasks)


def _activation(what: int, x: np.ndarray, threads: int) -> np.ndarray:
    plain = np.require(x, np.float32, ("C", "A"))
    y, shared = np.empty(x.shape, np.float32), counters(1)
    arguments = (what, address(plain), address(y), plain.size, _PIECE, address(shared))
    spread(lambda thread: run_activation(*arguments), plain.size, threads)
    return y


def _activation_backward(what: int, dy: np.ndarray, cache: Cache, threads: int) -> np.ndarray:
    kept, slope = (np.require(array, np.float32, ("C", "A")) for array in (cache[0], dy))
    dx, shared = np.empty(dy.shape, np.float32), counters(1)
    arguments = (what, address(kept), address(slope), address(dx), dx.size, _PIECE, address(shared))
    spread(lambda thread: run_activation_backward(*arguments), dx.size, threads)
    return dx


def gelu(x: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, Cache]:
    """Twin of `ops.activations.gelu`."""
    return _activation(GELU, x, threads), (x,)


def gelu_backward(dy: np.ndarray, cache: Cache, *, threads: int = 1) -> np.ndarray:
    """Twin of `ops.activations.gelu_backward`."""
    return _activation_backward(GELU, dy, cache, threads)


def gelu_tanh(x: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, Cache]:
    """Twin of `ops.activations.gelu_tanh`."""
    return _activation(GELU_TANH, x, threads), (x,)


def gelu_tanh_backward(dy: np.ndarray, cache: Cache, *, threads: int = 1) -> np.ndarray:
    """Twin of `ops.activations.gelu_tanh_backward`."""
    return _activation_backward(GELU_TANH, dy, cache, threads)


def quick_gelu(x: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, Cache]:
    """Twin of `ops.activations.quick_gelu`."""
    return _activation(QUICK_GELU, x, threads), (x,)


def quick_gelu_backward(dy: np.ndarray, cache: Cache, *, threads: int = 1) -> np.ndarray:
    """Twin of `ops.activations.quick_gelu_backward`."""
    return _activation_backward(QUICK_GELU, dy, cache, threads)


def relu(x: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, Cache]:
    """Twin of `ops.activations.relu`."""
    return _activation(RELU, x, threads), (x,)


def relu_backward(dy: np.ndarray, cache: Cache, *, threads: int = 1) -> np.ndarray:
    """Twin of `ops.activations.relu_backward`."""
    return _activation_backward(RELU, dy, cache, threads)


def silu(x: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, Cache]:
    """Twin of `ops.activations.silu`."""
    return _activation(SILU, x, threads), (x,)


def silu_backward(dy: np.ndarray, cache: Cache, *, threads: int = 1) -> np.ndarray:
    """Twin of `ops.activations.silu_backward`."""
    return _activation_backward(SILU, dy, cache, threads)


def tanh(x: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, Cache]:
    """Twin of `ops.activations.tanh`."""
    y = _activation(TANH, x, threads)
    return y, (y,)


def tanh_backward(dy: np.ndarray, cache: Cache, *, threads: int = 1) -> np.ndarray:
    """Twin of `ops.activations.tanh_backward`."""
    return _activation_backward(TANH, dy, cache, threads)


def softmax(x: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """Twin of `ops.attention.softmax`."""
    plain = np.require(x, np.float32, ("C", "A"))
    y, shared = np.empty(x.shape, np.float32), counters(1)
    width = x.shape[-1]
    rows = plain.size // width if width else 0
    arguments: tuple[Any, ...] = (address(plain), address(y), rows, width, max(1, _PIECE // width), address(shared))
    spread(lambda thread: run_softmax(*arguments), plain.size, threads)
    return y
