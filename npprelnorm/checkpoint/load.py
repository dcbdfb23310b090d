"""From a checkpoint folder to a model: check the architecture, map names, tie weights, report what does not fit."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..config import RobertaPreLayerNormConfig
from ..errors import CheckpointMismatchError, CheckpointWarning, InputError
from ..family import POST_LN, Family
from ..params import Params, Shapes, initial
from . import names
from .folder import open_tensors
from .hub import resolve
from .model_types import CONFIGS, refuse_pair
from .tensors import TensorFile, TensorInfo

if TYPE_CHECKING:
    from ..pretrained import PreTrainedModel

M = TypeVar("M", bound="PreTrainedModel")

_SHOWN = 8


def load(
    cls: type[M],
    path: str | os.PathLike[str],
    *,
    config: RobertaPreLayerNormConfig | None,
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
    check_tied_weights(tied_weights)
    folder = resolve(path, revision=revision, local_files_only=local_files_only, allow_convert_pr=allow_convert_pr)
    if config is None:
        config = cls.config_class.from_pretrained(folder, **config_overrides)
    else:
        config = cls.config_class.from_dict(config.to_dict(), **config_overrides)
    file = open_tensors(folder)
    try:
        model = load_open(cls, file, folder, config, dtype, init_missing, ignore_mismatched_sizes, tied_weights, rng)
    finally:
        file.close()
    model._read_beside(folder, config_overrides)
    return model


def check_tied_weights(value: str) -> None:
    """Raise an `InputError` for anything but the two readings."""
    if value not in ("v5", "v4"):
        raise InputError(f"tied_weights is {value!r}; allowed: 'v5', 'v4'")


def check_architecture(folder: Path, config: RobertaPreLayerNormConfig, found: names.Layout) -> None:
    """Refuse what is of another order than `config`; the model type and the tensor names must tell the same story.

    Raises
    ------
    CheckpointMismatchError
        Says what the checkpoint is instead.
    """
    model_type = config.extra.get("model_type", config.model_type)
    refuse_pair(folder, model_type)
    if config.family.order is POST_LN:
        _check_post_ln(folder, config, found, model_type)
        return
    if found.order == "post-LN":
        raise CheckpointMismatchError(
            f"{folder} is a post-LN checkpoint (model_type {model_type!r}, layers with attention.output.LayerNorm): "
            f"the RobertaPreLayerNorm classes would compute something else with its weights; {_for_post_ln(model_type)}"
        )
    if found.order == "unknown":
        raise CheckpointMismatchError(
            f"{folder} holds no tensor named intermediate.LayerNorm.weight (model_type {model_type!r}): "
            "it is no RoBERTa-PreLayerNorm checkpoint"
        )
    if model_type != config.model_type and not (model_type == "roberta" and found.is_princeton):
        raise CheckpointMismatchError(
            f"{folder} has pre-LN tensor names but model_type {model_type!r} in its config.json; if it really is a "
            f"RoBERTa-PreLayerNorm checkpoint, set model_type to {config.model_type!r} there"
        )


def _for_post_ln(model_type: Any) -> str:
    """What to do with a post-LN checkpoint."""
    types = [name for name, known in CONFIGS.items() if known.family.order is POST_LN]
    if model_type in types:
        return "load it with AutoModel and its like, which pick the class"
    return f"if it is of type {', '.join(types)}, set model_type to that in its config.json and load it with AutoModel"


def _check_post_ln(folder: Path, config: RobertaPreLayerNormConfig, found: names.Layout, model_type: Any) -> None:
    if found.order == "pre-LN":
        raise CheckpointMismatchError(
            f"{folder} is a pre-LN checkpoint (model_type {model_type!r}, layers with intermediate.LayerNorm): the "
            f"{config.model_type} classes are post-LN and would compute something else with its weights; load it with "
            "the RobertaPreLayerNorm classes, or with AutoModel and its like"
        )
    if found.order == "unknown":
        raise CheckpointMismatchError(
            f"{folder} holds no tensor named attention.output.LayerNorm.weight (model_type {model_type!r}): "
            f"it is no {config.model_type} checkpoint"
        )
    if model_type != config.model_type:
        raise CheckpointMismatchError(
            f"{folder} has model_type {model_type!r} in its config.json, but this class is for {config.model_type!r}; "
            "load it with AutoModel and its like, which pick the class"
        )
    own = config.family.prefix
    if found.prefix in {known.family.prefix for known in CONFIGS.values()} - {own}:
        raise CheckpointMismatchError(
            f"{folder} holds tensors named {found.prefix}*, but those of type {model_type!r} are named {own}*: set "
            "model_type in its config.json to what it is, and load it with AutoModel and its like"
        )


def load_open(
    cls: type[M],
    file: TensorFile,
    folder: Path,
    config: RobertaPreLayerNormConfig,
    dtype: np.dtype[np.floating],
    init_missing: bool | None,
    ignore_mismatched_sizes: bool,
    tied_weights: str,
    rng: np.random.Generator,
) -> M:
    """Load `cls` from a file that is open; `folder` is what messages call it."""
    found = names.layout(file.names())
    check_architecture(folder, config, found)
    config.extra.pop("model_type", None)  # checked; from here on it is this package's own

    family = config.family
    source = Source(file, found.prefix, family)
    has_lm_head = family.lm_head.bias in cls.head_shapes(config)
    if has_lm_head:
        config = resolve_ties(source, config, tied_weights, folder)
    pooler = family.prefix + "pooler.dense.weight" in source.names if cls.pooler is None else cls.pooler
    if cls.pooler is None and init_missing:
        pooler = True
    shapes = cls.shapes(config, pooler=pooler)

    # a base model's own names carry no prefix
    canonical = {name: names.canonical(name, cls.base_prefix, family.prefix) or name for name in shapes}
    missing = [name for name, origin in canonical.items() if origin not in source.names]
    misshapen = [n for n, origin in canonical.items() if n not in missing and source.info(origin).shape != shapes[n]]
    unexpected = sorted(set(source.names) - set(canonical.values()))
    head_root = family.lm_head.bias.partition(".")[0] + "."
    unexpected = [name for name in unexpected if has_lm_head or not name.startswith(head_root)]
    unexpected = [name for name in unexpected if not name.startswith(family.pretraining_only)]
    _report(
        cls, folder, source, canonical, shapes, missing, misshapen, unexpected, init_missing, ignore_mismatched_sizes
    )

    fresh = {*missing, *misshapen}
    params: Params = {
        name: initial(name, shape, config, rng, dtype) if name in fresh else source.read(canonical[name], dtype)
        for name, shape in shapes.items()
    }
    return cls.from_params(config, params, dtype=dtype.name)


class Source:
    """The tensors of a file under their canonical names; several names may share one tensor."""

    def __init__(self, file: TensorFile, prefix: str, family: Family) -> None:
        self.file = file
        self.names: dict[str, str] = {}  # canonical name -> name in the file
        for name in file.names():
            own = names.canonical(name, prefix, family.prefix)
            if own is None:
                continue
            if own in self.names:
                raise CheckpointMismatchError(
                    f"{file.path} holds both {self.names[own]} and {name}, which are one parameter ({own}); remove one"
                )
            self.names[own] = name

    def info(self, name: str) -> TensorInfo:
        """Element type and shape."""
        return self.file.info(self.names[name])

    def read(self, name: str, dtype: np.dtype[np.floating]) -> np.ndarray:
        """The numbers in the compute dtype; a view of the mapped file where nothing has to change."""
        array = self.file.read(self.names[name])
        if array.dtype.kind != "f":
            raise CheckpointMismatchError(
                f"{self.names[name]} in {self.file.path} has dtype {self.info(name).dtype}; weights must be floats"
            )
        return array.astype(dtype, copy=False)

    def drop(self, name: str) -> None:
        """Forget a name."""
        self.names.pop(name, None)

    def alias(self, name: str, other: str) -> None:
        """Let `name` stand for the tensor of `other`."""
        self.names[name] = self.names[other]

    def same(self, one: str, other: str) -> bool:
        """Whether two tensors hold the same numbers."""
        return np.array_equal(self.file.read(self.names[one]), self.file.read(self.names[other]))


def resolve_ties(
    source: Source, config: RobertaPreLayerNormConfig, tied_weights: str, folder: Path
) -> RobertaPreLayerNormConfig:
    """Leave one name for each live weight of the LM head; where copies differ, decide by `tied_weights` and say so."""
    here = source.names
    head = config.family.lm_head
    embedding = config.family.prefix + "embeddings.word_embeddings.weight"
    decoder, decoder_bias = head.decoder + ".weight", head.decoder + ".bias"
    both = decoder in here and embedding in here
    if config.tie_word_embeddings and both and not source.same(decoder, embedding):
        if tied_weights == "v5":
            config = copy.deepcopy(config)
            config.tie_word_embeddings = False
            what = "both are kept and the model is untied, as in transformers 5 (tied_weights='v4': the embeddings win)"
        else:
            what = "the embeddings are used, as in transformers 4 (tied_weights='v5': both are kept)"
        warnings.warn(
            f"{folder} says tie_word_embeddings, but its {decoder} and word embeddings differ: {what}",
            CheckpointWarning,
            stacklevel=5,
        )
    if config.tie_word_embeddings:
        # one bias: the decoder's own is the live one in both versions where a file has two
        if decoder_bias in here:
            if head.bias in here and not source.same(decoder_bias, head.bias):
                warnings.warn(
                    f"{folder} holds a {decoder_bias} and a {head.bias} that differ: the first is used",
                    CheckpointWarning,
                    stacklevel=5,
                )
            source.alias(head.bias, decoder_bias)
        source.drop(decoder)
        source.drop(decoder_bias)
    else:
        for name, other in ((decoder_bias, head.bias), (head.bias, decoder_bias)):
            if name not in here and other in here:
                source.alias(name, other)
    return config


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _report(
    cls: type[PreTrainedModel],
    folder: Path,
    source: Source,
    canonical: dict[str, str],
    shapes: Shapes,
    missing: list[str],
    misshapen: list[str],
    unexpected: list[str],
    init_missing: bool | None,
    ignore_mismatched_sizes: bool,
) -> None:
    """Raise for what makes the model useless, warn of the rest: all at once."""

    def may_be_fresh(name: str) -> bool:
        if init_missing is not None:
            return init_missing
        in_body = canonical[name].startswith(cls.config_class.family.prefix)
        return not in_body or "crossattention" in name or "pooler" in name

    lacking = [name for name in missing if not may_be_fresh(name)]
    problems = []
    if lacking:
        hint = "" if init_missing is False else " (init_missing=True draws them fresh)"
        problems.append(f"missing: {_listed(lacking)}{hint}")
    if misshapen and not ignore_mismatched_sizes:
        pairs = [f"{n} is {source.info(canonical[n]).shape}, the configuration says {shapes[n]}" for n in misshapen]
        problems.append(f"of another shape: {_listed(pairs)} (ignore_mismatched_sizes=True draws them fresh)")
    if problems:
        if unexpected:
            problems.append(f"not used: {_listed(unexpected)}")
        raise CheckpointMismatchError(f"{folder} does not fit {cls.__name__}; {'; '.join(problems)}")
    notes = []
    if missing:
        notes.append(f"drawn fresh, train it before use: {_listed(missing)}")
    if misshapen:
        notes.append(f"of another shape and drawn fresh: {_listed(misshapen)}")
    if unexpected:
        notes.append(f"in the file but not used: {_listed(unexpected)}")
    if notes:
        warnings.warn(f"{folder} as {cls.__name__}: {'; '.join(notes)}", CheckpointWarning, stacklevel=5)
