"""The cases of the golden files: which classes, options and inputs make_golden.py runs under which transformers.

Version 4.56.2 has everything: relative positions, head masks, 3-D masks, and hidden states that end before the final
LayerNorm. Version 5.2.0 adds what it alone has: hidden states that end after it, 4-D masks, `logits_to_keep`.

Legend: B batch, T tokens, S source tokens, C hidden, H heads, V vocabulary, P positions, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SHAPE = {
    "vocab_size": 19,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 17,
    "max_position_embeddings": 14,
    "type_vocab_size": 3,
    "layer_norm_eps": 1e-5,
}
SMALL = SHAPE | {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 11}
DECODER = {"is_decoder": True}
CROSS = {"is_decoder": True, "add_cross_attention": True}
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "tanh")


@dataclass(frozen=True)
class Case:
    """One model and the calls made to it, one after the other."""

    name: str
    head: str  # the class name without its family
    config: dict[str, Any]
    calls: list[dict[str, Any]]
    construct: dict[str, Any] = field(default_factory=dict)  # further arguments of the class
    keep_cache: bool = False  # hand the cache of each call to the next
    gradients: bool = False  # of the last call, by every parameter and by every input that has one
    cotangents: dict[str, np.ndarray] = field(default_factory=dict)  # output name -> array, for models without a loss
    family: str = "RobertaPreLayerNorm"  # what the names of its classes begin with

    @property
    def class_name(self) -> str:
        """The class in transformers and in npprelnorm."""
        return "BertLMHeadModel" if (self.family, self.head) == ("Bert", "ForCausalLM") else self.family + self.head


def token_ids(rng: np.random.Generator, shape: tuple[int, ...], *, pad: int = 1, padding: str = "none") -> np.ndarray:
    """Random ids of SHAPE's vocabulary, with `pad` on the named side of every row but the first, and nowhere else."""
    ids = rng.integers(0, SHAPE["vocab_size"] - 1, shape)
    ids += ids >= pad  # leave the padding id out
    tokens = shape[-1]
    for row in ids.reshape(-1, tokens)[1:]:
        count = int(rng.integers(1, tokens - 2))
        if padding == "left":
            row[:count] = pad
        elif padding == "right":
            row[-count:] = pad
        elif padding == "interior":
            row[2 : 2 + min(count, 3)] = pad
    return ids


def padded(rng: np.random.Generator, padding: str, shape: tuple[int, ...] = (2, 7), pad: int = 1) -> dict[str, Any]:
    """Ids with padding and the mask that goes with them."""
    ids = token_ids(rng, shape, pad=pad, padding=padding)
    return {"input_ids": ids, "attention_mask": (ids != pad).astype(np.int64)}


def some_ignored(rng: np.random.Generator, shape: tuple[int, ...], classes: int) -> np.ndarray:
    labels = rng.integers(0, classes, shape)
    labels[rng.random(shape) < 0.3] = -100
    labels.flat[1] = classes - 1  # at least one counts
    return labels


def cases_for(version: str, seeded: Callable[[str], np.random.Generator]) -> list[Case]:
    """All cases of a transformers version, their inputs drawn from `seeded(name of the case)`."""
    groups = {
        "4.56.2": (encoder_cases, relative_cases, decoder_cases, cache_cases, language_model_cases, task_cases),
        "5.2.0": (version_5_cases,),
    }
    if version not in groups:
        raise SystemExit(f"transformers {version} is installed; golden files are made with {' and '.join(groups)}")
    cases = [case for group in groups[version] for case in group(seeded)]
    assert len({case.name for case in cases}) == len(cases), "two cases of one name"
    return cases


def cotangents(rng: np.random.Generator, tokens: int = 7, hidden: int = 12) -> dict[str, np.ndarray]:
    return {
        "last_hidden_state": rng.standard_normal((2, tokens, hidden)),
        "pooler_output": rng.standard_normal((2, hidden)),
    }


