"""What the live comparisons of generation share: float64 logits for transformers, and random settings."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch


class Double(torch.Tensor):
    """Logits whose conversion to float32 leaves them as they are."""

    def to(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.as_subclass(torch.Tensor).clone()


def in_double(model: Any) -> None:
    forward = model.forward

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = output.logits.as_subclass(Double)
        return output

    wrapped.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    model.forward = wrapped


def settings_of(rng: np.random.Generator, config: Any) -> dict[str, Any]:
    """A random choice of lengths, ends and deterministic processors."""

    def tokens(most: int) -> list[int]:
        return [int(t) for t in rng.choice(config.vocab_size, int(rng.integers(1, most + 1)), replace=False)]

    new = int(rng.integers(1, 13))
    result: dict[str, Any] = {"max_new_tokens": new, "eos_token_id": tokens(3)}
    options: dict[str, Any] = {
        "repetition_penalty": float(rng.choice([0.7, 1.3, 2.0])),
        "no_repeat_ngram_size": int(rng.integers(2, 4)),
        "bad_words_ids": [tokens(1), tokens(2), tokens(3)],
        "min_new_tokens": int(rng.integers(1, new + 1)),
        "min_length": int(rng.integers(1, new + 1)),
        "forced_bos_token_id": tokens(1)[0],
        "forced_eos_token_id": tokens(2),
        "suppress_tokens": tokens(2),
        "begin_suppress_tokens": tokens(2),
    }
    for name, value in options.items():
        if rng.random() < 0.25:
            result[name] = value
    if "min_new_tokens" in result:  # both are an error here, and transformers ignores the other one
        result.pop("min_length", None)
    return result


def without_exact_ties(settings: dict[str, Any]) -> dict[str, Any]:
    """Take away what leaves several candidates of one score, since torch leaves open which of them is first.

    Several forced ends all score 0; a forced token that is also suppressed leaves only -inf; and forcing the only new
    token leaves one continuation, which the unused beams hold as well.
    """
    forced = settings.pop("forced_eos_token_id", None)
    if forced is not None and settings["max_new_tokens"] > 1:
        settings["forced_eos_token_id"] = forced[0]
    kept = {settings.get("forced_bos_token_id"), settings.get("forced_eos_token_id")}
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        if name in settings:
            settings[name] = [token for token in settings[name] if token not in kept]
            if not settings[name]:
                del settings[name]
    return settings
