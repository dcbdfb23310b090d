"""Checks everything that a caller gives a model, and turns it into what the layers take."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import masks
from .cache import KeyValueCache
from .config import RobertaPreLayerNormConfig
from .errors import InputError, InputWarning
from .ops.attention import Relative
from .params import View


@dataclass(frozen=True)
class Inputs:
    """Checked inputs of the body; B batch, T new tokens, S all keys (those of the cache first)."""

    input_ids: np.ndarray | None  # (B, T)
    inputs_embeds: np.ndarray | None  # (B, T, C)
    token_type_ids: np.ndarray  # (B, T)
    position_ids: np.ndarray  # (B, T)
    mask: np.ndarray | None  # (B, T) booleans, which new tokens are real, if a mask of 2 axes says so
    bias: np.ndarray | None  # broadcast to (B, H, T, S), where not all queries see alike
    head_masks: np.ndarray | None  # (N, H, 1, 1)
    distances: np.ndarray | None  # (T, S), for relative positions
    encoder_states: np.ndarray | None  # (B, E, C)
    encoder_bias: np.ndarray | None  # broadcast to (B, H, T, E)
    past: KeyValueCache | None

    @property
    def real(self) -> np.ndarray:
        """Which new tokens are real, (B, T): all where no mask says so, and where it says that none is."""
        if self.mask is None:
            return np.ones(self.position_ids.shape, np.bool_)
        return self.mask | ~self.mask.any(axis=1, keepdims=True)

    @property
    def plain(self) -> bool:
        """Whether a mask of 2 axes is all that there is besides tokens."""
        extras = (self.bias, self.head_masks, self.distances, self.encoder_states, self.past)
        return all(extra is None for extra in extras)

    @property
    def encoder_tokens(self) -> int:
        """How many tokens cross-attention looks at; 0 where there is none."""
        cached = self.past[0].cross_key if self.past is not None else None
        if cached is not None:
            return int(cached.shape[2])
        return 0 if self.encoder_states is None else self.encoder_states.shape[1]

    def relative(self, layer: View, position_type: str) -> Relative | None:
        """The distances together with one layer's table."""
        if self.distances is None:
            return None
        table = layer["attention.self.distance_embedding.weight"]
        return Relative(table, self.distances, position_type == "relative_key_query")


