"""One text explained: what a model sees in it, as data and as a page that needs nothing else.

Legend: T tokens shown, N layers, H heads.
"""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, NpprelnormError
from ..model import BodyModel
from ..pipelines.base import Pipeline
from .attention import attention_maps
from .lens import TopTokens, logit_lens_top
from .recorded import require_model
from .residual import residual_norms

MAX_TOKENS = 64
MAX_WEIGHTS = 2_400_000  # attention weights in a page: about 8 MB of it; 128 tokens of 12 layers and 12 heads


class _Texts(Pipeline):
    """Texts as ids that the model can take."""

    task = "explain"
    model_class = BodyModel


def explain(
    model: Any, tokenizer: Any, text: str, *, k: int = 5, truncation: bool = False, max_tokens: int = MAX_TOKENS
) -> dict[str, Any]:
    """What a model makes of one text: attention, residual norms; of a language model the logit lens, and masks filled.

    Parameters
    ----------
    model : any model class of this package
    tokenizer : Tokenizer
    text : str
        With a mask token or without.
    k : int
        How many tokens at each place of the logit lens.
    truncation : bool
        Whether to cut a text that is too long for the model, instead of raising.
    max_tokens : int
        How many tokens T to show at most. The model sees the whole text; of a longer one a window around its first
        mask (or its beginning) is shown, and ``cut`` says so. Fewer are shown of models with very many heads.

    Returns
    -------
    dict
        What JSON can hold: ``tokens`` (T texts); ``positions`` (T places in the whole text); ``attention`` (N lists of
        H lists of T * T whole numbers, in units of 0.0001, query after query); ``predicts`` (``masked`` tokens, the
        ``next`` ones, or nothing: an empty text); ``lens`` (N + 1 lists of T lists of [text, probability], best first;
        empty of a model without a language-model head); ``norms`` (``mean`` of the whole text, N + 1, and ``tokens``,
        N + 1 x T); ``fills`` (for each mask that is shown its ``position`` among the tokens and its ``best`` tokens);
        ``start`` (the token to look at first); ``order`` (``pre-LN`` or ``post-LN``); ``cut`` (what is left out, if
        anything is); ``model``, ``text`` and ``version``.

    Raises
    ------
    InputError
        For a text that is too long, or a `k` or `max_tokens` below 1.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> tokenizer = nl.Tokenizer.from_pretrained(nl.embedded_model_path())
    >>> found = explain(model, tokenizer, "The capital of France is <mask>.")
    >>> found["tokens"][6], found["fills"][0]["best"][0][0]
    ('<mask>', ' Paris')
    """
    from .. import __version__

    if type(max_tokens) is not int or max_tokens < 1:
        raise InputError(f"max_tokens is {max_tokens!r}; it must be a whole number from 1")
    if not isinstance(text, str):
        raise InputError(f"text is a {type(text).__name__}; give one string")
    require_model(model)
    row = _Texts(model, tokenizer).encode([text], truncation=truncation)[0]
    whole = tokenizer.encode_rows([text])[0] if truncation else row
    inputs: dict[str, Any] = {"input_ids": row[None], "attention_mask": np.ones_like(row)[None]}
    mask = -1 if tokenizer.mask_token_id is None else tokenizer.mask_token_id  # -1 is no token
    masks = np.flatnonzero(row == mask)
    config = model.config
    predicts = ("next" if config.is_decoder else "masked") if hasattr(model, "lm_head") else ""
    most = max(1, int((MAX_WEIGHTS / (config.num_hidden_layers * config.num_attention_heads)) ** 0.5))
    window = _window(len(row), int(masks[0]) if len(masks) else 0, min(max_tokens, most))
    norms = residual_norms(model, **inputs)
    attention = attention_maps(model, **inputs)[:, 0][:, :, window][:, :, :, window]  # (N, H, T, T)
    shown_masks = [index for index, place in enumerate(window.tolist()) if place in masks]
    if not (np.isfinite(attention).all() and np.isfinite(norms.per_token).all()):
        raise NpprelnormError("the forward gives NaN or infinity: are the weights damaged? (`npprelnorm inspect`)")
    lens = _words(tokenizer, logit_lens_top(model, k=k, positions=window, **inputs)) if predicts else []
    return {
        "text": text,
        "model": repr(model),
        "version": __version__,
        "tokens": [_word(tokenizer, token) for token in row[window].tolist()],
        "positions": window.tolist(),
        "order": config.family.order.name,
        "predicts": predicts,
        "cut": _cut(window, row, np.asarray(whole), mask),
        "start": shown_masks[0] if shown_masks else 0,
        "attention": np.rint(attention.astype(np.float64) * 10_000)
        .astype(np.int64)
        .reshape(*attention.shape[:2], -1)
        .tolist(),
        "lens": lens,
        "norms": {
            "mean": [_rounded(value) for value in norms.per_layer.tolist()],
            "tokens": [[_rounded(value) for value in line] for line in norms.per_token[:, 0, window].tolist()],
        },
        "fills": [{"position": place, "best": lens[-1][place]} for place in shown_masks if predicts == "masked"],
    }


