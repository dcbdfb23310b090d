"""One forward with everything that it kept: the residual blocks, and every intermediate value in order.

Nothing here computes the model a second time: a forward that records for a backward holds the input of each linear map,
each LayerNorm's statistics, the queries, keys, values and attention weights. What it does not hold, the outputs of
linear maps and the sums, is one op away.

Legend: B batch, T tokens, S tokens attended to, C hidden, H heads, D head size, F intermediate, N layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..body import BodyCache, PoolerCache, Recording
from ..config import RobertaPreLayerNormConfig
from ..encoder_decoder_base import PreTrainedPair
from ..errors import InputError
from ..family import PRE_LN
from ..heads import ClassificationHeadCache, LMHeadCache
from ..layers import AttentionBlockCache, FeedForwardCache, LayerCache
from ..model import BodyModel
from ..ops.attention import merge_heads
from ..ops.linear import linear
from ..ops.normalization import LayerNormCache
from ..outputs import ModelOutput
from ..params import View
from ..twins import ACTIVATIONS, layer_norm

Step = tuple[str, np.ndarray]


class ResidualBlock(NamedTuple):
    """One residual block of one forward: self-attention, cross-attention or feed-forward."""

    name: str  # "encoder.layer.0.attention", "...crossattention", "...feed_forward"
    x: np.ndarray  # (B, T, C), the stream before it
    update: np.ndarray  # (B, T, C), what the block computed to be added
    y: np.ndarray  # (B, T, C), the stream after it
    norm_name: str  # of the parameters of its LayerNorm
    norm: LayerNormCache
    steps: list[Step]  # every intermediate value, in the order of computation


def require_model(model: Any) -> None:
    """Raise unless `model` is one of this package's models."""
    if isinstance(model, PreTrainedPair):
        raise InputError(
            f"{type(model).__name__} is two models; give one of them, model.encoder, or model.decoder with the "
            "encoder's states as encoder_hidden_states"
        )
    if not isinstance(model, BodyModel):
        raise InputError(f"model is a {type(model).__name__}; give a model of this package, such as from_pretrained's")


def recorded_body(model: Any, inputs: dict[str, Any]) -> tuple[BodyCache, tuple[np.ndarray, ...]]:
    """What the body kept, and its stream: the embeddings, then each layer's output, before any final LayerNorm."""
    require_model(model)
    output, cache = model._body(
        Recording(-1), **inputs, output_hidden_states=True, hidden_states_convention="v4", output_attentions=False
    )
    assert cache is not None
    assert output.hidden_states is not None
    return cache, output.hidden_states


def residual_blocks(
    p: View, config: RobertaPreLayerNormConfig, cache: BodyCache, stream: Sequence[np.ndarray]
) -> Iterator[ResidualBlock]:
    """All blocks in order. `p` is the view of the body's parameters."""
    for index, kept in enumerate(cache.layers):
        assert isinstance(kept, LayerCache), "nothing was left to be recomputed"
        name = f"encoder.layer.{index}."
        layer = p.at(name)
        x = stream[index]
        for kind, block_cache in (("attention.", kept.attention), ("crossattention.", kept.cross)):
            if block_cache is not None:
                block = _attention_block(layer.at(kind), name + kind, config, x, *block_cache)
                yield block
                x = block.y
        yield _feed_forward_block(layer, name, config, x, stream[index + 1], kept.feed_forward)


def _attention_block(
    p: View,
    name: str,
    config: RobertaPreLayerNormConfig,
    x: np.ndarray,
    norm: LayerNormCache,
    cache: AttentionBlockCache,
) -> ResidualBlock:
    context = _by_token(cache.output.x, x)
    update, _ = linear(context, *p.affine("output.dense"))
    (core,) = cache.core.cores  # hidden states were asked for, so all sequences were computed together
    inner = [
        ("self.query", merge_heads(core.q)),
        ("self.key", merge_heads(core.k)),
        ("self.value", merge_heads(core.v)),
        ("self.weights", core.weights()),
        ("self.context", context),
        ("output.dense", update),
    ]
    u = _by_token(cache.query.x, x)
    norm_name = config.family.order.attention_norm
    before, after = _around(p, config, norm_name, x, update, u)
    steps = [(name + tail, value) for tail, value in (*before, *inner, *after)]
    norm = LayerNormCache(_by_token(norm.x_hat, x), _by_token(norm.inv_std, x), norm.weight)
    return ResidualBlock(name[:-1], x, update, after[-1][1], name + norm_name, norm, steps)