def as_array(name: str, value: Any) -> np.ndarray:
    """`value` as an array; rows of different lengths are an error that says so."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise InputError(f"{name} has rows of different lengths; pad them to one length (and give a mask)") from None
    if array.dtype == object:
        raise InputError(f"{name} is not an array of numbers")
    return array


def as_integers(name: str, value: Any, limit: int, limit_name: str) -> np.ndarray:
    """`value` as int64 in [0, limit); the error names the first bad entry and where it is."""
    array = as_array(name, value)
    if array.dtype.kind not in "iu" and array.size:
        raise InputError(f"{name} must be integers, but its dtype is {array.dtype}; convert it with .astype(int)")
    bad = (array < 0) | (array >= limit)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{name} holds {int(array[where])} at {list(where)}; allowed: 0 to {limit - 1} ({limit_name} is {limit})"
        )
    return array.astype(np.int64)


def as_floats(name: str, value: Any, shape: tuple[int | None, ...], dtype: np.dtype[np.floating]) -> np.ndarray:
    """`value` in the compute dtype; its shape must be `shape`, where None allows any length."""
    array = as_array(name, value)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} has dtype {array.dtype}; give floats")
    if len(array.shape) != len(shape) or any(e not in (None, n) for e, n in zip(shape, array.shape, strict=True)):
        expected = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
        raise InputError(f"{name} has shape {array.shape}; expected {expected}")
    return array.astype(dtype, copy=False)


def prepare(
    config: RobertaPreLayerNormConfig,
    dtype: np.dtype[np.floating],
    *,
    input_ids: Any = None,
    attention_mask: Any = None,
    token_type_ids: Any = None,
    position_ids: Any = None,
    inputs_embeds: Any = None,
    head_mask: Any = None,
    encoder_hidden_states: Any = None,
    encoder_attention_mask: Any = None,
    past_key_values: Any = None,
) -> Inputs:
    """Check and convert all inputs of the body.

    Raises
    ------
    InputError
        Names the argument, its value or shape, and what is expected.
    """
    ids, embeds = _tokens(config, dtype, input_ids, inputs_embeds)
    batch, tokens = ids.shape if ids is not None else embeds.shape[:2]  # type: ignore[union-attr]

    past = None
    if past_key_values is not None:
        if not config.is_decoder:
            raise InputError("past_key_values is given, but this model is no decoder; load it with is_decoder=True")
        past = KeyValueCache.from_arrays(past_key_values, config, batch, dtype)
    past_length = past.length if past is not None else 0
    keys = past_length + tokens

    mask = None if attention_mask is None else as_array("attention_mask", attention_mask)
    if mask is None and ids is not None and (ids == config.pad_token_id).any():
        warnings.warn(
            f"input_ids holds padding (id {config.pad_token_id}), but no attention_mask is given: padding will be "
            "attended to like any token; pass attention_mask (1 for real tokens, 0 for padding)",
            InputWarning,
            stacklevel=5,  # the caller of the model
        )
    heads = config.num_attention_heads
    real = masks.token_mask(mask, batch=batch, heads=heads, tokens=tokens, past=past_length)
    bias = masks.attention_bias(
        mask, batch=batch, heads=heads, tokens=tokens, past=past_length, causal=config.is_decoder, dtype=dtype
    )
    states, encoder_bias = _encoder(
        config, dtype, encoder_hidden_states, encoder_attention_mask, past, batch=batch, tokens=tokens
    )
    distances = None
    if config.position_embedding_type != "absolute":
        _require_room(config, keys, past_length, "")
        distances = masks.relative_distances(tokens, past_length)
    return Inputs(
        input_ids=ids,
        inputs_embeds=embeds,
        token_type_ids=_token_types(config, token_type_ids, batch, tokens),
        position_ids=_positions(config, position_ids, ids, batch, tokens, past_length),
        mask=None if real is None else real[:, past_length:],
        bias=bias,
        head_masks=_head_masks(config, head_mask, dtype),
        distances=distances,
        encoder_states=states,
        encoder_bias=encoder_bias,
        past=past,
    )


def _tokens(
    config: RobertaPreLayerNormConfig, dtype: np.dtype[np.floating], input_ids: Any, inputs_embeds: Any
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if (input_ids is None) == (inputs_embeds is None):
        given = "neither is given" if input_ids is None else "both are given"
        raise InputError(f"You must specify exactly one of input_ids or inputs_embeds; {given}")
    if input_ids is None:
        embeds = as_floats("inputs_embeds", inputs_embeds, (None, None, config.hidden_size), dtype)
        shape = embeds.shape
        ids = None
    else:
        ids = as_integers("input_ids", input_ids, config.vocab_size, "vocab_size")
        shape, embeds = ids.shape, None
        if ids.ndim != 2:
            hint = "; wrap a single sequence in a list" if ids.ndim == 1 else ""
            raise InputError(f"input_ids has shape {shape}; expected (batch, tokens){hint}")
    if shape[1] == 0:
        raise InputError(f"the input has shape {shape}: no tokens; give at least one")
    return ids, embeds


def _row_of_each(name: str, array: np.ndarray, batch: int, tokens: int) -> np.ndarray:
    """(T,), (1, T) or (B, T) -> (B, T)."""
    if array.shape not in ((tokens,), (1, tokens), (batch, tokens)):
        raise InputError(f"{name} has shape {array.shape}; expected {(batch, tokens)}")
    return np.broadcast_to(array, (batch, tokens))


def _token_types(config: RobertaPreLayerNormConfig, value: Any, batch: int, tokens: int) -> np.ndarray:
    if value is None:
        return np.zeros((batch, tokens), np.int64)
    array = as_integers("token_type_ids", value, config.type_vocab_size, "type_vocab_size")
    return _row_of_each("token_type_ids", array, batch, tokens)


def _positions(
    config: RobertaPreLayerNormConfig, value: Any, ids: np.ndarray | None, batch: int, tokens: int, past: int
) -> np.ndarray:
    rows = config.max_position_embeddings
    if value is not None:
        array = as_integers("position_ids", value, rows, "max_position_embeddings")
        return _row_of_each("position_ids", array, batch, tokens)
    if config.position_embedding_type != "absolute":
        return np.zeros((batch, tokens), np.int64)  # never looked up
    if not config.family.positions_after_padding:
        _require_room(config, past + tokens, past, "")
        return masks.positions_from_zero(batch, tokens, past)
    padding_id = config.pad_token_id
    if padding_id is None:
        raise InputError("pad_token_id of the configuration is None, so positions cannot be counted; give position_ids")
    if ids is None:
        _require_room(config, past + tokens, past, "")
        return masks.positions_from_embeds(batch, tokens, padding_id, past)
    positions = masks.positions_from_ids(ids, padding_id, past)
    if positions.size and positions.max() >= rows:
        row = int(positions.max(axis=1).argmax())
        _require_room(config, int(positions[row].max()) - padding_id, past, f"row {row} of ")
    return positions


def _require_room(config: RobertaPreLayerNormConfig, tokens: int, past: int, where: str) -> None:
    if tokens > config.max_tokens:
        cached = f" ({past} of them in the cache)" if past else ""
        raise InputError(
            f"{where}the input has {tokens} non-padding tokens{cached}; this checkpoint supports {config.max_tokens}: "
            "shorten or split the text"
        )


def _head_masks(config: RobertaPreLayerNormConfig, value: Any, dtype: np.dtype[np.floating]) -> np.ndarray | None:
    if value is None:
        return None
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    array = as_array("head_mask", value)
    if array.shape not in ((heads,), (layers, heads)) or array.dtype.kind not in "biuf":
        raise InputError(
            f"head_mask has shape {array.shape} and dtype {array.dtype}; expected numbers of shape {(heads,)} or "
            f"{(layers, heads)}"
        )
    return np.broadcast_to(array.astype(dtype), (layers, heads))[:, :, None, None]


def _encoder(
    config: RobertaPreLayerNormConfig,
    dtype: np.dtype[np.floating],
    states: Any,
    mask: Any,
    past: KeyValueCache | None,
    *,
    batch: int,
    tokens: int,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Encoder states and what their scores are biased by; a model that is no decoder ignores both."""
    if not config.is_decoder:
        return None, None
    cached = past[0].cross_key if past is not None else None
    if states is not None:
        if not config.add_cross_attention:
            raise InputError(
                "If `encoder_hidden_states` are passed, the model has to be instantiated with cross-attention layers "
                "by setting `config.add_cross_attention=True`; this one has none"
            )
        states = as_floats("encoder_hidden_states", states, (batch, None, config.hidden_size), dtype)
        if states.shape[1] == 0:
            raise InputError(f"encoder_hidden_states has shape {states.shape}: no tokens; give at least one")
    elif cached is None:
        if mask is not None:
            raise InputError("encoder_attention_mask is given without encoder_hidden_states; give both or neither")
        return None, None
    keys = states.shape[1] if cached is None else cached.shape[2]
    array = None if mask is None else as_array("encoder_attention_mask", mask)
    bias = masks.cross_attention_bias(
        array, batch=batch, heads=config.num_attention_heads, tokens=tokens, keys=keys, dtype=dtype
    )
    return states, bias