def encoder_cases(seeded: Callable[[str], np.random.Generator]) -> Iterator[Case]:
    def model(name: str, arguments: Callable[[np.random.Generator], dict[str, Any]], **more: Any) -> Case:
        config = more.pop("config", {})
        return Case(f"model/{name}", "Model", SHAPE | config, [arguments(seeded(name))], **more)

    yield model("plain", lambda rng: {"input_ids": token_ids(rng, (2, 7))})
    for padding in ("left", "right", "interior"):
        yield model(
            f"padding-{padding}",
            lambda rng, padding=padding: padded(rng, padding),
            gradients=padding == "right",
            cotangents=cotangents(seeded("cotangents")) if padding == "right" else {},
        )
    yield model("padding-unmasked", lambda rng: {"input_ids": token_ids(rng, (2, 7), padding="right")})
    yield model("pad-id-0", lambda rng: padded(rng, "right", pad=0), config={"pad_token_id": 0})
    yield model("pad-id-6", lambda rng: padded(rng, "left", pad=6), config={"pad_token_id": 6})
    yield model("longest", lambda rng: {"input_ids": token_ids(rng, (1, 12))})  # 14 positions less 1 + the padding id
    yield model("one-token", lambda rng: {"input_ids": token_ids(rng, (1, 1))})
    yield model("nothing-visible", lambda rng: padded(rng, "right") | {"attention_mask": np.zeros((2, 7), np.int64)})
    yield model(
        "mask-bool", lambda rng: {"input_ids": token_ids(rng, (2, 7)), "attention_mask": rng.random((2, 7)) < 0.6}
    )
    yield model(
        "mask-3d",  # row 2 of the first sequence sees nothing, and so everything equally
        lambda rng: {
            "input_ids": token_ids(rng, (2, 7)),
            "attention_mask": (rng.random((2, 7, 7)) < 0.5) & (np.arange(14) != 2).reshape(2, 7, 1),
        },
    )
    yield model(
        "token-types",
        lambda rng: {"input_ids": token_ids(rng, (2, 7)), "token_type_ids": rng.integers(0, 3, (2, 7))},
    )
    yield model(
        "position-ids",
        lambda rng: {"input_ids": token_ids(rng, (2, 7)), "position_ids": rng.integers(0, 14, (2, 7))},
    )
    yield model(
        "position-ids-one-row",
        lambda rng: {"input_ids": token_ids(rng, (2, 7)), "position_ids": np.arange(7)[None]},
    )
    yield model(
        "inputs-embeds",
        lambda rng: {"inputs_embeds": rng.standard_normal((2, 7, 12)), "token_type_ids": rng.integers(0, 3, (2, 7))},
        gradients=True,
        cotangents=cotangents(seeded("cotangents")),
    )
    yield model(
        "head-mask-1d",
        lambda rng: padded(rng, "right") | {"head_mask": np.array([1.0, 0.0, 0.5])},
        gradients=True,
        cotangents=cotangents(seeded("cotangents")),
    )
    yield model(
        "head-mask-2d",
        lambda rng: padded(rng, "left") | {"head_mask": np.array([[1.0, 0.25, 0.0], [0.0, 0.0, 1.0]])},
        gradients=True,
        cotangents=cotangents(seeded("cotangents")),
    )
    yield model("chunks-of-1", lambda rng: padded(rng, "right"), config={"chunk_size_feed_forward": 1})
    yield model(
        "chunks-of-3",
        lambda rng: padded(rng, "right", (2, 9)),
        config={"chunk_size_feed_forward": 3},
        gradients=True,
        cotangents=cotangents(seeded("cotangents"), tokens=9),
    )
    yield model("without-pooler", lambda rng: padded(rng, "right"), construct={"add_pooling_layer": False})
    yield model("one-head", lambda rng: padded(rng, "right"), config={"num_attention_heads": 1})
    yield model("heads-of-one", lambda rng: padded(rng, "right"), config={"num_attention_heads": 12})
    yield model("tiny-eps", lambda rng: padded(rng, "right"), config={"layer_norm_eps": 1e-12})
    for activation in ACTIVATIONS:
        name = f"activation-{activation}"
        yield Case(
            f"model/{name}",
            "Model",
            SMALL | {"hidden_act": activation},
            [padded(seeded(name), "right")],
            gradients=True,
            cotangents=cotangents(seeded("cotangents"), hidden=8),
        )


