"""One step of generation: the next token's scores, from the cache where there is one; and how tokens are numbered.

``position_scheme="forward"`` (the default) numbers tokens as calling the model does: real tokens count up from
``pad_token_id + 1``, so `generate` continues exactly what ``model(ids)`` predicts. transformers' own `generate` gives
its models ``attention_mask.cumsum - 1`` instead, so that the first token looks up row 0 of the position table, which
training never used: ``position_scheme="hf_generate"`` repeats that, for comparing with it. To the decoder of a pair it
gives no numbers; the model counts then, padding in the cache included: that is BY_MODEL here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..cache import KeyValueCache
from ..errors import InputError, NpprelnormError

if TYPE_CHECKING:
    from ..language_models import RobertaPreLayerNormForCausalLM


BY_MODEL = "by_model"


def position_ids(ids: np.ndarray, mask: np.ndarray, padding_id: int | None, scheme: str) -> np.ndarray:
    """(B, T) tokens and their mask -> (B, T) rows of the position table."""
    if scheme == "hf_generate":
        counted: np.ndarray = np.where(mask, np.cumsum(mask, axis=1) - 1, 0)
        return counted
    if padding_id is None:
        raise InputError(
            "pad_token_id of the configuration is None, so positions cannot be counted from it; "
            "set it, or use position_scheme='hf_generate'"
        )
    real = mask & (ids != padding_id)
    forward: np.ndarray = np.cumsum(real, axis=1) * real + padding_id
    return forward


def room(model: RobertaPreLayerNormForCausalLM, ids: np.ndarray, mask: np.ndarray, scheme: str) -> int:
    """How many new tokens the position table has rows for; the last one is never looked up."""
    config = model.config
    if config.position_embedding_type != "absolute" or scheme == BY_MODEL:
        return config.max_tokens - ids.shape[1] + 1
    if scheme == "hf_generate":
        return config.max_position_embeddings - int(mask.sum(axis=1).max()) + 1
    positions = position_ids(ids, mask, config.pad_token_id, scheme)
    return config.max_position_embeddings - int(positions.max(initial=0))


class Steps:
    """Runs the model over the rows of one generation, keeping the cache and the mask between steps."""

    def __init__(
        self,
        model: RobertaPreLayerNormForCausalLM,
        mask: np.ndarray,
        scheme: str,
        past: KeyValueCache | None,
        use_cache: bool,
        encoder: dict[str, Any],
        length: int,
    ) -> None:
        if past is None and use_cache:  # room for all that will come: nothing is copied on the way
            past = KeyValueCache.empty(model.config, mask.shape[0], model.dtype, length)
        self.model, self.mask, self.scheme, self.cache = model, mask, scheme, past
        self.use_cache, self.encoder = use_cache, encoder

    def repeat(self, times: int) -> None:
        """Every row `times` times, one after the other: (B, ...) -> (B * times, ...)."""
        rows = np.repeat(np.arange(self.mask.shape[0]), times)
        self.reorder(rows)
        self.mask = self.mask[rows]
        self.encoder = {name: np.asarray(value)[rows] for name, value in self.encoder.items()}

    def reorder(self, rows: np.ndarray) -> None:
        """Let each row go on from the cache of another one (of the same prompt: their masks are alike)."""
        if self.cache is not None:
            self.cache = self.cache.reorder(rows)

    def scores(self, ids: np.ndarray) -> np.ndarray:
        """The logits of the token after `ids`, (B, T) -> (B, V); only what the cache lacks is computed."""
        new = ids.shape[1] - self.mask.shape[1]
        self.mask = np.pad(self.mask, ((0, 0), (0, new)), constant_values=True)
        done = self.cache.length if self.cache is not None else 0
        positions = None
        if self.scheme != BY_MODEL:
            positions = position_ids(ids, self.mask, self.model.config.pad_token_id, self.scheme)[:, done:]
        read = np.zeros((len(ids), ids.shape[1] - done), np.bool_)
        read[:, -1] = True
        output = self.model.base(
            ids[:, done:],
            self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=self.use_cache,
            read=read,
            **self.encoder,
        )
        self.cache = output.past_key_values
        scores = self.model.lm_head(output.last_hidden_state)  # (B, C) -> (B, V)
        if not np.isfinite(scores).all():
            raise NpprelnormError("the logits hold NaN or infinity: are the weights damaged? (`npprelnorm inspect`)")
        return scores
