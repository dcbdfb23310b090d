"""One transformer layer and what it is made of: `f(...) -> (y, cache)`, then `f_backward(dy, cache, g) -> dx`.

Parameters come as a `View` of the flat dict, so that a name here is the tail of a checkpoint name; the
gradients of parameters go into `g`, a view of the same names. Dropout happens only where a random generator is given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .cache import LayerSlot
from .config import RobertaPreLayerNormConfig
from .family import POST_LN, PRE_LN
from .gradients import GradientView
from .ops.activations import ACTIVATIONS
from .ops.attention import AttentionCache, Relative, attention, attention_backward, merge_heads, split_heads
from .ops.dropout import DropoutCache, dropout, dropout_backward
from .ops.embedding import EmbeddingCache, embedding, embedding_backward
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


def pre_ln_backward(
    f_backward: Callable[[np.ndarray, Any], np.ndarray],
    dy: np.ndarray,
    cache: tuple[LayerNormCache, Any],
    g: GradientView,
    norm: str,
) -> np.ndarray:
    """dx = dy + LN'(f'(dy)): what arrives at y reaches x untouched, and a second share comes through the block."""
    norm_cache, f_cache = cache
    du = f_backward(dy, f_cache)  # undoes f(u)
    return dy + g.norm(norm, du, norm_cache)  # undoes LN, and joins the identity path


def post_ln(
    f: Callable[[np.ndarray], tuple[np.ndarray, Any]], x: np.ndarray, norm: tuple[np.ndarray, np.ndarray], eps: float
) -> tuple[np.ndarray, tuple[LayerNormCache, Any]]:
    """y = LN(x + f(x)): the order of the first Transformer, of BERT and of RoBERTa. arXiv:2002.04745, table 1."""
    h, f_cache = f(x)
    y, norm_cache = layer_norm(x + h, *norm, eps)
    return y, (norm_cache, f_cache)


def post_ln_backward(
    f_backward: Callable[[np.ndarray, Any], np.ndarray],
    dy: np.ndarray,
    cache: tuple[LayerNormCache, Any],
    g: GradientView,
    norm: str,
) -> np.ndarray:
    """d = LN'(dy), dx = d + f'(d): on its way down, every gradient passes a LayerNorm in every layer."""
    norm_cache, f_cache = cache
    d = g.norm(norm, dy, norm_cache)  # undoes LN
    return d + f_backward(d, f_cache)  # undoes f(x), and joins the identity path


# the residual blocks of either order, forward and backward
RESIDUAL = {PRE_LN: (pre_ln, pre_ln_backward), POST_LN: (post_ln, post_ln_backward)}


class EmbeddingsCache(NamedTuple):
    """What the backward needs; None for a table that was not looked up."""

    word: EmbeddingCache | None
    token_type: EmbeddingCache
    position: EmbeddingCache | None
    norm: LayerNormCache
    dropped: DropoutCache | None


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
    y, dropped = dropout(y, config.hidden_dropout_prob, rng)
    return y, EmbeddingsCache(word_cache, type_cache, position_cache, norm_cache, dropped)


def embeddings_backward(
    dy: np.ndarray, cache: EmbeddingsCache, g: GradientView, config: RobertaPreLayerNormConfig
) -> np.ndarray:
    """Gradients of the three tables and the LayerNorm; returns that of the word vectors, (B, T, C).

    The padding row of the word and position tables is never trained through a look-up, as in torch.
    """
    dx = g.norm("LayerNorm", dropout_backward(dy, cache.dropped), cache.norm)
    for name, table_cache, padding in (
        ("word_embeddings.weight", cache.word, config.pad_token_id),
        ("position_embeddings.weight", cache.position, config.position_padding_id),
        ("token_type_embeddings.weight", cache.token_type, None),
    ):
        if table_cache is not None and g.wants(name):
            g.add(name, embedding_backward(dx, table_cache, padding))
    return dx


class AttentionBlockCache(NamedTuple):
    """What the backward needs; `core` also holds the weights and the keys and values that a caller may ask for."""

    query: LinearCache
    key: LinearCache | None  # None where the keys and values came from a key/value cache
    value: LinearCache | None
    core: AttentionCache
    output: LinearCache
    dropped: DropoutCache | None


def self_attention(
    u: np.ndarray,
    p: View,
    config: RobertaPreLayerNormConfig,
    mask: np.ndarray | None,
    *,
    head_mask: np.ndarray | None = None,
    relative: Relative | None = None,
    slot: LayerSlot | None = None,
    rng: Rng = None,
) -> tuple[np.ndarray, AttentionBlockCache]:
    """Every token looks at every token, and at those of the key/value cache. u (B, T, C) -> (B, T, C)."""
    heads = config.num_attention_heads
    q, query_cache = linear(u, *p.affine("self.query"))
    k, key_cache = linear(u, *p.affine("self.key"))
    v, value_cache = linear(u, *p.affine("self.value"))
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)  # (B, T, C) -> (B, H, T, D)
    if slot is not None:
        k, v = slot.add(k, v)  # (B, H, T, D) -> (B, H, S, D), S = past + T
    context, core = attention(
        q, k, v, mask, head_mask=head_mask, relative=relative, drop=config.attention_probs_dropout_prob, rng=rng
    )
    y, output_cache = linear(merge_heads(context), *p.affine("output.dense"))
    y, dropped = dropout(y, config.hidden_dropout_prob, rng)
    return y, AttentionBlockCache(query_cache, key_cache, value_cache, core, output_cache, dropped)


def _core_backward(
    dy: np.ndarray, cache: AttentionBlockCache, g: GradientView, config: RobertaPreLayerNormConfig, index: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What both attentions share, down to the projections: dy (B, T, C) -> dq (B, T, C), dk and dv (B, S, C)."""
    dcontext = g.linear("output.dense", dropout_backward(dy, cache.dropped), cache.output)
    gradients = attention_backward(split_heads(dcontext, config.num_attention_heads), cache.core)
    if gradients.dtable is not None:
        g.add("self.distance_embedding.weight", gradients.dtable)
    if gradients.dhead_mask is not None:
        g.gradients.add_layer("head_mask", index, config.num_hidden_layers, gradients.dhead_mask.reshape(-1))
    return merge_heads(gradients.dq), merge_heads(gradients.dk), merge_heads(gradients.dv)


