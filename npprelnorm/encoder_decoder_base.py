"""What an encoder-decoder pair has besides its forward: fresh weights, its two parts, loading, saving."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .arguments import random_generator
from .encoder_decoder_config import EncoderDecoderConfig
from .errors import CheckpointMismatchError, InputError
from .generation.settings import GenerationSettings
from .language_models import RobertaPreLayerNormForCausalLM
from .model import RobertaPreLayerNormModel
from .params import Params, Shapes, initial, linear_shapes
from .pretrained import compute_dtype
from .stored import checked_weight_dtype

ENCODER, DECODER, PROJECTION = "encoder.", "decoder.", "enc_to_dec_proj"

M = TypeVar("M", bound="PreTrainedPair")


class PreTrainedPair:
    """Base of `EncoderDecoderModel`, where the attributes are described."""

    config: EncoderDecoderConfig
    params: Params
    dtype: np.dtype[np.floating]
    weight_dtype: str = "float32"  # of both parts
    generation_config: GenerationSettings

    def __init__(
        self, config: EncoderDecoderConfig, *, rng: int | np.random.Generator = 0, dtype: str = "float32"
    ) -> None:
        config.validate()
        generator, kind = random_generator(rng), compute_dtype(dtype)
        parts = (
            RobertaPreLayerNormModel(config.encoder, rng=generator, dtype=dtype),
            RobertaPreLayerNormForCausalLM(config.decoder, rng=generator, dtype=dtype),
        )
        self._adopt(config, joined(*parts, projection(config, generator, kind)), kind)

    def _adopt(self, config: EncoderDecoderConfig, params: Params, dtype: np.dtype[np.floating]) -> None:
        self.config = copy.deepcopy(config)
        self.params = params
        self.dtype = dtype
        # as transformers looks for them: in the configuration of the pair, and else in the decoder's
        self.generation_config = GenerationSettings.from_model_config({**config.decoder.extra, **config.extra})

    @property
    def encoder(self) -> RobertaPreLayerNormModel:
        """The encoder as a model of its own, with the same arrays."""
        part = RobertaPreLayerNormModel.__new__(RobertaPreLayerNormModel)
        part.config, part.params, part.dtype = self.config.encoder, inside(self.params, ENCODER), self.dtype
        part.weight_dtype = self.weight_dtype
        return part

    @property
    def decoder(self) -> RobertaPreLayerNormForCausalLM:
        """The decoder as a model of its own, with the same arrays."""
        part = RobertaPreLayerNormForCausalLM.__new__(RobertaPreLayerNormForCausalLM)
        part.config, part.params, part.dtype = self.config.decoder, inside(self.params, DECODER), self.dtype
        part.weight_dtype = self.weight_dtype
        part.generation_config = self.generation_config
        return part

    @classmethod
    def shapes(cls, config: EncoderDecoderConfig, *, pooler: bool) -> Shapes:
        """Names and shapes of the parameters for a configuration; `pooler` is the encoder's, which nothing uses."""
        encoder = RobertaPreLayerNormModel.shapes(config.encoder, pooler=pooler)
        decoder = RobertaPreLayerNormForCausalLM.shapes(config.decoder, pooler=False)
        shapes = {ENCODER + name: shape for name, shape in encoder.items()}
        shapes |= {DECODER + name: shape for name, shape in decoder.items()}
        if config.has_projection:
            shapes |= linear_shapes(PROJECTION, config.encoder.hidden_size, config.decoder.hidden_size)
        return shapes

    @classmethod
    def from_params(
        cls: type[M], config: EncoderDecoderConfig, params: Mapping[str, Any], *, dtype: str = "float32"
    ) -> M:
        """Build a pair around given parameters; arrays that have the right dtype are not copied.

        Raises
        ------
        CheckpointMismatchError
            Lists every missing, unexpected and mis-shaped parameter.
        """
        config.validate()
        shapes = cls.shapes(config, pooler=ENCODER + "pooler.dense.weight" in params)
        arrays = {name: np.asarray(value) for name, value in params.items()}
        problems = [f"missing: {name}" for name in shapes if name not in arrays]
        problems += [f"unexpected: {name}" for name in arrays if name not in shapes]
        problems += [
            f"{name} has shape {arrays[name].shape} and dtype {arrays[name].dtype}, expected numbers of shape {shape}"
            for name, shape in shapes.items()
            if name in arrays and (arrays[name].shape != shape or arrays[name].dtype.kind not in "fiu")
        ]
        if problems:
            raise CheckpointMismatchError(f"the parameters do not fit {cls.__name__}: {'; '.join(problems)}")
        model = cls.__new__(cls)
        kind = compute_dtype(dtype)
        model._adopt(config, {name: arrays[name].astype(kind, copy=False) for name in shapes}, kind)
        return model

    @classmethod
    def from_encoder_decoder_pretrained(
        cls: type[M],
        encoder: str | os.PathLike[str] | RobertaPreLayerNormModel,
        decoder: str | os.PathLike[str] | RobertaPreLayerNormForCausalLM,
        *,
        dtype: str = "float32",
        rng: int | np.random.Generator = 0,
        **options: Any,
    ) -> M:
        """Join two checkpoints, or models. What a decoder lacks is drawn fresh, with a warning: train it before use.

        Parameters
        ----------
        encoder, decoder : path, hub id or model
            Of any kind of checkpoint of this architecture: the one is read without a head, the other as a decoder with
            cross-attention.
        dtype : {"float32", "float64"}
            Type that everything is stored and computed in.
        rng : int or numpy.random.Generator
            Source of fresh weights: cross-attention, if the decoder's checkpoint has none, and the projection.
        **options
            Beginning with ``encoder_`` or ``decoder_``: options of loading that part, such as
            ``decoder_num_hidden_layers=2``. Others are fields of the pair's configuration, such as ``pad_token_id``;
            ``decoder_start_token_id`` is one of these.

        Raises
        ------
        CheckpointNotFoundError, CheckpointFormatError, CheckpointMismatchError, ConfigError, InputError
            As from `from_pretrained` of the parts.
        """
        generator, kind = random_generator(rng), compute_dtype(dtype)
        of_part: dict[str, dict[str, Any]] = {"encoder": {}, "decoder": {}}
        for name in [name for name in options if name.startswith((*of_part,)) and name != "decoder_start_token_id"]:
            part, _, option = name.partition("_")
            of_part[part][option] = options.pop(name)
        if isinstance(encoder, str | os.PathLike):
            flags: dict[str, Any] = {"is_decoder": False, "add_cross_attention": False}
            more = {"dtype": dtype, "rng": generator, **flags, **of_part["encoder"]}
            encoder = RobertaPreLayerNormModel.from_pretrained(encoder, **more)
        if isinstance(decoder, str | os.PathLike):
            flags = {"is_decoder": True, "add_cross_attention": True}
            more = {"dtype": dtype, "rng": generator, **flags, **of_part["decoder"]}
            decoder = RobertaPreLayerNormForCausalLM.from_pretrained(decoder, **more)
        _require_model("encoder", encoder, RobertaPreLayerNormModel)
        _require_model("decoder", decoder, RobertaPreLayerNormForCausalLM)
        config = EncoderDecoderConfig(encoder=encoder.config, decoder=decoder.config)
        config = EncoderDecoderConfig.from_dict(config.to_dict(), **options)
        return cls.from_params(config, joined(encoder, decoder, projection(config, generator, kind)), dtype=dtype)

    @classmethod
    def from_pretrained(
        cls: type[M],
        path: str | os.PathLike[str],
        *,
        dtype: str = "float32",
        weight_dtype: str = "float32",
        revision: str | None = None,
        local_files_only: bool = False,
        allow_convert_pr: bool = False,
        init_missing: bool | None = None,
        ignore_mismatched_sizes: bool = False,
        tied_weights: str = "v5",
        rng: int | np.random.Generator = 0,
        **config_overrides: Any,
    ) -> M:
        """Load a checkpoint of a pair, as transformers' EncoderDecoderModel saves it.

        Parameters and errors are those of `RobertaPreLayerNormModel.from_pretrained`; `config_overrides` are fields of
        the pair's configuration, such as ``decoder_start_token_id``.
        """
        from .checkpoint.load_pair import load_pair

        checked_weight_dtype(weight_dtype)
        pair = load_pair(
            cls,
            path,
            dtype=compute_dtype(dtype),
            revision=revision,
            local_files_only=local_files_only,
            allow_convert_pr=allow_convert_pr,
            init_missing=init_missing,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            tied_weights=tied_weights,
            rng=random_generator(rng),
            config_overrides=config_overrides,
        )
        encoder, decoder = pair.encoder, pair.decoder
        encoder._store_weights(weight_dtype)
        decoder._store_weights(encoder.weight_dtype)  # float32 where that could not be
        pair.weight_dtype = encoder.weight_dtype
        return pair

    def save_pretrained(self, folder: str | os.PathLike[str], *, max_shard_size: int | str = "5GB") -> None:
        """Write ``config.json``, ``generation_config.json`` and ``model.safetensors`` (or shards) into a folder.

        transformers' EncoderDecoderModel loads the folder to the same numbers.
        """
        from .checkpoint.sharded import write_sharded

        config = copy.deepcopy(self.config)
        config.extra |= {"architectures": [type(self).__name__], "dtype": self.dtype.name}
        write_sharded(folder, self.params, max_shard_size=max_shard_size)
        config.save_pretrained(folder)
        settings = self.generation_config.complete(config.decoder)
        settings.completed(decoder_start_token_id=config.decoder_start_token_id).save_pretrained(folder)

    def _read_beside(self, folder: Path, overrides: Mapping[str, Any]) -> None:
        """Take from a checkpoint folder what it holds besides configuration and weights."""
        own = GenerationSettings.of_folder(folder, self.config.decoder.eos_token_id, overrides)
        if own is not None:
            self.generation_config = own

    def num_parameters(self) -> int:
        """How many numbers the parameters hold; tied ones count once."""
        return sum(value.size for value in self.params.values())

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.num_parameters():,} parameters, {self.dtype.name}, "
            f"encoder={self.encoder!r}, decoder={self.decoder!r})"
        )


def inside(params: Params, prefix: str) -> Params:
    """The parameters of one part, by its own names."""
    return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}


def joined(encoder: RobertaPreLayerNormModel, decoder: RobertaPreLayerNormForCausalLM, own: Params) -> Params:
    """The parameters of two parts, and what the pair has of its own, by the pair's names."""
    return (
        {ENCODER + name: value for name, value in encoder.params.items()}
        | {DECODER + name: value for name, value in decoder.params.items()}
        | own
    )


def projection(config: EncoderDecoderConfig, rng: np.random.Generator, dtype: np.dtype[np.floating]) -> Params:
    """A fresh map from the encoder's width to the decoder's, where they differ."""
    if not config.has_projection:
        return {}
    shapes = linear_shapes(PROJECTION, config.encoder.hidden_size, config.decoder.hidden_size)
    return {name: initial(name, shape, config.decoder, rng, dtype) for name, shape in shapes.items()}


def _require_model(name: str, value: Any, cls: type[Any]) -> None:
    if type(value) is not cls:
        raise InputError(f"{name} is a {type(value).__name__}; give a path, a hub id or a {cls.__name__}")
