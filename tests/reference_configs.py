"""Random tiny models and calls for the live comparison: one seed gives one `Draw`, the same on every machine.

Sizes are odd on purpose, and every axis has its edge cases: one layer, one head, heads of one number, a vocabulary of
7, one token, sequences that fill the position table, padding ids other than 1. Nothing here needs torch.

Legend: B batch, T tokens, S source tokens, C hidden, H heads, V vocabulary, P positions, K labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

HEADS = (
    "Model",
    "ForMaskedLM",
    "ForCausalLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "tanh")
PADDINGS = ("none", "right", "left", "interior", "unmasked")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
INITIALIZER_RANGES = (0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Draw:
    """A class, a configuration (keyword arguments that both libraries take), a dtype and the arguments of one call."""

    seed: int
    head: str  # the class name without RobertaPreLayerNorm
    config: dict[str, Any]
    dtype: str
    arguments: dict[str, Any]
    features: frozenset[str]  # what this draw covers; the tests count them, so that no axis silently empties
    model_type: str = "roberta-prelayernorm"

    def __str__(self) -> str:
        return f"{self.model_type} {self.head} seed {self.seed} {self.dtype} {self.config} {sorted(self.features)}"


def draw(head: str, seed: int, model_type: str = "roberta-prelayernorm") -> Draw:
    """The draw of `seed` for a class. Every fifth is a harder one in float64: large weights, tiny widths and eps."""
    rng = np.random.default_rng([HEADS.index(head), seed])
    hard = seed % 5 == 4
    config = _config(rng, head, hard)
    longest = config["max_position_embeddings"]  # BERT counts positions from 0
    if model_type != "bert":
        longest -= config["pad_token_id"] + 1
    features = {f"act {config['hidden_act']}", f"range {config['initializer_range']}"}
    features.add(f"pad id {config['pad_token_id']}")
    for key in ("num_hidden_layers", "num_attention_heads", "type_vocab_size", "num_labels"):
        features.add(f"{key} {config[key]}")
    for key in ("is_decoder", "add_cross_attention", "tie_word_embeddings", "problem_type"):
        features.add(f"{key} {config.get(key)}")
    features |= {"vocabulary of 7"} if config["vocab_size"] == 7 else set()
    features |= {"heads of one"} if config["hidden_size"] == config["num_attention_heads"] else set()
    arguments = _arguments(rng, head, config, longest, features)
    tokens = arguments.get("input_ids", arguments.get("inputs_embeds")).shape[2 if head == "ForMultipleChoice" else 1]
    if _chance(rng, 0.25):  # transformers takes sizes that divide the tokens
        config["chunk_size_feed_forward"] = _pick(rng, *(size for size in range(1, tokens + 1) if tokens % size == 0))
        features.add("chunks")
    return Draw(seed, head, config, "float64" if hard else "float32", arguments, frozenset(features), model_type)


def weights(shapes: dict[str, tuple[int, ...]], config: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Weights for the named parameters, in float64: all random.

    Fresh weights would have biases of 0, LayerNorm gains of 1 and zero rows for padding, and hide any mistake there.
    """
    rng = np.random.default_rng([99, seed])
    result = {}
    for name in sorted(shapes):
        values = rng.standard_normal(shapes[name])
        if name.lower().replace("_", "").endswith("layernorm.weight"):
            values = 1.0 + 0.2 * values
        elif name.endswith("bias"):
            values *= 0.1
        else:
            values *= config["initializer_range"]
        result[name] = values.astype(np.float32).astype(np.float64)  # so that float32 and float64 runs share them
    return result


