"""Arguments that many public functions share, checked: sources of random numbers, and collections of names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from .errors import InputError

_LONGEST = 60  # letters of a value that a message shows


def shown(value: Any) -> str:
    """A value for an error message of one line: numbers, texts and short collections as Python writes them.

    Anything else by its type, since objects print as they like: over many lines, or as an address that says nothing.
    """
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is None or isinstance(plain, bool | int | float | str | bytes):
        text = repr(plain)
        return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    if isinstance(plain, list | tuple | set | dict) and len(plain) <= _LONGEST // 3:
        text = repr(plain)
        if len(text) <= _LONGEST and "\n" not in text and " at 0x" not in text:
            return text
    return f"of type {type(value).__name__}"


def whole_number(name: str, value: Any, least: int = 0) -> int:
    """An argument that counts or seeds; a bool is none, though Python adds them up."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} is {shown(value)}; give a whole number of at least {least}")
    return int(value)


def boolean(name: str, value: Any) -> bool:
    """An argument that is True or False; an array is neither, nor is a text such as "False"."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} is {shown(value)}; allowed: False, True")
    return bool(value)


def random_generator(rng: Any) -> np.random.Generator:
    """The generator of numbers that `rng` names.

    Parameters
    ----------
    rng : int or numpy.random.Generator or None
        A seed, or the generator itself; None: other numbers each time.

    Raises
    ------
    InputError
        For anything else. (NumPy takes a bool for a seed, and has other exceptions for what it does not take.)
    """
    if rng is None or isinstance(rng, np.random.Generator):
        return np.random.default_rng(rng)
    if isinstance(rng, bool) or not isinstance(rng, int | np.integer) or rng < 0:
        raise InputError(f"rng is {shown(rng)}; give a whole number of at least 0, or a numpy.random.Generator")
    return np.random.default_rng(rng)


def collection_of_names(option: str, value: Any) -> tuple[str, ...]:
    """The strings of a collection that was given as `option`; one string is none, though it can be iterated over."""
    if isinstance(value, str):
        example = f", such as [{value!r}]" if len(value) <= _LONGEST else ""
        raise InputError(f"{option} is the string {shown(value)}; give a collection of strings{example}")
    if not isinstance(value, Iterable) or isinstance(value, bytes):
        raise InputError(f"{option} is {shown(value)}; give a collection of strings")
    try:
        names = tuple(value)
    except TypeError:  # an array without axes says that it can be iterated over
        raise InputError(f"{option} is {shown(value)}; give a collection of strings") from None
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"{option} holds an entry that is {shown(name)}; give a collection of strings")
    return names


def choice_of_names(option: str, value: Any, allowed: Collection[str]) -> tuple[str, ...]:
    """The strings of a collection that was given as `option`, each one of those allowed."""
    names = collection_of_names(option, value)
    for name in names:
        if name not in allowed:
            raise InputError(f"{option} holds {shown(name)}; allowed: {', '.join(allowed)}")
    return names
