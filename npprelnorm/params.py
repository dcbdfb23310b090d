"""Parameters: one flat dict per model, keyed by the exact checkpoint names, arrays laid out as in the checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from .config import RobertaPreLayerNormConfig
from .family import Order

BASE_PREFIX = "roberta_prelayernorm."

Shapes = dict[str, tuple[int, ...]]
Params = dict[str, np.ndarray]


class View:
    """A flat dict of parameters seen from inside one prefix: ``View(params, "pooler.")["dense.weight"]``.

    `weight_dtype` is how products are to store the weights that they take from it; see `stored.affine`.
    """

    __slots__ = ("params", "prefix", "weight_dtype")

    def __init__(self, params: Mapping[str, np.ndarray], prefix: str = "", weight_dtype: str = "float32") -> None:
        self.params = params
        self.prefix = prefix
        self.weight_dtype = weight_dtype

    def __getitem__(self, name: str) -> np.ndarray:
        return self.params[self.prefix + name]

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.params

    def at(self, prefix: str) -> View:
        """The view one step further in."""
        return View(self.params, self.prefix + prefix, self.weight_dtype)

    def affine(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias of the linear map or LayerNorm called `name`."""
        return self[name + ".weight"], self[name + ".bias"]


def linear_shapes(name: str, inputs: int, outputs: int) -> Shapes:
    """Weight (out, in) and bias (out,) of a linear map."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm_shapes(name: str, width: int) -> Shapes:
    """Weight and bias of a LayerNorm."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _attention_shapes(name: str, width: int, order: Order) -> Shapes:
    shapes = norm_shapes(f"{name}.{order.attention_norm}", width)
    for part in ("self.query", "self.key", "self.value", "output.dense"):
        shapes |= linear_shapes(f"{name}.{part}", width, width)
    return shapes


def body_shapes(config: RobertaPreLayerNormConfig, *, pooler: bool) -> Shapes:
    """Names and shapes of the base model's parameters, without a prefix."""
    width = config.hidden_size
    positions = config.max_position_embeddings
    order = config.family.order
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (config.vocab_size, width),
        "embeddings.position_embeddings.weight": (positions, width),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, width),
        **norm_shapes("embeddings.LayerNorm", width),
    }
    for index in range(config.num_hidden_layers):
        layer = f"encoder.layer.{index}"
        shapes |= _attention_shapes(f"{layer}.attention", width, order)
        if config.position_embedding_type != "absolute":
            table = f"{layer}.attention.self.distance_embedding.weight"
            shapes[table] = (2 * positions - 1, config.head_size)
        if config.add_cross_attention:
            shapes |= _attention_shapes(f"{layer}.crossattention", width, order)
        shapes |= norm_shapes(f"{layer}.{order.feed_forward_norm}", width)
        shapes |= linear_shapes(f"{layer}.intermediate.dense", width, config.intermediate_size)
        shapes |= linear_shapes(f"{layer}.output.dense", config.intermediate_size, width)
    if order.has_final_norm:
        shapes |= norm_shapes("LayerNorm", width)
    if pooler:
        shapes |= linear_shapes("pooler.dense", width, width)
    return shapes


# what of the configuration changes the results of the same parameters, their shapes aside
_MEANING = (
    "model_type",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "position_embedding_type",
    "pad_token_id",
    "is_decoder",
)


def fingerprint(params: Params, config: RobertaPreLayerNormConfig) -> str:
    """Tells models apart: of all names, shapes, types and numbers, and of what the configuration makes of them.

    Every number counts, in a sum over its bits that takes no longer than reading it; some by their place, too.
    """
    digest = hashlib.sha256(repr([getattr(config, name) for name in _MEANING]).encode())
    for name in sorted(params):
        array = np.ascontiguousarray(params[name]).reshape(-1)
        bits = array.view(f"u{array.itemsize}")
        total = int(np.add.reduce(bits, dtype=np.uint64))  # of 2^32 numbers below 2^32, or modulo 2^64
        sample = bits[:: max(1, bits.size // 64)]
        digest.update(f"{name} {params[name].shape} {array.dtype} {total} {sample.tolist()}\n".encode())
    return digest.hexdigest()


def initial(
    name: str,
    shape: tuple[int, ...],
    config: RobertaPreLayerNormConfig,
    rng: np.random.Generator,
    dtype: np.dtype[np.floating],
) -> np.ndarray:
    """A fresh parameter: LayerNorm gains 1, biases 0, all else N(0, initializer_range) with zero padding rows."""
    if name.endswith(("LayerNorm.weight", "layer_norm.weight")):
        return np.ones(shape, dtype)
    if name.endswith("bias"):
        return np.zeros(shape, dtype)
    value = rng.standard_normal(shape, dtype=np.float64).astype(dtype)
    value *= config.initializer_range
    for table, padding in (("word", config.pad_token_id), ("position", config.position_padding_id)):
        if name.endswith(f"{table}_embeddings.weight") and padding is not None:
            value[padding] = 0.0
    return value