def self_attention_backward(
    dy: np.ndarray, cache: AttentionBlockCache, g: GradientView, config: RobertaPreLayerNormConfig, index: int
) -> np.ndarray:
    """du: the sum of what comes back through the queries, the keys and the values. (B, T, C)."""
    assert cache.key is not None, "the backward does not go through a key/value cache"
    assert cache.value is not None
    dq, dk, dv = _core_backward(dy, cache, g, config, index)
    du = g.linear("self.query", dq, cache.query)
    du += g.linear("self.key", dk, cache.key)
    du += g.linear("self.value", dv, cache.value)
    return du


def cross_attention(
    u: np.ndarray,
    p: View,
    config: RobertaPreLayerNormConfig,
    mask: np.ndarray | None,
    encoder_states: np.ndarray | None,
    *,
    head_mask: np.ndarray | None = None,
    slot: LayerSlot | None = None,
    rng: Rng = None,
) -> tuple[np.ndarray, AttentionBlockCache]:
    """Every token looks at the encoder's last states, which are not normalised here again.

    u (B, T, C), encoder_states (B, S, C) or the keys and values already made of them -> (B, T, C).
    """
    heads = config.num_attention_heads
    q, query_cache = linear(u, *p.affine("self.query"))
    q = split_heads(q, heads)
    key_cache = value_cache = None
    if slot is not None and slot.cross_key is not None and slot.cross_value is not None:
        k, v = slot.cross_key, slot.cross_value
    else:
        assert encoder_states is not None, "the inputs are checked to hold states or a cache of them"
        k, key_cache = linear(encoder_states, *p.affine("self.key"))
        v, value_cache = linear(encoder_states, *p.affine("self.value"))
        k, v = split_heads(k, heads), split_heads(v, heads)  # (B, S, C) -> (B, H, S, D)
    context, core = attention(q, k, v, mask, head_mask=head_mask, drop=config.attention_probs_dropout_prob, rng=rng)
    y, output_cache = linear(merge_heads(context), *p.affine("output.dense"))
    y, dropped = dropout(y, config.hidden_dropout_prob, rng)
    return y, AttentionBlockCache(query_cache, key_cache, value_cache, core, output_cache, dropped)


def cross_attention_backward(
    dy: np.ndarray, cache: AttentionBlockCache, g: GradientView, config: RobertaPreLayerNormConfig, index: int
) -> np.ndarray:
    """du through the queries (B, T, C); the keys' and values' share goes to the encoder's states (B, S, C)."""
    assert cache.key is not None, "the backward does not go through a key/value cache"
    assert cache.value is not None
    dq, dk, dv = _core_backward(dy, cache, g, config, index)
    if g.gradients.wants_input("encoder_hidden_states"):
        g.gradients.add("encoder_hidden_states", g.linear("self.key", dk, cache.key))
        g.gradients.add("encoder_hidden_states", g.linear("self.value", dv, cache.value))
    else:
        g.linear_params("self.key", dk, cache.key)
        g.linear_params("self.value", dv, cache.value)
    return g.linear("self.query", dq, cache.query)


class FeedForwardCache(NamedTuple):
    """What the backward needs."""

    inner: LinearCache
    activation: tuple[np.ndarray, ...]
    outer: LinearCache
    dropped: DropoutCache | None


