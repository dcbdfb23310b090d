"""One transformer layer and what it is made of: `f(...) -> (y, cache)`, then `f_backward(dy, cache, g) -> dx`.

Parameters come as a `View` of the flat dict, so that a name here is the tail of a checkpoint name; the
gradients of parameters go into `g`, a view of the same names. Dropout happens only where a random generator is given.

Everything but attention treats each token by itself, so tokens come as rows, sequence after sequence, (N, C): B*T of
them, or fewer where padding is left out (`rows.py`). A `Layout` says who meets whom. In the last layer the R rows that
somebody reads are enough, R <= N, so that only their queries are asked for.
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
from .ops.attention import Relative
from .ops.dropout import DropoutCache, dropout, dropout_backward
from .ops.embedding import EmbeddingCache, embedding
from .ops.linear import LinearCache
from .ops.normalization import LayerNormCache
from .ops.packed import PackedAttentionCache, of_sequences, put_rows, take_rows
from .params import View
from .rows import Layout
from .stored import affine
from .twins import ACTIVATIONS, embedding_backward, layer_norm, packed_attention, packed_attention_backward

Rng = np.random.Generator | None


def pre_ln(
    f: Callable[[np.ndarray], tuple[np.ndarray, Any]],
    x: np.ndarray,
    norm: tuple[np.ndarray, np.ndarray],
    eps: float,
    read: np.ndarray | None = None,
) -> tuple[np.ndarray, tuple[LayerNormCache, Any]]:
    """y = x + f(LN(x)): the identity path from x to y is untouched. Xiong et al. 2020, arXiv:2002.04745, table 1.

    Where f gives only the rows that are `read`, y has these alone.
    """
    u, norm_cache = layer_norm(x, *norm, eps)
    h, f_cache = f(u)
    return take_rows(x, read) + h, (norm_cache, f_cache)


def pre_ln_backward(
    f_backward: Callable[[np.ndarray, Any], np.ndarray],
    dy: np.ndarray,
    cache: tuple[LayerNormCache, Any],
    g: GradientView,
    norm: str,
    read: np.ndarray | None = None,
) -> np.ndarray:
    """dx = dy + LN'(f'(dy)): what arrives at y reaches x untouched, and a second share comes through the block."""
    norm_cache, f_cache = cache
    du = f_backward(dy, f_cache)  # undoes f(u)
    return put_rows(dy, read, len(du)) + g.norm(norm, du, norm_cache)  # undoes LN, and joins the identity path


def post_ln(
    f: Callable[[np.ndarray], tuple[np.ndarray, Any]],
    x: np.ndarray,
    norm: tuple[np.ndarray, np.ndarray],
    eps: float,
    read: np.ndarray | None = None,
) -> tuple[np.ndarray, tuple[LayerNormCache, Any]]:
    """y = LN(x + f(x)): the order of the first Transformer, of BERT and of RoBERTa. arXiv:2002.04745, table 1."""
    h, f_cache = f(x)
    y, norm_cache = layer_norm(take_rows(x, read) + h, *norm, eps)
    return y, (norm_cache, f_cache)


def post_ln_backward(
    f_backward: Callable[[np.ndarray, Any], np.ndarray],
    dy: np.ndarray,
    cache: tuple[LayerNormCache, Any],
    g: GradientView,
    norm: str,
    read: np.ndarray | None = None,
) -> np.ndarray:
    """d = LN'(dy), dx = d + f'(d): on its way down, every gradient passes a LayerNorm in every layer."""
    norm_cache, f_cache = cache
    d = g.norm(norm, dy, norm_cache)  # undoes LN
    dx = f_backward(d, f_cache)  # undoes f(x)
    return put_rows(d, read, len(dx)) + dx  # joins the identity path


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
    """LN(word + token type + position). Ids (N,), or embeds (N, C) in place of the words -> (N, C).

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
    """Gradients of the three tables and the LayerNorm; returns that of the word vectors, (N, C).

    The padding row of the word and position tables is never trained through a look-up, as in torch.
    """
    dx = g.norm("LayerNorm", dropout_backward(dy, cache.dropped), cache.norm)
    for name, table_cache, padding in (
        ("word_embeddings.weight", cache.word, config.pad_token_id),
        ("position_embeddings.weight", cache.position, config.position_padding_id),
        ("token_type_embeddings.weight", cache.token_type, None),
    ):
        if table_cache is not None and g.wants(name):
            g.replace(name, embedding_backward(dx, table_cache, padding, onto=g.so_far(name)))
    return dx


