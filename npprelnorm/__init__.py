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
    "AutoConfig": "auto",
    "AutoModel": "auto",
    "AutoModelForCausalLM": "auto",
    "AutoModelForMaskedLM": "auto",
    "AutoModelForMultipleChoice": "auto",
    "AutoModelForQuestionAnswering": "auto",
    "AutoModelForSequenceClassification": "auto",
    "AutoModelForTokenClassification": "auto",
    "KeyValueCache": "cache",
    "GenerationSettings": "generation.settings",
    "Tokenizer": "tokenizer",
    "pipeline": "pipelines",
    "embedded_model_path": "assets",
    "NpprelnormError": "errors",
    "NpprelnormWarning": "errors",
}

__all__ = ["__version__", *_MODULE_OF]  # noqa: PLE0604  # the keys are strings

if TYPE_CHECKING:
    from .assets import embedded_model_path as embedded_model_path
    from .auto import AutoConfig as AutoConfig
    from .auto import AutoModel as AutoModel
    from .auto import AutoModelForCausalLM as AutoModelForCausalLM
    from .auto import AutoModelForMaskedLM as AutoModelForMaskedLM
    from .auto import AutoModelForMultipleChoice as AutoModelForMultipleChoice
    from .auto import AutoModelForQuestionAnswering as AutoModelForQuestionAnswering
    from .auto import AutoModelForSequenceClassification as AutoModelForSequenceClassification
    from .auto import AutoModelForTokenClassification as AutoModelForTokenClassification
    from .cache import KeyValueCache as KeyValueCache
    from .classifiers import RobertaPreLayerNormForMultipleChoice as RobertaPreLayerNormForMultipleChoice
    from .classifiers import RobertaPreLayerNormForQuestionAnswering as RobertaPreLayerNormForQuestionAnswering
    from .classifiers import (
        RobertaPreLayerNormForSequenceClassification as RobertaPreLayerNormForSequenceClassification,
    )
    from .classifiers import RobertaPreLayerNormForTokenClassification as RobertaPreLayerNormForTokenClassification
    from .config import RobertaPreLayerNormConfig as RobertaPreLayerNormConfig
    from .errors import NpprelnormError as NpprelnormError
    from .errors import NpprelnormWarning as NpprelnormWarning
    from .generation.settings import GenerationSettings as GenerationSettings
    from .language_models import RobertaPreLayerNormForCausalLM as RobertaPreLayerNormForCausalLM
    from .language_models import RobertaPreLayerNormForMaskedLM as RobertaPreLayerNormForMaskedLM
    from .model import RobertaPreLayerNormModel as RobertaPreLayerNormModel
    from .pipelines import pipeline as pipeline
    from .tokenizer import Tokenizer as Tokenizer


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
