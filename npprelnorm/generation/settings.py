"""What a caller of `generate` can ask for: one checked dataclass, from arguments or a generation_config.json.

What counts, from the strongest to the weakest: the arguments of the call, its `generation_config`, the model's own
`generation_config`, the defaults.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import RobertaPreLayerNormConfig
from ..errors import CheckpointWarning, ConfigError, InputError, InputWarning
from ..files import read_json, write_json
from .settings_checks import check, check_together, is_int

NEW_TOKENS = 20  # where no length is asked for, as transformers
FILE_NAME = "generation_config.json"
_SAMPLING_ONLY = ("temperature", "top_k", "top_p", "min_p", "typical_p")
_BEAMS_ONLY = ("length_penalty", "early_stopping")
# the same limit counted from the prompt and from the beginning: whichever is set later replaces the other
_ALTERNATIVES = (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length"))

# settings of transformers that change which tokens come, and that this package lacks: name -> (value that does nothing,
# what they ask for). One of these in a file is no reason not to load its model, but `generate` refuses it.
_MODES: dict[str, tuple[Any, str]] = {
    "num_beam_groups": (1, "diverse beam search"),
    "diversity_penalty": (0.0, "diverse beam search"),
    "constraints": (None, "constrained beam search"),
    "force_words_ids": (None, "constrained beam search"),
    "prefix_allowed_tokens_fn": (None, "constrained search (a function in logits_processor can do it)"),
    "penalty_alpha": (0.0, "contrastive search"),
    "dola_layers": (None, "DoLa decoding"),
    "assistant_model": (None, "assisted generation"),
    "assistant_early_exit": (None, "assisted generation"),
    "prompt_lookup_num_tokens": (None, "assisted generation by prompt lookup"),
    "guidance_scale": (1.0, "classifier-free guidance"),
    "custom_generate": (None, "a generate function of one's own"),
}
# less than a mode: reported when they are read, and otherwise ignored
_IDLE: dict[str, Any] = {
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "renormalize_logits": False,
    "remove_invalid_values": False,
    "output_logits": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "token_healing": False,
}
# of the machinery or of modes that are off: they change no token here
_SILENT = {
    "transformers_version",
    "_from_model_config",
    "_commit_hash",
    "use_cache",
    "cache_implementation",
    "cache_config",
    "compile_config",
    "disable_compile",
    "low_memory",
    "prefill_chunk_size",
    "is_assistant",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "target_lookbehind",
    "max_matching_ngram_size",
}


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """Settings of `generate`, under transformers' names and with its defaults.

    Attributes
    ----------
    max_new_tokens : int, optional
        How many tokens to add at most; 20 where neither this nor `max_length` is given.
    max_length : int, optional
        The same with the prompt included. Give one of the two.
    min_length, min_new_tokens : int
        No end before so many tokens, the prompt included or not.
    do_sample : bool
        Draw tokens at random by their probability, instead of taking the best.
    temperature, top_k, top_p, min_p, typical_p
        Of sampling: see `processors`. ``top_k=0`` is off.
    num_beams : int
        With 2 or more, beam search; 1 is greedy search or sampling. Together with `do_sample`, the beams' continuations
        are drawn.
    length_penalty : float
        Of beams: scores are sums of log probabilities over ``new tokens ** length_penalty``.
    early_stopping : bool or "never"
        Of beams: stop once as many rows as beams are finished (True), when a better one is unlikely (False), or only
        when none can be ("never").
    num_return_sequences : int
        Rows returned for each prompt: the best beams, or samples.
    repetition_penalty, no_repeat_ngram_size, bad_words_ids, suppress_tokens, begin_suppress_tokens
        What to avoid; see `processors`.
    forced_bos_token_id, forced_eos_token_id
        What comes after a prompt of one token, and last before the length is reached.
    eos_token_id : int or sequence of int, optional
        Tokens that end a row; the model configuration's by default, and none for an empty sequence.
    pad_token_id : int, optional
        What follows the end of a row; the model configuration's by default, and else the first end token.
    decoder_start_token_id, bos_token_id : int, optional
        What the decoder of an encoder-decoder model begins with: the first that is set, here or in the configuration.
    stop_strings : sequence of str, optional
        A row also ends once its new text holds one of these; needs the tokenizer.
    output_scores, return_dict_in_generate : bool
        Return a `GenerateOutput`, with the scores of every step.
    position_scheme : {"forward", "hf_generate"}
        How tokens are numbered; see `steps`.
    extra : mapping
        Every other key of a ``generation_config.json``; kept, and written back.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    min_length: int = 0
    min_new_tokens: int | None = None
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float | None = None
    typical_p: float = 1.0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    num_return_sequences: int = 1
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words_ids: Sequence[Sequence[int]] | None = None
    suppress_tokens: Sequence[int] | None = None
    begin_suppress_tokens: Sequence[int] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: Sequence[int] | None = None
    eos_token_id: Sequence[int] | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    decoder_start_token_id: int | None = None
    stop_strings: Sequence[str] | None = None
    output_scores: bool = False
    return_dict_in_generate: bool = False
    position_scheme: str = "forward"
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __new__(cls, **given: Any) -> GenerationSettings:
        """Remember which fields were asked for: only these replace others where settings meet."""
        self = super().__new__(cls)
        object.__setattr__(self, "_given", frozenset(name for name, value in given.items() if value is not None))
        return self

    def __post_init__(self) -> None:
        for name in ("eos_token_id", "forced_eos_token_id"):
            value = getattr(self, name)
            if is_int(value):
                object.__setattr__(self, name, (int(value),))
        if isinstance(self.stop_strings, str):
            object.__setattr__(self, "stop_strings", (self.stop_strings,))
        check(self)

    @property
    def given(self) -> dict[str, Any]:
        """The fields that were asked for, even where they hold the default."""
        names: frozenset[str] = self.__dict__["_given"]
        return {name: getattr(self, name) for name in _FIELDS if name in names}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GenerationSettings:
        """Read the values of a generation_config.json; None means the default, and what is unknown is reported.

        Where both `max_new_tokens` and `max_length` are there, the first counts, as in transformers; so with
        `min_new_tokens` and `min_length`.

        Raises
        ------
        ConfigError
            Names the setting, its value and what is allowed.
        """
        values = {name: value for name, value in values.items() if value is not None}
        unknown = sorted(
            name
            for name in values.keys() - set(_FIELDS) - _SILENT - _MODES.keys()
            if name not in _IDLE or values[name] != _IDLE[name]
        )
        if unknown:
            message = (
                f"the generation configuration sets {', '.join(unknown)}, which this package does not know: ignored"
            )
            warnings.warn(message, InputWarning, stacklevel=2)
        given = {name: value for name, value in values.items() if name in _FIELDS}
        for stronger, weaker in _ALTERNATIVES:
            if stronger in given:
                given.pop(weaker, None)
        return cls(**given, extra={name: value for name, value in values.items() if name not in _FIELDS})

    @classmethod
    def from_model_config(cls, values: Mapping[str, Any]) -> GenerationSettings:
        """The settings among the keys of a ``config.json``, where they lay before they had a file of their own.

        Raises
        ------
        ConfigError
            For a bad value.
        """
        found = {name: values[name] for name in values if name in _FIELDS or name in _MODES}
        try:
            return cls.from_dict(_without_default_length(found))
        except ConfigError as error:
            raise ConfigError(f"generation settings of the model configuration: {error}") from None

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> GenerationSettings:
        """Read ``generation_config.json`` of a folder, or the file itself.

        Raises
        ------
        CheckpointNotFoundError, CheckpointFormatError
            If there is no such file, or it is not valid JSON.
        ConfigError
            For a bad value.
        """
        file = Path(path)
        file = file / FILE_NAME if file.is_dir() else file
        values = read_json(file)
        try:
            return cls.from_dict(_without_default_length(values))
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None

    @classmethod
    def of_folder(
        cls, folder: Path, eos_of_model: Any, overrides: Mapping[str, Any] | None = None
    ) -> GenerationSettings | None:
        """The settings of a checkpoint folder that has a file of them; as in transformers, only this file counts then.

        A file that names no end token therefore has none, and one without padding pads with the first end token.
        `overrides` are fields of the model configuration that the
        caller set, such as ``eos_token_id``: they go before the file.
        """
        file = folder / FILE_NAME
        if not os.path.lexists(file):
            return None
        read = cls.from_pretrained(file)
        try:
            check_together(read)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None
        values = {name: value for name, value in read.given.items() if name not in (overrides or ())}
        if "eos_token_id" not in read.given and "eos_token_id" not in (overrides or ()):
            values["eos_token_id"] = ()
            if eos_of_model is not None:
                warnings.warn(
                    f"{file} names no eos_token_id, so generated rows do not end before their length "
                    f"(config.json has {eos_of_model}); add it there, or set eos_token_id when generating",
                    CheckpointWarning,
                    stacklevel=6,
                )
        if read.eos_token_id and "pad_token_id" not in (overrides or ()):
            values.setdefault("pad_token_id", read.eos_token_id[0])
        return cls(**values, extra=read.extra)

    def complete(self, config: RobertaPreLayerNormConfig) -> GenerationSettings:
        """These settings with the token ids that a model configuration adds, as a file of their own needs them."""
        return self.completed(**{n: getattr(config, n) for n in ("bos_token_id", "eos_token_id", "pad_token_id")})

    def completed(self, **values: Any) -> GenerationSettings:
        """These settings with `values` where they have nothing; None is nothing."""
        return self._with({name: value for name, value in values.items() if name not in self.given})

    def to_dict(self) -> dict[str, Any]:
        """What was asked for, as JSON can hold it; no end tokens at all are written as none being named."""
        result = dict(self.extra) | {name: _plain(value) for name, value in self.given.items()}
        for name in ("eos_token_id", "forced_eos_token_id"):
            ids = result.pop(name, ())
            if len(ids):
                result[name] = ids if len(ids) > 1 else ids[0]
        return result

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``generation_config.json`` into `folder` (made if missing), atomically."""
        write_json(Path(folder) / FILE_NAME, self.to_dict())

    def merged(self, other: GenerationSettings) -> GenerationSettings:
        """These settings, with those that `other` was given in their place."""
        return self._with(other.given | {"extra": {**self.extra, **other.extra}})

    def updated(self, **changes: Any) -> GenerationSettings:
        """A copy with some settings changed, for one call; None leaves a setting as it is.

        Raises
        ------
        ConfigError
            For a setting that is out of range or contradicts another.
        InputError
            For an unknown name, for a way of generating that this package lacks, or for a setting that would do nothing
            beside the others.
        """
        changes = {name: value for name, value in changes.items() if value is not None}
        extra = dict(self.extra)
        for name in [name for name in changes if name in _MODES]:
            extra[name] = changes.pop(name)
        for name, value in extra.items():
            does_nothing, mode = _MODES.get(name, (value, ""))
            if value != does_nothing and value is not None:
                raise InputError(
                    f"{name}={_shown(value)} asks for {mode}, which this package does not have; there are greedy "
                    f"search, sampling, beam search and beam sampling: leave {name} out, or set {does_nothing!r}"
                )
        for name in changes:
            if name not in _FIELDS:
                raise InputError(f"generate has no argument {name!r}; it has {', '.join(_FIELDS)}")
        result = self._with(changes | {"extra": extra})
        check_together(result)
        for names, on, instead in (
            (_SAMPLING_ONLY, result.do_sample, "do_sample=True"),
            (_BEAMS_ONLY, result.num_beams > 1, "num_beams=2 or more"),
        ):
            idle = [name for name in names if name in changes]
            if idle and not on:
                raise InputError(
                    f"{idle[0]}={changes[idle[0]]!r} does nothing without {instead}; add that or leave it out"
                )
        return result

    def _with(self, changes: Mapping[str, Any]) -> GenerationSettings:
        values = self.given | {"extra": self.extra}
        for pair in _ALTERNATIVES:
            if any(name in changes for name in pair):
                values = {name: value for name, value in values.items() if name not in pair}
        return type(self)(**{**values, **changes})


_FIELDS = tuple(item.name for item in dataclasses.fields(GenerationSettings) if item.name != "extra")


def _without_default_length(values: Mapping[str, Any]) -> dict[str, Any]:
    """Files of transformers 4 may hold its default, which there means as many new tokens, whatever the prompt."""
    return {name: value for name, value in values.items() if (name, value) != ("max_length", NEW_TOKENS)}


def _plain(value: Any) -> Any:
    """Sequences as lists, NumPy's numbers as Python's."""
    if isinstance(value, str | bool) or value is None:
        return value
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