class AttentionBlockCache(NamedTuple):
    """What the backward needs, and the keys, values and weights that a caller may ask for."""

    read: np.ndarray | None  # (R,) the rows that looked; None: all
    query: LinearCache
    key: LinearCache | None  # None where the keys and values came from a key/value cache
    value: LinearCache | None
    k: np.ndarray  # (N, C), or (B, H, S, D) where a key/value cache was or will be
    v: np.ndarray
    core: PackedAttentionCache
    output: LinearCache
    dropped: DropoutCache | None

    def key_values(self, heads: int, seen: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values of sequences that have `seen` of them each, (B, H, S, D)."""
        k, v = (x if x.ndim == 4 else of_sequences(x, seen, heads) for x in (self.k, self.v))
        return k, v


def self_attention(
    u: np.ndarray,
    p: View,
    config: RobertaPreLayerNormConfig,
    layout: Layout,
    *,
    head_mask: np.ndarray | None = None,
    relative: Relative | None = None,
    slot: LayerSlot | None = None,
    rng: Rng = None,
) -> tuple[np.ndarray, AttentionBlockCache]:
    """The tokens that are read look at all of their sequence, and of the key/value cache. u (N, C) -> (R, C)."""
    heads = config.num_attention_heads
    q, query_cache = affine(take_rows(u, layout.read), p, "self.query")
    k, key_cache = affine(u, p, "self.key")
    v, value_cache = affine(u, p, "self.value")
    if slot is not None:
        # (B*T, C) -> (B, H, T, D) -> (B, H, S, D), S = past + T
        k, v = slot.add(of_sequences(k, layout.tokens, heads), of_sequences(v, layout.tokens, heads))
    context, core = packed_attention(
        q, k, v, layout.own, heads,
        head_mask=head_mask, relative=relative, drop=config.attention_probs_dropout_prob, rng=rng,
    )  # fmt: skip
    y, output_cache = affine(context, p, "output.dense")
    y, dropped = dropout(y, config.hidden_dropout_prob, rng)
    return y, AttentionBlockCache(layout.read, query_cache, key_cache, value_cache, k, v, core, output_cache, dropped)


def _core_backward(
    dy: np.ndarray, cache: AttentionBlockCache, g: GradientView, config: RobertaPreLayerNormConfig, index: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What both attentions share, down to the projections: dy (R, C) -> dq (R, C), dk and dv (N, C)."""
    dcontext = g.linear("output.dense", dropout_backward(dy, cache.dropped), cache.output)
    gradients = packed_attention_backward(dcontext, cache.core, config.num_attention_heads, len(cache.k))
    if gradients.dtable is not None:
        g.add("self.distance_embedding.weight", gradients.dtable)
    if gradients.dhead_mask is not None:
        g.gradients.add_layer("head_mask", index, config.num_hidden_layers, gradients.dhead_mask.reshape(-1))
    return gradients.dq, gradients.dk, gradients.dv


def self_attention_backward(
    dy: np.ndarray, cache: AttentionBlockCache, g: GradientView, config: RobertaPreLayerNormConfig, index: int
) -> np.ndarray:
    """du: the sum of what comes back through the queries, the keys and the values. dy (R, C) -> (N, C)."""
    assert cache.key is not None, "the backward does not go through a key/value cache"
    assert cache.value is not None
    dq, dk, dv = _core_backward(dy, cache, g, config, index)
    du = put_rows(g.linear("self.query", dq, cache.query), cache.read, len(dk))
    du += g.linear("self.key", dk, cache.key)
    du += g.linear("self.value", dv, cache.value)
    return du


def cross_attention(
    u: np.ndarray,
    p: View,
    config: RobertaPreLayerNormConfig,
    layout: Layout,
    encoder_states: np.ndarray | None,
    *,
    head_mask: np.ndarray | None = None,
    slot: LayerSlot | None = None,
    rng: Rng = None,
) -> tuple[np.ndarray, AttentionBlockCache]:
    """Every token looks at the encoder's last states, which are not normalised here again.

    u (R, C), encoder_states (B, S, C) or the keys and values already made of them -> (R, C).
    """
    heads = config.num_attention_heads
    q, query_cache = affine(u, p, "self.query")
    key_cache = value_cache = None
    if slot is not None and slot.cross_key is not None and slot.cross_value is not None:
        k, v = slot.cross_key, slot.cross_value
    else:
        assert encoder_states is not None, "the inputs are checked to hold states or a cache of them"
        k, key_cache = affine(encoder_states, p, "self.key")
        v, value_cache = affine(encoder_states, p, "self.value")
        k, v = k.reshape(-1, k.shape[-1]), v.reshape(-1, v.shape[-1])  # (B, S, C) -> (B*S, C)
    context, core = packed_attention(
        q, k, v, layout.cross, heads, head_mask=head_mask, drop=config.attention_probs_dropout_prob, rng=rng
    )
    y, output_cache = affine(context, p, "output.dense")
    y, dropped = dropout(y, config.hidden_dropout_prob, rng)
    return y, AttentionBlockCache(None, query_cache, key_cache, value_cache, k, v, core, output_cache, dropped)


def cross_attention_backward(
    dy: np.ndarray, cache: AttentionBlockCache, g: GradientView, config: RobertaPreLayerNormConfig, index: int
) -> np.ndarray:
    """du through the queries (R, C); the keys' and values' share goes to the encoder's states (B, S, C)."""
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
    """act(u W1^T + b1) W2^T + b2, each token by itself. (N, C) -> (N, F) -> (N, C)."""
    h, inner_cache = affine(u, p, "intermediate.dense")
    a, activation_cache = ACTIVATIONS[config.hidden_act][0](h)
    y, outer_cache = affine(a, p, "output.dense")
    y, dropped = dropout(y, config.hidden_dropout_prob, rng)
    return y, FeedForwardCache(inner_cache, activation_cache, outer_cache, dropped)


def feed_forward_backward(dy: np.ndarray, cache: FeedForwardCache, g: GradientView, activation: str) -> np.ndarray:
    """du. (N, C) -> (N, F) -> (N, C)."""
    da = g.linear("output.dense", dropout_backward(dy, cache.dropped), cache.outer)
    dh = ACTIVATIONS[activation][1](da, cache.activation)
    return g.linear("intermediate.dense", dh, cache.inner)


class LayerCache(NamedTuple):
    """What the backward needs, one entry for each residual block; feed-forward chunks in order."""

    layout: Layout
    attention: tuple[LayerNormCache, AttentionBlockCache]
    cross: tuple[LayerNormCache, AttentionBlockCache] | None
    feed_forward: list[tuple[LayerNormCache, FeedForwardCache]]


def layer(
    x: np.ndarray,
    p: View,
    config: RobertaPreLayerNormConfig,
    layout: Layout,
    *,
    head_mask: np.ndarray | None = None,
    relative: Relative | None = None,
    slot: LayerSlot | None = None,
    encoder_states: np.ndarray | None = None,
    rng: Rng = None,
) -> tuple[np.ndarray, LayerCache]:
    """Self-attention, cross-attention where there is something to attend to, feed-forward: each a residual block.

    x (N, C) -> (R, C), where R is N in all layers but the last.
    """
    order, eps = config.family.order, config.layer_norm_eps
    residual, _ = RESIDUAL[order]

    own = p.at("attention.")
    x, attention_cache = residual(
        lambda u: self_attention(
            u, own, config, layout, head_mask=head_mask, relative=relative, slot=slot, rng=rng
        ),
        x, own.affine(order.attention_norm), eps, layout.read,
    )  # fmt: skip

    cross_cache = None
    if layout.encoder_tokens:
        cross = p.at("crossattention.")
        x, cross_cache = residual(
            lambda u: cross_attention(
                u, cross, config, layout, encoder_states, head_mask=head_mask, slot=slot, rng=rng
            ),
            x, cross.affine(order.attention_norm), eps,
        )  # fmt: skip

    # tokens do not meet in the feed-forward block, so it can run on some of them at a time
    starts = _chunks(config, layout, len(x))
    chunks, chunk_caches = [], []
    for start in starts:
        y, cache = residual(
            lambda u: feed_forward(u, p, config, rng),
            x[start : start + starts.step], p.affine(order.feed_forward_norm), eps,
        )  # fmt: skip
        chunks.append(y)
        chunk_caches.append(cache)
    y = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    return y, LayerCache(layout, attention_cache, cross_cache, chunk_caches)


def _chunks(config: RobertaPreLayerNormConfig, layout: Layout, rows: int) -> range:
    """Where the chunks begin that go through the feed-forward block: `chunk_size_feed_forward` rows a sequence."""
    rows = max(rows, 1)  # none is a chunk too
    return range(0, rows, config.chunk_size_feed_forward * layout.sequences or rows)


def layer_backward(
    dy: np.ndarray, cache: LayerCache, g: GradientView, config: RobertaPreLayerNormConfig, index: int
) -> np.ndarray:
    """dx, undoing the residual blocks last to first. `index` is the layer's own number. dy (R, C) -> (N, C)."""
    order = config.family.order
    _, residual_backward = RESIDUAL[order]
    starts = _chunks(config, cache.layout, len(dy))
    chunks = [
        residual_backward(
            lambda d, c: feed_forward_backward(d, c, g, config.hidden_act),
            dy[start : start + starts.step], chunk_cache, g, order.feed_forward_norm,
        )
        for start, chunk_cache in zip(starts, cache.feed_forward, strict=True)
    ]  # fmt: skip
    dx = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    blocks = (
        ("crossattention.", cache.cross, cross_attention_backward, None),
        ("attention.", cache.attention, self_attention_backward, cache.layout.read),
    )
    for name, block_cache, f_backward, read in blocks:
        if block_cache is not None:
            here = g.at(name)
            back = partial(f_backward, g=here, config=config, index=index)
            dx = residual_backward(back, dx, block_cache, here, order.attention_norm, read)
    return dx
