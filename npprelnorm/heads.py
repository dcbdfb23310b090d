"""The task heads and their losses as pairs: `f(...) -> (y, cache)`, then `f_backward(dy, cache, g)`.

`language_models.py` and `classifiers.py` put them on the body.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from .config import RobertaPreLayerNormConfig
from .errors import InputError, InputWarning
from .gradients import GradientView
from .inputs import as_array, as_floats, as_integers
from .layers import Rng
from .ops.dropout import DropoutCache, dropout, dropout_backward
from .ops.linear import LinearCache, linear_backward_input
from .ops.losses import (
    CrossEntropyCache,
    binary_cross_entropy,
    binary_cross_entropy_backward,
    mean_squared_error,
    mean_squared_error_backward,
)
from .ops.normalization import LayerNormCache
from .ops.top_k import TopK
from .params import View
from .rows import Reading
from .stored import affine, stored_linear, stored_top_k
from .twins import ACTIVATIONS, cross_entropy, cross_entropy_backward, layer_norm, tanh, tanh_backward

IGNORE = -100


def classifier_dropout(config: RobertaPreLayerNormConfig) -> float:
    """The heads' own dropout probability, or else the body's."""
    own = config.classifier_dropout
    return config.hidden_dropout_prob if own is None else own


def _lm_decoder(config: RobertaPreLayerNormConfig) -> tuple[str, str]:
    """Names of the map to the vocabulary: the word embeddings, where they are tied."""
    names = config.family.lm_head
    if config.tie_word_embeddings:
        return config.family.prefix + "embeddings.word_embeddings.weight", names.bias
    return names.decoder + ".weight", names.decoder + ".bias"


class LMHeadCache(NamedTuple):
    """What the backward needs."""

    dense: LinearCache
    activation: tuple[np.ndarray, ...]
    norm: LayerNormCache
    decoder: LinearCache


def lm_head(p: View, hidden: np.ndarray, config: RobertaPreLayerNormConfig) -> tuple[np.ndarray, LMHeadCache]:
    """LN(gelu(h W^T + b)) times the decoder, which is the word embedding where they are tied. (..., C) -> (..., V).

    Always the exact gelu, whatever the feed-forward blocks use; save for BERT, which uses theirs.
    """
    x, dense_cache, activation_cache, norm_cache = _lm_transform(p, hidden, config)
    weight, bias = _lm_decoder(config)
    logits, decoder_cache = stored_linear(x, p[weight], p[bias], p.weight_dtype)
    return logits, LMHeadCache(dense_cache, activation_cache, norm_cache, decoder_cache)


def lm_head_top_k(
    p: View, hidden: np.ndarray, config: RobertaPreLayerNormConfig, k: int, among: np.ndarray | None = None
) -> TopK:
    """The `k` largest logits of each row that `lm_head` gives, for inference: see `ops.top_k.top_k`. hidden (R, C)."""
    x = _lm_transform(p, hidden, config)[0]
    weight, bias = _lm_decoder(config)
    return stored_top_k(x, p[weight], p[bias], p.weight_dtype, k, among)


def _lm_transform(
    p: View, hidden: np.ndarray, config: RobertaPreLayerNormConfig
) -> tuple[np.ndarray, LinearCache, tuple[np.ndarray, ...], LayerNormCache]:
    """LN(gelu(h W^T + b)), and what the backward needs."""
    names = config.family.lm_head
    x, dense_cache = affine(hidden, p, names.dense)
    x, activation_cache = ACTIVATIONS[names.activation or config.hidden_act][0](x)
    x, norm_cache = layer_norm(x, *p.affine(names.norm), config.layer_norm_eps)
    return x, dense_cache, activation_cache, norm_cache


def lm_head_backward(
    dlogits: np.ndarray, cache: LMHeadCache, g: GradientView, config: RobertaPreLayerNormConfig
) -> np.ndarray:
    """dhidden. A tied decoder adds to the word embeddings' gradient, the padding row included."""
    names = config.family.lm_head
    g.affine(*_lm_decoder(config), dlogits, cache.decoder)
    dx = linear_backward_input(dlogits, cache.decoder)
    dx = g.norm(names.norm, dx, cache.norm)
    dx = ACTIVATIONS[names.activation or config.hidden_act][1](dx, cache.activation)
    return g.linear(names.dense, dx, cache.dense)


class ClassificationHeadCache(NamedTuple):
    """What the backward needs."""

    dropped: DropoutCache | None
    dense: LinearCache
    activation: tuple[np.ndarray, ...]
    dropped_inner: DropoutCache | None
    out_proj: LinearCache


def classification_head(
    p: View, hidden: np.ndarray, drop: float, rng: Rng = None
) -> tuple[np.ndarray, ClassificationHeadCache]:
    """A linear map of tanh of a linear map of each sequence's first row, dropout before each. (B, C) -> (B, K)."""
    x, dropped = dropout(hidden, drop, rng)
    x, dense_cache = affine(x, p, "classifier.dense")
    x, activation_cache = tanh(x)
    x, dropped_inner = dropout(x, drop, rng)
    logits, out_proj_cache = affine(x, p, "classifier.out_proj")
    return logits, ClassificationHeadCache(dropped, dense_cache, activation_cache, dropped_inner, out_proj_cache)


def classification_head_backward(dlogits: np.ndarray, cache: ClassificationHeadCache, g: GradientView) -> np.ndarray:
    """The gradient of the first rows. (B, C)."""
    dx = g.linear("classifier.out_proj", dlogits, cache.out_proj)
    dx = tanh_backward(dropout_backward(dx, cache.dropped_inner), cache.activation)
    dx = g.linear("classifier.dense", dx, cache.dense)
    return dropout_backward(dx, cache.dropped)


