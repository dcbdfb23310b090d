"""What each field of a configuration may hold: one check a field, which returns the value or raises `ConfigError`."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Callable
from typing import Any

from .errors import ConfigError
from .ops.activations import ACTIVATIONS

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
POSITION_TYPES = ("absolute", "relative_key", "relative_key_query")
FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")

# the largest value of each size that is taken for real; a file with more is damaged or hostile
_LARGEST = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 16,
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 12,
    "intermediate_size": 1 << 20,
    "max_position_embeddings": 1 << 20,
    "type_vocab_size": 1 << 16,
    "num_labels": 1 << 20,
}


def show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _fail(name: str, value: Any, allowed: str) -> ConfigError:
    return ConfigError(f"{name} is {show(value)}; allowed: {allowed}")


def _is_int(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)  # NumPy's integers too


def check_size(name: str, value: Any) -> int:
    largest = _LARGEST[name]
    if not _is_int(value) or not 1 <= value <= largest:
        raise _fail(name, value, f"an integer from 1 to {largest}")
    return int(value)


def _at_least_zero(name: str, value: Any) -> int:
    if not _is_int(value) or value < 0:
        raise _fail(name, value, "an integer, 0 or more")
    return int(value)


def _token_id(name: str, value: Any) -> int | None:
    if value is not None and (not _is_int(value) or value < 0):
        raise _fail(name, value, "an integer, 0 or more, or None")
    return None if value is None else int(value)


def _number(name: str, value: Any) -> float:
    number = math.nan
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an integer that no float can hold
            number = float(value)
    if not math.isfinite(number):
        raise _fail(name, value, "a finite number")
    return number


def _probability(name: str, value: Any) -> float:
    if not 0.0 <= _number(name, value) < 1.0:
        raise _fail(name, value, "a number from 0 up to, but not, 1")
    return float(value)


def _optional_probability(name: str, value: Any) -> float | None:
    return None if value is None else _probability(name, value)


def _positive(name: str, value: Any) -> float:
    if not 0.0 < _number(name, value):
        raise _fail(name, value, "a finite number above 0")
    return float(value)


def _not_negative(name: str, value: Any) -> float:
    if not 0.0 <= _number(name, value):
        raise _fail(name, value, "a finite number, 0 or above")
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _fail(name, value, "True or False")
    return value


def _one_of(*choices: str | None) -> Callable[[str, Any], Any]:
    listed = ", ".join(str(choice) for choice in choices)

    def check(name: str, value: Any) -> Any:
        if not (value is None or isinstance(value, str)) or value not in choices:
            raise _fail(name, value, listed)
        return value

    return check


def _dtype(name: str, value: Any) -> str | None:
    spelling = value.removeprefix("torch.") if isinstance(value, str) else value
    if spelling is not None and spelling not in FLOAT_TYPES:
        raise _fail(name, value, ", ".join(FLOAT_TYPES) + " or None")
    return spelling


def _names(name: str, value: Any) -> list[str] | None:
    if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise _fail(name, value, "a list of class names, or None")
    return value


def _no_pruned_heads(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _fail(name, value, "an empty mapping")
    if value:
        raise ConfigError(
            f"{name} is {show(value)}; checkpoints with pruned heads are not supported: "
            "load the checkpoint before it was pruned, or re-train with all heads"
        )
    return {}


def _id2label(name: str, value: Any) -> dict[int, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not value:
        raise _fail(name, value, "a mapping of 0, 1, ... to label names")
    result: dict[int, str] = {}
    for key, label in value.items():
        # JSON can only spell an integer key as a string
        index = int(key) if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 10 else key
        if not _is_int(index) or not isinstance(label, str) or index in result:
            raise _fail(f"{name}[{show(key)}]", label, "keys 0, 1, ... once each, and a string for each")
        result[index] = label
    if sorted(result) != list(range(len(result))):
        raise _fail(f"the keys of {name}", sorted(result), f"0 to {len(result) - 1} without gaps")
    return dict(sorted(result.items()))


def _label2id(name: str, value: Any) -> dict[str, int] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(k, str) and _is_int(v) for k, v in value.items()):
        raise _fail(name, value, "a mapping of label names to integers")
    return {label: int(index) for label, index in value.items()}


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "vocab_size": check_size,
    "hidden_size": check_size,
    "num_hidden_layers": check_size,
    "num_attention_heads": check_size,
    "intermediate_size": check_size,
    "hidden_act": _one_of(*ACTIVATIONS),
    "hidden_dropout_prob": _probability,
    "attention_probs_dropout_prob": _probability,
    "max_position_embeddings": check_size,
    "type_vocab_size": check_size,
    "initializer_range": _not_negative,
    "layer_norm_eps": _positive,
    "pad_token_id": _token_id,
    "bos_token_id": _token_id,
    "eos_token_id": lambda name, value: (
        [_token_id(name, item) for item in value] if isinstance(value, list) else _token_id(name, value)
    ),
    "position_embedding_type": _one_of(*POSITION_TYPES),
    "use_cache": _flag,
    "classifier_dropout": _optional_probability,
    "is_decoder": _flag,
    "add_cross_attention": _flag,
    "tie_word_embeddings": _flag,
    "chunk_size_feed_forward": _at_least_zero,
    "problem_type": _one_of(None, *PROBLEM_TYPES),
    "output_attentions": _flag,
    "output_hidden_states": _flag,
    "return_dict": _flag,
    "pruned_heads": _no_pruned_heads,
    "dtype": _dtype,
    "architectures": _names,
    "id2label": _id2label,
    "label2id": _label2id,
}
