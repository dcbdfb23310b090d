"""Twins of `ops.activations` and of softmax, in float32: one pass, cut into pieces that a team shares."""

from __future__ import annotations

from typing import Any

import numpy as np

from .attention import exp_row
from .compiling import entry
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


@entry
def run_softmax(x_at: int, y_at: int, rows: int, width: int, block: int, counters_at: int) -> None:
    """y = softmax(x) of each row, by blocks of rows."""
    x, y = floats(x_at, rows * width), floats(y_at, rows * width)
    tasks = -(-rows // block)
    stages = stages_at(counters_at, 1)
    task = take(stages, 0)
    while task < tasks:
        for row in range(task * block, min(rows, (task + 1) * block)):
            first, last = row * width, (row + 1) * width
            for i in range(first, last):
                y[i] = x[i]
            inverse = np.float32(1.0) / exp_row(y, first, last)
            for i in range(first, last):
                y[i] *= inverse
        hand_in(stages, 0)
        task = take(stages, 0)
    wait(stages, 0, tasks)


def _activation(what: int, x: np.ndarray, threads: int) -> np.ndarray:
    plain = np.require(x, np.float32, ("C", "A"))
    y, shared = np.empty(x.shape, np.float32), counters(1)
    arguments = (what, address(plain), address(y), plain.size, _PIECE, address(shared))
    spread(lambda thread: run_activation(*arguments), plain.size, threads)
    return y


def gelu(x: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, Cache]:
    """Twin of `ops.activations.gelu`."""
    return _activation(GELU, x, threads), (x,)


def gelu_tanh(x: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, Cache]:
    """Twin of `ops.activations.gelu_tanh`."""
    return _activation(GELU_TANH, x, threads), (x,)


def quick_gelu(x: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, Cache]:
    """Twin of `ops.activations.quick_gelu`."""
    return _activation(QUICK_GELU, x, threads), (x,)


def relu(x: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, Cache]:
    """Twin of `ops.activations.relu`."""
    return _activation(RELU, x, threads), (x,)


def silu(x: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, Cache]:
    """Twin of `ops.activations.silu`."""
    return _activation(SILU, x, threads), (x,)


def tanh(x: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, Cache]:
    """Twin of `ops.activations.tanh`."""
    y = _activation(TANH, x, threads)
    return y, (y,)


def softmax(x: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """Twin of `ops.attention.softmax`."""
    plain = np.require(x, np.float32, ("C", "A"))
    y, shared = np.empty(x.shape, np.float32), counters(1)
    width = x.shape[-1]
    rows = plain.size // width if width else 0
    arguments: tuple[Any, ...] = (address(plain), address(y), rows, width, max(1, _PIECE // width), address(shared))
    spread(lambda thread: run_softmax(*arguments), plain.size, threads)
    return y