def feed_forward(
    u: np.ndarray, p: View, config: RobertaPreLayerNormConfig, rng: Rng = None
) -> tuple[np.ndarray, FeedForwardCache]:
    """act(u W1^T + b1) W2^T + b2, each token by itself. (B, T, C) -> (B, T, F) -> (B, T, C)."""
    h, inner_cache = linear(u, *p.affine("intermediate.dense"))
    a, activation_cache = ACTIVATIONS[config.hidden_act][0](h)
    y, outer_cache = linear(a, *p.affine("output.dense"))
    y, dropped = dropout(y, config.hidden_dropout_prob, rng)
    return y, FeedForwardCache(inner_cache, activation_cache, outer_cache, dropped)


def feed_forward_backward(dy: np.ndarray, cache: FeedForwardCache, g: GradientView, activation: str) -> np.ndarray:
    """du. (B, T, C) -> (B, T, F) -> (B, T, C)."""
    da = g.linear("output.dense", dropout_backward(dy, cache.dropped), cache.outer)
    dh = ACTIVATIONS[activation][1](da, cache.activation)
    return g.linear("intermediate.dense", dh, cache.inner)


class LayerCache(NamedTuple):
    """What the backward needs, one entry for each residual block; feed-forward chunks in order."""

    attention: tuple[LayerNormCache, AttentionBlockCache]
    cross: tuple[LayerNormCache, AttentionBlockCache] | None
    feed_forward: list[tuple[LayerNormCache, FeedForwardCache]]


def layer(
    x: np.ndarray,
    p: View,
    config: RobertaPreLayerNormConfig,
    *,
    mask: np.ndarray | None,
    head_mask: np.ndarray | None = None,
    relative: Relative | None = None,
    slot: LayerSlot | None = None,
    encoder_states: np.ndarray | None = None,
    encoder_mask: np.ndarray | None = None,
    rng: Rng = None,
) -> tuple[np.ndarray, LayerCache]:
    """Self-attention, cross-attention where there is something to attend to, feed-forward: each a residual block."""
    order, eps = config.family.order, config.layer_norm_eps
    residual, _ = RESIDUAL[order]

    own = p.at("attention.")
    x, attention_cache = residual(
        lambda u: self_attention(
            u, own, config, mask, head_mask=head_mask, relative=relative, slot=slot, rng=rng
        ),
        x, own.affine(order.attention_norm), eps,
    )  # fmt: skip

    cross_cache = None
    if encoder_states is not None or (slot is not None and slot.cross_key is not None):
        cross = p.at("crossattention.")
        x, cross_cache = residual(
            lambda u: cross_attention(
                u, cross, config, encoder_mask, encoder_states, head_mask=head_mask, slot=slot, rng=rng
            ),
            x, cross.affine(order.attention_norm), eps,
        )  # fmt: skip

    # tokens do not meet in the feed-forward block, so it can run on some of them at a time
    size = config.chunk_size_feed_forward or x.shape[1]
    chunks, chunk_caches = [], []
    for start in range(0, x.shape[1], size):
        y, cache = residual(
            lambda u: feed_forward(u, p, config, rng),
            x[:, start : start + size], p.affine(order.feed_forward_norm), eps,
        )  # fmt: skip
        chunks.append(y)
        chunk_caches.append(cache)
    y = chunks[0] if len(chunks) == 1 else np.concatenate(chunks, axis=1)
    return y, LayerCache(attention_cache, cross_cache, chunk_caches)


def layer_backward(
    dy: np.ndarray, cache: LayerCache, g: GradientView, config: RobertaPreLayerNormConfig, index: int
) -> np.ndarray:
    """dx, undoing the residual blocks last to first. `index` is the layer's own number."""
    order = config.family.order
    _, residual_backward = RESIDUAL[order]
    size = config.chunk_size_feed_forward or dy.shape[1]
    chunks = [
        residual_backward(
            lambda d, c: feed_forward_backward(d, c, g, config.hidden_act),
            dy[:, start : start + size], chunk_cache, g, order.feed_forward_norm,
        )
        for start, chunk_cache in zip(range(0, dy.shape[1], size), cache.feed_forward, strict=True)
    ]  # fmt: skip
    dx = chunks[0] if len(chunks) == 1 else np.concatenate(chunks, axis=1)
    blocks = (
        ("crossattention.", cache.cross, cross_attention_backward),
        ("attention.", cache.attention, self_attention_backward),
    )
    for name, block_cache, f_backward in blocks:
        if block_cache is not None:
            here = g.at(name)
            back = partial(f_backward, g=here, config=config, index=index)
            dx = residual_backward(back, dx, block_cache, here, order.attention_norm)
    return dx
