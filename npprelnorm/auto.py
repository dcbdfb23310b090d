"""Classes that pick the model class from what a checkpoint says it is."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from . import bert, classifiers, language_models, model, roberta
from .config import RobertaPreLayerNormConfig
from .encoder_decoder import EncoderDecoderModel
from .encoder_decoder_config import EncoderDecoderConfig
from .errors import ConfigError
from .model import BodyModel


class AutoConfig:
    """Reads the configuration of a folder or hub id."""

    @staticmethod
    def from_pretrained(
        path: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False, **overrides: Any
    ) -> RobertaPreLayerNormConfig:
        """As `RobertaPreLayerNormConfig.from_pretrained`, in the class of its model type, and for hub ids too.

        The princeton-nlp files say roberta and are pre-LN, which only their tensor names tell: without the weights
        beside it their configuration is read as what it says.
        """
        from .checkpoint.hub import resolve
        from .checkpoint.model_types import config_class

        folder = resolve(
            path, revision=revision, local_files_only=local_files_only, files=("config.json",), weights=False
        )
        return config_class(folder).from_pretrained(folder, **overrides)


class _Auto:
    classes: ClassVar[tuple[type[BodyModel], ...]]  # one of each model type

    @classmethod
    def class_for(cls, config_class: type[RobertaPreLayerNormConfig]) -> type[BodyModel]:
        """The model class that goes with a configuration class."""
        return next(model_class for model_class in cls.classes if model_class.config_class is config_class)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        config: RobertaPreLayerNormConfig | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        allow_convert_pr: bool = False,
        **options: Any,
    ) -> Any:
        """Load a checkpoint; arguments and errors as for `RobertaPreLayerNormModel.from_pretrained`."""
        from .checkpoint.hub import resolve
        from .checkpoint.model_types import config_class

        folder = resolve(path, revision=revision, local_files_only=local_files_only, allow_convert_pr=allow_convert_pr)
        model_class = cls.class_for(config_class(folder) if config is None else type(config))
        return model_class.from_pretrained(folder, config=config, **options)

    @classmethod
    def from_config(cls, config: RobertaPreLayerNormConfig, **options: Any) -> Any:
        """A model with fresh weights; options ``rng`` and ``dtype``."""
        if not isinstance(config, RobertaPreLayerNormConfig):
            raise ConfigError(f"config is a {type(config).__name__}; give one of this package's configurations")
        return cls.class_for(type(config))(config, **options)


class AutoModel(_Auto):
    """The base model without a head."""

    classes = (
        model.RobertaPreLayerNormModel,
        roberta.RobertaModel,
        roberta.XLMRobertaModel,
        roberta.CamembertModel,
        bert.BertModel,
    )


class AutoModelForCausalLM(_Auto):
    """The model with a causal LM head."""

    classes = (
        language_models.RobertaPreLayerNormForCausalLM,
        roberta.RobertaForCausalLM,
        roberta.XLMRobertaForCausalLM,
        roberta.CamembertForCausalLM,
        bert.BertLMHeadModel,
    )


class AutoModelForMaskedLM(_Auto):
    """The model with a masked LM head."""

    classes = (
        language_models.RobertaPreLayerNormForMaskedLM,
        roberta.RobertaForMaskedLM,
        roberta.XLMRobertaForMaskedLM,
        roberta.CamembertForMaskedLM,
        bert.BertForMaskedLM,
    )


class AutoModelForSeq2SeqLM:
    """An encoder-decoder pair."""

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **options: Any) -> EncoderDecoderModel:
        """As `EncoderDecoderModel.from_pretrained`."""
        return EncoderDecoderModel.from_pretrained(path, **options)

    @classmethod
    def from_config(cls, config: EncoderDecoderConfig, **options: Any) -> EncoderDecoderModel:
        """A pair with fresh weights; options ``rng`` and ``dtype``."""
        return EncoderDecoderModel(config, **options)


class AutoModelForSequenceClassification(_Auto):
    """The model with a sequence classification head."""

    classes = (
        classifiers.RobertaPreLayerNormForSequenceClassification,
        roberta.RobertaForSequenceClassification,
        roberta.XLMRobertaForSequenceClassification,
        roberta.CamembertForSequenceClassification,
        bert.BertForSequenceClassification,
    )


class AutoModelForMultipleChoice(_Auto):
    """The model with a multiple choice head."""

    classes = (
        classifiers.RobertaPreLayerNormForMultipleChoice,
        roberta.RobertaForMultipleChoice,
        roberta.XLMRobertaForMultipleChoice,
        roberta.CamembertForMultipleChoice,
        bert.BertForMultipleChoice,
    )


class AutoModelForTokenClassification(_Auto):
    """The model with a token classification head."""

    classes = (
        classifiers.RobertaPreLayerNormForTokenClassification,
        roberta.RobertaForTokenClassification,
        roberta.XLMRobertaForTokenClassification,
        roberta.CamembertForTokenClassification,
        bert.BertForTokenClassification,
    )


class AutoModelForQuestionAnswering(_Auto):
    """The model with a question answering head."""

    classes = (
        classifiers.RobertaPreLayerNormForQuestionAnswering,
        roberta.RobertaForQuestionAnswering,
        roberta.XLMRobertaForQuestionAnswering,
        roberta.CamembertForQuestionAnswering,
        bert.BertForQuestionAnswering,
    )


_AUTO: dict[type[BodyModel], type[_Auto]] = {
    auto.classes[0]: auto
    for auto in (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        AutoModelForMultipleChoice,
        AutoModelForTokenClassification,
        AutoModelForQuestionAnswering,
    )
}


def load_as(model_class: type[BodyModel], path: str | os.PathLike[str], **options: Any) -> BodyModel:
    """Load a checkpoint as the class of its own model type that does what the RobertaPreLayerNorm class does."""
    model: BodyModel = _AUTO[model_class].from_pretrained(path, **options)
    return model
