"""One transformer layer and what it is made of, forward. Each `f(...)` returns ``(y, cache)``.

Parameters come as a `View` of the flat dict, so that a name here is the tail of a checkpoint name. Dropout happens
only where a random generator is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .cache import LayerKeyValues
from .config import RobertaPreLayerNormConfig
from .ops.activations import ACTIVATIONS
from .ops.attention import AttentionCache, Relative, attention, merge_heads, split_heads
from .ops.dropout import dropout
from .ops.embedding import EmbeddingCache, embedding
from .ops.linear import LinearCache, linear
from .ops.normalization import LayerNormCache, layer_norm
from .params import View

Rng = np.random.Generator | None


def pre_ln(
    f: Callable[[np.ndarray], tuple[np.ndarray, Any]], x: np.ndarray, norm: tuple[np.ndarray, np.ndarray], eps: float
) -> tuple[np.ndarray, tuple[LayerNormCache, Any]]:
    """y = x + f(LN(x)): the identity path from x to y is untouched. Xiong et al. 2020, arXiv:2002.04745, table 1."""
    u, norm_cache = layer_norm(x, *norm, eps)
    h, f_cache = f(u)
    return x + h, (norm_cache, f_cache)


class EmbeddingsCache(NamedTuple):
    """What the backward needs; None for a table that was not looked up."""

    word: EmbeddingCache | None
    token_type: EmbeddingCache
    position: EmbeddingCache | None
    norm: LayerNormCache
    keep: np.ndarray | None


def embeddings(
    p: View,
    config: RobertaPreLayerNormConfig,
    input_ids: np.ndarray | None,
    inputs_embeds: np.ndarray | None,
    token_type_ids: np.ndarray,
    position_ids: np.ndarray,
    rng: Rng = None,
) -> tuple[np.ndarray, EmbeddingsCache]:
    """LN(word + token type + position). Ids (B, T), or embeds (B, T, C) in place of the words -> (B, T, C).

    With relative positions the position table exists but is not added.
    """
    if input_ids is not None:
        words, word_cache = embedding(input_ids, p["word_embeddings.weight"])
    else:
        assert inputs_embeds is not None, "the inputs are checked to hold one of the two"
        words, word_cache = inputs_embeds, None
    types, type_cache = embedding(token_type_ids, p["token_type_embeddings.weight"])
    x = words + types
    position_cache = None
    if config.position_embedding_type == "absolute":
        positions, position_cache = embedding(position_ids, p["position_embeddings.weight"])
        x = x + positions
    y, norm_cache = layer_norm(x, *p.affine("LayerNorm"), config.layer_norm_eps)
    y, keep = dropout(y, config.hidden_dropout_prob, rng)
    return y, EmbeddingsCache(word_cache, type_cache, position_cache, norm_cache, keep)


class AttentionBlockCache(NamedTuple):
    """What the backward needs; `core` also holds the weights and the keys and values that a caller may ask for."""

    query: LinearCache
    key: LinearCache | None  # None where the keys and values came from a key/value cache
    value: LinearCache | None
    core: AttentionCache
    output: LinearCache
    keep: np.ndarray | None


def self_attention(
    u: np.ndarray,
    p: View,
    config: RobertaPreLayerNormConfig,
    mask: np.ndarray | None,
    *,
    head_mask: np.ndarray | None = None,
    relative: Relative | None = None,
    past: LayerKeyValues | None = None,
    rng: Rng = None,
) -> tuple[np.ndarray, AttentionBlockCache]:
    """Every token looks at every token, and at those of the key/value cache. u (B, T, C) -> (B, T, C)."""
    heads = config.num_attention_heads
    q, query_cache = linear(u, *p.affine("self.query"))
    k, key_cache = linear(u, *p.affine("self.key"))
    v, value_cache = linear(u, *p.affine("self.value"))
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)  # (B, T, C) -> (B, H, T, D)
    if past is not None:
        k = np.concatenate([past.key, k], axis=2)  # (B, H, S, D), S = past + T
        v = np.concatenate([past.value, v], axis=2)
    context, core = attention(
        q, k, v, mask, head_mask=head_mask, relative=relative, drop=config.attention_probs_dropout_prob, rng=rng
    )
    y, output_cache = linear(merge_heads(context), *p.affine("output.dense"))
    y, keep = dropout(y, config.hidden_dropout_prob, rng)
    return y, AttentionBlockCache(query_cache, key_cache, value_cache, core, output_cache, keep)


def cross_attention(
    u: np.ndarray,
    p: View,
    config: RobertaPreLayerNormConfig,
    mask: np.ndarray | None,
    encoder_states: np.ndarray | None,
    *,
    head_mask: np.ndarray | None = None,
    past: LayerKeyValues | None = None,
    rng: Rng = None,
) -> tuple[np.ndarray, AttentionBlockCache]:
    """Every token looks at the encoder's last states, which are not normalised here again.

    u (B, T, C), encoder_states (B, S, C) or the keys and values already made of them -> (B, T, C).
    """
    heads = config.num_attention_heads
    q, query_cache = linear(u, *p.affine("self.query"))
    q = split_heads(q, heads)
    key_cache = value_cache = None
    if past is not None and past.cross_key is not None and past.cross_value is not None:
        k, v = past.cross_key, past.cross_value
    else:
        assert encoder_states is not None, "the inputs are checked to hold states or a cache of them"
        k, key_cache = linear(encoder_states, *p.affine("self.key"))
        v, value_cache = linear(encoder_states, *p.affine("self.value"))
        k, v = split_heads(k, heads), split_heads(v, heads)  # (B, S, C) -> (B, H, S, D)
    context, core = attention(q, k, v, mask, head_mask=head_mask, drop=config.attention_probs_dropout_prob, rng=rng)
    y, output_cache = linear(merge_heads(context), *p.affine("output.dense"))
    y, keep = dropout(y, config.hidden_dropout_prob, rng)
    return y, AttentionBlockCache(query_cache, key_cache, value_cache, core, output_cache, keep)


class FeedForwardCache(NamedTuple):
    """What the backward needs."""

    inner: LinearCache
    activation: tuple[np.ndarray, ...]
    outer: LinearCache
    keep: np.ndarray | None


def feed_forward(
    u: np.ndarray, p: View, config: RobertaPreLayerNormConfig, rng: Rng = None
) -> tuple[np.ndarray, FeedForwardCache]:
    """act(u W1^T + b1) W2^T + b2, each token by itself. (B, T, C) -> (B, T, F) -> (B, T, C)."""
    h, inner_cache = linear(u, *p.affine("intermediate.dense"))
    a, activation_cache = ACTIVATIONS[config.hidden_act](h)
    y, outer_cache = linear(a, *p.affine("output.dense"))
    y, keep = dropout(y, config.hidden_dropout_prob, rng)
    return y, FeedForwardCache(inner_cache, activation_cache, outer_cache, keep)


class LayerCache(NamedTuple):
    """What the backward needs, one entry for each residual block; feed-forward chunks in order."""

    attention: tuple[LayerNormCache, AttentionBlockCache]
    cross: tuple[LayerNormCache, AttentionBlockCache] | None
    feed_forward: list[tuple[LayerNormCache, FeedForwardCache]]

    def key_values(self) -> LayerKeyValues:
        """The keys and values that a decoder's next step can use again."""
        own, cross = self.attention[1].core, self.cross[1].core if self.cross else None
        return LayerKeyValues(own.k, own.v, cross.k if cross else None, cross.v if cross else None)


