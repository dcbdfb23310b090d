"""What the engines' answers have in common, so that they can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

TOP_K = 5
LEARNING_RATE, BETAS, EPS, WEIGHT_DECAY = 5e-5, (0.9, 0.999), 1e-8, 0.01

Answer = dict[str, Any]
Run = Callable[..., Answer]


def from_candidates(candidates: Sequence[Any]) -> Answer:
    """What both fill-mask pipelines return, for one text or several, as ids and scores."""
    rows = [candidates] if isinstance(candidates[0], dict) else candidates
    return {
        "ids": [[one["token"] for one in row] for row in rows],
        "scores": [[one["score"] for one in row] for row in rows],
    }


def from_logits(logits: Any) -> Answer:
    """The best tokens of each row of logits, (B, V) as an array, and their logits."""
    import numpy as np

    best = np.argsort(-logits, axis=-1, kind="stable")[:, :TOP_K]
    return {"ids": best.tolist(), "scores": np.take_along_axis(logits, best, -1).tolist()}


def fill_mask_of_logits(folder: Any, logits_of: Callable[[Any, Any], Any]) -> Run:
    """A fill-mask pipeline around a function from ids and mask, (B, T) both, to logits (B, T, V)."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>")
    mask_id = tokenizer.token_to_id("<mask>")

    def run(texts: list[str]) -> Answer:
        encoded = tokenizer.encode_batch(texts)
        ids = np.array([one.ids for one in encoded], np.int64)
        mask = np.array([one.attention_mask for one in encoded], np.int64)
        rows = logits_of(ids, mask)[ids == mask_id]  # (B, T, V) -> (masks, V)
        powers = np.exp(rows - rows.max(-1, keepdims=True))
        scores = powers / powers.sum(-1, keepdims=True)
        best = np.argpartition(scores, -TOP_K)[:, -TOP_K:]
        order = np.argsort(-np.take_along_axis(scores, best, -1))
        best = np.take_along_axis(best, order, -1)
        return {"ids": best.tolist(), "scores": np.take_along_axis(scores, best, -1).tolist()}

    return run


def classify_by_logits(logits_of: Callable[[Any, Any], Any]) -> Run:
    """The same for class scores, (B, labels)."""
    import numpy as np

    def run(input_ids: Any, attention_mask: Any) -> Answer:
        return {"logits": logits_of(np.asarray(input_ids, np.int64), np.asarray(attention_mask, np.int64)).tolist()}

    return run
