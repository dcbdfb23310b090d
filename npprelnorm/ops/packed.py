"""Packed rows: sequences of any lengths one after another, (N, C). Attention within each, and picking some of them.

Legend: N rows of all sequences, R of them that look at others, B sequences, T rows of one that look, S that are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .attention import (
    AttentionCache,
    AttentionGradients,
    Relative,
    attention,
    attention_backward,
    merge_heads,
    split_heads,
)


def take_rows(x: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """Some rows of x, or all of them: (N, ...) -> (R, ...)."""
    return x if rows is None else x[rows]


def put_rows(y: np.ndarray, rows: np.ndarray | None, count: int) -> np.ndarray:
    """Undoes `take_rows`, with zeros where nothing was taken; no row may be taken twice. (R, ...) -> (N, ...)."""
    if rows is None:
        return y
    x = np.zeros((count, *y.shape[1:]), y.dtype)
    x[rows] = y
    return x


class Span(NamedTuple):
    """Neighbouring sequences of which each has as many queries and as many keys: for them attention is one product."""

    sequences: slice  # of the B
    queries: slice  # of the rows that look
    keys: slice  # of the rows that are seen
    tokens: int  # T, queries of each sequence
    seen: int  # S, keys of each sequence
    mask: np.ndarray | None = None  # what is added to their scores, broadcast to (sequences, H, T, S)


def spans(queries: np.ndarray, keys: np.ndarray) -> Iterator[Span]:
    """The longest spans, given where each sequence begins, (B + 1,) both; sequences without queries are left out."""
    tokens, seen = np.diff(queries), np.diff(keys)  # (B,)
    changes = np.flatnonzero((tokens[1:] != tokens[:-1]) | (seen[1:] != seen[:-1])) + 1
    for first, last in pairwise([0, *changes.tolist(), len(tokens)]):
        if first < last and tokens[first]:
            own, others = (slice(int(bounds[first]), int(bounds[last])) for bounds in (queries, keys))
            yield Span(slice(first, last), own, others, int(tokens[first]), int(seen[first]))


def of_sequences(x: np.ndarray, tokens: int, heads: int) -> np.ndarray:
    """The rows of a span, (sequences * T, C) -> (sequences, H, T, D), a view."""
    return split_heads(x.reshape(-1, tokens, x.shape[1]), heads)


class PackedAttentionCache(NamedTuple):
    """What the backward needs."""

    spans: tuple[Span, ...]
    cores: list[AttentionCache]  # of each span

    def weights(self) -> np.ndarray:
        """What the values were weighted with, (B, H, T, S), where all sequences make one span."""
        (core,) = self.cores
        return core.weights()


def packed_attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    spans: tuple[Span, ...],
    heads: int,
    *,
    head_mask: np.ndarray | None = None,
    relative: Relative | None = None,
    drop: float = 0.0,
    rng: np.random.Generator | None = None,
    attend: Callable[..., tuple[np.ndarray, AttentionCache]] = attention,
) -> tuple[np.ndarray, PackedAttentionCache]:
    """`attention` of every sequence to itself (or to its partner): no row ever meets those of another sequence.

    q (R, C); k and v (N, C), or already (B, H, S, D), as a key/value cache holds them -> (R, C). `attend` computes it.
    """
    y = np.empty_like(q)
    cores = []
    for span in spans:
        qs = of_sequences(q[span.queries], span.tokens, heads)  # (B, H, T, D)
        ks, vs = (
            of_sequences(x[span.keys], span.seen, heads) if x.ndim == 2 else x[span.sequences] for x in (k, v)
        )  # (B, H, S, D)
        context, core = attend(qs, ks, vs, span.mask, head_mask=head_mask, relative=relative, drop=drop, rng=rng)
        y[span.queries] = merge_heads(context).reshape(-1, q.shape[1])  # (B, H, T, D) -> its rows of (R, C)
        cores.append(core)
    return y, PackedAttentionCache(spans, cores)


class PackedAttentionGradients(NamedTuple):
    """Gradients of `packed_attention`'s array arguments; those of arguments that were not given are None."""

    dq: np.ndarray  # (R, C)
    dk: np.ndarray  # (N, C)
    dv: np.ndarray  # (N, C)
    dhead_mask: np.ndarray | None  # (H, 1, 1)
    dtable: np.ndarray | None  # (2P - 1, D)


def packed_attention_backward(
    dy: np.ndarray,
    cache: PackedAttentionCache,
    heads: int,
    keys: int,
    *,
    attend_backward: Callable[..., AttentionGradients] = attention_backward,
) -> PackedAttentionGradients:
    """The backward of each span, put together. dy (R, C); `keys` is N. Keys that no query saw get zeros."""
    dq = np.empty_like(dy)
    dk, dv = (np.zeros((keys, dy.shape[1]), dy.dtype) for _ in range(2))
    dhead_masks, dtables = [], []
    for span, core in zip(cache.spans, cache.cores, strict=True):
        gradients = attend_backward(of_sequences(dy[span.queries], span.tokens, heads), core)
        dq[span.queries] = merge_heads(gradients.dq).reshape(-1, dy.shape[1])
        dk[span.keys] = merge_heads(gradients.dk).reshape(-1, dy.shape[1])
        dv[span.keys] = merge_heads(gradients.dv).reshape(-1, dy.shape[1])
        dhead_masks += [] if gradients.dhead_mask is None else [gradients.dhead_mask]
        dtables += [] if gradients.dtable is None else [gradients.dtable]
    return PackedAttentionGradients(dq, dk, dv, _total(dhead_masks), _total(dtables))


def _total(gradients: list[np.ndarray]) -> np.ndarray | None:
    return sum(gradients[1:], start=gradients[0]) if gradients else None