def relative_cases(seeded: Callable[[str], np.random.Generator]) -> Iterator[Case]:
    for kind in ("relative_key", "relative_key_query"):
        config = SHAPE | {"position_embedding_type": kind}
        rng = seeded(kind)
        yield Case(
            f"{kind}/encoder",
            "Model",
            config,
            [padded(rng, "right")],
            gradients=True,
            cotangents=cotangents(seeded("cotangents")),
        )
        # no position embeddings are looked up, so a sequence may be as long as the table of distances: P
        yield Case(f"{kind}/longest", "Model", config, [{"input_ids": token_ids(rng, (1, 14))}])
        yield Case(
            f"{kind}/head-mask",
            "Model",
            config,
            [padded(rng, "left") | {"head_mask": np.array([0.0, 1.0, 2.0])}],
            gradients=True,
            cotangents=cotangents(seeded("cotangents")),
        )
        embeds = {"inputs_embeds": rng.standard_normal((2, 7, 12))}
        yield Case(
            f"{kind}/inputs-embeds",
            "Model",
            config,
            [embeds],
            gradients=True,
            cotangents=cotangents(seeded("cotangents")),
        )
        cross = padded(rng, "right") | {
            "encoder_hidden_states": rng.standard_normal((2, 5, 12)),
            "use_cache": False,  # with a cache 4.56.2 takes all queries for the last one
        }
        labels = some_ignored(rng, (2, 7), 19)
        yield Case(f"{kind}/decoder-cross", "ForCausalLM", config | CROSS, [cross | {"labels": labels}], gradients=True)
        steps = [{"input_ids": ids, "use_cache": True} for ids in np.split(token_ids(rng, (2, 5)), 5, axis=1)]
        yield Case(f"{kind}/token-by-token", "ForCausalLM", config | DECODER, steps, keep_cache=True)


def decoder_cases(seeded: Callable[[str], np.random.Generator]) -> Iterator[Case]:
    config = SHAPE | DECODER
    rng = seeded("decoder")
    for padding in ("none", "left", "right", "interior"):
        yield Case(f"decoder/padding-{padding}", "Model", config, [padded(rng, padding) | {"use_cache": False}])
    yield Case("decoder/unmasked", "Model", config, [{"input_ids": token_ids(rng, (2, 7), padding="left")}])
    own_mask = {"input_ids": token_ids(rng, (2, 7)), "attention_mask": (rng.random((2, 7, 7)) < 0.6).astype(np.int64)}
    yield Case("decoder/mask-3d", "Model", config, [own_mask])  # taken as it is: nothing causal is added
    # a decoder with cross attention runs without an encoder's states too, but 4.56.2 cannot list the attentions then
    source = {"encoder_hidden_states": rng.standard_normal((2, 5, 12))}
    mask = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0]])
    config = SHAPE | CROSS
    yield Case("cross/unmasked", "Model", config, [padded(rng, "right") | source])
    yield Case(
        "cross/mask",
        "Model",
        config,
        [padded(rng, "right") | source | {"encoder_attention_mask": mask, "use_cache": False}],
        gradients=True,
        cotangents=cotangents(seeded("cotangents")),
    )
    each = (rng.random((2, 7, 5)) < 0.5).astype(np.int64)
    yield Case("cross/mask-3d", "Model", config, [padded(rng, "left") | source | {"encoder_attention_mask": each}])
    heads = {"head_mask": np.array([[1.0, 0.25, 0.0], [0.0, 0.5, 1.0]])}
    yield Case(
        "cross/head-mask",
        "Model",
        config,
        [padded(rng, "right") | source | heads | {"use_cache": False}],
        gradients=True,
        cotangents=cotangents(seeded("cotangents")),
    )
    yield Case("cross/ignored-by-encoder", "Model", SHAPE, [padded(rng, "right") | source])


def cache_cases(seeded: Callable[[str], np.random.Generator]) -> Iterator[Case]:
    """Prefill and then further steps; position ids and masks as 4.56.2 makes them from what it is given."""

    def steps(ids: np.ndarray, *ends: int, **more: Any) -> list[dict[str, Any]]:
        starts = (0, *ends[:-1])
        return [
            {"input_ids": ids[:, start:end], "use_cache": True, **{k: v(start, end) for k, v in more.items()}}
            for start, end in zip(starts, ends, strict=True)
        ]

    rng = seeded("cache")
    config = SHAPE | DECODER
    yield Case("cache/plain", "ForCausalLM", config, steps(token_ids(rng, (2, 8)), 4, 5, 8), keep_cache=True)
    for padding in ("left", "right"):
        given = padded(rng, padding, (2, 8))
        mask = given["attention_mask"]
        calls = steps(given["input_ids"], 5, 6, 7, 8, attention_mask=lambda start, end, mask=mask: mask[:, :end])
        yield Case(f"cache/padding-{padding}", "ForCausalLM", config, calls, keep_cache=True)
    given = padded(rng, "left", (2, 8))
    mask = given["attention_mask"]
    positions = np.where(mask == 1, mask.cumsum(1) - 1, 1)
    calls = steps(
        given["input_ids"],
        6,
        7,
        8,
        attention_mask=lambda start, end: mask[:, :end],
        position_ids=lambda start, end: positions[:, start:end],
    )
    yield Case("cache/position-ids", "ForCausalLM", config, calls, keep_cache=True)
    states = rng.standard_normal((2, 5, 12))
    source = {
        "encoder_hidden_states": lambda start, end: states,
        "encoder_attention_mask": lambda start, end: np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]]),
    }
    calls = steps(token_ids(rng, (2, 6)), 3, 4, 6, **source)
    yield Case("cache/cross", "ForCausalLM", SHAPE | CROSS, calls, keep_cache=True)
    embeds = rng.standard_normal((2, 6, 12))
    calls = [
        # without position ids 4.56.2 would start from 2 again in each step
        {"inputs_embeds": embeds[:, a:b], "position_ids": np.arange(2 + a, 2 + b)[None], "use_cache": True}
        for a, b in ((0, 4), (4, 5), (5, 6))
    ]
    yield Case("cache/inputs-embeds", "Model", config, calls, keep_cache=True)


