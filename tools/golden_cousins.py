"""The cases of the golden files of the post-LN model types; see golden_cases.py, whose helpers these use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from golden_cases import CROSS, SHAPE, Case, padded, some_ignored, token_ids

SMALL = SHAPE | {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 11}
FAMILIES = {"Roberta": 1, "XLMRoberta": 1, "Camembert": 1, "Bert": 0}  # what class names begin with: padding id
# transformers 5.2.0 builds the first two without the pooler that they use, and ties the third to a name it lacks
BROKEN_IN_5 = ("XLMRobertaForMultipleChoice", "CamembertForMultipleChoice", "CamembertForCausalLM")

ONLY_4 = ("relative", "head-mask")  # options that transformers 5 has no more


def cousin_cases(version: str, seeded: Callable[[str], np.random.Generator]) -> list[Case]:
    """All cases that transformers `version` can run."""
    cases = [case for family in FAMILIES for case in _cases_of(family, seeded)]
    if version.startswith("5."):
        cases = [
            case for case in cases if case.class_name not in BROKEN_IN_5 and case.name.rsplit("/")[-1] not in ONLY_4
        ]
    return cases


def _cases_of(family: str, seeded: Callable[[str], np.random.Generator]) -> Iterator[Case]:
    pad = FAMILIES[family]
    gradients = family in ("Roberta", "Bert")  # the others differ from Roberta by names alone
    base = SMALL | {"pad_token_id": pad, "tie_word_embeddings": True}

    def case(
        head: str, name: str, more: dict[str, Any], config: dict[str, Any] | None = None, padding: str = "right"
    ) -> Case:
        rng = seeded(f"{family} {head} {name}")
        shape = (2, 3, 6) if head == "ForMultipleChoice" else (2, 6)
        inputs = padded(rng, padding, shape, pad=pad) | {"token_type_ids": rng.integers(0, 3, shape)} | more
        outputs = {"last_hidden_state": (2, 6, 8), "pooler_output": (2, 8)} if head == "Model" else {}
        return Case(
            f"{family}/{head}/{name}",
            head,
            base | (config or {}),
            [inputs],
            family=family,
            gradients=gradients,
            cotangents={key: rng.standard_normal(size) for key, size in outputs.items()} if gradients else {},
        )

    rng = seeded(f"{family} labels")
    yield case("Model", "padded", {})
    yield case("Model", "padded-left", {}, padding="left")
    yield case("Model", "cross", {"encoder_hidden_states": rng.standard_normal((2, 4, 8))}, CROSS)
    yield case(
        "ForMaskedLM", "plain", {"labels": some_ignored(rng, (2, 6), SHAPE["vocab_size"])}, {"hidden_act": "relu"}
    )
    yield case("ForCausalLM", "plain", {"labels": token_ids(rng, (2, 6), pad=pad)}, {"is_decoder": True})
    yield case("ForSequenceClassification", "plain", {"labels": np.array([2, 0])}, {"num_labels": 3})
    yield case("ForMultipleChoice", "plain", {"labels": np.array([1, 2])})
    yield case("ForTokenClassification", "plain", {"labels": some_ignored(rng, (2, 6), 3)}, {"num_labels": 3})
    spans = {"start_positions": np.array([1, 2]), "end_positions": np.array([3, 9])}
    yield case("ForQuestionAnswering", "plain", spans, {"num_labels": 2})
    if gradients:
        yield case("Model", "relative", {}, {"position_embedding_type": "relative_key_query"})
        heads = {"head_mask": np.array([[1.0, 0.25], [0.0, 0.5]])}
        yield case("Model", "head-mask", heads, {"chunk_size_feed_forward": 3})
