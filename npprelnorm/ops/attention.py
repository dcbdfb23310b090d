"""Attention: softmax(q k^T / sqrt(D) + mask) v, with the relative-position scores of transformers 4."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .dropout import DropoutCache, drawn, dropout_backward


class Relative(NamedTuple):
    """Relative positions: a learned vector for each distance between a query and a key."""

    table: np.ndarray  # (2P - 1, D), row P - 1 is distance 0
    distance: np.ndarray  # (T, S) integers: query position - key position
    with_keys: bool  # relative_key_query: the keys score the distances too


class AttentionCache(NamedTuple):
    """What the backward needs."""

    q: np.ndarray  # (B, H, T, D)
    k: np.ndarray  # (B, H, S, D)
    v: np.ndarray  # (B, H, S, D)
    probs: np.ndarray  # (B, H, T, S), the softmax
    dropped: DropoutCache | None
    head_mask: np.ndarray | None  # (H, 1, 1)
    relative: Relative | None

    def weights(self) -> np.ndarray:
        """What the values were weighted with, (B, H, T, S): the softmax after dropout and head mask."""
        weights = dropout_backward(self.probs, self.dropped)  # the same elements as in the forward
        return weights if self.head_mask is None else weights * self.head_mask


def split_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """(B, T, H*D) -> (B, H, T, D), a view."""
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, heads, width // heads).transpose(0, 2, 1, 3)


def merge_heads(x: np.ndarray) -> np.ndarray:
    """(B, H, T, D) -> (B, T, H*D)."""
    batch, heads, tokens, size = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * size)


def softmax(x: np.ndarray) -> np.ndarray:
    """exp(x) / sum(exp(x)) over the last axis, shifted by the maximum so that nothing overflows."""
    y = x - x.max(axis=-1, keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(axis=-1, keepdims=True)
    return y


def relative_scores(q: np.ndarray, k: np.ndarray, relative: Relative) -> np.ndarray:
    """q . E[distance], plus k . E[distance] where the keys count too. Shaw et al. 2018, arXiv:1803.02155, eq. 4;
    the key term is Huang et al. 2020, arXiv:2009.13658, method 4.

    q (B, H, T, D), k (B, H, S, D) -> (B, H, T, S). Each vector meets each distance once, by a product with the
    rows of the table that occur; the (T, S, D) array of looked-up rows is never built.
    """
    distance = relative.distance  # (T, S)
    centre = relative.table.shape[0] // 2
    lowest, highest = int(distance.min()), int(distance.max())
    rows = relative.table[centre + lowest : centre + highest + 1]  # (R, D)
    index = (distance - lowest)[None, None]  # (1, 1, T, S), in [0, R)
    scores = np.take_along_axis(q @ rows.T, index, axis=-1)  # (B, H, T, R) -> (B, H, T, S)
    if relative.with_keys:
        by_key = np.take_along_axis(k @ rows.T, index.swapaxes(2, 3), axis=-1)  # (B, H, S, R) -> (B, H, S, T)
        scores = scores + by_key.swapaxes(2, 3)
    return scores


def relative_scores_backward(
    dscores: np.ndarray, q: np.ndarray, k: np.ndarray, relative: Relative
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """dq, dk (None where the keys do not count) and dtable. dscores (B, H, T, S).

    A query meets each distance at most once (and so does a key), so undoing the look-up is an assignment.
    """
    distance = relative.distance
    centre = relative.table.shape[0] // 2
    lowest, highest = int(distance.min()), int(distance.max())
    used = slice(centre + lowest, centre + highest + 1)
    rows = relative.table[used]  # (R, D)
    index = (distance - lowest)[None, None]  # (1, 1, T, S)
    dtable = np.zeros_like(relative.table)

    def undo(dlooked: np.ndarray, where: np.ndarray, x: np.ndarray) -> np.ndarray:
        dproducts = np.zeros((*dlooked.shape[:3], rows.shape[0]), dlooked.dtype)  # of x @ rows^T
        np.put_along_axis(dproducts, np.broadcast_to(where, dlooked.shape), dlooked, axis=-1)
        dtable[used] += dproducts.reshape(-1, rows.shape[0]).T @ x.reshape(-1, x.shape[-1])
        return dproducts @ rows

    dq = undo(dscores, index, q)
    dk = undo(dscores.swapaxes(2, 3), index.swapaxes(2, 3), k) if relative.with_keys else None
    return dq, dk, dtable


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None,
    *,
    head_mask: np.ndarray | None = None,
    relative: Relative | None = None,
    drop: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, AttentionCache]:
    """softmax((q k^T + relative) / sqrt(D) + mask) v. Vaswani et al. 2017, arXiv:1706.03762, equation 1.

    q (B, H, T, D), k and v (B, H, S, D); mask is added, broadcast to (B, H, T, S): 0 where a key may be seen, the
    lowest finite number where not. A row that may see nothing then spreads evenly over all keys instead of turning
    into NaN. After the softmax come dropout (with an rng) and head_mask (H, 1, 1), a factor for each head.
    -> (B, H, T, D).
    """
    scores = q @ k.swapaxes(-1, -2)  # (B, H, T, D) x (B, H, D, S) -> (B, H, T, S)
    if relative is not None:
        scores += relative_scores(q, k, relative)
    scores *= q.shape[-1] ** -0.5
    if mask is not None:
        scores += mask
    probs = softmax(scores)
    cache = AttentionCache(q, k, v, probs, drawn(probs.shape, drop, rng), head_mask, relative)
    return cache.weights() @ v, cache


class AttentionGradients(NamedTuple):
    """Gradients of `attention`'s array arguments; those of arguments that were not given are None."""

    dq: np.ndarray
    dk: np.ndarray
    dv: np.ndarray
    dhead_mask: np.ndarray | None  # (H, 1, 1)
    dtable: np.ndarray | None  # (2P - 1, D)


def attention_backward(dy: np.ndarray, cache: AttentionCache) -> AttentionGradients:
    """dq, dk, dv, and those of the head mask and the relative table. dy (B, H, T, D).

    softmax: dscores = p * (dp - sum(dp * p)), so that a masked key, whose p is 0, gets nothing.
    """
    q, k, v, probs, dropped, head_mask, relative = cache
    dweights = dy @ v.swapaxes(-1, -2)  # undoes weights @ v: (B, H, T, S)
    dv = cache.weights().swapaxes(-1, -2) @ dy  # (B, H, S, D)
    dhead_mask = None
    if head_mask is not None:
        dhead_mask = (dweights * dropout_backward(probs, dropped)).sum(axis=(0, 2, 3))[:, None, None]
        dweights = dweights * head_mask
    dscores = dropout_backward(dweights, dropped)
    dscores = probs * (dscores - (dscores * probs).sum(axis=-1, keepdims=True))
    dscores *= q.shape[-1] ** -0.5  # undoes scores *= D^-0.5
    dq = dscores @ k  # (B, H, T, D)
    dk = dscores.swapaxes(-1, -2) @ q  # (B, H, S, D)
    dtable = None
    if relative is not None:
        dq_relative, dk_relative, dtable = relative_scores_backward(dscores, q, k, relative)
        dq += dq_relative
        if dk_relative is not None:
            dk += dk_relative
    return AttentionGradients(dq, dk, dv, dhead_mask, dtable)