def language_model_cases(seeded: Callable[[str], np.random.Generator]) -> Iterator[Case]:
    rng = seeded("language models")
    for head, more in (("ForMaskedLM", {}), ("ForCausalLM", DECODER)):
        name = "masked" if head == "ForMaskedLM" else "causal"
        config = SHAPE | more
        labels = {"labels": some_ignored(rng, (2, 7), 19)}
        yield Case(f"{name}/labels", head, config, [padded(rng, "right") | labels], gradients=True)
        untied = config | {"tie_word_embeddings": False}
        yield Case(f"{name}/untied", head, untied, [padded(rng, "right") | labels], gradients=True)
        yield Case(f"{name}/padding-left", head, config, [padded(rng, "left") | labels], gradients=True)
        ignored = {"labels": np.full((2, 7), -100)}
        yield Case(f"{name}/all-ignored", head, config, [padded(rng, "right") | ignored])
        # the head is gelu whatever the activation of the layers
        yield Case(f"{name}/relu", head, config | {"hidden_act": "relu"}, [padded(rng, "right")])
    config = SHAPE | DECODER
    plain = {"input_ids": token_ids(rng, (2, 7))}
    labels = {"labels": some_ignored(rng, (2, 7), 19)}
    yield Case("causal/num-items", "ForCausalLM", config, [plain | labels | {"num_items_in_batch": 5}], gradients=True)
    shifted = {"shift_labels": some_ignored(rng, (2, 7), 19)}
    yield Case("causal/shift-labels", "ForCausalLM", config, [plain | labels | shifted], gradients=True)
    yield Case("causal/as-encoder", "ForCausalLM", SHAPE, [plain | labels])
    yield Case("masked/as-decoder", "ForMaskedLM", config, [plain])


def task_cases(seeded: Callable[[str], np.random.Generator]) -> Iterator[Case]:
    rng = seeded("tasks")

    def classify(name: str, labels: np.ndarray, num_labels: int, problem: str | None = None, **more: Any) -> Case:
        config = SHAPE | {"num_labels": num_labels} | ({"problem_type": problem} if problem else {})
        call = padded(rng, "right") | {"labels": labels}
        return Case(f"sequence/{name}", "ForSequenceClassification", config, [call], **more)

    yield classify("single", np.array([4, 0]), 5, gradients=True)
    yield classify("single-ignored", np.array([-100, 2]), 5, "single_label_classification")
    yield classify("single-int32", np.array([1, 2], np.int32).astype(np.int64), 3)
    yield classify("regression-1", rng.standard_normal(2), 1, gradients=True)
    yield classify("regression-1-column", rng.standard_normal((2, 1)), 1)
    yield classify("regression-3", rng.standard_normal((2, 3)), 3, "regression", gradients=True)
    yield classify("multi", rng.integers(0, 2, (2, 3)).astype(np.float64), 3, gradients=True)
    yield classify("multi-soft", rng.random((2, 4)), 4, "multi_label_classification")
    heads = {"head_mask": np.array([0.0, 1.0, 0.5]), "token_type_ids": rng.integers(0, 3, (2, 7))}
    yield Case("sequence/head-mask", "ForSequenceClassification", SHAPE, [padded(rng, "left") | heads])

    choices = padded(rng, "right", (2, 3, 5)) | {
        "token_type_ids": rng.integers(0, 3, (2, 3, 5)),
        "labels": np.array([2, 0]),
    }
    yield Case("choice/labels", "ForMultipleChoice", SHAPE, [choices], gradients=True)
    embeds = {
        "inputs_embeds": rng.standard_normal((2, 3, 5, 12)),
        "position_ids": rng.integers(0, 14, (2, 3, 5)),
    }
    scores = {"logits": seeded("cotangents").standard_normal((2, 3))}
    yield Case("choice/inputs-embeds", "ForMultipleChoice", SHAPE, [embeds], gradients=True, cotangents=scores)

    tokens = {"num_labels": 5}
    labelled = padded(rng, "right") | {"labels": some_ignored(rng, (2, 7), 5)}
    yield Case("token/labels", "ForTokenClassification", SHAPE | tokens, [labelled], gradients=True)
    ignored = padded(rng, "left") | {"labels": np.full((2, 7), -100)}
    yield Case("token/all-ignored", "ForTokenClassification", SHAPE | tokens, [ignored])

    spans = {
        "labels": (np.array([1, 3]), np.array([4, 6])),
        "column": (np.array([[1], [3]]), np.array([[4], [6]])),
        "clamped": (np.array([-5, 3]), np.array([4, 99])),  # to 0, and to T which is then ignored
        "all-ignored": (np.array([7, 50]), np.array([2, 3])),
    }
    for name, (start, end) in spans.items():
        call = padded(rng, "right") | {"start_positions": start, "end_positions": end}
        yield Case(f"question/{name}", "ForQuestionAnswering", SHAPE, [call], gradients=name in ("labels", "clamped"))


