"""The configuration: a checked dataclass, JSON in and out."""

from __future__ import annotations

import copy
import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from .config_checks import CHECKS, check_size, show
from .errors import CheckpointNotFoundError, ConfigError
from .family import BERT, ROBERTA, ROBERTA_PRELAYERNORM, Family
from .files import read_json, write_json

C = TypeVar("C", bound="RobertaPreLayerNormConfig")


@dataclass(kw_only=True)
class RobertaPreLayerNormConfig:
    """Sizes and options of a RoBERTa-PreLayerNorm model, with the defaults of transformers' class.

    The published checkpoints differ from these defaults (``layer_norm_eps`` 1e-05, ``max_position_embeddings`` 514,
    ``type_vocab_size`` 1): always start from a checkpoint's own ``config.json`` where there is one.

    Parameters
    ----------
    vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size : int
        Sizes; ``hidden_size`` must be a multiple of ``num_attention_heads``.
    hidden_act : str
        Activation of the feed-forward blocks, one of `npprelnorm.ops.activations.ACTIVATIONS`. The LM head always
        uses the exact gelu and the pooler always tanh.
    hidden_dropout_prob, attention_probs_dropout_prob, classifier_dropout : float
        Dropout probabilities in [0, 1), used in training only. ``classifier_dropout=None`` means
        ``hidden_dropout_prob``.
    max_position_embeddings : int
        Rows of the position table. A sequence may have ``max_position_embeddings - pad_token_id - 1`` real tokens.
    type_vocab_size : int
        Rows of the token-type table.
    initializer_range : float
        Standard deviation of freshly drawn weights.
    layer_norm_eps : float
        Added to the variance in every LayerNorm.
    pad_token_id, bos_token_id, eos_token_id : int or None
        Special ids; the padding id is also the padding row of the position table.
    position_embedding_type : str
        ``"absolute"``, or (transformers 4 only) ``"relative_key"`` / ``"relative_key_query"``.
    is_decoder, add_cross_attention, use_cache : bool
        Causal attention; cross-attention layers (decoders only); whether a decoder returns its key/value cache.
    tie_word_embeddings : bool
        Whether the LM head's decoder matrix is the word embedding itself.
    chunk_size_feed_forward : int
        Tokens per feed-forward chunk; 0 means all at once.
    num_labels, id2label, label2id, problem_type
        Labels of a classification head. Setting ``num_labels`` rebuilds both maps as ``LABEL_0``, ...;
        ``problem_type`` is None (found out at the first labelled call), ``"regression"``,
        ``"single_label_classification"`` or ``"multi_label_classification"``.
    extra : dict
        Every other key of a ``config.json``; kept, readable as attributes, and written back.

    Raises
    ------
    ConfigError
        For any value that is not allowed, on construction and on assignment; the message names the field, the
        value and what is allowed.
    """

    model_type: ClassVar[str] = "roberta-prelayernorm"
    family: ClassVar[Family] = ROBERTA_PRELAYERNORM

    vocab_size: int = 50265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    position_embedding_type: str = "absolute"
    use_cache: bool = True
    classifier_dropout: float | None = None
    is_decoder: bool = False
    add_cross_attention: bool = False
    tie_word_embeddings: bool = True
    chunk_size_feed_forward: int = 0
    problem_type: str | None = None
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True
    pruned_heads: dict[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    architectures: list[str] | None = None
    # None is replaced on construction: the maps are built from the number, or the number from a map
    id2label: dict[int, str] = None  # type: ignore[assignment]
    label2id: dict[str, int] = None  # type: ignore[assignment]
    num_labels: int = None  # type: ignore[assignment]
    extra: dict[str, Any] = field(default_factory=dict)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "num_labels":
            self._set_num_labels(value)
            return
        if name not in self.__dataclass_fields__ and not hasattr(type(self), name):
            self.extra[name] = value  # kept and saved like the unknown keys of a file
            return
        constructed = "num_labels" in self.__dict__
        if constructed and name in ("id2label", "label2id") and value is None:
            raise ConfigError(f"{name} is None; assign the whole mapping, or num_labels to rebuild both maps")
        check = CHECKS.get(name)
        object.__setattr__(self, name, check(name, value) if check else value)
        if constructed and name == "id2label":  # the other two follow
            object.__setattr__(self, "num_labels", len(self.id2label))
            object.__setattr__(self, "label2id", {label: index for index, label in self.id2label.items()})

    def _set_num_labels(self, value: Any) -> None:
        given = self.__dict__.get("id2label")
        if "num_labels" not in self.__dict__:  # construction: both may be given, and must agree
            if value is None:
                value = len(given) if given is not None else 2
            elif given is not None and value != len(given):
                raise ConfigError(f"num_labels is {show(value)}, but id2label has {len(given)} entries; give one")
        elif value == len(self.id2label):
            return
        else:
            given = None
        count = check_size("num_labels", value)
        labels = given if given is not None else {index: f"LABEL_{index}" for index in range(count)}
        object.__setattr__(self, "num_labels", count)
        object.__setattr__(self, "id2label", labels)
        if given is None or self.__dict__.get("label2id") is None:
            object.__setattr__(self, "label2id", {label: index for index, label in labels.items()})

    def __getattr__(self, name: str) -> Any:
        # only called when normal lookup fails
        extra = self.__dict__.get("extra", {})
        if name in extra:
            return extra[name]
        raise AttributeError(f"the configuration has no field {name!r}")

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Check the rules that concern more than one field.

        Raises
        ------
        ConfigError
            Names the fields, their values and what to change.
        """
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"The hidden size ({self.hidden_size}) is not a multiple of the number of attention heads "
                f"({self.num_attention_heads}); change hidden_size or num_attention_heads"
            )
        pad = self.pad_token_id
        if pad is not None and pad >= self.vocab_size:
            raise ConfigError(
                f"pad_token_id is {pad}; allowed: below vocab_size ({self.vocab_size}), as it is a row of that table"
            )
        padded = self.position_padding_id
        if padded is not None and padded >= self.max_position_embeddings:
            raise ConfigError(
                f"pad_token_id is {padded}; allowed: below max_position_embeddings ({self.max_position_embeddings}), "
                "as it is a row of that table too"
            )
        if self.add_cross_attention and not self.is_decoder:
            raise ConfigError(
                "add_cross_attention is True, but is_decoder is False; a model should be used as a decoder model if "
                "cross attention is added: set is_decoder=True"
            )

    @property
    def head_size(self) -> int:
        """Width D of one attention head: hidden_size / num_attention_heads."""
        return self.hidden_size // self.num_attention_heads

    @property
    def position_padding_id(self) -> int | None:
        """The row of the position table that stands for padding; None where padding has positions like any token."""
        return self.pad_token_id if self.family.positions_after_padding else None

    @property
    def max_tokens(self) -> int:
        """How many real (non-padding) tokens a sequence may have."""
        if self.position_embedding_type != "absolute" or not self.family.positions_after_padding:
            return self.max_position_embeddings
        return self.max_position_embeddings - (self.pad_token_id or 0) - 1

    def to_dict(self) -> dict[str, Any]:
        """All fields and unknown keys as JSON can hold them, ``model_type`` included."""
        result: dict[str, Any] = copy.deepcopy(self.extra)
        for item in dataclasses.fields(self):
            if item.name not in ("extra", "num_labels"):
                result[item.name] = copy.deepcopy(getattr(self, item.name))
        result["id2label"] = {str(index): label for index, label in self.id2label.items()}
        result.setdefault("model_type", self.model_type)
        return result

    @classmethod
    def from_dict(cls: type[C], values: dict[str, Any], **overrides: Any) -> C:
        """Build a configuration from the content of a ``config.json``; keys it does not know go to ``extra``.

        Parameters
        ----------
        values : dict
            As read from JSON; not changed.
        **overrides
            Fields to set instead of the file's; here an unknown name is an error, since it is likely a slip.
            ``num_labels`` replaces the file's label maps.

        Raises
        ------
        ConfigError
            For a bad value or an unknown override.
        """
        known = {item.name for item in dataclasses.fields(cls)} - {"extra"}
        unknown = sorted(set(overrides) - known)
        if unknown:
            fields_ = ", ".join(sorted(known))
            raise ConfigError(f"the configuration has no field {unknown[0]!r}; its fields are {fields_}")
        merged = {**values, **overrides}
        if "torch_dtype" in merged:  # the spelling of transformers 4
            merged.setdefault("dtype", merged.pop("torch_dtype"))
            merged.pop("torch_dtype", None)
        if "num_labels" in overrides and "id2label" not in overrides:
            merged.pop("id2label", None)
            merged.pop("label2id", None)
        if "id2label" in overrides and "num_labels" not in overrides:
            merged.pop("num_labels", None)
            if "label2id" not in overrides:
                merged.pop("label2id", None)
        fields = {name: copy.deepcopy(value) for name, value in merged.items() if name in known}
        extra = {name: copy.deepcopy(value) for name, value in merged.items() if name not in known}
        if extra.get("model_type") == cls.model_type:
            del extra["model_type"]  # what `to_dict` writes anyway
        return cls(**fields, extra=extra)

    @classmethod
    def from_pretrained(cls: type[C], path: str | os.PathLike[str], **overrides: Any) -> C:
        """Read ``config.json`` from a folder (or the file itself).

        Parameters
        ----------
        path : path
            A checkpoint folder, or a JSON file.
        **overrides
            As in `from_dict`.

        Raises
        ------
        CheckpointNotFoundError
            If there is no such folder, or no ``config.json`` in it.
        CheckpointFormatError
            If the file is not valid JSON.
        ConfigError
            For a bad value.
        """
        place = Path(path)
        if place.is_dir():
            place = place / "config.json"
            if not place.exists():
                raise CheckpointNotFoundError(f"{path} has no config.json; name a folder that holds a checkpoint")
        elif not place.exists():
            raise CheckpointNotFoundError(f"{path} does not exist; name a checkpoint folder or a config.json")
        values = read_json(place)
        try:
            return cls.from_dict(values, **overrides)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` into `folder` (made if missing), atomically."""
        write_json(Path(folder) / "config.json", self.to_dict())


@dataclass(kw_only=True)
class RobertaConfig(RobertaPreLayerNormConfig):
    """Sizes and options of a RoBERTa model (post-LN); fields as in `RobertaPreLayerNormConfig`."""

    model_type: ClassVar[str] = "roberta"
    family: ClassVar[Family] = ROBERTA


@dataclass(kw_only=True)
class XLMRobertaConfig(RobertaConfig):
    """Sizes and options of an XLM-RoBERTa model (post-LN); fields as in `RobertaPreLayerNormConfig`."""

    model_type: ClassVar[str] = "xlm-roberta"

    vocab_size: int = 30522


@dataclass(kw_only=True)
class CamembertConfig(RobertaConfig):
    """Sizes and options of a CamemBERT model (post-LN); fields as in `RobertaPreLayerNormConfig`."""

    model_type: ClassVar[str] = "camembert"

    vocab_size: int = 30522


@dataclass(kw_only=True)
class BertConfig(RobertaPreLayerNormConfig):
    """Sizes and options of a BERT model (post-LN); fields as in `RobertaPreLayerNormConfig`.

    Positions count all tokens from 0, so that ``max_position_embeddings`` is how many tokens a sequence may have. The
    LM head uses ``hidden_act``, as the feed-forward blocks do.
    """

    model_type: ClassVar[str] = "bert"
    family: ClassVar[Family] = BERT

    vocab_size: int = 30522
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