def _feed_forward_block(
    p: View,
    name: str,
    config: RobertaPreLayerNormConfig,
    x: np.ndarray,
    y: np.ndarray,
    chunks: list[tuple[LayerNormCache, FeedForwardCache]],
) -> ResidualBlock:
    u = _joined([cache.inner.x for _, cache in chunks], x)
    activated = _joined([cache.outer.x for _, cache in chunks], x)
    hidden, _ = linear(u, *p.affine("intermediate.dense"))
    update, _ = linear(activated, *p.affine("output.dense"))
    inner = [("intermediate.dense", hidden), ("intermediate.activation", activated), ("output.dense", update)]
    norm_name = config.family.order.feed_forward_norm
    before, after = _around(p, config, norm_name, x, update, u, y)
    norm = LayerNormCache(
        _joined([kept.x_hat for kept, _ in chunks], x),
        _joined([kept.inv_std for kept, _ in chunks], x),
        chunks[0][0].weight,
    )
    steps = [(name + tail, value) for tail, value in (*before, *inner, *after)]
    return ResidualBlock(name + "feed_forward", x, update, y, name + norm_name, norm, steps)


def _around(
    p: View,
    config: RobertaPreLayerNormConfig,
    norm_name: str,
    x: np.ndarray,
    update: np.ndarray,
    u: np.ndarray,
    y: np.ndarray | None = None,
) -> tuple[list[Step], list[Step]]:
    """The steps before and after a block's inner ones; the last is the stream after it, `y` where it is known."""
    total = x + update
    if config.family.order == PRE_LN:
        return [(norm_name, u)], [("residual", total if y is None else y)]
    if y is None:
        y, _ = layer_norm(total, *p.affine(norm_name), config.layer_norm_eps)
    return [], [("residual", total), (norm_name, y)]


def _joined(chunks: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Chunks of rows as one array again, (B, T, ...) as the stream x is."""
    return _by_token(chunks[0] if len(chunks) == 1 else np.concatenate(chunks), x)


def _by_token(rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What was kept of all rows, (B*T, ...), as (B, T, ...): as the stream x is."""
    return rows.reshape(*x.shape[:2], rows.shape[-1])


def all_steps(model: Any, inputs: dict[str, Any]) -> Iterator[Step]:
    """Every intermediate value of one forward of the whole model, head included, in the order of computation."""
    require_model(model)
    output, caches = model._forward(
        Recording(-1), **inputs, output_hidden_states=True, hidden_states_convention="v4", output_attentions=False
    )
    p: View = model._view()
    config = model.config
    stream = output.hidden_states
    yield from _embedding_steps(p.at("embeddings."), config, caches[0], stream[0])
    for block in residual_blocks(p, config, caches[0], stream):
        yield from block.steps
    if config.family.order.has_final_norm:
        yield "LayerNorm", layer_norm(stream[-1], *p.affine("LayerNorm"), config.layer_norm_eps)[0]
    for cache in caches[1:]:
        yield from _head_steps(model, cache, output)
    for name in ("logits", "start_logits", "end_logits", "loss"):
        if name in output:
            yield name, output[name]


def _embedding_steps(
    p: View, config: RobertaPreLayerNormConfig, cache: BodyCache, embedded: np.ndarray
) -> Iterator[Step]:
    inputs = cache.inputs
    if inputs.input_ids is not None:
        yield "embeddings.word_embeddings", p["word_embeddings.weight"][inputs.input_ids]
    yield "embeddings.token_type_embeddings", p["token_type_embeddings.weight"][inputs.token_type_ids]
    if config.position_embedding_type == "absolute":
        yield "embeddings.position_embeddings", p["position_embeddings.weight"][inputs.position_ids]
    yield "embeddings.LayerNorm", embedded


def _head_steps(model: Any, cache: Any, output: ModelOutput) -> Iterator[Step]:
    p, names = View(model.params), model.config.family.lm_head
    if isinstance(cache, PoolerCache):
        yield "pooler.dense", linear(cache.dense.x, *model._view().affine("pooler.dense"))[0]
        yield "pooler", cache.activation[0]
    elif isinstance(cache, LMHeadCache):
        shape = output["logits"].shape[:-1]  # (B, T), or fewer where some were chosen
        given, normed = (rows.reshape(*shape, rows.shape[-1]) for rows in (cache.dense.x, cache.decoder.x))
        hidden, _ = linear(given, *p.affine(names.dense))
        activated, _ = ACTIVATIONS[names.activation or model.config.hidden_act][0](hidden)
        yield names.dense, hidden
        yield names.dense.removesuffix("dense") + "activation", activated
        yield names.norm, normed
    elif isinstance(cache, ClassificationHeadCache):
        yield "classifier.dense", linear(cache.dense.x, *p.affine("classifier.dense"))[0]
        yield "classifier.activation", cache.out_proj.x
    elif type(cache) is tuple:  # a head of two parts
        for part in cache:
            yield from _head_steps(model, part, output)
