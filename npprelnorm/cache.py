"""The key/value cache: what a decoder remembers of the tokens it has already read.

Keys and values of all layers lie in one buffer with room for more tokens. Caches that begin alike share it: a cache is
a buffer and a length, and what lies below its length never changes. The first to go on from a length writes behind it
in place; a second one, and one that finds no room, goes on in a buffer of its own. So a cache can be kept, continued
twice or cropped like a value, and the usual case, one token after the other, copies nothing that earlier steps did.

Legend: N layers, B batch, H heads, D head size, S tokens, E tokens of an encoder.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .arguments import whole_number
from .config import RobertaPreLayerNormConfig
from .errors import CheckpointMismatchError, InputError
from .params import Params, fingerprint

LEAST_CAPACITY = 32  # tokens, of a buffer that had to grow
SPARE = 64  # places at most, of one that has just been made: most caches are continued
FORMAT = "npprelnorm key/value cache"
_PARTS = ("keys", "values", "cross_keys", "cross_values")  # in a file

_claiming = threading.Lock()  # two threads may go on from one cache; held for two comparisons


class LayerKeyValues(NamedTuple):
    """Keys and values of one layer, (B, H, S, D); those of the encoder, (B, H, E, D), only with cross-attention."""

    key: np.ndarray
    value: np.ndarray
    cross_key: np.ndarray | None = None
    cross_value: np.ndarray | None = None


class LayerSlot(NamedTuple):
    """What one layer reads of a cache while it runs, and where it puts the keys and values of new tokens."""

    key: np.ndarray  # (B, H, S, D), the new tokens at the end
    value: np.ndarray
    start: int  # of the new tokens
    cross_key: np.ndarray | None
    cross_value: np.ndarray | None

    def add(self, key: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Put in the keys and values of the new tokens, (B, H, T, D); returns those of all, (B, H, S, D)."""
        self.key[:, :, self.start :] = key
        self.value[:, :, self.start :] = value
        return self.key, self.value


class _Buffer:
    """Room for the keys and values of all layers. Tokens before `used` belong to some cache, and stay as they are."""

    __slots__ = ("array", "used")

    def __init__(self, array: np.ndarray, used: int) -> None:
        self.array, self.used = array, used  # (N, 2, B, H, capacity, D)

    def claim(self, length: int, tokens: int) -> bool:
        """Take the next `tokens` places after `length`, if they are there and nobody has them."""
        with _claiming:
            if self.used != length or length + tokens > self.array.shape[4]:
                return False
            self.used = length + tokens
            return True

    def release(self, length: int, tokens: int) -> None:
        """Give back what `claim` took, unless another one has gone on from there."""
        with _claiming:
            if self.used == length + tokens:
                self.used = length


