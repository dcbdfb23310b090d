"""A body's weights as the encoder's kernel takes them: a table of addresses."""

from __future__ import annotations

import weakref
from typing import NamedTuple

import numpy as np

from ..config import RobertaPreLayerNormConfig
from ..family import POST_LN, Order
from ..params import View, body_shapes
from .compiling import codes
from .cpu import WIDTH
from .gemm import ACTIVATION_CODES
from .shapes import expect
from .storage import FLOAT32, STORAGES
from .weights import address, is_constant, packed

# Each layer's part of the table, by place.
LAYER = 22
(
    NORM1_WEIGHT, NORM1_BIAS, Q_WEIGHT, K_WEIGHT, V_WEIGHT, Q_BIAS, K_BIAS, V_BIAS,
    OUT_WEIGHT, OUT_BIAS, NORM2_WEIGHT, NORM2_BIAS, IN_WEIGHT, IN_BIAS, DOWN_WEIGHT, DOWN_BIAS,
    CROSS_NORM_WEIGHT, CROSS_NORM_BIAS, CROSS_Q_WEIGHT, CROSS_Q_BIAS, CROSS_OUT_WEIGHT, CROSS_OUT_BIAS,
) = codes(LAYER)  # fmt: skip


def _names(order: Order, crossed: bool) -> list[str]:
    """The names of a layer's parameters, in the order of the table; those of cross-attention only where there is one.

    Its keys and values are made outside the kernel, once for an encoder's states.
    """
    attention = [f"attention.self.{part}" for part in ("query", "key", "value")]
    return [
        *_both(f"attention.{order.attention_norm}"),
        *(f"{name}.weight" for name in attention),
        *(f"{name}.bias" for name in attention),
        *_both("attention.output.dense"),
        *_both(order.feed_forward_norm),
        *_both("intermediate.dense"),
        *_both("output.dense"),
        *(
            [
                *_both(f"crossattention.{order.attention_norm}"),
                *_both("crossattention.self.query"),
                *_both("crossattention.output.dense"),
            ]
            if crossed
            else []
        ),
    ]


def _both(name: str) -> tuple[str, str]:
    return f"{name}.weight", f"{name}.bias"


class Weights(NamedTuple):
    """A body's weights, and the arrays that must stay alive while the kernel runs."""

    table: np.ndarray  # (layers, LAYER) addresses
    norm: list[np.ndarray]  # weight and bias of the final LayerNorm; empty where there is none
    arrays: list[np.ndarray]
    width: int = 0
    inner: int = 0
    heads: int = 0
    eps: float = 0.0
    post_ln: bool = False
    activation: int = 0
    storage: int = FLOAT32


class _Known(NamedTuple):
    """The table of a body whose packed weights cannot change, and the parameters that it was made of."""

    parameters: list[tuple[str, weakref.ref[np.ndarray]]]
    weights: Weights


# by the identity of one parameter, which takes the entry along when it goes, and by what says which others there are:
# models of other depths, or with and without cross-attention, may share arrays
_Key = tuple[int, int, str, int, int, int, str, bool]
_known: dict[_Key, _Known] = {}


def body_weights(
    p: View, config: RobertaPreLayerNormConfig, threads: int = 1, weight_dtype: str = "float32"
) -> Weights:
    """The weights of a body: packed, if they are not yet or have changed; `weight_dtype` is one of `STORAGES`."""
    storage = STORAGES[weight_dtype]
    layers, order = config.num_hidden_layers, config.family.order
    first = p["encoder.layer.0.attention.self.query.weight"] if layers else None
    sizes = layers, config.hidden_size, config.intermediate_size
    key = (id(first), storage, p.prefix, *sizes, order.name, config.add_cross_attention)
    known = _known.get(key)
    if known is not None and all(_is_still(p.params.get(name), parameter) for name, parameter in known.parameters):
        weights = known.weights
    else:
        names, weights, constant = _tabulate(p, config, threads, storage)
        if constant and first is not None:

            def forget(dead: weakref.ref[np.ndarray]) -> None:
                kept = _known.get(key)
                if kept is not None and kept.parameters[0][1] is dead:
                    del _known[key]

            parameters = [(name, weakref.ref(p.params[name])) for name in names]
            name = f"{p.prefix}encoder.layer.0.attention.self.query.weight"
            _known[key] = _Known([(name, weakref.ref(first, forget)), *parameters], weights)
    return weights._replace(
        width=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.num_attention_heads,
        eps=config.layer_norm_eps,
        post_ln=order.name == POST_LN.name,
        activation=ACTIVATION_CODES[config.hidden_act],
        storage=storage,
    )


def _is_still(parameter: np.ndarray | None, known: weakref.ref[np.ndarray]) -> bool:
    return parameter is not None and parameter is known() and not parameter.flags.writeable


def _tabulate(
    p: View, config: RobertaPreLayerNormConfig, threads: int, storage: int
) -> tuple[list[str], Weights, bool]:
    """The names of all parameters of the layers, their table, and whether what it points to holds for good.

    Raises
    ------
    InputError
        If one has not the shape that the configuration gives it.
    """
    layers, order = config.num_hidden_layers, config.family.order
    shapes = body_shapes(config, pooler=False)
    final = _both("LayerNorm") if order.has_final_norm else ()
    for name in final:
        expect(p.prefix + name, p[name], *shapes[name])
    names = [p.prefix + name for name in final]
    norm = [_plain(p[name]) for name in final]
    table = np.zeros((layers, LAYER), np.int64)
    arrays: list[np.ndarray] = []
    constant = True
    for index in range(layers):
        for place, tail in enumerate(_names(order, config.add_cross_attention)):
            name = f"encoder.layer.{index}.{tail}"
            names.append(p.prefix + name)
            parameter = p[name]
            expect(names[-1], parameter, *shapes[name])
            if parameter.ndim == 1 and ("LayerNorm" in tail or parameter.size % WIDTH == 0):
                array = _plain(parameter)
            else:
                array = packed(parameter, threads, storage if parameter.ndim == 2 else FLOAT32)
            arrays.append(array)
            table[index, place] = address(array)
            constant = constant and is_constant(parameter)
    return names, Weights(table, norm, arrays), constant


def _plain(array: np.ndarray) -> np.ndarray:
    return np.require(array, np.float32, ("C", "A"))
