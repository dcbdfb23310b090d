"""text-classification: transformers' answers (golden), what makes scores, pairs, batches, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import task_models
from hypothesis import given, settings
from hypothesis import strategies as st
from task_models import assert_same, golden, sentences, task_pipeline

import npprelnorm as nl
from npprelnorm.errors import CheckpointMismatchError, InputError, TokenizerError

LABEL = task_pipeline("text-classification")
TEXTS = sentences(11, 24, most=8)
PAIRS: list[Any] = [
    {"text": a, "text_pair": b} if index % 2 else a
    for index, (a, b) in enumerate(zip(TEXTS, reversed(TEXTS), strict=True))
]
ONE_BY_ONE = [LABEL(text, top_k=None, truncation=True) for text in PAIRS]
NAMES = task_models.LABELS["text-classification"]


@pytest.mark.parametrize("case", golden("text-classification"), ids=lambda case: str(case[0]))
def test_golden(case: tuple[dict[str, Any], list[Any], list[Any]]) -> None:
    options, texts, expected = case
    assert len(texts) >= 8
    assert_same(LABEL(texts, **options), expected)


def test_the_shape_of_answers() -> None:
    (best,) = LABEL("the dog")
    assert list(best) == ["label", "score"]
    assert [type(value) for value in best.values()] == [str, float]
    assert LABEL(["the dog"]) == [best]
    assert LABEL({"text": "the dog"}) == best  # a dict for a dict, as transformers has it
    assert_same(LABEL([{"text": "the dog"}, "the dog"]), [best, best])  # of two rows a BLAS may round one differently
    assert LABEL("the dog", top_k=1) == [best]
    assert LABEL(["the dog"], top_k=1) == [[best]]
    assert LABEL({"text": "the dog"}, top_k=1) == [best]
    everything = LABEL("the dog", top_k=None)
    assert sorted(one["label"] for one in everything) == sorted(NAMES)
    assert [one["score"] for one in everything] == sorted((one["score"] for one in everything), reverse=True)
    assert LABEL("the dog", top_k=100) == everything
    assert LABEL("the dog", top_k=2) == everything[:2]
    assert LABEL([]) == LABEL([], top_k=2) == []
    json.dumps(everything)


def logits(pipe: Any, text: str) -> np.ndarray:
    return pipe.model(pipe.tokenizer(text).input_ids).logits[0]


@pytest.mark.parametrize(
    ("changes", "function"),
    [
        ({}, "softmax"),
        ({"problem_type": "single_label_classification"}, "softmax"),
        ({"problem_type": "multi_label_classification"}, "sigmoid"),
        ({"problem_type": "regression"}, "none"),
        ({"id2label": {0: "LABEL_0"}}, "sigmoid"),
        ({"id2label": {0: "LABEL_0"}, "problem_type": "regression"}, "none"),
    ],
    ids=str,
)
def test_what_makes_scores_of_logits(changes: dict[str, Any], function: str) -> None:
    pipe = task_pipeline("text-classification", dtype="float64", **changes)
    raw = logits(pipe, "the dog found it")
    naive = {
        "softmax": np.exp(raw) / np.exp(raw).sum(),
        "sigmoid": 1 / (1 + np.exp(-raw)),
        "none": raw,
    }
    for name in (None, *naive):
        scores = {one["label"]: one["score"] for one in pipe("the dog found it", top_k=None, function_to_apply=name)}
        expected = naive[name or function]
        assert list(scores) == [pipe.model.config.id2label[int(i)] for i in np.argsort(-expected)]
        np.testing.assert_allclose([scores[pipe.model.config.id2label[i]] for i in range(len(raw))], expected, 1e-12)


def test_of_equal_scores_the_earlier_label_comes_first() -> None:
    model = task_models.model("text-classification")
    model.params["classifier.out_proj.weight"] = np.zeros((4, 32), np.float32)
    model.params["classifier.out_proj.bias"] = np.array([0, 1, 1, 1], np.float32)
    pipe = nl.pipeline("text-classification", model, task_models.tokenizer())
    assert [one["label"] for one in pipe("a", top_k=3)] == NAMES[1:]
    assert pipe("a")[0]["label"] == NAMES[1]


@settings(max_examples=15)
@given(st.permutations(range(24)), st.integers(1, 200))
def test_order_batches_and_padding_change_nothing(order: list[int], max_batch_tokens: int) -> None:
    pipe = nl.pipeline("text-classification", LABEL.model, LABEL.tokenizer, max_batch_tokens=max_batch_tokens)
    answers = pipe([PAIRS[index] for index in order], top_k=None, truncation=True)
    for index, answer in zip(order, answers, strict=True):
        assert_same(sorted(answer, key=by_label), sorted(ONE_BY_ONE[index], key=by_label), 1e-5)


def by_label(one: dict[str, Any]) -> str:
    return one["label"]


def test_a_pair_is_not_its_parts_and_an_empty_second_text_counts() -> None:
    scores = [
        LABEL([text])[0]["score"] for text in ("a", {"text": "a", "text_pair": ""}, {"text": "a", "text_pair": "a"})
    ]
    assert len(set(scores)) == 3
    assert LABEL({"text": "a", "text_pair": None}) == LABEL({"text": "a"})
    ids, types = LABEL.encode_pairs([("a", "b"), ("a", None)], truncation=False)
    assert not any(row.any() for row in types)  # as RoBERTa has them: a pair is told by its separators
    assert [row.tolist() for row in ids] == [
        LABEL.tokenizer("a", "b").input_ids[0].tolist(),
        LABEL.tokenizer("a").input_ids[0].tolist(),
    ]


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (None, {}, "the input is a NoneType; give a string, a dict, or a list of them"),
        (5, {}, "the input is a int"),
        ([5], {}, "a text is 5; give a string, or {'text'"),
        ([["a", "b"]], {}, r"a text is \['a', 'b'\]; give a string"),
        ({"text": 5}, {}, "a text is {'text': 5}"),
        ({"text": "a", "text_pair": 5}, {}, "a text is {'text': 'a', 'text_pair': 5}"),
        ({"text_pair": "a"}, {}, "a text is {'text_pair': 'a'}"),
        ({"text": "a", "other": "b"}, {}, "a text is"),
        ("a", {"top_k": 0}, "top_k is 0; it must be a whole number from 1, or None"),
        ("a", {"top_k": True}, "top_k is True"),
        ("a", {"top_k": 1.5}, "top_k is 1.5"),
        ("a", {"function_to_apply": "relu"}, "function_to_apply is 'relu'; allowed: 'sigmoid', 'softmax', 'none'"),
        ("a", {"function_to_apply": ["none"]}, r"function_to_apply is \['none'\]"),
        ("a", {"truncation": "yes"}, "truncation is 'yes'; allowed: False, True"),
        ("the " * 80, {}, "the text has 85 tokens, more than the 64 that this model takes; shorten it, or pass trunc"),
        (["a", "the " * 80], {}, r"text 1 \(counted from 0\) has 85 tokens"),
        (["a", {"text": "a", "text_pair": "b\ud800"}], {}, r"text_pair\[1\] has half a character"),
    ],
)
def test_wrong_input(texts: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, TokenizerError), match=message) as caught:
        LABEL(texts, **options)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_this_head_is_refused(tmp_path: Path) -> None:
    folder = task_models.save("token-classification", tmp_path)
    with pytest.raises(CheckpointMismatchError, match=r"^text-classification needs a checkpoint .* classifier.dense"):
        nl.pipeline("text-classification", folder)
    with pytest.raises(InputError, match="text-classification needs a RobertaPreLayerNormForSequenceClassification"):
        nl.pipeline("text-classification", task_models.model("token-classification"), LABEL.tokenizer)


def test_a_folder_gives_the_same(tmp_path: Path) -> None:
    folder = task_models.save("text-classification", tmp_path)
    assert_same(nl.pipeline("text-classification", folder)(TEXTS, truncation=True), LABEL(TEXTS, truncation=True), 0)
