"""multiple-choice: the softmax over the model's scores, batches, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import task_models
from hypothesis import given, settings
from hypothesis import strategies as st
from task_models import assert_same, sentences, task_pipeline

import npprelnorm as nl
from npprelnorm.errors import CheckpointMismatchError, ConfigError, InputError, TokenizerError

CHOOSE = task_pipeline("multiple-choice")
EXAMPLES = [
    {"prompt": prompt, "choices": sentences(100 + index, 1 + index % 4, most=5)}
    for index, prompt in enumerate(sentences(12, 16, most=5))
]
ONE_BY_ONE = [CHOOSE(example, truncation=True) for example in EXAMPLES]


def test_scores_are_the_softmax_of_the_model_on_all_choices_together() -> None:
    exact = task_pipeline("multiple-choice", dtype="float64")
    for example in EXAMPLES:
        choices = example["choices"]
        batch = exact.tokenizer([example["prompt"]] * len(choices), choices, padding=True, truncation=True)
        logits = exact.model(batch.input_ids[None], batch.attention_mask[None]).logits[0]
        scores = np.exp(logits) / np.exp(logits).sum()
        ranked = exact(example["prompt"], choices, truncation=True)
        assert [one["index"] for one in ranked] == np.argsort(-scores, kind="stable").tolist()
        for one in ranked:
            assert one["choice"] == choices[one["index"]]
            assert abs(one["score"] - scores[one["index"]]) < 1e-12


def test_the_shape_of_answers() -> None:
    ranked = CHOOSE("the dog", ["found it", "lives in Paris", "is sad"])
    assert [list(one) for one in ranked] == [["index", "choice", "score"]] * 3
    assert [type(value) for value in ranked[0].values()] == [int, str, float]
    assert abs(sum(one["score"] for one in ranked) - 1) < 1e-6
    example = {"prompt": "the dog", "choices": ("found it", "lives in Paris", "is sad")}
    assert CHOOSE(example) == ranked
    assert CHOOSE([example]) == [ranked]
    assert CHOOSE([]) == []
    assert CHOOSE("the dog", ["found it"]) == [{"index": 0, "choice": "found it", "score": 1.0}]
    json.dumps(ranked)


def test_the_model_tells_the_choices_apart() -> None:
    best = [ranked[0]["index"] for ranked in ONE_BY_ONE if len(ranked) > 1]
    assert len(set(best)) > 1
    assert max(ranked[0]["score"] for ranked in ONE_BY_ONE if len(ranked) > 1) > 0.6


def test_equal_choices_have_equal_scores_in_their_order() -> None:
    alike = CHOOSE("the dog", ["is sad", "is sad", "is sad"])
    for one in alike:
        assert abs(one["score"] - 1 / 3) < 1e-6  # a BLAS may round the rows of one product differently
    silent = task_pipeline("multiple-choice")
    silent.model.params["classifier.weight"] = np.zeros((1, silent.model.config.hidden_size), np.float32)
    ranked = silent("the dog", ["is sad", "lives in Paris", "is sad"])
    assert [(one["index"], one["score"]) for one in ranked] == [(index, ranked[0]["score"]) for index in range(3)]


@settings(max_examples=15)
@given(st.permutations(range(16)), st.integers(1, 200))
def test_order_batches_and_padding_change_nothing(order: list[int], max_batch_tokens: int) -> None:
    pipe = nl.pipeline("multiple-choice", CHOOSE.model, CHOOSE.tokenizer, max_batch_tokens=max_batch_tokens)
    answers = pipe([EXAMPLES[index] for index in order], truncation=True)
    for index, ranked in zip(order, answers, strict=True):
        one = [sorted(both, key=lambda entry: entry["index"]) for both in (ranked, ONE_BY_ONE[index])]
        assert_same(*one)


@pytest.mark.parametrize(
    ("prompt", "choices", "message"),
    [
        ("a", None, "choices is None; give a list of one or more texts"),
        ("a", [], r"choices is \[\]"),
        ("a", "b", "choices is 'b'"),
        ("a", ["b", 5], "a choice is 5; give a string"),
        (5, ["b"], "choices are given twice"),
        (5, None, "the prompt is a int; give a string, a dict, or a list of dicts"),
        ({"prompt": "a"}, None, "a prompt is {'prompt': 'a'}; give {'prompt': ..., 'choices': "),
        ({"prompt": 5, "choices": ["b"]}, None, "the prompt is 5; give a string"),
        ([{"prompt": "a", "choices": ["b"]}, "c"], None, "a prompt is 'c'"),
        ({"prompt": "a", "choices": ["b"]}, ["b"], "choices are given twice"),
        ("a", ["b", "the " * 80], r"^choice 1 \(counted from 0\) with its prompt has 88 tokens, more than the 64"),
        (
            [{"prompt": "a", "choices": ["b"]}, {"prompt": "a", "choices": ["the " * 80]}],
            None,
            r"^prompt 1 \(counted from 0\), choice 0 \(counted from 0\) with its prompt has 88 tokens",
        ),
        ("a", ["b\ud800"], "half a character"),
    ],
)
def test_wrong_input(prompt: Any, choices: Any, message: str) -> None:
    with pytest.raises((InputError, TokenizerError), match=message):
        CHOOSE(prompt, choices)


def test_a_checkpoint_without_this_head_is_refused(tmp_path: Path) -> None:
    folder = task_models.save("token-classification", tmp_path)
    with pytest.raises((CheckpointMismatchError, ConfigError), match=r"^multiple-choice needs a checkpoint that was"):
        nl.pipeline("multiple-choice", folder)
