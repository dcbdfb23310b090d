"""The logit lens: what the model would predict if it stopped after each layer.

B batch, T tokens, P positions that are read, V vocabulary, N layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError, NpprelnormError
from ..inputs import as_integers
from ..ops.attention import softmax
from ..ops.top_k import largest
from ..params import View
from ..twins import layer_norm
from .recorded import require_model


class TopTokens(NamedTuple):
    """The likeliest tokens after the embeddings and after each layer, and how sure the model is.

    Attributes
    ----------
    ids : numpy.ndarray (N + 1, B, P, k)
        Best first.
    probabilities : numpy.ndarray (N + 1, B, P, k)
    entropy : numpy.ndarray (N + 1, B, P)
        Of the whole distribution, in nats.
    rank : numpy.ndarray (N + 1, B, P)
        Place, from 0, of the token that is the best one after the last layer.
    """

    ids: np.ndarray
    probabilities: np.ndarray
    entropy: np.ndarray
    rank: np.ndarray


def logit_lens(model: Any, *, positions: Any = None, **inputs: Any) -> np.ndarray:
    """Apply the final LayerNorm and the language-model head to the stream after each layer.

    The natural reading of a pre-LN stream, in which every layer adds to what is there (nostalgebraist 2020,
    "interpreting GPT: the logit lens", lesswrong.com; Belrose et al. 2023, arXiv:2303.08112, section 2). A post-LN
    model has no final LayerNorm, and its head is applied to each layer's output as it is.

    Parameters
    ----------
    model : a masked or causal language model
    positions : integers (P,), optional
        The tokens to read; all by default. The result takes (N + 1) * B * P * V numbers: read only what is needed
        where the vocabulary is large, or see `logit_lens_top`.
    **inputs
        Inputs of the body, such as ``input_ids``.

    Returns
    -------
    numpy.ndarray (N + 1, B, P, V)
        Logits after the embeddings, then after each layer; the last are the model's own.

    Raises
    ------
    InputError
        If the model has no language-model head, or for inputs that it cannot use.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> tokenizer = nl.Tokenizer.from_pretrained(nl.embedded_model_path())
    >>> ids = tokenizer("The capital of France is <mask>.")["input_ids"]
    >>> mask = int((ids[0] == tokenizer.mask_token_id).argmax())
    >>> logits = nl.inspect.logit_lens(model, input_ids=ids, positions=[mask])
    >>> logits.shape
    (5, 1, 1, 6144)
    >>> tokenizer.decode(logits[-1, 0, 0].argmax())
    ' Paris'
    """
    return np.stack(list(_readings(model, positions, inputs)))


def logit_lens_top(model: Any, *, k: int = 5, positions: Any = None, **inputs: Any) -> TopTokens:
    """The `k` likeliest tokens of `logit_lens` after each layer, one layer's logits at a time in memory.

    Parameters
    ----------
    model : a masked or causal language model
    k : int
        How many tokens; at most the vocabulary.
    positions : integers (P,), optional
        The tokens to read; all by default.
    **inputs
        Inputs of the body, such as ``input_ids``.

    Returns
    -------
    TopTokens

    Raises
    ------
    InputError
        For a `k` below 1, a model without a language-model head, or inputs that it cannot use.
    NpprelnormError
        If the logits hold NaN or infinity.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> top = nl.inspect.logit_lens_top(model, k=3, input_ids=[[0, 298, 2]])
    >>> top.ids.shape, top.rank[-1].tolist()
    ((5, 1, 3, 3), [[0, 0, 0]])
    """
    if type(k) is not int or k < 1:
        raise InputError(f"k is {k!r}; it must be a whole number from 1")
    ids, probabilities, entropies = [], [], []
    # the last layer's best tokens rank the others', so it is read first
    readings = _readings(model, positions, inputs, backwards=True)
    ranks: list[np.ndarray] = []
    final: np.ndarray | None = None
    for logits in readings:
        if not np.isfinite(logits).all():  # NaN has no place in an order
            raise NpprelnormError("the logits hold NaN or infinity: are the weights damaged? (`npprelnorm inspect`)")
        scores = softmax(logits)  # (B, P, V)
        chosen = np.array([[largest(row, k) for row in rows] for rows in scores], np.int64).reshape(
            *scores.shape[:2], min(k, scores.shape[-1])
        )
        final = chosen[..., :1] if final is None else final
        ranks.append((logits > np.take_along_axis(logits, final, axis=-1)).sum(axis=-1))
        ids.append(chosen)
        probabilities.append(np.take_along_axis(scores, chosen, axis=-1))
        tiny = np.finfo(scores.dtype).tiny
        entropies.append(0.0 - (scores * np.log(np.maximum(scores, tiny))).sum(axis=-1))
    return TopTokens(*(np.stack(rows[::-1]) for rows in (ids, probabilities, entropies, ranks)))


def _readings(model: Any, positions: Any, inputs: dict[str, Any], *, backwards: bool = False) -> Iterator[np.ndarray]:
    """Logits (B, P, V) layer by layer."""
    require_model(model)
    if not hasattr(model, "lm_head"):
        raise InputError(
            f"the logit lens needs a language-model head, which {type(model).__name__} lacks; load the checkpoint as a "
            "masked or causal language model"
        )
    stream = model.base(**inputs, output_hidden_states=True, hidden_states_convention="v4").hidden_states
    tokens = stream[0].shape[1]
    chosen = np.arange(tokens) if positions is None else as_integers("positions", positions, tokens, "tokens")
    if chosen.ndim != 1:
        raise InputError(f"positions has shape {chosen.shape}; expected (P,), a list of places in the text")
    p: View = model._view()
    for state in reversed(stream) if backwards else stream:
        hidden = state[:, chosen]  # (B, T, C) -> (B, P, C)
        if model.config.family.order.has_final_norm:
            hidden, _ = layer_norm(hidden, *p.affine("LayerNorm"), model.config.layer_norm_eps)
        yield model.lm_head(hidden)