def version_5_cases(seeded: Callable[[str], np.random.Generator]) -> Iterator[Case]:
    rng = seeded("version 5")
    yield Case("v5/model", "Model", SHAPE, [padded(rng, "right")])
    lowest = np.finfo(np.float64).min
    plain = {"input_ids": token_ids(rng, (2, 7))}
    additive = {
        "one-head": np.where(rng.random((2, 1, 7, 7)) < 0.6, 0.0, lowest),
        "each-head": np.where(rng.random((2, 3, 7, 7)) < 0.6, 0.0, lowest),
        "one-row": np.where(rng.random((2, 1, 1, 7)) < 0.6, 0.0, lowest),
        "biases": rng.standard_normal((2, 3, 7, 7)),
        "bool": rng.random((2, 3, 7, 7)) < 0.6,
        "infinite": np.where(np.tri(7, 7, -1, dtype=bool), 0.0, -np.inf)[None, None],  # row 0 sees nothing
    }
    for name, mask in additive.items():
        call = plain | {"attention_mask": mask}
        some = {"gradients": True, "cotangents": cotangents(seeded("cotangents"))} if name == "biases" else {}
        yield Case(f"v5/mask-4d-{name}", "Model", SHAPE, [call], **some)
    # a decoder takes a 4-D mask as it is: nothing causal is added
    given = plain | {"attention_mask": additive["each-head"], "use_cache": False}
    yield Case("v5/mask-4d-decoder", "Model", SHAPE | DECODER, [given])
    source = {
        "encoder_hidden_states": rng.standard_normal((2, 5, 12)),
        "encoder_attention_mask": np.where(rng.random((2, 1, 7, 5)) < 0.6, 0.0, lowest),
    }
    yield Case("v5/mask-4d-cross", "Model", SHAPE | CROSS, [plain | source])

    ids = token_ids(rng, (2, 8))
    steps = [
        {"input_ids": ids[:, start:end], "use_cache": True, "logits_to_keep": 1}
        for start, end in ((0, 5), (5, 6), (6, 8))
    ]
    yield Case("v5/cache", "ForCausalLM", SHAPE | DECODER, steps, keep_cache=True)
    labels = some_ignored(rng, (2, 7), 19)
    keeps = {"0": (0, labels), "3": (3, labels[:, -3:]), "indices": (np.array([5, 0, 2]), labels[:, :3])}
    for name, (keep, kept) in keeps.items():
        call = plain | {"logits_to_keep": keep, "labels": kept}
        yield Case(f"v5/logits-to-keep-{name}", "ForCausalLM", SHAPE | DECODER, [call], gradients=name != "0")
    # here lm_head.bias and lm_head.decoder.bias are two parameters, and only the second is used
    untied = SHAPE | {"tie_word_embeddings": False}
    yield Case("v5/masked-untied", "ForMaskedLM", untied, [padded(rng, "right") | {"labels": labels}], gradients=True)
    for head in ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"):
        yield Case(f"v5/{head}", head, SHAPE, [padded(rng, "left")])
    yield Case("v5/ForMultipleChoice", "ForMultipleChoice", SHAPE, [padded(rng, "right", (2, 3, 5))])
