"""What the settings of `generate` may hold, one by one and together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from .settings import GenerationSettings

SCHEMES = ("forward", "hf_generate")


def is_int(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def check(s: GenerationSettings) -> None:
    """Raise a ConfigError for the first setting that is out of range."""

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
        ("bos_token_id", 0),
        ("decoder_start_token_id", 0),
    ):
        value = getattr(s, name)
        if value is not None and (not is_int(value) or value < least):
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


def check_together(s: GenerationSettings) -> None:
    """Raise a ConfigError for the first two settings that contradict each other."""
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
    return _is_list(value) and all(is_int(item) and item >= 0 for item in value)