def layer(
    x: np.ndarray,
    p: View,
    config: RobertaPreLayerNormConfig,
    *,
    mask: np.ndarray | None,
    head_mask: np.ndarray | None = None,
    relative: Relative | None = None,
    past: LayerKeyValues | None = None,
    encoder_states: np.ndarray | None = None,
    encoder_mask: np.ndarray | None = None,
    rng: Rng = None,
) -> tuple[np.ndarray, LayerCache]:
    """Self-attention, cross-attention where there is something to attend to, feed-forward: each as x + f(LN(x))."""
    eps = config.layer_norm_eps

    own = p.at("attention.")
    x, attention_cache = pre_ln(
        lambda u: self_attention(
            u, own, config, mask, head_mask=head_mask, relative=relative, past=past, rng=rng
        ),
        x, own.affine("LayerNorm"), eps,
    )  # fmt: skip

    cross_cache = None
    if encoder_states is not None or (past is not None and past.cross_key is not None):
        cross = p.at("crossattention.")
        x, cross_cache = pre_ln(
            lambda u: cross_attention(
                u, cross, config, encoder_mask, encoder_states, head_mask=head_mask, past=past, rng=rng
            ),
            x, cross.affine("LayerNorm"), eps,
        )  # fmt: skip

    # tokens do not meet in the feed-forward block, so it can run on some of them at a time
    size = config.chunk_size_feed_forward or x.shape[1]
    chunks, chunk_caches = [], []
    for start in range(0, x.shape[1], size):
        y, cache = pre_ln(
            lambda u: feed_forward(u, p, config, rng),
            x[:, start : start + size], p.affine("intermediate.LayerNorm"), eps,
        )  # fmt: skip
        chunks.append(y)
        chunk_caches.append(cache)
    y = chunks[0] if len(chunks) == 1 else np.concatenate(chunks, axis=1)
    return y, LayerCache(attention_cache, cross_cache, chunk_caches)
