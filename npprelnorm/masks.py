"""Positions and attention masks: from what a caller gives to what the layers add and look up."""

from __future__ import annotations

import numpy as np

from .errors import InputError


def positions_from_ids(input_ids: np.ndarray, padding_id: int, past: int) -> np.ndarray:
    """Real tokens count up from padding_id + 1; padding stays at padding_id and does not count. (B, T) -> (B, T).

    As fairseq counts (`make_positions`): by the ids, never by the attention mask. `past` tokens of a cache are
    taken to be real ones.
    """
    real = (input_ids != padding_id).astype(np.int64)
    positions: np.ndarray = (np.cumsum(real, axis=1) + past) * real + padding_id
    return positions


def positions_from_embeds(batch: int, tokens: int, padding_id: int, past: int) -> np.ndarray:
    """Without ids padding cannot be told: all tokens count. -> (B, T)."""
    first = padding_id + 1 + past
    return np.broadcast_to(np.arange(first, first + tokens), (batch, tokens))


def positions_from_zero(batch: int, tokens: int, past: int) -> np.ndarray:
    """As BERT counts: all tokens, padding too. -> (B, T)."""
    return np.broadcast_to(np.arange(past, past + tokens), (batch, tokens))


def relative_distances(tokens: int, past: int) -> np.ndarray:
    """Query position minus key position, (T, S) with S = past + T."""
    return np.arange(past, past + tokens)[:, None] - np.arange(past + tokens)[None, :]


def bias_from_allowed(allowed: np.ndarray, dtype: np.dtype[np.floating]) -> np.ndarray | None:
    """0 where a key may be seen, the lowest finite number where not; None where all may be."""
    if allowed.all():
        return None
    return np.where(allowed, np.zeros((), dtype), np.finfo(dtype).min)


def _binary(name: str, mask: np.ndarray) -> np.ndarray:
    if mask.dtype == np.bool_:
        return mask
    if mask.dtype.kind not in "iuf":
        raise InputError(f"{name} has dtype {mask.dtype}; give zeros and ones, or booleans")
    wrong = (mask != 0) & (mask != 1)
    if wrong.any():
        raise InputError(
            f"{name} holds {mask[wrong].flat[0]!s}; a mask of {mask.ndim} axes is made of 0 (not seen) and 1 (seen); "
            "for values to be added to the scores give (batch, 1, tokens, keys)"
        )
    result: np.ndarray = mask != 0
    return result


def _additive(name: str, mask: np.ndarray, dtype: np.dtype[np.floating]) -> np.ndarray:
    """A ready (B, 1 or H, T, S) mask: booleans, or numbers to add; -inf is read as the lowest finite number."""
    if mask.dtype == np.bool_:
        return np.where(mask, np.zeros((), dtype), np.finfo(dtype).min)
    if mask.dtype.kind != "f":
        raise InputError(
            f"{name} has 4 axes and dtype {mask.dtype}; give booleans (True: seen), or floats to add to the scores"
        )
    if np.isnan(mask).any() or np.isposinf(mask).any():
        raise InputError(f"{name} holds NaN or +inf; values to add are finite, or -inf for what is not seen")
    limits = np.finfo(dtype)
    wide = mask.astype(np.promote_types(mask.dtype, dtype), copy=False)  # float16 could not hold the limits
    return np.clip(wide, limits.min, limits.max).astype(dtype, copy=False)


def token_mask(mask: np.ndarray | None, *, batch: int, heads: int, tokens: int, past: int) -> np.ndarray | None:
    """A mask of 2 axes, which says what tokens are real, as booleans (B, S); None where there is none of that kind."""
    if mask is None or mask.ndim > 2:
        return None
    _require_shape("attention_mask", mask, batch, heads, tokens, past + tokens)
    return _binary("attention_mask", mask)


def attention_bias(
    mask: np.ndarray | None,
    *,
    batch: int,
    heads: int,
    tokens: int,
    past: int,
    causal: bool,
    dtype: np.dtype[np.floating],
) -> np.ndarray | None:
    """What self-attention adds to its scores where not all queries see alike, to be broadcast to (B, H, T, S).

    A mask of 2 axes says which tokens are real (`token_mask`), and a decoder combines it with causality; without that
    there is no bias. A mask of 3 or 4 axes says for each query what it sees, and is taken as it is.
    """
    keys = past + tokens
    if mask is not None and mask.ndim > 2:
        _require_shape("attention_mask", mask, batch, heads, tokens, keys)
        if mask.ndim == 4:
            return _additive("attention_mask", mask, dtype)
        return bias_from_allowed(_binary("attention_mask", mask)[:, None], dtype)  # (B, T, S) -> (B, 1, T, S)
    if not causal:
        return None
    allowed = (relative_distances(tokens, past) >= 0)[None, None]  # (1, 1, T, S)
    real = token_mask(mask, batch=batch, heads=heads, tokens=tokens, past=past)
    if real is not None:
        allowed = allowed & real[:, None, None, :]  # (B, 1, T, S)
    return bias_from_allowed(allowed, dtype)


def cross_attention_bias(
    mask: np.ndarray | None,
    *,
    batch: int,
    heads: int,
    tokens: int,
    keys: int,
    dtype: np.dtype[np.floating],
) -> np.ndarray | None:
    """The same for cross-attention, where `keys` are the encoder's tokens and nothing is causal."""
    if mask is None:
        return None
    _require_shape("encoder_attention_mask", mask, batch, heads, tokens, keys)
    if mask.ndim == 4:
        return _additive("encoder_attention_mask", mask, dtype)
    allowed = _binary("encoder_attention_mask", mask)
    return bias_from_allowed(allowed[:, None, None, :] if mask.ndim == 2 else allowed[:, None], dtype)


def _require_shape(name: str, mask: np.ndarray, batch: int, heads: int, tokens: int, keys: int) -> None:
    forms: dict[int, list[tuple[int, ...]]] = {
        2: [(batch, keys)],
        3: [(batch, tokens, keys)],
        4: [(b, h, t, keys) for b in (batch, 1) for h in (heads, 1) for t in (tokens, 1)],
    }
    expected = forms.get(mask.ndim, [])
    if mask.shape not in expected:
        shown = expected[0] if expected else f"{(batch, keys)}, {(batch, tokens, keys)} or {(batch, 1, tokens, keys)}"
        past = f" ({keys - tokens} of them in the cache)" if name == "attention_mask" and keys > tokens else ""
        raise InputError(f"{name} has shape {mask.shape}, but {keys} keys{past} need {shown}")
