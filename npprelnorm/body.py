"""The body: embeddings, the stack of layers, the final LayerNorm of pre-LN; and the pooler. Forward, then backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import backend
from .cache import KeyValueCache, LayerSlot
from .config import RobertaPreLayerNormConfig
from .gradients import Gradients, GradientView
from .inputs import Inputs
from .layers import EmbeddingsCache, LayerCache, embeddings, embeddings_backward, layer, layer_backward
from .ops.attention import split_heads
from .ops.linear import LinearCache
from .ops.normalization import LayerNormCache
from .ops.packed import put_rows, take_rows
from .outputs import BaseModelOutput
from .params import View
from .rows import Layouts, Rows, choose_rows, layouts_of, packed_layouts
from .stored import affine
from .twins import layer_norm, tanh, tanh_backward


class Recording(NamedTuple):
    """What a forward keeps for a backward.

    Attributes
    ----------
    first_layer : int
        Layers from here on are kept; -1: the embeddings too; the number of layers or more: nothing is.
    rng : numpy.random.Generator, optional
        Dropout happens where there is one.
    recompute : bool
        Keep each layer's input only, and run its forward again in the backward (Chen et al. 2016, arXiv:1604.06174).
    """

    first_layer: int
    rng: np.random.Generator | None = None
    recompute: bool = False


class LayerInput(NamedTuple):
    """What is kept of a layer whose forward will run again."""

    x: np.ndarray  # (N, C)
    seed: int | None  # of its dropout


class BodyOutput(NamedTuple):
    """What comes out of the body; the rest only if it was asked for."""

    hidden: np.ndarray  # (R, C), the rows that are read, after the final LayerNorm
    rows: Rows
    hidden_states: tuple[np.ndarray, ...] | None = None  # (B, T, C) each
    past_key_values: KeyValueCache | None = None
    attentions: tuple[np.ndarray, ...] | None = None  # (B, H, T, S) each
    cross_attentions: tuple[np.ndarray, ...] | None = None

    def named(self, last_hidden_state: np.ndarray) -> BaseModelOutput:
        """The same as users see it."""
        return BaseModelOutput(
            last_hidden_state=last_hidden_state,
            past_key_values=self.past_key_values,
            hidden_states=self.hidden_states,
            attentions=self.attentions,
            cross_attentions=self.cross_attentions,
        )


class BodyCache(NamedTuple):
    """What the backward needs."""

    inputs: Inputs
    rows: Rows
    layouts: Layouts
    embeddings: EmbeddingsCache | None
    first_layer: int
    layers: list[LayerCache | LayerInput]  # from first_layer on
    norm: LayerNormCache | None


def _run_layer(
    x: np.ndarray,
    p: View,
    config: RobertaPreLayerNormConfig,
    inputs: Inputs,
    layouts: Layouts,
    index: int,
    seed: int | None,
    slot: LayerSlot | None = None,
) -> tuple[np.ndarray, LayerCache]:
    here = p.at(f"encoder.layer.{index}.")
    return layer(
        x,
        here,
        config,
        layouts.at(index, config.num_hidden_layers),
        head_mask=None if inputs.head_masks is None else inputs.head_masks[index],
        relative=inputs.relative(here, config.position_embedding_type),
        slot=slot,
        encoder_states=inputs.encoder_states,
        rng=None if seed is None else np.random.default_rng(seed),
    )


def _final_norm(x: np.ndarray, p: View, config: RobertaPreLayerNormConfig) -> tuple[np.ndarray, LayerNormCache | None]:
    if not config.family.order.has_final_norm:
        return x, None
    return layer_norm(x, *p.affine("LayerNorm"), config.layer_norm_eps)


# A product of fewer rows takes NumPy as long as one of so many: it is the weights that have to be read.
_LEAST_ROWS = 8


def _work(config: RobertaPreLayerNormConfig, bounds: np.ndarray, past: int = 0) -> float:
    """Floating-point operations of all layers; NumPy's calls count as as many as it could do in their time."""
    width, lengths = config.hidden_size, np.diff(bounds)
    of_a_row = 8 * width * width + 4 * width * config.intermediate_size
    of_attention = 4 * width * (lengths * (lengths + past)).sum()
    return config.num_hidden_layers * (float(of_a_row * max(lengths.sum(), _LEAST_ROWS) + of_attention) + 1e7)


class _Chosen(NamedTuple):
    """The kernels, and the body's weights as they take them."""

    kernels: Any
    weights: Any

    def encoder(self, *arguments: Any, **more: Any) -> np.ndarray:
        """All layers and the final LayerNorm."""
        result: np.ndarray = self.kernels.encoder(self.weights, *arguments, **more, threads=backend.threads())
        return result