class KeyValueCache:
    """Keys and values of every layer, as `past_key_values` returns and takes them.

    A forward never changes the cache it is given; it returns a new one that also holds the new tokens. Indexing and
    iteration give one `LayerKeyValues` a layer, as read-only views.

    Caches are made by a forward, `empty`, `from_arrays` and `load`.
    """

    def __init__(
        self, buffer: _Buffer, length: int, cross: Sequence[tuple[np.ndarray, np.ndarray]] | None = None
    ) -> None:
        self._buffer, self._length = buffer, length
        self._cross = None if cross is None else tuple(cross)  # (B, H, E, D) pairs, never written to

    @property
    def length(self) -> int:
        """How many tokens it holds, padding included."""
        return self._length

    @property
    def has_cross(self) -> bool:
        """Whether it holds keys and values of an encoder."""
        return self._cross is not None

    @property
    def cross(self) -> tuple[tuple[np.ndarray, np.ndarray], ...] | None:
        """Those of each layer, (B, H, E, D) each."""
        return self._cross

    def __len__(self) -> int:
        return int(self._buffer.array.shape[0])

    def __getitem__(self, index: int) -> LayerKeyValues:
        key, value = self._buffer.array[index, :, :, :, : self._length]
        for array in (key, value):  # other caches may share them
            array.flags.writeable = False
        return LayerKeyValues(key, value, *(self._cross[index] if self._cross else (None, None)))

    def __iter__(self) -> Iterator[LayerKeyValues]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"KeyValueCache(layers={len(self)}, length={self.length}, shape={self[0].key.shape})"

    def reorder(self, rows: Any) -> KeyValueCache:
        """The cache of other rows of the batch, by their index (n,): as beams go on from each other, or repeat.

        Nothing is copied where the rows stay as they are.
        """
        index, array = np.asarray(rows), self._buffer.array
        batch = array.shape[2]
        if index.ndim != 1 or index.dtype.kind not in "iu" or not index.size:
            raise InputError(f"rows has shape {index.shape} and dtype {index.dtype}; give a list of row numbers")
        if index.min() < -batch or index.max() >= batch:
            raise InputError(f"rows goes from {index.min()} to {index.max()}; the cache has {batch} rows")
        if index.size == batch and (index == np.arange(batch)).all():
            return self
        new = np.empty((*array.shape[:2], index.size, *array.shape[3:]), array.dtype)
        for to, row in enumerate(index):
            new[:, :, to, :, : self._length] = array[:, :, row, :, : self._length]
        cross = None if self._cross is None else [(key[index], value[index]) for key, value in self._cross]
        return KeyValueCache(_Buffer(new, self._length), self._length, cross)

    def crop(self, length: int) -> KeyValueCache:
        """The cache of the first `length` tokens; keys and values of an encoder stay whole. Nothing is copied."""
        if not 1 <= whole_number("length", length) <= self.length:
            raise InputError(f"the cache cannot be cropped to {length} tokens; allowed: 1 to {self.length}")
        return KeyValueCache(self._buffer, length, self._cross)

    # for the body of a model

    def extended(self, tokens: int) -> KeyValueCache:
        """The same with places for `tokens` more, whose contents are up to `slot`: in place if nobody has them."""
        length = self._length + tokens
        if self._buffer.claim(self._length, tokens):
            return KeyValueCache(self._buffer, length, self._cross)
        old = self._buffer.array
        capacity = max(2 * length, LEAST_CAPACITY)
        new = np.empty((*old.shape[:4], capacity, old.shape[5]), old.dtype)
        new[:, :, :, :, : self._length] = old[:, :, :, :, : self._length]
        return KeyValueCache(_Buffer(new, length), length, self._cross)

    def slot(self, index: int, tokens: int) -> LayerSlot:
        """One layer's part of a cache that was just extended by `tokens`."""
        key, value = self._buffer.array[index, :, :, :, : self._length]
        return LayerSlot(key, value, self._length - tokens, *(self._cross[index] if self._cross else (None, None)))

    def places(self, tokens: int) -> tuple[np.ndarray, int]:
        """The buffer (N, 2, B, H, capacity, D) of a cache that was just extended by `tokens`, and where these begin."""
        return self._buffer.array, self._length - tokens

    def with_cross(self, cross: Sequence[tuple[np.ndarray, np.ndarray]]) -> KeyValueCache:
        """The same with the keys and values of an encoder, (B, H, E, D) for each layer."""
        arrays = [(np.ascontiguousarray(key), np.ascontiguousarray(value)) for key, value in cross]
        return KeyValueCache(self._buffer, self._length, arrays)

    def release(self, tokens: int) -> None:
        """Give the last `tokens` places back: for who extended a cache and is the only one to have seen the result."""
        self._buffer.release(self._length - tokens, tokens)

    # from and to other forms

    @classmethod
    def empty(
        cls, config: RobertaPreLayerNormConfig, batch: int, dtype: np.dtype[np.floating], capacity: int
    ) -> KeyValueCache:
        """A cache of no tokens, with room for `capacity` of them before it has to grow."""
        heads, size = config.num_attention_heads, config.head_size
        shape = (config.num_hidden_layers, 2, batch, heads, capacity, size)
        return cls(_Buffer(np.empty(shape, dtype), 0), 0)

    @classmethod
    def to_continue(
        cls, config: RobertaPreLayerNormConfig, batch: int, dtype: np.dtype[np.floating], tokens: int
    ) -> KeyValueCache:
        """A cache of no tokens, for `tokens` that are there already and some that may follow."""
        return cls.empty(config, batch, dtype, tokens + min(tokens, SPARE))

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
        if isinstance(value, cls) and value._fits(config, batch, dtype):
            return value
        layers = _checked_layers(value, config, batch, dtype)
        tokens = layers[0].key.shape[2]
        cache = cls.to_continue(config, batch, dtype, tokens).extended(tokens)
        for index, layer in enumerate(layers):
            cache.slot(index, tokens).add(layer.key, layer.value)
        cross = [(key, value) for _, _, key, value in layers if key is not None and value is not None]
        return cache.with_cross(cross) if cross else cache

    def _fits(self, config: RobertaPreLayerNormConfig, batch: int, dtype: np.dtype[np.floating]) -> bool:
        array = self._buffer.array
        sizes = (config.num_hidden_layers, 2, batch, config.num_attention_heads, array.shape[4], config.head_size)
        return array.shape == sizes and array.dtype == dtype and (config.add_cross_attention or not self.has_cross)

    def save(self, path: str | os.PathLike[str], model: Any) -> None:
        """Write it to a safetensors file, together with a fingerprint of the model that it is of.

        Parameters
        ----------
        path : str or os.PathLike
            The file, replaced if it exists.
        model : model of this package
            Whose forward returned it.

        Raises
        ------
        InputError
            If the cache does not fit the model.
        CheckpointError
            If the file cannot be written.
        """
        from .checkpoint.safetensors_file import write_safetensors

        batch = self._buffer.array.shape[2]
        layers = tuple(KeyValueCache.from_arrays(self, model.config, batch, self._buffer.array.dtype))
        stacked = {name: np.stack(part) for name, *part in zip(_PARTS, *layers, strict=True) if part[0] is not None}
        write_safetensors(path, stacked, {"format": FORMAT, "model": _fingerprint_of(model)})

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Any) -> KeyValueCache:
        """Read what `save` wrote, for the same model.

        Raises
        ------
        CheckpointError
            If the file is missing, damaged or something else (its subclasses say which); `CheckpointMismatchError` if
            it is the cache of another model, or of this one with other weights or in another dtype.
        """
        from .checkpoint.safetensors_file import SafetensorsFile

        file = SafetensorsFile(path)
        if file.metadata.get("format") != FORMAT:
            raise CheckpointMismatchError(f"{path} holds no key/value cache; give a file that KeyValueCache.save wrote")
        if file.metadata.get("model") != _fingerprint_of(model):
            raise CheckpointMismatchError(
                f"{path} is the cache of another model, or of this one with other weights or in another dtype; "
                "make it anew from the tokens"
            )
        names = [name for name in _PARTS if name in file.names()]
        if names not in (list(_PARTS), list(_PARTS[:2])) or set(file.names()) != set(names):
            raise CheckpointMismatchError(f"{path} holds {', '.join(file.names())}; expected {', '.join(_PARTS)}")
        arrays = [file.read(name) for name in names]
        batch = arrays[0].shape[1] if arrays[0].ndim > 1 else 0
        try:
            return cls.from_arrays(list(zip(*arrays, strict=True)), model.config, batch, model.dtype)
        except (InputError, ValueError, TypeError) as error:
            raise CheckpointMismatchError(f"{path} does not fit the model: {error}") from None


def _fingerprint_of(model: Any) -> str:
    """Of all that keys and values depend on: the configuration, and the parameters of the body."""
    prefix: str = model.base_prefix
    body: Params = {
        name.removeprefix(prefix): array
        for name, array in model.params.items()
        if name.startswith(prefix) and not name.removeprefix(prefix).startswith("pooler.")
    }
    return fingerprint(body, model.config)


def _checked_layers(
    value: Any, config: RobertaPreLayerNormConfig, batch: int, dtype: np.dtype[np.floating]
) -> list[LayerKeyValues]:
    """The arrays of a sequence of tuples, in the compute dtype; all that is not as the model needs it is an error."""
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
    return checked


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
