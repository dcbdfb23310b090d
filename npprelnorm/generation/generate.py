"""From the arguments of `generate` to the loop that runs: everything is checked before the first step."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arguments import boolean
from ..cache import KeyValueCache
from ..errors import InputError, InputWarning
from ..inputs import as_array, as_integers
from . import beam, sampling, stopping
from .outputs import GenerateOutput
from .processors import Processor, chosen
from .settings import NEW_TOKENS, GenerationSettings
from .steps import Steps, room
from .stopping import StoppingRule

if TYPE_CHECKING:
    from ..language_models import RobertaPreLayerNormForCausalLM


def generate(
    model: RobertaPreLayerNormForCausalLM,
    input_ids: Any,
    attention_mask: Any,
    *,
    settings: GenerationSettings,
    rng: int | np.random.Generator | None,
    tokenizer: Any,
    streamer: sampling.Streamer | None,
    progress: sampling.Progress | None,
    logits_processor: Sequence[Processor],
    stopping_criteria: Sequence[StoppingRule],
    past_key_values: Any,
    use_cache: bool | None,
    encoder_hidden_states: Any,
    encoder_attention_mask: Any,
    scheme: str | None = None,
) -> np.ndarray | GenerateOutput:
    """`RobertaPreLayerNormForCausalLM.generate`, where the arguments are described, with all settings put together.

    `scheme` numbers the tokens in another way than ``settings.position_scheme``; see `steps`.
    """
    scheme = scheme or settings.position_scheme
    config = model.config
    ids = as_integers("input_ids", input_ids, config.vocab_size, "vocab_size")
    if ids.ndim != 2 or 0 in ids.shape:
        hint = "; wrap a single sequence in a list" if ids.ndim == 1 and ids.size else ""
        raise InputError(f"input_ids has shape {ids.shape}; expected (batch, tokens), at least one of each{hint}")
    eos = _ids_of_end(settings, config.eos_token_id)
    _require_in_vocabulary(settings, eos, config.vocab_size)
    padding = _padding(settings, config.pad_token_id, eos)
    rows = ids.shape[0] * settings.num_beams * settings.num_return_sequences
    if rows > 1 and settings.stop_strings and padding is None:
        raise InputError("rows that end at stop_strings need padding, but no token is set; give pad_token_id")
    mask = _mask(attention_mask, ids, padding, eos)
    length = _length(model, settings, ids, mask, scheme)
    if not config.is_decoder:
        warnings.warn(
            "this RobertaPreLayerNormForCausalLM is no decoder: every token sees those after it, and each step "
            "computes all tokens anew; for a left-to-right model load it with is_decoder=True",
            InputWarning,
            stacklevel=3,
        )
    past = _past(model, past_key_values, ids)
    crossed = config.is_decoder and config.add_cross_attention
    if crossed and encoder_hidden_states is None and not (past is not None and past.has_cross):
        raise InputError(
            "this decoder has cross-attention, but there is nothing to attend to; give encoder_hidden_states "
            "(or past_key_values that hold their keys), or load it with add_cross_attention=False"
        )
    encoder = {"encoder_hidden_states": encoder_hidden_states, "encoder_attention_mask": encoder_attention_mask}
    steps = Steps(
        model,
        mask,
        scheme,
        past,
        config.is_decoder and boolean("use_cache", config.use_cache if use_cache is None else use_cache),
        {name: as_array(name, value) for name, value in encoder.items() if value is not None},
        length,
    )
    rules = [stopping.at_length(length), *_rules(settings, eos, tokenizer, ids.shape[1]), *stopping_criteria]
    processors = chosen(settings, ids.shape[1], length, eos, logits_processor)
    generator = np.random.default_rng(rng) if settings.do_sample else None
    if settings.num_beams > 1:
        if streamer is not None:
            raise InputError("a streamer needs num_beams=1: beams may still change what they have written")
        result = beam.search(
            steps,
            ids,
            length,
            processors,
            rules,
            settings,
            eos_count=len(eos),
            padding=padding,
            rng=generator,
            progress=progress,
        )
    else:
        times = settings.num_return_sequences
        if times > 1:
            steps.repeat(times)
        sequences, scores = sampling.search(
            steps,
            np.repeat(ids, times, axis=0),
            length,
            processors,
            rules,
            padding,
            rng=generator,
            keep_scores=settings.output_scores,
            streamer=streamer,
            progress=progress,
        )
        result = GenerateOutput(sequences, scores=tuple(scores) if settings.output_scores else None)
    if not settings.return_dict_in_generate:
        return result.sequences
    return dataclasses.replace(result, past_key_values=steps.cache)


def put_together(own: GenerationSettings, given: Any, changes: Mapping[str, Any]) -> GenerationSettings:
    """A model's own settings, those of the argument `generation_config`, and those of the call, which count most."""
    if isinstance(given, Mapping):
        given = GenerationSettings.from_dict(given)
    elif isinstance(given, str | os.PathLike):
        given = GenerationSettings.from_pretrained(given)
    elif given is not None and not isinstance(given, GenerationSettings):
        raise InputError(
            f"generation_config is a {type(given).__name__}; give GenerationSettings, a dict, or the path of a folder"
        )
    return (own if given is None else own.merged(given)).updated(**changes)


