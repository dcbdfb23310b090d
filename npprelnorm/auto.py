"""Classes that pick the model class from what a checkpoint says it is."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from .classifiers import (
    RobertaPreLayerNormForMultipleChoice,
    RobertaPreLayerNormForQuestionAnswering,
    RobertaPreLayerNormForSequenceClassification,
    RobertaPreLayerNormForTokenClassification,
)
from .config import RobertaPreLayerNormConfig
from .language_models import RobertaPreLayerNormForCausalLM, RobertaPreLayerNormForMaskedLM
from .model import BodyModel, RobertaPreLayerNormModel


class AutoConfig:
    """Reads the configuration of a folder or hub id."""

    @staticmethod
    def from_pretrained(
        path: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False, **overrides: Any
    ) -> RobertaPreLayerNormConfig:
        """As `RobertaPreLayerNormConfig.from_pretrained`, for hub ids too."""
        from .checkpoint.hub import resolve

        folder = resolve(
            path, revision=revision, local_files_only=local_files_only, files=("config.json",), weights=False
        )
        return RobertaPreLayerNormConfig.from_pretrained(folder, **overrides)


class _Auto:
    model_class: ClassVar[type[BodyModel]]

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **options: Any) -> Any:
        """Load a checkpoint; arguments and errors as for `RobertaPreLayerNormModel.from_pretrained`."""
        return cls.model_class.from_pretrained(path, **options)

    @classmethod
    def from_config(cls, config: RobertaPreLayerNormConfig, **options: Any) -> Any:
        """A model with fresh weights; options ``rng`` and ``dtype``."""
        return cls.model_class(config, **options)


class AutoModel(_Auto):
    """The base model without a head."""

    model_class = RobertaPreLayerNormModel


class AutoModelForCausalLM(_Auto):
    """The model with a causal LM head."""

    model_class = RobertaPreLayerNormForCausalLM


class AutoModelForMaskedLM(_Auto):
    """The model with a masked LM head."""

    model_class = RobertaPreLayerNormForMaskedLM


class AutoModelForSequenceClassification(_Auto):
    """The model with a sequence classification head."""

    model_class = RobertaPreLayerNormForSequenceClassification


class AutoModelForMultipleChoice(_Auto):
    """The model with a multiple choice head."""

    model_class = RobertaPreLayerNormForMultipleChoice


class AutoModelForTokenClassification(_Auto):
    """The model with a token classification head."""

    model_class = RobertaPreLayerNormForTokenClassification


class AutoModelForQuestionAnswering(_Auto):
    """The model with a question answering head."""

    model_class = RobertaPreLayerNormForQuestionAnswering
