"""Named results, with transformers' field names and order: by attribute, by key, by integer index, as a tuple."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from .cache import KeyValueCache

Arrays = tuple[np.ndarray, ...]


@dataclass
class ModelOutput:
    """Base of all results. Fields that are None do not exist for keys, indices and `to_tuple`."""

    def keys(self) -> list[str]:
        """Names of the fields that are there."""
        return [item.name for item in dataclasses.fields(self) if getattr(self, item.name) is not None]

    def values(self) -> list[Any]:
        """Values of the fields that are there."""
        return [getattr(self, name) for name in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        """Names and values of the fields that are there."""
        return [(name, getattr(self, name)) for name in self.keys()]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values as a plain tuple."""
        return tuple(self.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    @overload
    def __getitem__(self, key: str | int) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(f"{key!r} is not in this output; it has {', '.join(self.keys())}")
            return getattr(self, key)
        return self.to_tuple()[key]


@dataclass
class BaseModelOutput(ModelOutput):
    """Result of `RobertaPreLayerNormModel`.

    Attributes
    ----------
    last_hidden_state : (B, T, C)
        After the final LayerNorm.
    pooler_output : (B, C), if the model has a pooler
        tanh of a linear map of row 0.
    past_key_values : KeyValueCache, for decoders
    hidden_states : tuple of N + 1 arrays (B, T, C), if asked for
        The embeddings, then each layer's output. The last one is after the final LayerNorm (convention "v5") or
        before it (convention "v4").
    attentions, cross_attentions : tuple of N arrays (B, H, T, S), if asked for
        Attention weights.
    """

    last_hidden_state: np.ndarray
    pooler_output: np.ndarray | None = None
    past_key_values: KeyValueCache | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    cross_attentions: Arrays | None = None


@dataclass
class MaskedLMOutput(ModelOutput):
    """Result of `RobertaPreLayerNormForMaskedLM`: ``logits`` (B, T, V), and the mean ``loss`` if labels were given."""

    loss: np.ndarray | None = None
    logits: np.ndarray | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass
class CausalLMOutput(ModelOutput):
    """Result of `RobertaPreLayerNormForCausalLM`: ``logits`` (B, K, V) of the K positions that were kept."""

    loss: np.ndarray | None = None
    logits: np.ndarray | None = None
    past_key_values: KeyValueCache | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    cross_attentions: Arrays | None = None


@dataclass
class Seq2SeqLMOutput(ModelOutput):
    """Result of `EncoderDecoderModel`: ``logits`` (B, T, V) of the decoder's tokens, and what both parts return."""

    loss: np.ndarray | None = None
    logits: np.ndarray | None = None
    past_key_values: KeyValueCache | None = None
    decoder_hidden_states: Arrays | None = None
    decoder_attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    encoder_last_hidden_state: np.ndarray | None = None
    encoder_hidden_states: Arrays | None = None
    encoder_attentions: Arrays | None = None


@dataclass
class ClassifierOutput(ModelOutput):
    """Result of the classification heads: ``logits`` (B, K), for tokens (B, T, K), for choices (B, choices)."""

    loss: np.ndarray | None = None
    logits: np.ndarray | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass
class QuestionAnsweringOutput(ModelOutput):
    """Result of `RobertaPreLayerNormForQuestionAnswering`: ``start_logits`` and ``end_logits`` (B, T)."""

    loss: np.ndarray | None = None
    start_logits: np.ndarray | None = None
    end_logits: np.ndarray | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