def _kernels_for(
    p: View, config: RobertaPreLayerNormConfig, x: np.ndarray, bounds: np.ndarray, past: int = 0
) -> _Chosen | None:
    """The kernels, where the backend wants them to do the work that is coming."""
    if x.dtype != np.float32:
        return None
    weight_dtype, kernels = p.weight_dtype, None
    if weight_dtype != "float32":
        kernels = backend.reduced_kernels(weight_dtype)
    if kernels is None:
        weight_dtype, kernels = "float32", backend.kernels_for(_work(config, bounds, past))
    if kernels is None:
        return None
    return _Chosen(kernels, kernels.body_weights(p, config, backend.threads(), weight_dtype))


def encoder(
    p: View,
    config: RobertaPreLayerNormConfig,
    x: np.ndarray,
    bounds: np.ndarray,
    keys: np.ndarray | None,
    read: np.ndarray | None,
) -> np.ndarray:
    """The layers and the final LayerNorm (pre-LN alone), where nothing is kept and only a mask of 2 axes is given.

    x (N, C), rows of B sequences one after another, of which each begins at its `bounds`, (B + 1,). A row sees those
    of its sequence that are `keys`, (N,) booleans (None: all; where none is one, all alike). -> (N, C), or with
    `read`, (R,) ascending, these rows alone, (R, C).
    """
    chosen = _kernels_for(p, config, x, bounds)
    if chosen is not None:
        return chosen.encoder(x, bounds, keys, read)
    layouts = packed_layouts(bounds, keys, read, x.dtype)
    for index in range(config.num_hidden_layers):
        x, _ = layer(x, p.at(f"encoder.layer.{index}."), config, layouts.at(index, config.num_hidden_layers))
    return _final_norm(x, p, config)[0]


