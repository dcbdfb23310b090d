"""Which tokens of a language model get logits: those with a label, or at the positions that a caller keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import InputError
from .heads import IGNORE
from .inputs import as_array
from .rows import Reading


def labelled(labels: Any) -> Reading:
    """A `Reading`: the tokens with a label that counts."""
    if labels is None:
        raise InputError("labelled_only=True asks for the labelled tokens, but there are no labels; give labels")
    array = as_array("labels", labels)

    def reading(real: np.ndarray) -> np.ndarray:
        if array.shape != real.shape:
            raise InputError(f"labels has shape {array.shape}; expected {real.shape}, as the tokens")
        result: np.ndarray = array != IGNORE
        return result

    return reading


def kept(positions: np.ndarray, real: np.ndarray, next_labels: np.ndarray | None, packed: bool) -> np.ndarray:
    """Which tokens get logits, (B, T) booleans: those at `positions`; of padding, if packed, the labelled ones."""
    wanted = np.zeros_like(real)
    wanted[:, positions] = True
    if packed:
        counted = np.zeros_like(real)
        if next_labels is not None and next_labels.shape == (real.shape[0], positions.size):
            np.logical_or.at(counted.T, positions, (next_labels != IGNORE).T)
        wanted &= real | counted
    return wanted


def kept_positions(tokens: int, keep: Any) -> np.ndarray:
    """The last `keep` positions (0: all), or those of an index array, which may count from the end."""
    if isinstance(keep, int | np.integer) and not isinstance(keep, bool):
        if keep < 0:
            raise InputError(f"logits_to_keep is {keep}; allowed: 0 (all), a number of positions, or their indices")
        return np.arange(tokens)[-keep if keep else None :]
    index = as_array("logits_to_keep", keep)
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise InputError(
            f"logits_to_keep has shape {index.shape} and dtype {index.dtype}; allowed: 0 (all), a number of positions, "
            "or a list of their indices"
        )
    outside = index[(index < -tokens) | (index >= tokens)]
    if outside.size:
        raise InputError(f"logits_to_keep holds {outside[0]}; allowed: {-tokens} to {tokens - 1} ({tokens} tokens)")
    return index