def _ids_of_end(settings: GenerationSettings, of_model: Any) -> tuple[int, ...]:
    if settings.eos_token_id is not None:
        return tuple(int(token) for token in settings.eos_token_id)
    if of_model is None:
        return ()
    return tuple(of_model) if isinstance(of_model, list | tuple) else (int(of_model),)


def _padding(settings: GenerationSettings, of_model: int | None, eos: tuple[int, ...]) -> int | None:
    padding = settings.pad_token_id if settings.pad_token_id is not None else of_model
    return eos[0] if padding is None and eos else padding


def _require_in_vocabulary(settings: GenerationSettings, eos: tuple[int, ...], vocabulary: int) -> None:
    words = {token for word in settings.bad_words_ids or () for token in word}
    for name, tokens in (
        ("eos_token_id", eos),
        ("pad_token_id", () if settings.pad_token_id is None else (settings.pad_token_id,)),
        ("forced_bos_token_id", () if settings.forced_bos_token_id is None else (settings.forced_bos_token_id,)),
        ("forced_eos_token_id", settings.forced_eos_token_id or ()),
        ("suppress_tokens", settings.suppress_tokens or ()),
        ("begin_suppress_tokens", settings.begin_suppress_tokens or ()),
        ("bad_words_ids", words),
    ):
        beyond = [token for token in tokens if token >= vocabulary]
        # an end that the vocabulary lacks is harmless, and common where a small one was made from a default config
        if beyond and not (name == "eos_token_id" and settings.eos_token_id is None):
            raise InputError(f"{name} holds {beyond[0]}; allowed: 0 to {vocabulary - 1} (vocab_size is {vocabulary})")


def _mask(value: Any, ids: np.ndarray, padding: int | None, eos: tuple[int, ...]) -> np.ndarray:
    """(B, T) booleans; without a mask, padding in the prompt is taken for padding unless it is also an end token."""
    if value is None:
        is_padding = ids == padding if padding is not None and padding not in eos else np.zeros(ids.shape, np.bool_)
        mask = ~is_padding if not is_padding.all(axis=1).any() else np.ones(ids.shape, np.bool_)
    else:
        array = as_array("attention_mask", value)
        if array.shape != ids.shape or array.dtype.kind not in "biuf" or ((array != 0) & (array != 1)).any():
            raise InputError(
                f"attention_mask has shape {array.shape} and dtype {array.dtype}; "
                f"expected zeros and ones of the prompt's shape, {ids.shape}"
            )
        mask = array != 0
    if not mask[:, -1].all():
        warnings.warn(
            f"row {int((~mask[:, -1]).argmax())} of the prompt ends with padding, and would be continued after it; "
            "put the padding on the left",
            InputWarning,
            stacklevel=4,
        )
    return mask


def _length(
    model: RobertaPreLayerNormForCausalLM, s: GenerationSettings, ids: np.ndarray, mask: np.ndarray, scheme: str
) -> int:
    """At how many tokens, the prompt included, generation stops."""
    prompt = ids.shape[1]
    left = room(model, ids, mask, scheme)
    if left < 1:
        raise InputError(
            f"the prompt of {prompt} tokens leaves no room: this checkpoint supports {model.config.max_tokens}; "
            "shorten it"
        )
    if s.max_length is not None and s.max_length <= prompt:
        raise InputError(
            f"max_length is {s.max_length}, but the prompt has {prompt} tokens; raise it or set max_new_tokens"
        )
    new = s.max_new_tokens if s.max_length is None else s.max_length - prompt
    least = max(s.min_new_tokens or 0, s.min_length - prompt)
    if new is None:
        new = min(max(NEW_TOKENS, least), left)
    if new > left:
        raise InputError(
            f"{new} new tokens are asked for, but after the prompt only {left} are left of the "
            f"{model.config.max_tokens} that this checkpoint supports; set max_new_tokens={left} or shorten the prompt"
        )
    if least > new:
        raise InputError(
            f"at least {least} new tokens are asked for, and at most {new}; lower the one or raise the other"
        )
    return prompt + new


def _past(model: RobertaPreLayerNormForCausalLM, value: Any, ids: np.ndarray) -> KeyValueCache | None:
    if value is None:
        return None
    if not model.config.is_decoder:
        raise InputError("past_key_values is given, but this model is no decoder; load it with is_decoder=True")
    past = KeyValueCache.from_arrays(value, model.config, ids.shape[0], model.dtype)
    if past.length >= ids.shape[1]:
        raise InputError(
            f"past_key_values holds {past.length} tokens and input_ids {ids.shape[1]}; give in input_ids all tokens, "
            "those of the cache first, and at least one more"
        )
    return past


def _rules(s: GenerationSettings, eos: tuple[int, ...], tokenizer: Any, prompt: int) -> list[StoppingRule]:
    rules = [stopping.at_tokens(eos)] if eos else []
    if s.stop_strings:
        if tokenizer is None:
            raise InputError(
                f"stop_strings is {s.stop_strings!r}, but there is no tokenizer to read texts; give tokenizer"
            )
        rules.append(stopping.at_strings(s.stop_strings, tokenizer, prompt))
    return rules
