"""Norms of gradients (or of parameters): by layer, and by what the parameters are for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..inputs import as_array

_IN_LAYER = re.compile(r"(.*?)encoder\.layer\.(\d+)\.(.+)")


class GradientNorms(NamedTuple):
    """Euclidean norms of gradients.

    Attributes
    ----------
    per_layer : numpy.ndarray (N,)
        Of all gradients of one layer together; layers are those up to the highest that has a gradient.
    groups : dict of str to numpy.ndarray (N,)
        The same split by what the parameters belong to: ``attention.self.query``, ``attention.LayerNorm``,
        ``intermediate.dense``, ``output.dense``, ... (weight and bias together). NaN where a layer has none.
    others : dict of str to float
        What is in no layer: ``embeddings.word_embeddings``, ``LayerNorm``, ``lm_head.dense``, ...
    total : float
        Of everything together: what gradient clipping looks at.
    """

    per_layer: np.ndarray
    groups: dict[str, np.ndarray]
    others: dict[str, float]
    total: float


def gradient_norms(grads: Mapping[str, np.ndarray]) -> GradientNorms:
    """Norms of the gradients that ``loss_and_grads`` or ``vjp`` returned.

    Parameters
    ----------
    grads : mapping of str to array
        Gradients by parameter name. A model's ``params`` do as well, and give the norms of the parameters.

    Returns
    -------
    GradientNorms

    Raises
    ------
    InputError
        If there are none, or those of two stacks of layers, as an encoder-decoder pair has them.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> _, grads = model.loss_and_grads(input_ids=[[0, 298, 380, 2]], labels=[[-100, 298, -100, -100]])
    >>> norms = nl.inspect.gradient_norms(grads)
    >>> norms.per_layer.shape, norms.groups["attention.self.query"].shape
    ((4,), (4,))
    """
    if not isinstance(grads, Mapping):
        wrong = f"a {type(grads).__name__}"
    else:
        wrong = "empty" if not grads else "" if all(isinstance(name, str) for name in grads) else "not by name"
    if wrong:
        raise InputError(f"grads is {wrong}; give the gradients that loss_and_grads returned, a dict of arrays by name")
    squares: dict[tuple[int, str], float] = {}  # (layer, group), layer -1 for what is in none
    prefix = _common_prefix(grads)
    for name, value in grads.items():
        array = as_array(f"grads[{name!r}]", value)
        if array.dtype.kind not in "fiu":
            raise InputError(f"grads[{name!r}] has dtype {array.dtype}; give floats")
        found = _IN_LAYER.fullmatch(name)
        if found and found[1] != prefix:
            raise InputError(
                f"grads holds the layers of two stacks, {prefix!r} and {found[1]!r}; give those of one at a time, "
                f"such as {{name: grad for name, grad in grads.items() if name.startswith({prefix!r})}}"
            )
        layer, tail = (int(found[2]), found[3]) if found else (-1, name.removeprefix(prefix))
        key = (layer, re.sub(r"\.(weight|bias)$", "", tail))
        squares[key] = squares.get(key, 0.0) + float(np.square(array, dtype=np.float64).sum())
    layers = 1 + max(layer for layer, _ in squares)
    groups = {
        group: np.array([squares.get((layer, group), np.nan) for layer in range(layers)], np.float64) ** 0.5
        for group in dict.fromkeys(group for layer, group in squares if layer >= 0)
    }
    per_layer = np.array(
        [sum(value for (layer, _), value in squares.items() if layer == index) for index in range(layers)], np.float64
    )
    others = {group: value**0.5 for (layer, group), value in squares.items() if layer < 0}
    return GradientNorms(per_layer**0.5, groups, others, sum(squares.values()) ** 0.5)


def _common_prefix(grads: Mapping[str, np.ndarray]) -> str:
    """What stands before ``encoder.layer.`` or ``embeddings.`` in the names, such as ``roberta_prelayernorm.``."""
    for name in grads:
        found = re.match(r"(.*?)(?:encoder\.layer\.|embeddings\.)", name)
        if found:
            return found[1]
    return ""
