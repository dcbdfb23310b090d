"""What a tokenizer is given, checked: texts, pairs of texts, and ids."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import InputError, TokenizerError

MAX_TEXT_CHARACTERS = 1 << 20  # two novels; about 2 seconds and 400 MB


def batch_of_texts(text: Any, text_pair: Any) -> list[Any]:
    """A checked list of texts or pairs."""
    first = _texts(text, "text")
    if text_pair is None:
        return first
    second = _texts(text_pair, "text_pair")
    if isinstance(text, str) != isinstance(text_pair, str) or len(first) != len(second):
        raise InputError(
            f"text is {_count(text)} and text_pair {_count(text_pair)}; give two strings, or two lists of one length"
        )
    return list(zip(first, second, strict=True))


def _count(text: Any) -> str:
    return "one string" if isinstance(text, str) else f"a list of {len(text)}"


def _texts(value: Any, name: str) -> list[str]:
    if isinstance(value, str):
        check_text(value, name)
        return [value]
    if not isinstance(value, list | tuple | np.ndarray) or (isinstance(value, np.ndarray) and value.ndim != 1):
        raise InputError(f"{name} is a {type(value).__name__}; give a string or a list of strings")
    for index, item in enumerate(value):
        check_text(item, f"{name}[{index}]")
    return list(value)


def check_text(text: Any, name: str) -> None:
    """Raise an error that says what is wrong with a text, if anything is."""
    if not isinstance(text, str):
        advice = "decode it first" if isinstance(text, bytes) else "give a string"
        raise InputError(f"{name} is a {type(text).__name__}, not a string; {advice}")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise TokenizerError(f"{name} has {len(text)} characters, more than {MAX_TEXT_CHARACTERS}; cut it into parts")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"{name} has half a character (the lone surrogate {text[error.start]!r}) at position {error.start}; "
            "read the text with the encoding that it was written in"
        ) from None


def checked_ids(ids: Any) -> list[int]:
    """A checked list of ids."""
    try:
        array = np.asarray(ids)
    except ValueError:  # rows of different lengths
        array = np.empty((0, 0))
    if array.ndim > 1:
        raise InputError("ids are more than one row; use batch_decode")
    if array.size == 0:
        return []
    if array.dtype.kind not in "iu":
        raise InputError(f"ids are of type {array.dtype}; they must be whole numbers")
    if array.min() < 0 or array.max() > 0xFFFFFFFF:
        wrong = array.min() if array.min() < 0 else array.max()
        raise InputError(f"{wrong} is not a token id; take out what is not a token, such as labels of -100")
    numbers: list[int] = array.reshape(-1).tolist()
    return numbers