class LinearHeadCache(NamedTuple):
    """What the backward needs."""

    dropped: DropoutCache | None
    linear: LinearCache


def linear_head(
    p: View, name: str, hidden: np.ndarray, drop: float = 0.0, rng: Rng = None
) -> tuple[np.ndarray, LinearHeadCache]:
    """A linear map after dropout. (..., C) -> (..., K)."""
    x, dropped = dropout(hidden, drop, rng)
    logits, linear_cache = affine(x, p, name)
    return logits, LinearHeadCache(dropped, linear_cache)


def linear_head_backward(dlogits: np.ndarray, cache: LinearHeadCache, g: GradientView, name: str) -> np.ndarray:
    """dhidden. (..., K) -> (..., C)."""
    return dropout_backward(g.linear(name, dlogits, cache.linear), cache.dropped)


def label_loss(
    logits: np.ndarray, labels: Any, name: str = "labels", *, ignore: int = IGNORE, divisor: float | None = None
) -> tuple[np.ndarray, CrossEntropyCache]:
    """Cross entropy of logits (..., K) against integer labels (...), `ignore` not counted; NaN if none counts."""
    classes = logits.shape[-1]
    array = as_array(name, labels)
    if array.shape != logits.shape[:-1]:
        raise InputError(f"{name} has shape {array.shape}; logits of shape {logits.shape} need {logits.shape[:-1]}")
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} must be integers, but its dtype is {array.dtype}; convert it with .astype(int)")
    counted = array != ignore
    as_integers(name, np.where(counted, array, 0), classes, "the number of classes")
    if not counted.any() and divisor is None:
        warnings.warn(
            f"all {name} are {ignore} (ignored): the mean loss over nothing is NaN", InputWarning, stacklevel=4
        )
    return cross_entropy(
        logits.reshape(-1, classes), array.reshape(-1).astype(np.int64), ignore_index=ignore, divisor=divisor
    )


def label_loss_backward(dloss: np.ndarray, cache: CrossEntropyCache, shape: tuple[int, ...]) -> np.ndarray:
    """dlogits, in their shape (..., K)."""
    return cross_entropy_backward(dloss, cache).reshape(shape)


def real_and_labelled(labels: Any) -> Reading:
    """A `Reading`: the tokens that are real, and those that a loss counts, padding or not."""

    def reading(real: np.ndarray) -> np.ndarray:
        array = as_array("labels", labels)
        return real | (array != IGNORE) if array.shape == real.shape else real  # else the loss says what is wrong

    return reading


def next_token_labels(labels: np.ndarray) -> np.ndarray:
    """Each position's label is the next one's; the last has none. (B, T) -> (B, T)."""
    if labels.dtype.kind == "u":  # which cannot hold IGNORE
        labels = labels.astype(np.int64)
    return np.concatenate([labels[:, 1:], np.full_like(labels[:, :1], IGNORE)], axis=1)


def told_problem_type(classes: int, labels: np.ndarray) -> str:
    """What kind of problem labels belong to: as transformers tells it from their number and type."""
    if classes == 1:
        return "regression"
    return "single_label_classification" if labels.dtype in (np.int32, np.int64) else "multi_label_classification"


def sequence_loss(logits: np.ndarray, labels: np.ndarray, problem_type: str) -> tuple[np.ndarray, Any]:
    """The loss of a problem type; logits (B, K), labels (B,) or (B, K) -> a scalar."""
    batch, classes = logits.shape
    if problem_type == "single_label_classification":
        return label_loss(logits, labels.reshape(-1) if labels.size == batch else labels)
    if problem_type == "regression":
        if classes == 1 and labels.size == batch:
            labels = labels.reshape(batch, 1)
        return mean_squared_error(logits, as_floats("labels", labels, (batch, classes), logits.dtype))
    return binary_cross_entropy(logits, as_floats("labels", labels, (batch, classes), logits.dtype))


def sequence_loss_backward(dloss: np.ndarray, cache: Any, problem_type: str) -> np.ndarray:
    """dlogits (B, K)."""
    if problem_type == "single_label_classification":
        return cross_entropy_backward(dloss, cache)
    if problem_type == "regression":
        return mean_squared_error_backward(dloss, cache)
    return binary_cross_entropy_backward(dloss, cache)


def span_loss(
    logits: np.ndarray, start_positions: Any, end_positions: Any
) -> tuple[np.ndarray, tuple[CrossEntropyCache, CrossEntropyCache]]:
    """Mean of the cross entropies of an answer's first and last token. logits (B, T, 2) -> a scalar.

    Positions (B,) or (B, 1) are clamped to [0, T], and T itself does not count: an answer outside the text.
    """
    tokens = logits.shape[1]
    losses, caches = [], []
    for index, (name, value) in enumerate((("start_positions", start_positions), ("end_positions", end_positions))):
        positions = as_array(name, value)
        if positions.ndim == 2 and positions.shape[1] == 1:
            positions = positions[:, 0]
        if positions.dtype.kind not in "iu":
            raise InputError(
                f"{name} must be integers, but its dtype is {positions.dtype}; convert it with .astype(int)"
            )
        positions = np.clip(positions.astype(np.int64), 0, tokens)
        loss, cache = label_loss(logits[..., index], positions, name, ignore=tokens)
        losses.append(loss)
        caches.append(cache)
    return np.asarray((losses[0] + losses[1]) * 0.5, logits.dtype), (caches[0], caches[1])


def span_loss_backward(dloss: np.ndarray, cache: tuple[CrossEntropyCache, CrossEntropyCache]) -> np.ndarray:
    """dlogits (B, T, 2): half of the loss comes from each end."""
    half = dloss * np.asarray(0.5, dloss.dtype)
    return np.stack([cross_entropy_backward(half, one) for one in cache], axis=-1)
