"""The key/value cache: what a decoder remembers of the tokens it has already read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .config import RobertaPreLayerNormConfig
from .errors import InputError


class LayerKeyValues(NamedTuple):
    """Keys and values of one layer, (B, H, S, D); those of the encoder only with cross-attention."""

    key: np.ndarray
    value: np.ndarray
    cross_key: np.ndarray | None = None
    cross_value: np.ndarray | None = None


class KeyValueCache:
    """Keys and values of every layer, as `past_key_values` returns and takes them.

    A forward never changes the cache it is given; it returns a new one that also holds the new tokens. Indexing and
    iteration give one `LayerKeyValues` a layer.
    """

    def __init__(self, layers: Sequence[LayerKeyValues]) -> None:
        self._layers = tuple(layers)

    @property
    def length(self) -> int:
        """How many tokens it holds, padding included."""
        return int(self._layers[0].key.shape[2])

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: int) -> LayerKeyValues:
        return self._layers[index]

    def __iter__(self) -> Iterator[LayerKeyValues]:
        return iter(self._layers)

    def __repr__(self) -> str:
        return f"KeyValueCache(layers={len(self)}, length={self.length}, shape={self._layers[0].key.shape})"

    def reorder(self, rows: Any) -> KeyValueCache:
        """The cache of other rows of the batch, by their index (n,): as beams go on from each other, or repeat."""
        index = np.asarray(rows)
        return KeyValueCache(
            [LayerKeyValues(*(None if array is None else array[index] for array in layer)) for layer in self]  # type: ignore[arg-type]
        )

    def crop(self, length: int) -> KeyValueCache:
        """The cache of the first `length` tokens; keys and values of an encoder stay whole."""
        if not 1 <= length <= self.length:
            raise InputError(f"the cache cannot be cropped to {length} tokens; allowed: 1 to {self.length}")
        return KeyValueCache(
            [layer._replace(key=layer.key[:, :, :length], value=layer.value[:, :, :length]) for layer in self]
        )

    @classmethod
    def from_arrays(
        cls, value: Any, config: RobertaPreLayerNormConfig, batch: int, dtype: np.dtype[np.floating]
    ) -> KeyValueCache:
        """Check `value` (a cache, or a sequence of (key, value[, cross_key, cross_value]) a layer) against a model.

        Raises
        ------
        InputError
            If it comes from a model of other sizes, or from a batch of another size.
        """
        try:
            layers = [LayerKeyValues(*layer) for layer in value]
        except TypeError:
            raise InputError(
                f"past_key_values is a {type(value).__name__}; give what a forward returned, or a sequence of "
                "(key, value) or (key, value, cross_key, cross_value), one for each layer"
            ) from None
        if len(layers) != config.num_hidden_layers:
            raise InputError(
                f"past_key_values has {len(layers)} layers, this model has {config.num_hidden_layers}: "
                "it is the cache of another model"
            )
        checked: list[LayerKeyValues] = []
        own_length = cross_length = None
        for index, layer in enumerate(layers):
            key, value_, cross_key, cross_value = (_floats(index, array, dtype) for array in layer)
            if key is None or value_ is None or (cross_key is None) != (cross_value is None):
                raise InputError(f"layer {index} of past_key_values lacks its keys or its values")
            for array in (key, cross_key):
                if array is not None and array.ndim != 4:
                    raise InputError(
                        f"the keys of layer {index} of past_key_values have shape {array.shape}; "
                        "expected (batch, heads, tokens, head size)"
                    )
            if cross_key is not None and not config.add_cross_attention:
                raise InputError(
                    "past_key_values holds keys of an encoder, but this model has no cross-attention: "
                    "it is the cache of another model"
                )
            if checked and (cross_key is None) != (checked[0].cross_key is None):
                raise InputError(f"layers 0 and {index} of past_key_values: only one holds keys of an encoder")
            own_length = key.shape[2] if own_length is None else own_length
            cross_length = cross_key.shape[2] if cross_length is None and cross_key is not None else cross_length
            for name, array, length in (
                ("keys", key, own_length),
                ("values", value_, own_length),
                ("cross keys", cross_key, cross_length),
                ("cross values", cross_value, cross_length),
            ):
                expected = (batch, config.num_attention_heads, length, config.head_size)
                if array is not None and array.shape != expected:
                    raise InputError(
                        f"the {name} of layer {index} of past_key_values have shape {array.shape}; this model and "
                        f"batch need {expected}: the cache of another model, or of another batch"
                    )
            checked.append(LayerKeyValues(key, value_, cross_key, cross_value))
        return cls(checked)


def _floats(index: int, value: Any, dtype: np.dtype[np.floating]) -> np.ndarray | None:
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "fiu":
        raise InputError(f"layer {index} of past_key_values holds a {type(value).__name__} that is no array of numbers")
    return array.astype(dtype, copy=False)
