"""token-classification: transformers' answers (golden), words and groups, windows, offsets, batches, and errors."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import task_models
from hypothesis import given, settings
from hypothesis import strategies as st
from task_models import assert_same, golden, sentences, task_pipeline, tokenizer

import npprelnorm as nl
from npprelnorm.errors import CheckpointMismatchError, InputError, TokenizerError
from npprelnorm.pipelines.token_classification import STRATEGIES

TAG = task_pipeline("token-classification")
NAMES = task_models.LABELS["token-classification"]
TEXTS = sentences(13, 24, most=8)
LONG = " ".join(sentences(14, 16))
ONE_BY_ONE = [TAG(text, ignore_labels=[], truncation=True) for text in TEXTS]


@pytest.mark.parametrize("case", golden("token-classification"), ids=lambda case: str(case[0]))
def test_golden(case: tuple[dict[str, Any], list[Any], list[Any]]) -> None:
    options, texts, expected = case
    assert sum(map(len, expected)) >= 15
    cut = {} if "stride" in options else {"truncation": True}
    assert_same(TAG(texts, **options, **cut), expected)


class Told:
    """A model that gives each token of a text the scores that the test names."""

    def __init__(self, scores: list[list[float]]) -> None:
        self.scores = scores

    def pipeline(self, labels: list[str]) -> Any:
        model = task_models.model("token-classification", id2label=dict(enumerate(labels)))
        kind = type(model)
        scores = self.scores

        class Model(kind):  # type: ignore[misc, valid-type]
            def __call__(self, ids: Any, mask: Any, **_: Any) -> Any:
                around = np.zeros((1, len(labels)))
                logits = np.log(np.concatenate([around + 1, np.array(scores), around + 1]))
                assert ids.shape == (1, len(logits)), "one score for each token between <s> and </s>"
                return nl.outputs.ClassifierOutput(None, logits[None], None, None)

        model.__class__ = Model
        return nl.pipeline("token-classification", model, tokenizer())


def groups(answer: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(one["entity_group"], one["start"], one["end"]) for one in answer]


def test_each_strategy_by_hand() -> None:
    """' Oslo' is one token, ' Tomx' two, '.' one more that touches it; scores of O, B-PER, I-PER, B-LOC."""
    text = "in Oslo Tomx."
    tokens = [tokenizer().id_to_token(int(i)) for i in tokenizer()(text).input_ids[0, 1:-1]]
    assert tokens == ["i", "n", "\u0120Oslo", "\u0120Tom", "x", "."]
    scores = [
        [0.9, 0.0, 0.1, 0.0],
        [0.8, 0.1, 0.1, 0.0],
        [0.1, 0.1, 0.1, 0.7],
        [0.1, 0.5, 0.3, 0.1],  # Tom: B-PER
        [0.05, 0.05, 0.85, 0.05],  # x: I-PER, the surest
        [0.6, 0.1, 0.2, 0.1],  # the full stop: O
    ]
    tag = Told(np.maximum(scores, 1e-9).tolist()).pipeline(["O", "B-PER", "I-PER", "B-LOC"])
    plain = tag(text)
    assert [(one["entity"], one["word"], one["start"], one["end"], one["index"]) for one in plain] == [
        ("B-LOC", "\u0120Oslo", 3, 7, 3),
        ("B-PER", "\u0120Tom", 8, 11, 4),
        ("I-PER", "x", 11, 12, 5),
    ]
    assert [round(one["score"], 6) for one in plain] == [0.7, 0.5, 0.85]
    simple = tag(text, aggregation_strategy="simple")
    assert groups(simple) == [("LOC", 3, 7), ("PER", 8, 12)]
    assert [one["word"] for one in simple] == [" Oslo", " Tomx"]
    assert [round(one["score"], 6) for one in simple] == [0.7, 0.675]
    assert groups(tag(text, aggregation_strategy="simple", ignore_labels=["LOC"])) == [
        ("O", 0, 2),
        ("PER", 8, 12),
        ("O", 12, 13),
    ]
    # the three tokens between spaces agree: on Tom's label, on x's, on the largest mean
    for strategy, score in (("first", 0.5), ("max", 0.85), ("average", (0.3 + 0.85 + 0.2) / 3)):
        answer = tag(text, aggregation_strategy=strategy)
        assert groups(answer) == [("LOC", 3, 7), ("PER", 8, 13)], strategy
        assert answer[1]["word"] == " Tomx."
        assert abs(answer[1]["score"] - score) < 1e-6, strategy


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["B-PER", "I-PER", "I-PER"], ["PER 0 11"]),
        (["B-PER", "B-PER", "I-PER"], ["PER 0 3", "PER 4 11"]),
        (["I-PER", "I-PER", "B-PER"], ["PER 0 7", "PER 8 11"]),
        (["B-PER", "I-LOC", "I-LOC"], ["PER 0 3", "LOC 4 11"]),
        (["PER", "PER", "PER"], ["PER 0 11"]),
        (["PER", "I-PER", "LOC"], ["PER 0 7", "LOC 8 11"]),
        (
            ["X-PER", "X-PER", "I-PER"],
            ["PER 0 7", "PER 8 11"],
        ),  # only B- and I- are prefixes; a name loses what is before -
        (["B-PER", "O", "I-PER"], ["PER 0 3", "PER 8 11"]),
    ],
)
def test_what_belongs_together(labels: list[str], expected: list[str]) -> None:
    names = sorted({*labels, "O"})
    text = "and the sad"
    wanted = [labels[0]] * 3 + labels[1:]  # "and" at the start, without its space, is three tokens
    assert tokenizer()(text).input_ids.shape == (1, 7)
    scores = [[0.9 if name == label else 1e-3 for name in names] for label in wanted]
    answer = Told(scores).pipeline(names)(text, aggregation_strategy="first")
    assert [f"{one['entity_group']} {one['start']} {one['end']}" for one in answer] == expected


def test_the_shape_of_answers() -> None:
    tokens = TAG("the dog", ignore_labels=[])
    assert [list(one) for one in tokens] == [["entity", "score", "index", "word", "start", "end"]] * 4
    assert [type(value) for value in tokens[0].values()] == [str, float, int, str, int, int]
    assert TAG(["the dog"], ignore_labels=[]) == [tokens]
    (one, *_) = TAG("the dog", ignore_labels=[], aggregation_strategy="simple")
    assert list(one) == ["entity_group", "score", "word", "start", "end"]
    assert TAG([]) == []
    for strategy in STRATEGIES:
        assert TAG("", aggregation_strategy=strategy) == []
        assert TAG(["", "the dog"], aggregation_strategy=strategy) == [
            [],
            TAG("the dog", aggregation_strategy=strategy),
        ]
    json.dumps(tokens)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_places_are_those_of_the_text(strategy: str) -> None:
    for text in TEXTS:
        answer = TAG(text, aggregation_strategy=strategy, ignore_labels=[], truncation=True)
        starts = [one["start"] for one in answer]
        assert starts == sorted(starts)
        for one in answer:
            assert 0 <= one["start"] <= one["end"] <= len(text)
            if strategy != "none" and "\ufffd" not in one["word"]:
                assert one["word"].strip() == text[one["start"] : one["end"]].strip()
        kept = "".join(text[one["start"] : one["end"]] for one in answer)
        if strategy != "none" and len(tokenizer()(text).input_ids[0]) <= task_models.MAX_TOKENS:
            # nothing but space is left out; a letter of several tokens can be in two groups
            assert len("".join(kept.split())) >= len("".join(text.split()))


def test_unknown_tokens_are_words_of_their_own() -> None:
    plain = TAG("dog<unk>cat", ignore_labels=[])
    assert "<unk>" in [one["word"] for one in plain]
    words = TAG("dog<unk>cat", ignore_labels=[], aggregation_strategy="first")
    # d o g | <unk> c a t: what follows an unknown word without a space goes on with it
    assert {place for one in words for place in (one["start"], one["end"])} <= {0, 3, 11}


@settings(max_examples=15)
@given(st.permutations(range(24)), st.integers(1, 200))
def test_order_batches_and_padding_change_nothing(order: list[int], max_batch_tokens: int) -> None:
    pipe = nl.pipeline("token-classification", TAG.model, TAG.tokenizer, max_batch_tokens=max_batch_tokens)
    answers = pipe([TEXTS[index] for index in order], ignore_labels=[], truncation=True)
    assert_same(answers, [ONE_BY_ONE[index] for index in order])


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("stride", [0, 1, 20, 45])
def test_windows_of_a_long_text(strategy: str, stride: int) -> None:
    assert len(tokenizer()(LONG).input_ids[0]) > 4 * task_models.MAX_TOKENS
    answer = TAG(LONG, aggregation_strategy=strategy, stride=stride)
    assert answer[-1]["end"] > len(LONG) * 0.8
    for one, other in itertools.pairwise(answer):
        assert one["end"] <= other["start"]
    for one in answer:
        assert one["entity_group"] != "O"
    short = TEXTS[0]
    assert TAG(short, aggregation_strategy=strategy, stride=stride) == TAG(short, aggregation_strategy=strategy)
    assert TAG([short, LONG], aggregation_strategy=strategy, stride=stride)[1] == answer


def test_of_overlapping_groups_the_longer_or_else_the_surer_is_kept() -> None:
    from npprelnorm.pipelines.token_classification import _without_overlaps

    def entity(start: int, end: int, score: float) -> dict[str, Any]:
        return {"start": start, "end": end, "score": score}

    first, longer, surer, apart = entity(0, 5, 0.5), entity(3, 9, 0.1), entity(3, 9, 0.2), entity(9, 12, 0.1)
    assert _without_overlaps([first, apart, longer]) == [longer, apart]
    assert _without_overlaps([longer, surer, apart]) == [surer, apart]
    assert _without_overlaps([surer, longer]) == [surer]
    assert _without_overlaps([entity(0, 5, 0.5), entity(4, 8, 0.9)]) == [entity(0, 5, 0.5)]
    assert _without_overlaps([]) == []


def test_truncation_keeps_what_the_model_takes() -> None:
    cut = TAG(LONG, truncation=True, ignore_labels=[])
    assert [one["index"] for one in cut] == list(range(1, task_models.MAX_TOKENS - 1))
    assert_same(cut, TAG(LONG[: cut[-1]["end"]], ignore_labels=[]), 1e-6)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (None, {}, "the input is a NoneType; give a string or a list of strings"),
        (["a", 5], {}, r"text\[1\] is a int, not a string"),
        ([["a", "b"]], {}, r"text\[0\] is a list, not a string"),
        ("a", {"aggregation_strategy": "SIMPLE"}, "aggregation_strategy is 'SIMPLE'; allowed: 'none', 'simple'"),
        ("a", {"aggregation_strategy": None}, "aggregation_strategy is None"),
        ("a", {"ignore_labels": "O"}, "ignore_labels is 'O'; give a list of labels"),
        ("a", {"ignore_labels": None}, "ignore_labels is None"),
        ("a", {"stride": 5}, "stride needs an aggregation_strategy"),
        ("a", {"stride": 62, "aggregation_strategy": "simple"}, "stride is 62; it must be from 0 to 61"),
        ("a", {"stride": -1, "aggregation_strategy": "simple"}, "stride is -1"),
        ("a", {"stride": 1.5, "aggregation_strategy": "simple"}, "stride is 1.5"),
        ("a", {"stride": 5, "aggregation_strategy": "simple", "truncation": True}, "give one of the two"),
        ("a", {"truncation": "yes"}, "truncation is 'yes'"),
        (LONG, {}, "the text has .* more than the 64 that this model takes; shorten it, or pass .* or a stride"),
        (["a", LONG], {}, r"text 1 \(counted from 0\) has"),
        ("a\ud800", {}, "half a character"),
    ],
)
def test_wrong_input(texts: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, TokenizerError), match=message):
        TAG(texts, **options)


def test_a_checkpoint_without_this_head_is_refused(tmp_path: Path) -> None:
    folder = task_models.save("text-classification", tmp_path)
    with pytest.raises(CheckpointMismatchError, match=r"^token-classification needs a checkpoint that was trained for"):
        nl.pipeline("token-classification", folder)
