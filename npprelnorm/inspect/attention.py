"""Attention weights and how spread out they are. B batch, T queries, S keys, H heads, N layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from ..inputs import as_array
from .recorded import require_model


def attention_maps(model: Any, *, cross: bool = False, **inputs: Any) -> np.ndarray:
    """Attention weights of every layer and head of one forward.

    Parameters
    ----------
    model : any model class of this package
    cross : bool
        Those of a decoder's cross-attention, whose S keys are the tokens of ``encoder_hidden_states``.
    **inputs
        Inputs of the body, such as ``input_ids`` and ``attention_mask``.

    Returns
    -------
    numpy.ndarray (N, B, H, T, S)
        How much query t takes of key s; each row sums to 1 (unless a head mask scales it).

    Raises
    ------
    InputError
        For inputs that the model cannot use, and for `cross` where there is no cross-attention.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> nl.inspect.attention_maps(model, input_ids=[[0, 298, 2]]).shape
    (4, 1, 4, 3, 3)
    """
    require_model(model)
    output = model.base(**inputs, output_attentions=True)
    maps = output.cross_attentions if cross else output.attentions
    if maps is None:
        raise InputError(
            "there is no cross-attention in this forward; it takes a decoder with add_cross_attention, and "
            "encoder_hidden_states"
        )
    return np.stack(maps)


def attention_entropy(maps: Any) -> np.ndarray:
    """Entropy of attention weights: 0 for a head that looks at one token, log S for one that looks at all alike.

    Clark et al. 2019, arXiv:1906.04341, section 3.2.

    Parameters
    ----------
    maps : floats (..., T, S)
        From `attention_maps`, or any weights of which each row sums to 1.

    Returns
    -------
    numpy.ndarray (..., T)
        In nats.

    Raises
    ------
    InputError
        If there are negative weights or no axes.

    Examples
    --------
    >>> import numpy as np
    >>> attention_entropy(np.array([[1.0, 0.0], [0.5, 0.5]])).round(4)
    array([0.    , 0.6931])
    """
    weights = as_array("maps", maps)
    if weights.dtype.kind not in "fiu" or weights.ndim < 1:
        raise InputError(f"maps has shape {weights.shape} and dtype {weights.dtype}; expected floats (..., T, S)")
    if not (weights >= 0).all():
        raise InputError(f"maps holds {weights.min()}; attention weights are not negative")
    # 0 log 0 is 0: the logarithm is taken of 1 there
    logarithms = np.log(np.where(weights > 0, weights, np.ones((), weights.dtype)))
    return np.subtract(0, (weights * logarithms).sum(axis=-1), dtype=logarithms.dtype)  # so written, 0 has no sign
