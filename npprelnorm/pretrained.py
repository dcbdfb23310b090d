"""What every model class has besides its forward: fresh weights, loading, saving, counting, resizing."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from .arguments import random_generator
from .config import RobertaPreLayerNormConfig
from .errors import BackendWarning, CheckpointMismatchError, ConfigError, InputError
from .params import BASE_PREFIX, Params, Shapes, body_shapes, initial
from .stored import checked_weight_dtype

DTYPES = ("float32", "float64")

M = TypeVar("M", bound="PreTrainedModel")


def compute_dtype(dtype: Any) -> np.dtype[np.floating]:
    """The NumPy dtype of a compute type's name.

    Raises
    ------
    InputError
        If it is neither float32 nor float64.
    """
    try:
        name = np.dtype(dtype).name if dtype is not None else None  # NumPy takes None for float64
    except (TypeError, ValueError):
        name = None
    if name not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; allowed: 'float32', 'float64' (files may hold float16 or bfloat16)")
    return np.dtype(name)


class PreTrainedModel:
    """Base of the model classes; see each class for what it computes.

    Parameters
    ----------
    config : RobertaPreLayerNormConfig
        Copied; later changes of it do not reach the model.
    rng : int or numpy.random.Generator
        Source of the fresh weights.
    dtype : {"float32", "float64"}
        Type that everything is stored and computed in.

    Attributes
    ----------
    config : RobertaPreLayerNormConfig
    params : dict of str to numpy.ndarray
        Every parameter by its checkpoint name, exactly what `save_pretrained` writes. Loaded ones may be read-only.
    dtype : numpy.dtype
    weight_dtype : str
        How the kernels store the weights of products; see `from_pretrained`.
    """

    config_class: ClassVar[type[RobertaPreLayerNormConfig]] = RobertaPreLayerNormConfig
    base_prefix: ClassVar[str] = BASE_PREFIX
    pooler: ClassVar[bool | None] = False  # None: it may have one or not

    config: RobertaPreLayerNormConfig
    params: Params
    dtype: np.dtype[np.floating]
    weight_dtype: str = "float32"

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "config_class" in cls.__dict__ and cls.base_prefix:  # a base model's names have no prefix in any family
            cls.base_prefix = cls.config_class.family.prefix

    def __init__(
        self, config: RobertaPreLayerNormConfig, *, rng: int | np.random.Generator = 0, dtype: str = "float32"
    ) -> None:
        self._draw(config, bool(self.pooler), rng, dtype)

    def _draw(
        self, config: RobertaPreLayerNormConfig, pooler: bool, rng: int | np.random.Generator, dtype: str
    ) -> None:
        generator = random_generator(rng)
        self._check_config(config)
        kind = compute_dtype(dtype)
        shapes = self.shapes(config, pooler=pooler)
        self._adopt(config, {n: initial(n, s, config, generator, kind) for n, s in shapes.items()}, kind)

    @classmethod
    def _check_config(cls, config: RobertaPreLayerNormConfig) -> None:
        own = cls.config_class
        if getattr(config, "model_type", None) != own.model_type:
            raise ConfigError(
                f"{cls.__name__} needs a {own.__name__}, not a {type(config).__name__}; make one, or use the class "
                "that goes with it (AutoModel and its like pick it)"
            )
        config.validate()

    def _adopt(self, config: RobertaPreLayerNormConfig, params: Params, dtype: np.dtype[np.floating]) -> None:
        self.config = copy.deepcopy(config)
        self.params = params
        self.dtype = dtype

    @classmethod
    def shapes(cls, config: RobertaPreLayerNormConfig, *, pooler: bool) -> Shapes:
        """Names and shapes of this class's parameters for a configuration."""
        body = {cls.base_prefix + name: shape for name, shape in body_shapes(config, pooler=pooler).items()}
        return body | cls.head_shapes(config)

    @classmethod
    def head_shapes(cls, config: RobertaPreLayerNormConfig) -> Shapes:
        """Names and shapes of what this class has on top of the body."""
        return {}

    @property
    def has_pooler(self) -> bool:
        """Whether there is a pooler: tanh of a linear map of row 0."""
        return self.base_prefix + "pooler.dense.weight" in self.params

    @classmethod
    def from_params(
        cls: type[M], config: RobertaPreLayerNormConfig, params: Mapping[str, Any], *, dtype: str = "float32"
    ) -> M:
        """Build a model around given parameters.

        Parameters
        ----------
        config : RobertaPreLayerNormConfig
        params : mapping of str to array
            Exactly the names and shapes of this class; arrays that have the right dtype are not copied.
        dtype : {"float32", "float64"}

        Raises
        ------
        CheckpointMismatchError
            Lists every missing, unexpected and mis-shaped parameter.
        """
        cls._check_config(config)
        kind = compute_dtype(dtype)
        pooler = cls.base_prefix + "pooler.dense.weight" in params if cls.pooler is None else cls.pooler
        shapes = cls.shapes(config, pooler=pooler)
        arrays = {name: np.asarray(value) for name, value in params.items()}
        problems = [f"missing: {name}" for name in shapes if name not in arrays]
        problems += [f"unexpected: {name}" for name in arrays if name not in shapes]
        problems += [
            f"{name} has shape {arrays[name].shape}, expected {shape}"
            for name, shape in shapes.items()
            if name in arrays and arrays[name].shape != shape
        ]
        problems += [
            f"{n} has dtype {a.dtype}, expected numbers" for n, a in arrays.items() if a.dtype.kind not in "fiu"
        ]
        if problems:
            raise CheckpointMismatchError(f"the parameters do not fit {cls.__name__}: {'; '.join(problems)}")
        model = cls.__new__(cls)
        model._adopt(config, {name: arrays[name].astype(kind, copy=False) for name in shapes}, kind)
        return model

    @classmethod
    def from_pretrained(
        cls: type[M],
        path: str | os.PathLike[str],
        *,
        config: RobertaPreLayerNormConfig | None = None,
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
        """Load a checkpoint folder, or a model of the Hugging Face hub.

        Files of the right dtype are mapped, not copied: their arrays are read-only, and only what is used is read.

        Parameters
        ----------
        path : path or str
            A folder with ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin`` (or their sharded
            forms), or a hub id such as ``"andreasmadsen/efficient_mlm_m0.40"``.
        config : RobertaPreLayerNormConfig, optional
            Used instead of the folder's ``config.json``.
        dtype : {"float32", "float64"}
            Compute type, whatever the file holds.
        weight_dtype : {"float32", "float16", "bfloat16", "int12"}
            How the Numba kernels store the weights of linear maps, the vocabulary projection included: rounded, in half
            the bytes, and widened exactly as they are used ("float16", "bfloat16"), or as whole numbers of 12 bits with
            a scale for each output channel ("int12"), which they multiply by activations that are rounded likewise, row
            by row. Everything else is computed in `dtype`; embeddings are looked up exactly. `params` stay what the
            file holds (mapped, where it holds float32), and are what is saved; gradients are those of `params`, in
            float32. Where the kernels cannot do it (no Numba, the backend "numpy", float64, a processor without the
            instruction) a `BackendWarning` says so once, and weights are float32.
        revision : str, optional
            Branch, tag or commit on the hub.
        local_files_only : bool
            Look only into the hub's local cache.
        allow_convert_pr : bool
            Allow the safetensors file of the hub's conversion bot (``refs/pr/1``) where the main branch has none.
        init_missing : bool, optional
            Whether parameters that the file lacks are drawn fresh, with a warning. By default a head, a multiple
            choice model's pooler and cross-attention are, and a hole in the body is an error; a base model simply
            has no pooler then. True: all are. False: none is.
        ignore_mismatched_sizes : bool
            Draw parameters of another shape fresh, instead of raising.
        tied_weights : {"v5", "v4"}
            How a file is read that holds two different copies of weights its configuration calls tied: as
            transformers 5 reads it (the decoder's copy stays alive, the model is untied) or as 4 does (the
            embeddings win).
        rng : int or numpy.random.Generator
            Source of fresh weights.
        **config_overrides
            Fields of the configuration to change, such as ``num_labels=3`` or ``is_decoder=True``.

        Raises
        ------
        CheckpointNotFoundError, CheckpointFormatError, UnsafeCheckpointError
            If there is no such checkpoint, or its files are damaged or hostile.
        CheckpointMismatchError
            If it is of another architecture, or parameters are missing or mis-shaped: all are listed.
        ConfigError, InputError
            For a bad configuration or argument.
        """
        from .checkpoint.load import load

        checked_weight_dtype(weight_dtype)
        model = load(
            cls,
            path,
            config=config,
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
        model._store_weights(weight_dtype)
        return model

    def _store_weights(self, weight_dtype: str) -> None:
        """Have products store weights so from now on."""
        if weight_dtype == "float32":
            return
        if self.dtype != np.float32:
            warnings.warn(
                f"weight_dtype {weight_dtype!r} is not used, since dtype is {self.dtype.name!r}: weights stay "
                f"{self.dtype.name}; leave dtype at 'float32'",
                BackendWarning,
                stacklevel=3,
            )
            return
        self.weight_dtype = weight_dtype
        for array in self.params.values():  # so that what was packed of them holds without looking at them again
            array.flags.writeable = False

    def save_pretrained(self, folder: str | os.PathLike[str], *, max_shard_size: int | str = "5GB") -> None:
        """Write ``config.json`` and ``model.safetensors`` (or shards and their index) into a folder.

        transformers loads the folder to the same numbers. Each file appears under its name only when it is whole.

        Parameters
        ----------
        folder : path
            Made if missing.
        max_shard_size : int or str
            Largest size of one file, in bytes or as in ``"500MB"``.
        """
        from .checkpoint.sharded import write_sharded

        config = copy.deepcopy(self.config)
        config.architectures = [type(self).__name__]
        config.dtype = self.dtype.name
        write_sharded(folder, self.params, max_shard_size=max_shard_size)
        config.save_pretrained(folder)
        self._write_beside(Path(folder))

    def _read_beside(self, folder: Path, overrides: Mapping[str, Any]) -> None:
        """Take from a checkpoint folder what it holds besides configuration and weights."""

    def _write_beside(self, folder: Path) -> None:
        """Write into a checkpoint folder what it holds besides configuration and weights."""

    def num_parameters(self) -> int:
        """How many numbers the parameters hold; tied ones count once."""
        return sum(value.size for value in self.params.values())

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
        *,
        rng: int | np.random.Generator | None = None,
    ) -> np.ndarray:
        """Change the size of the vocabulary, in the embeddings and in an LM head.

        Kept rows keep their numbers; rows are dropped from the end.

        Parameters
        ----------
        new_num_tokens : int, optional
            New number of rows; by default the present one (to be padded).
        pad_to_multiple_of : int, optional
            Round the size up to a multiple of this.
        mean_resizing : bool
            New rows are the mean of the old ones; otherwise drawn from N(0, initializer_range), biases 0.
        rng : int or numpy.random.Generator, optional
            With `mean_resizing`, scatter the new rows about the mean as transformers does, with 1e-9 times the
            covariance of the old rows; by default they are exactly the mean. Otherwise the source of the draw.

        Returns
        -------
        numpy.ndarray
            The new embedding table, (new size, C).
        """
        from .resizing import resized

        size = self.config.vocab_size if new_num_tokens is None else new_num_tokens
        self.params, self.config.vocab_size, self.config.pad_token_id = resized(
            self.params, self.config, size, pad_to_multiple_of, mean_resizing, rng
        )
        return self.params[self.base_prefix + "embeddings.word_embeddings.weight"]

    def __repr__(self) -> str:
        c = self.config
        stored = "" if self.weight_dtype == "float32" else f", {self.weight_dtype} weights"
        return (
            f"{type(self).__name__}({c.num_hidden_layers} layers x {c.hidden_size}, {c.num_attention_heads} heads, "
            f"vocabulary {c.vocab_size}, {self.num_parameters():,} parameters, {self.dtype.name}{stored})"
        )