def _words(tokenizer: Any, top: TopTokens) -> list[list[list[list[Any]]]]:
    """Texts and probabilities of the one text of a batch: N + 1 lists of T lists of [text, probability]."""
    return [
        [
            [[_word(tokenizer, token), _rounded(p)] for token, p in zip(*pair, strict=True)]
            for pair in zip(ids[0].tolist(), probabilities[0].tolist(), strict=True)
        ]
        for ids, probabilities in zip(top.ids, top.probabilities, strict=True)
    ]


def _window(tokens: int, mask: int, most: int) -> np.ndarray:
    """The places to show: the beginning, or what is around the first mask where that lies further on."""
    start = 0 if mask < most else min(mask - most // 2, tokens - most)
    return np.arange(start, min(tokens, start + most))


def _cut(window: np.ndarray, row: np.ndarray, whole: np.ndarray, mask: int) -> str:
    """What the page leaves out of the `whole` text: what the model did not see, and what of its `row` is not shown."""
    said = []
    if len(row) < len(whole):
        said.append(f"The text has {len(whole)} tokens, and was cut to the {len(row)} that this model takes.")
    if len(window) < len(row):
        said.append(
            f"Shown are {len(window)} of {len(row)} tokens, from token {window[0]} on. The model saw all of them: rows "
            "of attention weights need not sum to 1 here."
        )
    masks, shown = (int((ids == mask).sum()) for ids in (whole, row[window]))
    if shown < masks:
        said.append(f"Masks shown: {shown} of {masks}.")
    return " ".join(said)


def _word(tokenizer: Any, token: int) -> str:
    """A token's text; as the vocabulary spells it where that is no text by itself, such as a part of a character."""
    text: str = tokenizer.decode([token])
    if not text or "\N{REPLACEMENT CHARACTER}" in text:
        text = tokenizer.id_to_token(token) or f"#{token}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}") if math.isfinite(value) else 0.0


def report_html(explanation: dict[str, Any]) -> str:
    """One self-contained page of what `explain` found: no network, no other file.

    The numbers are in it as JSON in which no ``<`` occurs, and its script shows every text as text, so that nothing in
    the input or the vocabulary can become markup; a content security policy forbids all else.

    Parameters
    ----------
    explanation : dict
        From `explain`.

    Returns
    -------
    str
        HTML, in UTF-8 when written.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> tokenizer = nl.Tokenizer.from_pretrained(nl.embedded_model_path())
    >>> page = report_html(explain(model, tokenizer, "The <mask> barks.", max_tokens=8))
    >>> page.startswith("<!DOCTYPE html>"), "://" in page
    (True, False)
    """
    template = (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
    data = json.dumps(explanation, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    text = explanation["text"].strip() or "(an empty text)"
    title = html.escape(text if len(text) <= 200 else text[:200] + " …")
    # split at the data first, so that a text that spells a placeholder stays what it is
    head, _, tail = template.partition("@@DATA@@")
    return head.replace("@@TITLE@@", title) + data + tail
