"""Generation by an encoder-decoder pair: the encoder runs once, then the decoder generates from its states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..inputs import as_array, as_integers
from .generate import generate, put_together
from .outputs import GenerateOutput
from .settings import GenerationSettings
from .steps import BY_MODEL

if TYPE_CHECKING:
    from ..encoder_decoder import EncoderDecoderModel


def generate_pair(
    model: EncoderDecoderModel,
    input_ids: Any,
    attention_mask: Any,
    *,
    inputs_embeds: Any,
    decoder_input_ids: Any,
    decoder_attention_mask: Any,
    encoder_outputs: Any,
    generation_config: Any,
    changes: Mapping[str, Any],
    **options: Any,
) -> np.ndarray | GenerateOutput:
    """`EncoderDecoderModel.generate`, where the arguments are described."""
    settings = put_together(model.generation_config, generation_config, changes)
    settings = settings.completed(pad_token_id=model.config.pad_token_id)
    encoded = model.encode(
        encoder_outputs, input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds
    )
    states, _ = model.project(encoded.last_hidden_state)
    ids, mask = _beginning(model, settings, states.shape[0], decoder_input_ids, decoder_attention_mask)
    return generate(
        model.decoder,
        ids,
        mask,
        settings=settings,
        past_key_values=None,
        encoder_hidden_states=states,
        encoder_attention_mask=attention_mask,
        scheme=BY_MODEL if settings.position_scheme == "hf_generate" else None,
        **options,
    )


def _beginning(
    model: EncoderDecoderModel, settings: GenerationSettings, batch: int, given: Any, mask: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The decoder's first tokens and their mask, (B, T): the start token in front unless a row has it there."""
    config = model.config
    candidates = (
        settings.decoder_start_token_id,
        config.decoder_start_token_id,
        settings.bos_token_id,
        config.decoder.bos_token_id,
    )
    start = next((token for token in candidates if token is not None), None)
    if start is None:
        raise InputError("the decoder has no token to begin with; give decoder_start_token_id")
    vocabulary = config.decoder.vocab_size
    first = as_integers("decoder_start_token_id", np.full((batch, 1), start), vocabulary, "vocab_size")
    if given is None:
        if mask is not None:
            raise InputError("decoder_attention_mask is given without decoder_input_ids; give both or neither")
        return first, np.ones_like(first)
    ids = as_integers("decoder_input_ids", given, vocabulary, "vocab_size")
    if ids.ndim != 2 or ids.shape[0] != batch or not ids.shape[1]:
        raise InputError(
            f"decoder_input_ids has shape {ids.shape}; expected ({batch}, tokens), as many rows as the input"
        )
    own = np.ones_like(ids) if mask is None else as_array("decoder_attention_mask", mask)
    if own.shape != ids.shape:
        raise InputError(f"decoder_attention_mask has shape {own.shape}; expected that of the ids, {ids.shape}")
    if (ids[:, 0] != start).all():
        ids = np.concatenate([first, ids], axis=1)
        own = np.concatenate([np.ones_like(own[:, :1]), own], axis=1)
    return ids, own