def _pick(rng: np.random.Generator, *options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def _chance(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def _config(rng: np.random.Generator, head: str, hard: bool) -> dict[str, Any]:
    # LayerNorm over two or three numbers can divide by a tiny deviation, which float32 does not survive
    head_size = int(rng.integers(1 if hard else 4, 10))
    heads = int(rng.integers(1, 5))
    if _chance(rng, 0.1):
        head_size, heads = 1, int(rng.integers(3 if hard else 9, 17))
    pad = _pick(rng, 1, 1, 1, 0, 3, 5)
    config = {
        "vocab_size": 7 if _chance(rng, 0.2) else int(rng.integers(8, 60)),
        "hidden_size": max(head_size * heads, 2),
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": heads if head_size * heads > 1 else 1,
        "intermediate_size": int(rng.integers(1, 40)),
        "hidden_act": _pick(rng, *ACTIVATIONS),
        "max_position_embeddings": pad + 1 + int(rng.integers(4, 16)),
        "type_vocab_size": int(rng.integers(1, 4)),
        "layer_norm_eps": _pick(rng, 1e-12, 1e-7, 1e-5) if hard else _pick(rng, 1e-12, 1e-5, 1e-5),
        "pad_token_id": pad,
        "initializer_range": 0.5 if hard else _pick(rng, *INITIALIZER_RANGES),
        "tie_word_embeddings": _chance(rng, 0.7),
        "num_labels": int(rng.integers(1, 6)),
        "is_decoder": _chance(rng, {"ForCausalLM": 0.85, "Model": 0.3}.get(head, 0.0)),
    }
    config["add_cross_attention"] = config["is_decoder"] and _chance(rng, 0.4)
    if head == "ForQuestionAnswering":
        config["num_labels"] = 2
    if head == "ForSequenceClassification" and _chance(rng, 0.7):
        config["problem_type"] = _pick(rng, *PROBLEM_TYPES)
        if config["problem_type"] == "single_label_classification":
            config["num_labels"] = max(config["num_labels"], 2)
    return config


def _ids(rng: np.random.Generator, shape: tuple[int, ...], config: dict[str, Any], padding: str) -> np.ndarray:
    """Ids with `padding` in every row but the first; each row keeps at least one real token."""
    pad, tokens = config["pad_token_id"], shape[-1]
    ids = rng.integers(0, config["vocab_size"] - 1, shape)
    ids += ids >= pad  # leave the padding id out
    if padding == "none" or tokens < 3:
        return ids
    for row in ids.reshape(-1, tokens)[1:]:
        count = int(rng.integers(1, tokens - 1))
        side = _pick(rng, "left", "right", "interior") if padding == "unmasked" else padding
        if side == "left":
            row[:count] = pad
        elif side == "right":
            row[-count:] = pad
        else:
            row[1 : 1 + min(count, tokens - 2)] = pad
    return ids


def _mask(
    rng: np.random.Generator, shape: tuple[int, int], source: int, heads: int, mask_2d: np.ndarray, features: set[str]
) -> np.ndarray:
    """One of the forms of an attention mask that 5.2.0 takes: 2-D of 0/1 or bool, or 4-D to be added."""
    form = _pick(rng, "2-D int", "2-D int", "2-D bool", "2-D float", "4-D 0/min", "4-D biases")
    features.add(f"mask {form}")
    if form == "2-D int":
        return mask_2d.astype(_pick(rng, np.int64, np.int32, np.uint8))
    if form == "2-D bool":
        return mask_2d
    if form == "2-D float":
        return mask_2d.astype(np.float32)
    batch, tokens = shape
    full = (_pick(rng, 1, batch), _pick(rng, 1, heads), _pick(rng, 1, tokens), source)
    if form == "4-D biases":
        return rng.standard_normal(full)
    return np.where(rng.random(full) < 0.7, 0.0, -np.inf)  # the test puts the dtype's lowest number for -inf


def _arguments(
    rng: np.random.Generator, head: str, config: dict[str, Any], longest: int, features: set[str]
) -> dict[str, Any]:
    hidden, heads, pad = config["hidden_size"], config["num_attention_heads"], config["pad_token_id"]
    batch = int(rng.integers(1, 4))
    tokens = longest if _chance(rng, 0.15) else int(rng.integers(1, longest + 1))
    features |= {"as long as allowed"} if tokens == longest else set()
    features |= {"one token"} if tokens == 1 else set()
    choices = int(rng.integers(1, 4))
    shape = (batch, choices, tokens) if head == "ForMultipleChoice" else (batch, tokens)

    padding = _pick(rng, *PADDINGS)
    features.add(f"padding {padding}")
    ids = _ids(rng, shape, config, padding)
    arguments: dict[str, Any] = {"input_ids": ids.astype(_pick(rng, np.int64, np.int64, np.int32))}
    if padding != "unmasked" and _chance(rng, 0.8):
        mask_2d = ids != pad
        if head == "ForMultipleChoice":  # its masks are flattened like the ids
            arguments["attention_mask"] = mask_2d.astype(np.int64)
        else:
            arguments["attention_mask"] = _mask(rng, (batch, tokens), tokens, heads, mask_2d, features)
    if _chance(rng, 0.25):
        arguments["inputs_embeds"] = rng.standard_normal((*shape, hidden)).astype(np.float32)
        del arguments["input_ids"]
        features.add("inputs_embeds")
    if _chance(rng, 0.3):
        arguments["token_type_ids"] = rng.integers(0, config["type_vocab_size"], shape)
        features.add("token_type_ids")
    if _chance(rng, 0.2):
        rows = shape if head == "ForMultipleChoice" else (_pick(rng, 1, batch), tokens)
        arguments["position_ids"] = rng.integers(0, config["max_position_embeddings"], rows)
        features.add("position_ids")
    if config["add_cross_attention"] and _chance(rng, 0.8):
        source = int(rng.integers(1, 9))
        arguments["encoder_hidden_states"] = rng.standard_normal((batch, source, hidden)).astype(np.float32)
        features.add("encoder states")
        if _chance(rng, 0.6):
            seen = rng.random((batch, source)) < 0.7
            arguments["encoder_attention_mask"] = _mask(rng, (batch, tokens), source, heads, seen, features)
            features.add("encoder mask")
    arguments |= _labels(rng, head, config, shape, features)
    return arguments


def _labels(
    rng: np.random.Generator, head: str, config: dict[str, Any], shape: tuple[int, ...], features: set[str]
) -> dict[str, Any]:
    if head == "Model" or not _chance(rng, 0.85):
        return {}
    features.add("labels")
    batch, tokens, kinds = shape[0], shape[-1], config["num_labels"]
    if head in ("ForMaskedLM", "ForCausalLM", "ForTokenClassification"):
        kinds = kinds if head == "ForTokenClassification" else config["vocab_size"]
        labels = rng.integers(0, kinds, shape)
        labels[rng.random(shape) < 0.4] = -100
        labels[0, -1] = kinds - 1  # so that at least one counts, unless a causal model has one token only
        if head == "ForCausalLM":
            return {"labels": labels} | _causal_options(rng, labels, shape, features)
        return {"labels": labels}
    if head == "ForMultipleChoice":
        return {"labels": rng.integers(0, shape[1], batch)}
    if head == "ForQuestionAnswering":
        columns = (batch, 1) if _chance(rng, 0.3) else (batch,)
        start, end = rng.integers(-2, tokens + 3, columns), rng.integers(-2, tokens + 3, columns)
        start.flat[0] = end.flat[0] = tokens - 1  # at least one is inside
        features.add(f"spans of rank {len(columns)}")
        return {"start_positions": start, "end_positions": end}
    problem = config.get("problem_type") or _pick(rng, *PROBLEM_TYPES)
    features.add(f"labels of {problem}")
    if kinds == 1 and not config.get("problem_type"):
        problem = "regression"  # what both libraries take it for
    if problem == "single_label_classification":
        return {"labels": rng.integers(0, kinds, batch)}
    if problem == "multi_label_classification":
        return {"labels": rng.integers(0, 2, (batch, kinds)).astype(np.float32)}
    if kinds == 1:
        return {"labels": rng.standard_normal((batch, 1) if _chance(rng, 0.5) else batch).astype(np.float32)}
    if config.get("problem_type"):
        return {"labels": rng.standard_normal((batch, kinds)).astype(np.float32)}
    return {"labels": rng.random((batch, kinds)).astype(np.float32)}  # not told, float labels are taken for several


def _causal_options(
    rng: np.random.Generator, labels: np.ndarray, shape: tuple[int, ...], features: set[str]
) -> dict[str, Any]:
    """The arguments that only a causal model has; labels are cut to the logits that are kept."""
    tokens, options = shape[-1], {}
    if _chance(rng, 0.25):
        features.add("num_items_in_batch")
        options["num_items_in_batch"] = int(rng.integers(1, 20))
    kept = np.arange(tokens)
    if _chance(rng, 0.3):
        features.add("logits_to_keep int")
        options["logits_to_keep"] = int(rng.integers(0, tokens + 1))
        kept = kept[-options["logits_to_keep"] :]
    elif _chance(rng, 0.2):
        features.add("logits_to_keep indices")
        options["logits_to_keep"] = kept = rng.permutation(tokens)[: int(rng.integers(1, tokens + 1))]
    if _chance(rng, 0.2):
        features.add("shift_labels")
        options["shift_labels"] = labels[:, kept]
    return options | {"labels": labels[:, kept]}