def _cross_key_values(
    p: View, config: RobertaPreLayerNormConfig, states: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What cross-attention makes of an encoder's states, (B, E, C) -> keys and values of each layer, (B, H, E, D)."""
    heads = config.num_attention_heads

    def of_layer(here: View) -> tuple[np.ndarray, np.ndarray]:
        k, v = (split_heads(affine(states, here, name)[0], heads) for name in ("self.key", "self.value"))
        return k, v

    return [of_layer(p.at(f"encoder.layer.{index}.crossattention.")) for index in range(config.num_hidden_layers)]


def _kept(
    memory: KeyValueCache | None, tokens: int, use_cache: bool, cross: Sequence[tuple[np.ndarray, np.ndarray]]
) -> KeyValueCache | None:
    """The cache that a caller gets, with what was made of an encoder's states; its last `tokens` are new."""
    if memory is None:
        return None
    if not use_cache:
        memory.release(tokens)
        return None
    return memory.with_cross(cross) if cross and not memory.has_cross else memory


def _by_kernel(
    chosen: _Chosen,
    p: View,
    config: RobertaPreLayerNormConfig,
    x: np.ndarray,
    inputs: Inputs,
    rows: Rows,
    memory: KeyValueCache | None,
    use_cache: bool,
) -> BodyOutput:
    """The layers where anything but head masks, relative positions and a backward is asked for."""
    tokens = rows.shape[1]
    cross: Sequence[tuple[np.ndarray, np.ndarray]] = () if memory is None else memory.cross or ()
    if not cross and inputs.encoder_states is not None:
        cross = _cross_key_values(p, config, inputs.encoder_states)
    hidden = chosen.encoder(
        x,
        rows.bounds,
        rows.keys,
        rows.read,
        bias=inputs.bias,
        memory=None if memory is None else memory.places(tokens),
        cross=(cross, inputs.encoder_bias) if cross else None,
    )
    return BodyOutput(hidden, rows, past_key_values=_kept(memory, tokens, use_cache, cross))


def body(
    p: View,
    config: RobertaPreLayerNormConfig,
    inputs: Inputs,
    *,
    wanted: np.ndarray | None = None,
    attentions: bool = False,
    hidden_states: str | None = None,
    use_cache: bool = False,
    record: Recording | None = None,
) -> tuple[BodyOutput, BodyCache | None]:
    """Embeddings -> layers -> final LayerNorm (pre-LN alone), keeping on the way what is asked for.

    `wanted` are the tokens that somebody reads, (B, T) booleans; None: all. `hidden_states` is a convention: "v5" ends
    with the output of the final LayerNorm, "v4" with its input. Without `record` nothing is kept for a backward.
    """
    count = config.num_hidden_layers
    first, rng, recompute = record or Recording(count + 1)
    # each layer has a generator of its own, so that its dropout can be drawn again
    seeds: list[int | None] = [None] * count if rng is None else [int(n) for n in rng.integers(1 << 62, size=count)]
    # hidden states and attentions are of every row, and distances are counted along rows without gaps
    whole = bool(hidden_states) or attentions or inputs.distances is not None
    rows = choose_rows(inputs, wanted, whole)
    x, embeddings_cache = embeddings(
        p.at("embeddings."),
        config,
        None if inputs.input_ids is None else rows.pack(inputs.input_ids),
        None if inputs.inputs_embeds is None else rows.pack(inputs.inputs_embeds),
        rows.pack(inputs.token_type_ids),
        rows.pack(inputs.position_ids),
        rng,
    )
    if not (whole or use_cache or record) and inputs.plain:
        return BodyOutput(encoder(p, config, x, rows.bounds, rows.keys, rows.read), rows), None
    batch, tokens = rows.shape
    past = inputs.past
    if past is None and use_cache:
        past = KeyValueCache.to_continue(config, batch, x.dtype, tokens)
    memory = None if past is None else past.extended(tokens)
    if not (whole or record) and inputs.head_masks is None:
        chosen = _kernels_for(p, config, x, rows.bounds, 0 if past is None else past.length)
        if chosen is not None:
            return _by_kernel(chosen, p, config, x, inputs, rows, memory, use_cache), None
    if record is not None and x.dtype == np.float32:
        backend.count_training(3 * _work(config, rows.bounds))  # the backward's products are two for each of these
    layouts = layouts_of(rows, inputs, None if whole else rows.read, x.dtype)
    stream, own, crossed, cross_key_values = [x], [], [], []
    caches: list[LayerCache | LayerInput] = []
    for index, seed in enumerate(seeds):
        slot = None if memory is None else memory.slot(index, tokens)
        y, cache = _run_layer(x, p, config, inputs, layouts, index, seed, slot)
        if index >= first:
            caches.append(LayerInput(x, seed) if recompute else cache)
        if hidden_states:
            stream.append(y)
        if attentions:
            own.append(cache.attention[1].core.weights())
            if cache.cross:
                crossed.append(cache.cross[1].core.weights())
        if use_cache and cache.cross:
            cross_key_values.append(cache.cross[1].key_values(config.num_attention_heads, inputs.encoder_tokens))
        x = y
    last, norm_cache = _final_norm(x, p, config)
    if hidden_states == "v5":
        stream[-1] = last
    output = BodyOutput(
        take_rows(last, rows.read if whole else None),
        rows,
        hidden_states=tuple(x.reshape(batch, tokens, x.shape[1]) for x in stream) if hidden_states else None,
        past_key_values=_kept(memory, tokens, use_cache, cross_key_values),
        attentions=tuple(own) if attentions else None,
        cross_attentions=tuple(crossed) if crossed else None,
    )
    if record is None:
        return output, None
    kept = embeddings_cache if first < 0 else None
    norm = norm_cache if first <= count else None
    return output, BodyCache(inputs, rows, layouts, kept, max(first, 0), caches, norm)


def body_backward(
    dhidden: np.ndarray, cache: BodyCache, p: View, config: RobertaPreLayerNormConfig, g: GradientView
) -> None:
    """Down the stack, as far as anything was kept. dhidden (R, C) is the gradient of the rows that are read."""
    if cache.layouts.last.read is None:  # they were read only after the last layer
        dhidden = put_rows(dhidden, cache.rows.read, cache.rows.count)
    dx = dhidden if cache.norm is None else g.norm("LayerNorm", dhidden, cache.norm)
    for index in reversed(range(cache.first_layer, config.num_hidden_layers)):
        kept = cache.layers.pop()  # its memory is given back as soon as it is used, so a cache serves one backward
        if isinstance(kept, LayerInput):
            _, kept = _run_layer(kept.x, p, config, cache.inputs, cache.layouts, index, kept.seed)
        dx = layer_backward(dx, kept, g.at(f"encoder.layer.{index}."), config, index)
    if cache.embeddings is not None:
        dwords = embeddings_backward(dx, cache.embeddings, g.at("embeddings."), config)
        g.gradients.add("inputs_embeds", cache.rows.pack_backward(dwords))


class PoolerCache(NamedTuple):
    """What the backward needs."""

    dense: LinearCache
    activation: tuple[np.ndarray, ...]


def pooler(p: View, hidden: np.ndarray) -> tuple[np.ndarray, PoolerCache]:
    """tanh of a linear map of each sequence's first row. (B, C) -> (B, C)."""
    h, dense_cache = affine(hidden, p, "pooler.dense")
    y, activation_cache = tanh(h)
    return y, PoolerCache(dense_cache, activation_cache)


def pooler_backward(dy: np.ndarray, cache: PoolerCache, g: GradientView) -> np.ndarray:
    """The gradient of the first rows. (B, C)."""
    dh = tanh_backward(dy, cache.activation)
    return g.linear("pooler.dense", dh, cache.dense)


def first_layer_needed(g: Gradients, prefix: str, layers: int) -> int:
    """The lowest layer that a backward has to reach (see `Recording.first_layer`), given what is trained."""
    if g.wants_any(prefix + "embeddings.") or g.wants_input("inputs_embeds"):
        return -1
    if g.wants_input("encoder_hidden_states") or g.wants_input("head_mask"):
        return 0
    for index in range(layers):
        if g.wants_any(f"{prefix}encoder.layer.{index}."):
            return index
    return layers if g.wants_any(prefix + "LayerNorm.") else layers + 1
