"""Hypothesis strategies for the whole suite, named by the axis that they vary.

Numbers come from NumPy generators that hypothesis seeds: that shrinks to small seeds instead of small numbers, but a
tiny model still takes thousands of them, and drawing each alone would be slow.

Legend: B batch, T tokens, C hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import npprelnorm as nl

HEADS = (
    "Model",
    "ForMaskedLM",
    "ForCausalLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
ACTIVATION_NAMES = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "swish", "tanh")
RELATIVE = ("relative_key", "relative_key_query")
PADDING_SIDES = ("right", "left", "interior")

seeds = st.integers(0, 2**32 - 1)
float_dtypes = st.sampled_from(("float32", "float64"))
integer_dtypes = st.sampled_from(("uint8", "int16", "int32", "uint32", "int64", "uint64"))


# model type -> what the names of its classes begin with
CLASSES = {
    "roberta-prelayernorm": "RobertaPreLayerNorm",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "bert": "Bert",
}
COUSINS = tuple(CLASSES)[1:]  # the post-LN ones


def class_of(head: str, model_type: str = "roberta-prelayernorm") -> Any:
    """The model class of a name in `HEADS`."""
    if (model_type, head) == ("bert", "ForCausalLM"):
        return nl.BertLMHeadModel
    return getattr(nl, CLASSES[model_type] + head)


def tiny_config(model_type: str = "roberta-prelayernorm", **changes: Any) -> nl.RobertaPreLayerNormConfig:
    """One fixed small configuration, for tests that vary something else."""
    values = {
        "vocab_size": 23,
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 17,
        "max_position_embeddings": 16,
        "type_vocab_size": 3,
        "layer_norm_eps": 1e-5,
        "num_labels": 2,
    }
    kind: type[nl.RobertaPreLayerNormConfig] = getattr(nl, f"{CLASSES[model_type]}Config")
    return kind(**(values | changes))


def random_params(
    shapes: dict[str, tuple[int, ...]], seed: int, dtype: str = "float64", scale: float = 0.3
) -> dict[str, np.ndarray]:
    """All parameters random: fresh ones have biases of 0 and gains of 1, which would hide mistakes there."""
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in shapes.items():
        values = scale * rng.standard_normal(shape)
        if name.lower().replace("_", "").endswith("layernorm.weight"):
            values += 1.0
        params[name] = values.astype(np.float32).astype(dtype)  # the same numbers in both dtypes
    return params


def random_model(
    head: str, config: nl.RobertaPreLayerNormConfig, seed: int = 0, dtype: str = "float64", pooler: bool = True
) -> Any:
    """A model of the class with random parameters."""
    cls = class_of(head, config.model_type)
    shapes = cls.shapes(config, pooler=pooler if cls.pooler is None else cls.pooler)
    return cls.from_params(config, random_params(shapes, seed, dtype), dtype=dtype)


def random_ids(
    config: nl.RobertaPreLayerNormConfig, shape: tuple[int, ...], seed: int, padding: int | None = None
) -> np.ndarray:
    """Ids without the padding id, or `padding` when the configuration's is None."""
    pad = config.pad_token_id if padding is None else padding
    rng = np.random.default_rng([7, seed])
    if pad is None:
        return rng.integers(0, config.vocab_size, shape)
    ids = rng.integers(0, config.vocab_size - 1, shape)
    return ids + (ids >= pad)


def required_arguments(head: str, ids: np.ndarray) -> dict[str, Any]:
    """The ids as a class takes them: multiple choice has an axis more, (B, T) -> (B, 1, T)."""
    return {"input_ids": ids[:, None] if head == "ForMultipleChoice" else ids}


def main_result(output: Any) -> np.ndarray:
    """The array that a class is called for."""
    for name in ("logits", "start_logits", "last_hidden_state"):
        if name in output:
            return np.asarray(output[name])
    raise AssertionError(f"no result in {output.keys()}")


def layer_norm_of(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """LayerNorm in one line, to check the order of things; the op itself is checked against loops."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * weight + bias


def arrays(
    dtype: Any = np.float64, *, shape: Any = None, low: float = -100.0, high: float = 100.0
) -> st.SearchStrategy[np.ndarray]:
    """Small arrays of one to three axes with every number in [low, high]; edge cases such as -0.0 included."""
    bits = np.dtype(dtype).itemsize * 8
    shape = shape if shape is not None else hnp.array_shapes(min_dims=1, max_dims=3, max_side=7)
    low, high = np.dtype(dtype).type(low), np.dtype(dtype).type(high)
    return hnp.arrays(dtype, shape, elements=st.floats(float(low), float(high), width=bits))


@st.composite
def configs(draw: st.DrawFn, **fixed: Any) -> nl.RobertaPreLayerNormConfig:
    """Small configurations along every axis that the forward reads; `fixed` fields are not varied."""
    # LayerNorm over two or three numbers can divide by nearly nothing, and then no tolerance means anything
    head_size = draw(st.integers(2, 6))
    heads = draw(st.integers(1 if head_size > 3 else 2, 4))
    pad = draw(st.sampled_from((1, 1, 0, 3)))
    decoder = fixed.get("is_decoder", draw(st.booleans()))
    values: dict[str, Any] = {
        "vocab_size": draw(st.integers(7, 40)),
        "hidden_size": head_size * heads,
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "intermediate_size": draw(st.integers(1, 20)),
        "hidden_act": draw(st.sampled_from(ACTIVATION_NAMES)),
        "max_position_embeddings": pad + 1 + draw(st.integers(8, 12)),
        "type_vocab_size": draw(st.integers(1, 3)),
        "layer_norm_eps": draw(st.sampled_from((1e-12, 1e-5, 1e-3))),
        "pad_token_id": pad,
        "position_embedding_type": draw(st.sampled_from(("absolute", "absolute", *RELATIVE))),
        "is_decoder": decoder,
        "add_cross_attention": decoder and draw(st.booleans()),
        "tie_word_embeddings": draw(st.booleans()),
        "num_labels": 2,
    }
    return nl.RobertaPreLayerNormConfig(**(values | fixed))


@st.composite
def padded_ids(
    draw: st.DrawFn,
    config: nl.RobertaPreLayerNormConfig,
    *,
    sides: tuple[str, ...] = PADDING_SIDES,
    max_tokens: int = 8,
) -> tuple[np.ndarray, np.ndarray]:
    """Ids (B, T) with padding on some side, at least one real token in each row, and the mask that says so."""
    batch, tokens = draw(st.integers(1, 4)), draw(st.integers(1, max_tokens))
    ids = random_ids(config, (batch, tokens), draw(seeds))
    mask = np.ones_like(ids)
    for row in range(batch):
        count = draw(st.integers(0, tokens - 1))
        side = draw(st.sampled_from(sides))
        if count == 0:
            continue
        where = {"right": slice(tokens - count, None), "left": slice(count), "interior": slice(1, 1 + count)}[side]
        mask[row, where] = 0
    ids[mask == 0] = config.pad_token_id
    return ids, mask
