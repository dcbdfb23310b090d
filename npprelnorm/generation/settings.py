"""What a caller of `generate` can ask for: one checked dataclass, from arguments or a generation_config.json."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, InputError, InputWarning
from ..files import read_json

NEW_TOKENS = 20  # where no length is asked for, as transformers
SCHEMES = ("forward", "hf_generate")
_SAMPLING_ONLY = ("temperature", "top_k", "top_p", "min_p", "typical_p")
_BEAMS_ONLY = ("length_penalty", "early_stopping")
_SILENT = {"transformers_version", "_from_model_config", "bos_token_id", "decoder_start_token_id", "use_cache"}


@dataclass(frozen=True)
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
        With 2 or more, beam search; 1 is greedy search or sampling.
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
    stop_strings : sequence of str, optional
        A row also ends once its new text holds one of these; needs the tokenizer.
    output_scores, return_dict_in_generate : bool
        Return a `GenerateOutput`, with the scores of every step.
    position_scheme : {"forward", "hf_generate"}
        How tokens are numbered; see `steps`.
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
    stop_strings: Sequence[str] | None = None
    output_scores: bool = False
    return_dict_in_generate: bool = False
    position_scheme: str = "forward"

    def __post_init__(self) -> None:
        for name in ("eos_token_id", "forced_eos_token_id"):
            value = getattr(self, name)
            if _is_int(value):
                object.__setattr__(self, name, (int(value),))
        if isinstance(self.stop_strings, str):
            object.__setattr__(self, "stop_strings", (self.stop_strings,))
        _check(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GenerationSettings:
        """Read the values of a generation_config.json; None means the default, and what is unknown is reported.

        Raises
        ------
        ConfigError
            Names the setting, its value and what is allowed.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        given = {name: value for name, value in values.items() if value is not None}
        unknown = sorted(given.keys() - known - _SILENT)
        if unknown:
            message = (
                f"the generation configuration sets {', '.join(unknown)}, which this package does not know: ignored"
            )
            warnings.warn(message, InputWarning, stacklevel=2)
        return cls(**{name: value for name, value in given.items() if name in known})

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> GenerationSettings:
        """Read ``generation_config.json`` of a folder, or the file itself."""
        file = Path(path)
        return cls.from_dict(read_json(file / "generation_config.json" if file.is_dir() else file))

    def updated(self, **changes: Any) -> GenerationSettings:
        """A copy with some settings changed, for one call; None leaves a setting as it is.

        Raises
        ------
        InputError
            For an unknown name, or for a setting that would do nothing beside the others.
        """
        changes = {name: value for name, value in changes.items() if value is not None}
        known = [item.name for item in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise InputError(f"generate has no argument {name!r}; it has {', '.join(known)}")
        # the call's length replaces the file's, whichever way each is given
        for counted, whole, none in (("max_new_tokens", "max_length", None), ("min_new_tokens", "min_length", 0)):
            if counted in changes:
                changes.setdefault(whole, none)
            elif whole in changes:
                changes[counted] = None
        result = dataclasses.replace(self, **changes)
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


def _is_int(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _check(s: GenerationSettings) -> None:
    """Raise a ConfigError for the first setting that is out of range or contradicts another."""

    def fail(name: str, allowed: str) -> None:
        raise ConfigError(f"{name} is {getattr(s, name)!r}; allowed: {allowed}")

    for name, least in (
        ("max_new_tokens", 1),
        ("max_length", 1),
        ("min_length", 0),
        ("min_new_tokens", 0),
        ("top_k", 0),
        ("num_beams", 1),
        ("num_return_sequences", 1),
        ("no_repeat_ngram_size", 0),
        ("forced_bos_token_id", 0),
        ("pad_token_id", 0),
    ):
        value = getattr(s, name)
        if value is not None and (not _is_int(value) or value < least):
            fail(name, f"a whole number of at least {least}")
    for name in ("do_sample", "output_scores", "return_dict_in_generate"):
        if not isinstance(getattr(s, name), bool):
            fail(name, "True or False")
    tiny = math.nextafter(0.0, 1.0)
    for name, low, high, allowed in (  # limits within which no score overflows
        ("temperature", 1e-6, 1e6, "1e-6 to 1e6 (for the best token each time set do_sample=False)"),
        ("repetition_penalty", 1e-6, 1e6, "1e-6 to 1e6 (1 is none)"),
        ("top_p", tiny, 1.0, "above 0 to 1 (1 is off)"),
        ("typical_p", tiny, 1.0, "above 0 to 1 (1 is off)"),
        ("min_p", 0.0, 1.0, "0 to 1"),
        ("length_penalty", -10.0, 10.0, "-10 to 10"),
    ):
        value = getattr(s, name)
        if value is not None and not (_is_finite(value) and low <= value <= high):
            fail(name, allowed)
    if not (isinstance(s.early_stopping, bool) or s.early_stopping == "never"):
        fail("early_stopping", "True, False or 'never'")
    if s.position_scheme not in SCHEMES:
        fail("position_scheme", "'forward' or 'hf_generate'")
    for name in ("suppress_tokens", "begin_suppress_tokens", "eos_token_id", "forced_eos_token_id"):
        value = getattr(s, name)
        if value is not None and not _are_ids(value):
            fail(name, "token ids, in a list")
    words = s.bad_words_ids
    if words is not None and not (_is_list(words) and all(_are_ids(word) and len(word) for word in words)):
        fail("bad_words_ids", "a list of lists of token ids, none of them empty")
    strings = s.stop_strings
    if strings is not None and not (_is_list(strings) and all(isinstance(item, str) and item for item in strings)):
        fail("stop_strings", "a text or a list of texts, none of them empty")
    _check_together(s)


def _check_together(s: GenerationSettings) -> None:
    if s.max_new_tokens is not None and s.max_length is not None:
        raise ConfigError(
            f"max_new_tokens={s.max_new_tokens} and max_length={s.max_length} both set the length; give one of them"
        )
    if s.min_new_tokens is not None and s.min_length:
        raise ConfigError(
            f"min_new_tokens={s.min_new_tokens} and min_length={s.min_length} both set the least length; "
            "give one of them"
        )
    for least, most in (("min_length", "max_length"), ("min_new_tokens", "max_new_tokens")):
        low, high = getattr(s, least), getattr(s, most)
        if low is not None and high is not None and low > high:
            raise ConfigError(f"{least} is {low}, but {most} is {high}; lower the one or raise the other")
    if s.do_sample and s.num_beams > 1:
        raise ConfigError(
            f"do_sample=True with num_beams={s.num_beams}: beams take the best tokens; choose one of the two"
        )
    if s.num_beams > 1 and s.num_return_sequences > s.num_beams:
        raise ConfigError(f"num_return_sequences is {s.num_return_sequences}; allowed: up to num_beams, {s.num_beams}")
    if s.num_return_sequences > 1 and s.num_beams == 1 and not s.do_sample:
        raise ConfigError(
            f"num_return_sequences={s.num_return_sequences} needs do_sample=True or num_beams: "
            "greedy search has one result"
        )


def _is_finite(value: Any) -> bool:
    try:
        return not isinstance(value, bool | str) and math.isfinite(value)
    except (TypeError, OverflowError):
        return False


def _is_list(value: Any) -> bool:
    return hasattr(value, "__iter__") and hasattr(value, "__len__") and not isinstance(value, str | bytes | dict)


def _are_ids(value: Any) -> bool:
    return _is_list(value) and all(_is_int(item) and item >= 0 for item in value)
