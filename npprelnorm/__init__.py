"""RoBERTa-PreLayerNorm in plain NumPy: a reference to read, and a model to use.

The public names are imported on first use (PEP 562), so that ``import npprelnorm`` costs no more than NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULE_OF = {
    "RobertaPreLayerNormConfig": "config",
    "RobertaPreLayerNormModel": "model",
    "RobertaPreLayerNormForCausalLM": "language_models",
    "RobertaPreLayerNormForMaskedLM": "language_models",
    "RobertaPreLayerNormForMultipleChoice": "classifiers",
    "RobertaPreLayerNormForQuestionAnswering": "classifiers",
    "RobertaPreLayerNormForSequenceClassification": "classifiers",
    "RobertaPreLayerNormForTokenClassification": "classifiers",
    "RobertaConfig": "config",
    "RobertaModel": "roberta",
    "RobertaForCausalLM": "roberta",
    "RobertaForMaskedLM": "roberta",
    "RobertaForMultipleChoice": "roberta",
    "RobertaForQuestionAnswering": "roberta",
    "RobertaForSequenceClassification": "roberta",
    "RobertaForTokenClassification": "roberta",
    "XLMRobertaConfig": "config",
    "XLMRobertaModel": "roberta",
    "XLMRobertaForCausalLM": "roberta",
    "XLMRobertaForMaskedLM": "roberta",
    "XLMRobertaForMultipleChoice": "roberta",
    "XLMRobertaForQuestionAnswering": "roberta",
    "XLMRobertaForSequenceClassification": "roberta",
    "XLMRobertaForTokenClassification": "roberta",
    "CamembertConfig": "config",
    "CamembertModel": "roberta",
    "CamembertForCausalLM": "roberta",
    "CamembertForMaskedLM": "roberta",
    "CamembertForMultipleChoice": "roberta",
    "CamembertForQuestionAnswering": "roberta",
    "CamembertForSequenceClassification": "roberta",
    "CamembertForTokenClassification": "roberta",
    "BertConfig": "config",
    "BertModel": "bert",
    "BertLMHeadModel": "bert",
    "BertForMaskedLM": "bert",
    "BertForMultipleChoice": "bert",
    "BertForQuestionAnswering": "bert",
    "BertForSequenceClassification": "bert",
    "BertForTokenClassification": "bert",
    "AutoConfig": "auto",
    "AutoModel": "auto",
    "AutoModelForCausalLM": "auto",
    "AutoModelForMaskedLM": "auto",
    "AutoModelForMultipleChoice": "auto",
    "AutoModelForQuestionAnswering": "auto",
    "AutoModelForSeq2SeqLM": "auto",
    "AutoModelForSequenceClassification": "auto",
    "AutoModelForTokenClassification": "auto",
    "EncoderDecoderConfig": "encoder_decoder_config",
    "EncoderDecoderModel": "encoder_decoder",
    "KeyValueCache": "cache",
    "GenerationSettings": "generation.settings",
    "Tokenizer": "tokenizer",
    "pipeline": "pipelines",
    "embedded_model_path": "assets",
    "set_threads": "backend",
    "use_backend": "backend",
    "NpprelnormError": "errors",
    "NpprelnormWarning": "errors",
}

_PACKAGES = ("inspect",)

__all__ = ["__version__", *_MODULE_OF, *_PACKAGES]  # noqa: PLE0604  # the keys are strings

if TYPE_CHECKING:
    from . import inspect as inspect
    from .assets import embedded_model_path as embedded_model_path
    from .auto import AutoConfig as AutoConfig
    from .auto import AutoModel as AutoModel
    from .auto import AutoModelForCausalLM as AutoModelForCausalLM
    from .auto import AutoModelForMaskedLM as AutoModelForMaskedLM
    from .auto import AutoModelForMultipleChoice as AutoModelForMultipleChoice
    from .auto import AutoModelForQuestionAnswering as AutoModelForQuestionAnswering
    from .auto import AutoModelForSeq2SeqLM as AutoModelForSeq2SeqLM
    from .auto import AutoModelForSequenceClassification as AutoModelForSequenceClassification
    from .auto import AutoModelForTokenClassification as AutoModelForTokenClassification
    from .backend import set_threads as set_threads
    from .backend import use_backend as use_backend
    from .bert import BertForMaskedLM as BertForMaskedLM
    from .bert import BertForMultipleChoice as BertForMultipleChoice
    from .bert import BertForQuestionAnswering as BertForQuestionAnswering
    from .bert import BertForSequenceClassification as BertForSequenceClassification
    from .bert import BertForTokenClassification as BertForTokenClassification
    from .bert import BertLMHeadModel as BertLMHeadModel
    from .bert import BertModel as BertModel
    from .cache import KeyValueCache as KeyValueCache
    from .classifiers import RobertaPreLayerNormForMultipleChoice as RobertaPreLayerNormForMultipleChoice
    from .classifiers import RobertaPreLayerNormForQuestionAnswering as RobertaPreLayerNormForQuestionAnswering
    from .classifiers import (
        RobertaPreLayerNormForSequenceClassification as RobertaPreLayerNormForSequenceClassification,
    )
    from .classifiers import RobertaPreLayerNormForTokenClassification as RobertaPreLayerNormForTokenClassification
    from .config import BertConfig as BertConfig
    from .config import CamembertConfig as CamembertConfig
    from .config import RobertaConfig as RobertaConfig
    from .config import RobertaPreLayerNormConfig as RobertaPreLayerNormConfig
    from .config import XLMRobertaConfig as XLMRobertaConfig
    from .encoder_decoder import EncoderDecoderModel as EncoderDecoderModel
    from .encoder_decoder_config import EncoderDecoderConfig as EncoderDecoderConfig
    from .errors import NpprelnormError as NpprelnormError
    from .errors import NpprelnormWarning as NpprelnormWarning
    from .generation.settings import GenerationSettings as GenerationSettings
    from .language_models import RobertaPreLayerNormForCausalLM as RobertaPreLayerNormForCausalLM
    from .language_models import RobertaPreLayerNormForMaskedLM as RobertaPreLayerNormForMaskedLM
    from .model import RobertaPreLayerNormModel as RobertaPreLayerNormModel
    from .pipelines import pipeline as pipeline
    from .roberta import CamembertForCausalLM as CamembertForCausalLM
    from .roberta import CamembertForMaskedLM as CamembertForMaskedLM
    from .roberta import CamembertForMultipleChoice as CamembertForMultipleChoice
    from .roberta import CamembertForQuestionAnswering as CamembertForQuestionAnswering
    from .roberta import CamembertForSequenceClassification as CamembertForSequenceClassification
    from .roberta import CamembertForTokenClassification as CamembertForTokenClassification
    from .roberta import CamembertModel as CamembertModel
    from .roberta import RobertaForCausalLM as RobertaForCausalLM
    from .roberta import RobertaForMaskedLM as RobertaForMaskedLM
    from .roberta import RobertaForMultipleChoice as RobertaForMultipleChoice
    from .roberta import RobertaForQuestionAnswering as RobertaForQuestionAnswering
    from .roberta import RobertaForSequenceClassification as RobertaForSequenceClassification
    from .roberta import RobertaForTokenClassification as RobertaForTokenClassification
    from .roberta import RobertaModel as RobertaModel
    from .roberta import XLMRobertaForCausalLM as XLMRobertaForCausalLM
    from .roberta import XLMRobertaForMaskedLM as XLMRobertaForMaskedLM
    from .roberta import XLMRobertaForMultipleChoice as XLMRobertaForMultipleChoice
    from .roberta import XLMRobertaForQuestionAnswering as XLMRobertaForQuestionAnswering
    from .roberta import XLMRobertaForSequenceClassification as XLMRobertaForSequenceClassification
    from .roberta import XLMRobertaForTokenClassification as XLMRobertaForTokenClassification
    from .roberta import XLMRobertaModel as XLMRobertaModel
    from .tokenizer import Tokenizer as Tokenizer


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f".{name}", __name__)
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
