"""The configuration of an encoder-decoder pair: those of its two parts, and what only the pair has."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .config import RobertaPreLayerNormConfig
from .config_checks import CHECKS
from .errors import CheckpointNotFoundError, ConfigError
from .files import read_json, write_json

_OWN = ("pad_token_id", "decoder_start_token_id")
_WRITTEN = ("model_type", "is_encoder_decoder")  # always the same, so not kept in `extra`


@dataclass(kw_only=True)
class EncoderDecoderConfig:
    """Configuration of an `EncoderDecoderModel`.

    Parameters
    ----------
    encoder, decoder : RobertaPreLayerNormConfig or dict
        Of the two parts. The decoder's ``is_decoder`` and ``add_cross_attention`` must be set, the encoder's not.
    pad_token_id : int, optional
        What replaces -100 where labels become the decoder's input, and what is hidden from the decoder there.
    decoder_start_token_id : int, optional
        What the decoder's input begins with. Needed for labels, and (or the begin token) for `generate`.
    extra : dict
        Every other key of a ``config.json``; kept, readable as attributes, and written back.

    Raises
    ------
    ConfigError
        For a value that is not allowed, or parts that do not fit each other.
    """

    model_type: ClassVar[str] = "encoder-decoder"

    encoder: RobertaPreLayerNormConfig
    decoder: RobertaPreLayerNormConfig
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.encoder = _part("encoder", self.encoder)
        self.decoder = _part("decoder", self.decoder)
        self.validate()

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, CHECKS["pad_token_id"](name, value) if name in _OWN else value)

    def __getattr__(self, name: str) -> Any:
        extra = self.__dict__.get("extra", {})  # only called when normal lookup fails
        if name in extra:
            return extra[name]
        raise AttributeError(f"the configuration of the pair has no field {name!r}")

    @classmethod
    def from_encoder_decoder_configs(
        cls, encoder: RobertaPreLayerNormConfig, decoder: RobertaPreLayerNormConfig, **values: Any
    ) -> EncoderDecoderConfig:
        """Of two configurations, which are copied; the second is made a decoder with cross-attention."""
        values_of_decoder = decoder.to_dict() | {"is_decoder": True, "add_cross_attention": True}
        return cls.from_dict(values | {"encoder": encoder.to_dict(), "decoder": values_of_decoder})

    @property
    def has_projection(self) -> bool:
        """Whether the encoder's states have another width than the decoder's, and are mapped to it."""
        return self.encoder.hidden_size != self.decoder.hidden_size

    def validate(self) -> None:
        """Check the rules that concern both parts.

        Raises
        ------
        ConfigError
            Names the fields, their values and what to change.
        """
        for name in ("is_decoder", "add_cross_attention"):
            if not getattr(self.decoder, name):
                raise ConfigError(f"decoder.{name} is False; the decoder of a pair needs {name}=True")
            if getattr(self.encoder, name):
                raise ConfigError(f"encoder.{name} is True; the encoder of a pair needs {name}=False")
        width = self.decoder.extra.get("cross_attention_hidden_size")
        if width is not None and width != self.decoder.hidden_size:
            raise ConfigError(
                f"decoder.cross_attention_hidden_size is {width!r}, but cross-attention of this architecture reads "
                f"states of the decoder's own width, {self.decoder.hidden_size}: remove it"
            )
        if width is not None and self.has_projection:
            raise ConfigError(
                f"decoder.cross_attention_hidden_size is {width!r}, but the encoder's hidden_size is "
                f"{self.encoder.hidden_size}: remove it, and the states are projected"
            )
        if self.extra.get("tie_encoder_decoder"):
            raise ConfigError(
                "tie_encoder_decoder is True, which this package does not have; save the checkpoint with "
                "tie_encoder_decoder=False, so that it holds both parts"
            )

    def to_dict(self) -> dict[str, Any]:
        """All fields and unknown keys as JSON can hold them."""
        return copy.deepcopy(self.extra) | {
            "model_type": self.model_type,
            "is_encoder_decoder": True,
            "encoder": self.encoder.to_dict(),
            "decoder": self.decoder.to_dict(),
            "pad_token_id": self.pad_token_id,
            "decoder_start_token_id": self.decoder_start_token_id,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> EncoderDecoderConfig:
        """Build a configuration from the content of a ``config.json``, some of its keys replaced.

        Raises
        ------
        ConfigError
            If it is not that of a pair of this architecture, or for a bad value.
        """
        model_type = values.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ConfigError(f"model_type is {model_type!r}; an encoder-decoder pair has {cls.model_type!r}")
        merged = {name: copy.deepcopy(value) for name, value in {**values, **overrides}.items() if name not in _WRITTEN}
        for name in ("encoder", "decoder"):
            if name not in merged:
                raise ConfigError(
                    f"the configuration of a pair has no {name!r}; it needs both an encoder and a decoder"
                )
        fields = {name: merged.pop(name) for name in ("encoder", "decoder", *_OWN) if name in merged}
        return cls(**fields, extra=merged)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **overrides: Any) -> EncoderDecoderConfig:
        """Read ``config.json`` from a folder (or the file itself).

        Raises
        ------
        CheckpointNotFoundError, CheckpointFormatError
            If there is no such file, or it is not valid JSON.
        ConfigError
            As from `from_dict`.
        """
        place = Path(path)
        place = place / "config.json" if place.is_dir() else place
        if not place.exists():
            raise CheckpointNotFoundError(f"{place} does not exist; name a folder that holds a checkpoint")
        values = read_json(place)
        try:
            return cls.from_dict(values, **overrides)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` into `folder` (made if missing), atomically."""
        write_json(Path(folder) / "config.json", self.to_dict())


def _part(name: str, value: Any) -> RobertaPreLayerNormConfig:
    if isinstance(value, RobertaPreLayerNormConfig):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is a {type(value).__name__}; give a RobertaPreLayerNormConfig, or a dict of one")
    model_type = value.get("model_type", RobertaPreLayerNormConfig.model_type)
    if model_type != RobertaPreLayerNormConfig.model_type:
        raise ConfigError(
            f"the {name}'s model_type is {model_type!r}; this package has pairs of "
            f"{RobertaPreLayerNormConfig.model_type!r} alone"
        )
    try:
        return RobertaPreLayerNormConfig.from_dict(dict(value))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
