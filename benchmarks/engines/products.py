"""Matrix products: the BLAS that NumPy calls, this package's reference, and its kernels, in one process by turns.

Not one process each, as for whole models: a call takes microseconds, and what is compared with has to be measured in
the same moments.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from npprelnorm.kernels import few_rows_linear, linear, supported
from npprelnorm.ops.linear import linear as reference_linear

from ..products import CONTENDERS, MEMORY, PEAK, PEAK_1, Contender
from ..worker import timed
from .ceilings import OPERATIONS, Ceilings

Call = Callable[[], Any]
PAUSE = 0.05  # seconds before a turn, in which the threads of the one before stop spinning
SEED = 20220216


def _blas(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, contender: Contender, threads: int) -> Call:
    transposed, y = weight.T, np.empty((x.shape[0], weight.shape[0]), np.float32)

    def call() -> np.ndarray:
        np.matmul(x, transposed, out=y)
        return np.add(y, bias, out=y)

    return call


def _reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, contender: Contender, threads: int) -> Call:
    return lambda: reference_linear(x, weight, bias)[0]


def _packed(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, contender: Contender, threads: int) -> Call:
    return lambda: linear(x, weight, bias, threads=threads, weight_dtype=contender.weight_dtype)[0]


def _few_rows(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, contender: Contender, threads: int) -> Call:
    return lambda: few_rows_linear(x, weight, bias, threads=threads)[0]


RUNS = {"blas": _blas, "reference": _reference, "packed": _packed, "few_rows": _few_rows}


def products(folder: Path, threads: int, *, read_bytes: int = 256 << 20, steps: int = 2_000_000) -> Callable[..., Any]:
    """Get ready; what comes back measures one product.

    Parameters
    ----------
    folder : Path
        Of no use here.
    threads : int
    read_bytes, steps : int
        How much memory is read, and how long registers are multiplied, in one call.
    """
    limits = Ceilings(threads, read_bytes)

    def run(
        rows: int, depth: int, columns: int, weights: int, contenders: list[str], rounds: int, seconds: float
    ) -> dict[str, Any]:
        rng = np.random.default_rng([SEED, rows, depth, columns])
        x, bias = rng.standard_normal((rows, depth), np.float32), rng.standard_normal(columns, np.float32)
        every = [rng.standard_normal((columns, depth), np.float32) / np.float32(depth**0.5) for _ in range(weights)]
        for array in (bias, *every):
            array.flags.writeable = False  # as a loaded model's: the kernels need not look for changes
        exact = x.astype(np.float64) @ every[0].T.astype(np.float64) + bias
        calls: dict[str, Call] = {}
        errors: dict[str, float] = {}
        problems: dict[str, str] = {}
        for one in CONTENDERS:
            if one.name not in contenders:
                continue
            if rows > one.most_rows:
                problems[one.name] = f"cannot multiply more than {one.most_rows} rows"
            elif one.weight_dtype not in supported():
                problems[one.name] = f"cannot store {one.weight_dtype} on this processor"
            else:
                error = float(np.linalg.norm(_made(one, x, every[0], bias, threads)() - exact) / np.linalg.norm(exact))
                if error <= one.tolerance:
                    errors[one.name] = error
                    calls[one.name] = _in_turn([_made(one, x, weight, bias, threads) for weight in every])
                else:
                    problems[one.name] = f"differs from float64 by {error:.1e}, more than {one.tolerance:.1e}"
        amounts = {PEAK: threads * steps * OPERATIONS, PEAK_1: steps * OPERATIONS, MEMORY: limits.read()}
        calls |= {
            PEAK: lambda: limits.peak(threads, steps),
            PEAK_1: lambda: limits.peak(1, steps),
            MEMORY: limits.read,
        }
        return {
            "samples": _turns(calls, rounds, seconds, weights),
            "amounts": amounts,
            "errors": errors,
            "problems": problems,
        }

    return run


def _made(one: Contender, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, threads: int) -> Call:
    return RUNS[one.run](x, weight, bias, one, threads)


def _in_turn(calls: list[Call]) -> Call:
    """A call that makes the next of these each time."""
    following = cycle(calls)
    return lambda: next(following)()


def _turns(calls: dict[str, Call], rounds: int, seconds: float, weights: int) -> dict[str, list[list[float]]]:
    """Durations of each one's calls in each round; another one is first each time."""
    names = list(calls)
    for call in calls.values():
        for _ in range(weights):  # all are packed once
            call()
    samples: dict[str, list[list[float]]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(PAUSE)
            calls[name]()  # wakes the threads
            samples[name].append(timed(calls[name], {}, seconds))
    return samples
