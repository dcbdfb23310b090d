"""What shows a point in a lesson and has no other use."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import classifiers, language_models, model, roberta
from .errors import InputError
from .model import BodyModel

_PAIRS: tuple[tuple[type[BodyModel], type[BodyModel]], ...] = (
    (model.RobertaPreLayerNormModel, roberta.RobertaModel),
    (language_models.RobertaPreLayerNormForCausalLM, roberta.RobertaForCausalLM),
    (language_models.RobertaPreLayerNormForMaskedLM, roberta.RobertaForMaskedLM),
    (classifiers.RobertaPreLayerNormForMultipleChoice, roberta.RobertaForMultipleChoice),
    (classifiers.RobertaPreLayerNormForQuestionAnswering, roberta.RobertaForQuestionAnswering),
    (classifiers.RobertaPreLayerNormForSequenceClassification, roberta.RobertaForSequenceClassification),
    (classifiers.RobertaPreLayerNormForTokenClassification, roberta.RobertaForTokenClassification),
)
_ATTENTIONS = ("attention", "crossattention")


def reorder_layer_norm(given: BodyModel, order: str) -> Any:
    """The same arrays under the other order of normalisation: **for demonstration, its numbers are meaningless**.

    A model is trained for one order. This shows what happens when a checkpoint is run in the other, which is the
    mistake that loading a pre-LN file as RoBERTa makes; nothing else in this package will do it.

    Parameters
    ----------
    given : model
        Of a RobertaPreLayerNorm or a Roberta class.
    order : {"pre", "post"}
        The order wanted. The model's own gives a model with the same numbers.

    Returns
    -------
    model
        Of the class with the same head in the other order. The arrays are shared, not copied. From pre to post the
        final LayerNorm is left out, from post to pre it is drawn fresh: gain 1, bias 0.

    Raises
    ------
    InputError
        For another order, or a model of another type.
    """
    if order not in ("pre", "post"):
        raise InputError(f"order is {order!r}; allowed: 'pre', 'post'")
    classes = next((pair for pair in _PAIRS if type(given) in pair), None)
    if classes is None:
        raise InputError(f"the model is a {type(given).__name__}; only RobertaPreLayerNorm and Roberta classes pair up")
    cls = classes[0] if order == "pre" else classes[1]
    values = {name: value for name, value in given.config.to_dict().items() if name != "model_type"}
    config = cls.config_class.from_dict(values)
    old, new = given.config.family.order, config.family.order
    renamed = [(f".{block}.{old.attention_norm}.", f".{block}.{new.attention_norm}.") for block in _ATTENTIONS]
    renamed.append((f".{old.feed_forward_norm}.", f".{new.feed_forward_norm}."))
    params: dict[str, np.ndarray] = {}
    for name, value in given.params.items():
        if name.startswith(given.base_prefix):  # all of a base model, whose prefix is empty
            own = name.removeprefix(given.base_prefix)
            for before, after in renamed:
                own = own.replace(before, after)
            params[cls.base_prefix + own] = value
        else:
            params[name] = value
    final = cls.base_prefix + "LayerNorm."
    if not new.has_final_norm:
        params = {name: value for name, value in params.items() if not name.startswith(final)}
    elif not old.has_final_norm:
        params[final + "weight"] = np.ones(config.hidden_size, given.dtype)
        params[final + "bias"] = np.zeros(config.hidden_size, given.dtype)
    return cls.from_params(config, params, dtype=given.dtype.name)
