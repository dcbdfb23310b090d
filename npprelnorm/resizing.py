"""Changing the size of the vocabulary."""

from __future__ import annotations

import numpy as np

from .arguments import random_generator
from .config import RobertaPreLayerNormConfig
from .config_checks import check_size
from .errors import InputError
from .params import Params


def resized(
    params: Params,
    config: RobertaPreLayerNormConfig,
    size: int,
    multiple: int | None,
    mean_resizing: bool,
    rng: int | np.random.Generator | None,
) -> tuple[Params, int, int | None]:
    """New parameters, vocabulary size and padding id, with rows (and LM biases) cut off or added at the end."""
    for name, number in (("new_num_tokens", size), ("pad_to_multiple_of", 1 if multiple is None else multiple)):
        if not isinstance(number, int | np.integer) or isinstance(number, bool) or number < 1:
            raise InputError(f"{name} is {number!r}; allowed: an integer of 1 or more")
    if multiple is not None:
        size = -(-size // multiple) * multiple
    check_size("vocab_size", size)
    pad = config.pad_token_id if config.pad_token_id is None or config.pad_token_id < size else None
    generator = None if mean_resizing and rng is None else random_generator(rng)
    head = config.family.lm_head
    tables = ("embeddings.word_embeddings.weight", head.decoder + ".weight")
    biases = (head.bias, head.decoder + ".bias")
    result = dict(params)
    for name, value in params.items():
        if name.endswith(tables):
            result[name] = _resize_rows(value, size, config, mean_resizing, generator)
        elif name.endswith(biases):
            result[name] = _resize_bias(value, size, mean_resizing and not config.tie_word_embeddings)
    return result, size, pad


def _resize_rows(
    table: np.ndarray,
    size: int,
    config: RobertaPreLayerNormConfig,
    mean_resizing: bool,
    rng: np.random.Generator | None,
) -> np.ndarray:
    old, width = table.shape
    if size <= old:
        return table[:size].copy()
    if not mean_resizing:
        assert rng is not None
        new = rng.standard_normal((size - old, width)).astype(table.dtype) * config.initializer_range
    else:
        mean = table.mean(axis=0)
        new = np.tile(mean, (size - old, 1))
        if rng is not None:
            centred = table.astype(np.float64) - mean
            covariance = 1e-9 * (centred.T @ centred) / old
            if (np.linalg.eigvalsh(covariance) > 0).all():
                new = rng.multivariate_normal(mean, covariance, size - old).astype(table.dtype)
    return np.concatenate([table, new])


def _resize_bias(bias: np.ndarray, size: int, mean: bool) -> np.ndarray:
    """New entries are the mean, or 0: transformers takes the mean only where the decoder is not tied."""
    old = bias.shape[0]
    if size <= old:
        return bias[:size].copy()
    return np.concatenate([bias, np.full(size - old, bias.mean() if mean else 0.0, bias.dtype)])
