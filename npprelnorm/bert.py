"""BERT: the same layers, post-LN, with token types, positions from 0, and heads of its own.

Each class takes the arguments of the RobertaPreLayerNorm class that it derives from.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .body import PoolerCache, pooler, pooler_backward
from .classifiers import (
    RobertaPreLayerNormForMultipleChoice,
    RobertaPreLayerNormForQuestionAnswering,
    RobertaPreLayerNormForSequenceClassification,
    RobertaPreLayerNormForTokenClassification,
)
from .config import BertConfig, RobertaPreLayerNormConfig
from .gradients import Gradients, GradientView
from .heads import LinearHeadCache, classifier_dropout, linear_head, linear_head_backward
from .language_models import RobertaPreLayerNormForCausalLM, RobertaPreLayerNormForMaskedLM
from .layers import Rng
from .model import RobertaPreLayerNormModel
from .params import Shapes, View, linear_shapes


class BertModel(RobertaPreLayerNormModel):
    """BERT: the body with an optional pooler."""

    config_class = BertConfig


class BertForMaskedLM(RobertaPreLayerNormForMaskedLM):
    """BERT: the body with a language-model head over every token."""

    config_class = BertConfig


class BertLMHeadModel(RobertaPreLayerNormForCausalLM):
    """BERT: the body as a decoder, with a language-model head that predicts the next token."""

    config_class = BertConfig


class BertForSequenceClassification(RobertaPreLayerNormForSequenceClassification):
    """BERT: the body with a pooler, and a linear map of what it gives."""

    config_class = BertConfig
    pooler = True

    @classmethod
    def head_shapes(cls, config: RobertaPreLayerNormConfig) -> Shapes:
        """Names and shapes of the linear map."""
        return linear_shapes("classifier", config.hidden_size, config.num_labels)

    def _head(self, hidden: np.ndarray, rng: Rng) -> tuple[np.ndarray, tuple[PoolerCache, LinearHeadCache]]:
        pooled, pooler_cache = pooler(self._view(), hidden)
        logits, head_cache = linear_head(View(self.params), "classifier", pooled, classifier_dropout(self.config), rng)
        return logits, (pooler_cache, head_cache)

    def _head_backward(self, dlogits: np.ndarray, cache: Any, g: Gradients) -> np.ndarray:
        pooler_cache, head_cache = cache
        dpooled = linear_head_backward(dlogits, head_cache, GradientView(g), "classifier")
        return pooler_backward(dpooled, pooler_cache, GradientView(g, self.base_prefix))


class BertForMultipleChoice(RobertaPreLayerNormForMultipleChoice):
    """BERT: the body with a pooler and one score for each choice."""

    config_class = BertConfig

    def _dropout(self) -> float:
        return classifier_dropout(self.config)


class BertForTokenClassification(RobertaPreLayerNormForTokenClassification):
    """BERT: the body with a linear map of every token."""

    config_class = BertConfig


class BertForQuestionAnswering(RobertaPreLayerNormForQuestionAnswering):
    """BERT: the body with two scores for every token."""

    config_class = BertConfig
