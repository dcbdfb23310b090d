"""RoBERTa, XLM-RoBERTa and CamemBERT: the same layers and heads, with the order of normalisation flipped (post-LN).

Each class takes the arguments of the RobertaPreLayerNorm class that it derives from; only its configuration says that
it is post-LN, and what its parameters are called.
"""

from __future__ import annotations

from .classifiers import (
    RobertaPreLayerNormForMultipleChoice,
    RobertaPreLayerNormForQuestionAnswering,
    RobertaPreLayerNormForSequenceClassification,
    RobertaPreLayerNormForTokenClassification,
)
from .config import CamembertConfig, RobertaConfig, XLMRobertaConfig
from .language_models import RobertaPreLayerNormForCausalLM, RobertaPreLayerNormForMaskedLM
from .model import RobertaPreLayerNormModel


class RobertaModel(RobertaPreLayerNormModel):
    """RoBERTa: the body with an optional pooler."""

    config_class = RobertaConfig


class RobertaForMaskedLM(RobertaPreLayerNormForMaskedLM):
    """RoBERTa: the body with a language-model head over every token."""

    config_class = RobertaConfig


class RobertaForCausalLM(RobertaPreLayerNormForCausalLM):
    """RoBERTa: the body as a decoder, with a language-model head that predicts the next token."""

    config_class = RobertaConfig


class RobertaForSequenceClassification(RobertaPreLayerNormForSequenceClassification):
    """RoBERTa: the body with a classification or regression head on row 0."""

    config_class = RobertaConfig


class RobertaForMultipleChoice(RobertaPreLayerNormForMultipleChoice):
    """RoBERTa: the body with a pooler and one score for each choice."""

    config_class = RobertaConfig


class RobertaForTokenClassification(RobertaPreLayerNormForTokenClassification):
    """RoBERTa: the body with a linear map of every token."""

    config_class = RobertaConfig


class RobertaForQuestionAnswering(RobertaPreLayerNormForQuestionAnswering):
    """RoBERTa: the body with two scores for every token."""

    config_class = RobertaConfig


class XLMRobertaModel(RobertaModel):
    """XLM-RoBERTa: the body with an optional pooler."""

    config_class = XLMRobertaConfig


class XLMRobertaForMaskedLM(RobertaForMaskedLM):
    """XLM-RoBERTa: the body with a language-model head over every token."""

    config_class = XLMRobertaConfig


class XLMRobertaForCausalLM(RobertaForCausalLM):
    """XLM-RoBERTa: the body as a decoder, with a language-model head that predicts the next token."""

    config_class = XLMRobertaConfig


class XLMRobertaForSequenceClassification(RobertaForSequenceClassification):
    """XLM-RoBERTa: the body with a classification or regression head on row 0."""

    config_class = XLMRobertaConfig


class XLMRobertaForMultipleChoice(RobertaForMultipleChoice):
    """XLM-RoBERTa: the body with a pooler and one score for each choice."""

    config_class = XLMRobertaConfig


class XLMRobertaForTokenClassification(RobertaForTokenClassification):
    """XLM-RoBERTa: the body with a linear map of every token."""

    config_class = XLMRobertaConfig


class XLMRobertaForQuestionAnswering(RobertaForQuestionAnswering):
    """XLM-RoBERTa: the body with two scores for every token."""

    config_class = XLMRobertaConfig


class CamembertModel(RobertaModel):
    """CamemBERT: the body with an optional pooler."""

    config_class = CamembertConfig


class CamembertForMaskedLM(RobertaForMaskedLM):
    """CamemBERT: the body with a language-model head over every token."""

    config_class = CamembertConfig


class CamembertForCausalLM(RobertaForCausalLM):
    """CamemBERT: the body as a decoder, with a language-model head that predicts the next token."""

    config_class = CamembertConfig


class CamembertForSequenceClassification(RobertaForSequenceClassification):
    """CamemBERT: the body with a classification or regression head on row 0."""

    config_class = CamembertConfig


class CamembertForMultipleChoice(RobertaForMultipleChoice):
    """CamemBERT: the body with a pooler and one score for each choice."""

    config_class = CamembertConfig


class CamembertForTokenClassification(RobertaForTokenClassification):
    """CamemBERT: the body with a linear map of every token."""

    config_class = CamembertConfig


class CamembertForQuestionAnswering(RobertaForQuestionAnswering):
    """CamemBERT: the body with two scores for every token."""

    config_class = CamembertConfig
