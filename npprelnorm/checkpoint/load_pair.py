"""From a checkpoint folder to an encoder-decoder pair: each part is loaded as it would be from a folder of its own."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..encoder_decoder_config import EncoderDecoderConfig
from ..errors import CheckpointMismatchError, CheckpointWarning
from ..language_models import RobertaPreLayerNormForCausalLM
from ..model import RobertaPreLayerNormModel
from ..params import Params
from .folder import open_tensors
from .hub import resolve
from .load import check_tied_weights, load_open
from .tensors import TensorFile, TensorInfo

if TYPE_CHECKING:
    from ..encoder_decoder_base import PreTrainedPair

M = TypeVar("M", bound="PreTrainedPair")


class PartOfFile:
    """The tensors of a file whose names begin with a prefix, without it."""

    def __init__(self, file: TensorFile, prefix: str) -> None:
        self.file, self.prefix = file, prefix
        self.path, self.metadata = file.path, file.metadata

    def names(self) -> list[str]:
        """Names of all tensors of the part, in file order."""
        return [name.removeprefix(self.prefix) for name in self.file.names() if name.startswith(self.prefix)]

    def info(self, name: str) -> TensorInfo:
        """Element type and shape of one tensor."""
        return self.file.info(self.prefix + name)

    def read(self, name: str) -> np.ndarray:
        """The numbers of one tensor, read-only."""
        return self.file.read(self.prefix + name)

    def close(self) -> None:
        """Nothing: the whole file is closed by whom opened it."""


def load_pair(
    cls: type[M],
    path: str | os.PathLike[str],
    *,
    dtype: np.dtype[np.floating],
    revision: str | None,
    local_files_only: bool,
    allow_convert_pr: bool,
    init_missing: bool | None,
    ignore_mismatched_sizes: bool,
    tied_weights: str,
    rng: np.random.Generator,
    config_overrides: dict[str, Any],
) -> M:
    """Load `cls` from a folder or hub id; arguments and errors as in `PreTrainedModel.from_pretrained`."""
    from ..encoder_decoder_base import DECODER, ENCODER, joined, projection

    check_tied_weights(tied_weights)
    folder = resolve(path, revision=revision, local_files_only=local_files_only, allow_convert_pr=allow_convert_pr)
    config = EncoderDecoderConfig.from_pretrained(folder, **config_overrides)
    file = open_tensors(folder)
    try:
        options = (dtype, init_missing, ignore_mismatched_sizes, tied_weights, rng)
        parts = (PartOfFile(file, ENCODER), PartOfFile(file, DECODER))
        for part in parts:
            if not part.names():
                raise CheckpointMismatchError(
                    f"{folder} holds no tensor named {part.prefix}*, so it is no encoder-decoder checkpoint; "
                    "EncoderDecoderModel.from_encoder_decoder_pretrained joins two others"
                )
        encoder = load_open(RobertaPreLayerNormModel, parts[0], Path(f"{folder} (encoder)"), config.encoder, *options)
        decoder = load_open(
            RobertaPreLayerNormForCausalLM, parts[1], Path(f"{folder} (decoder)"), config.decoder, *options
        )
        own = _projection(file, folder, projection(config, rng, dtype), init_missing)
        others = [n for n in file.names() if not n.startswith((ENCODER, DECODER)) and n not in own]
        if others:
            warnings.warn(
                f"{folder} as {cls.__name__}: in the file but not used: {', '.join(sorted(others)[:8])}",
                CheckpointWarning,
                stacklevel=4,
            )
    finally:
        file.close()
    config.encoder, config.decoder = encoder.config, decoder.config
    model = cls.from_params(config, joined(encoder, decoder, own), dtype=dtype.name)
    model._read_beside(folder, config_overrides)
    return model


def _projection(file: TensorFile, folder: Path, fresh: Params, init_missing: bool | None) -> Params:
    """The projection of the file; `fresh` where it has none and that is allowed."""
    names = set(file.names())
    missing = [name for name in fresh if name not in names]
    if missing and not init_missing:
        raise CheckpointMismatchError(
            f"{folder} lacks {', '.join(missing)}, though its encoder and decoder differ in width "
            "(init_missing=True draws them fresh)"
        )
    if missing:
        warnings.warn(
            f"{folder}: drawn fresh, train it before use: {', '.join(missing)}", CheckpointWarning, stacklevel=5
        )
    result = {}
    for name, value in fresh.items():
        if name in missing:
            result[name] = value
            continue
        info = file.info(name)
        if info.shape != value.shape:
            raise CheckpointMismatchError(f"{name} in {folder} has shape {info.shape}, expected {value.shape}")
        array = file.read(name)
        if array.dtype.kind != "f":
            raise CheckpointMismatchError(f"{name} in {folder} has dtype {info.dtype}; weights must be floats")
        result[name] = array.astype(value.dtype, copy=False)
    return result
