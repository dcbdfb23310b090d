"""question-answering: transformers' answers (golden), the search for spans, windows, batches, and errors."""

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
from npprelnorm.errors import CheckpointMismatchError, ConfigError, InputError, NpprelnormError, TokenizerError
from npprelnorm.pipelines.question_answering import best_spans

ANSWER = task_pipeline("question-answering")
WHO = "Who lost it?"
STORY = "Anna lost her book in the garden, and Tom found it near the unbelievable river."
LONG = " ".join(sentences(15, 16))
EXAMPLES = [
    {"question": question, "context": context}
    for question, context in zip(sentences(16, 16, 2, 4), sentences(17, 16, 2, 30), strict=True)
]
ONE_BY_ONE = [ANSWER(example) for example in EXAMPLES]


@pytest.mark.parametrize("case", golden("question-answering"), ids=lambda case: str(case[0]))
def test_golden(case: tuple[dict[str, Any], list[Any], list[Any]]) -> None:
    options, examples, expected = case
    assert len(examples) >= 6
    assert_same(ANSWER(examples, **options), expected)


def test_the_shape_of_answers() -> None:
    best = ANSWER(WHO, STORY)
    assert list(best) == ["score", "start", "end", "answer"]
    assert [type(value) for value in best.values()] == [float, int, int, str]
    assert STORY[best["start"] : best["end"]] == best["answer"]
    example = {"question": WHO, "context": STORY}
    assert ANSWER(example) == ANSWER(question=WHO, context=STORY) == best
    for questions in (([example],), ([WHO], STORY), ([WHO], [STORY])):
        assert ANSWER(*questions) == [best]
    several = ANSWER(WHO, STORY, top_k=3)
    assert len(several) == 3
    assert [one["score"] for one in several] == sorted((one["score"] for one in several), reverse=True)
    assert_same(ANSWER([example, example], top_k=3), [several, several])
    assert ANSWER([]) == []
    json.dumps(several)


def test_fewer_answers_than_asked_for_are_still_a_list() -> None:
    found = ANSWER("Who", "Anna", top_k=5)
    assert isinstance(found, list)
    assert [one["answer"] for one in found] == ["Anna"]
    assert ANSWER("Who", "Anna", top_k=5, handle_impossible_answer=True)[1]["answer"] in ("", "Anna")


@given(st.integers(2, 12), st.integers(1, 15), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_best_spans_are_those_of_a_search_through_all(tokens: int, longest: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    start, end = rng.standard_normal((2, tokens)) * 2
    context = rng.random(tokens) < 0.7
    context[0] = False
    first = np.arange(tokens) == 0
    found = best_spans(start, end, context, first, count, longest)

    def probabilities(logits: np.ndarray) -> np.ndarray:
        e = np.where(context | first, np.exp(logits), 0)
        return e / e.sum()

    p, q = probabilities(start), probabilities(end)
    spans = [
        (p[i] * q[j], i, j)
        for i in range(tokens)
        for j in range(i, min(i + longest, tokens))
        if context[i] and context[j]
    ]
    spans.sort(reverse=True)
    np.testing.assert_allclose(found.scores, [span[0] for span in spans[:count]], rtol=1e-12)
    assert list(zip(found.starts, found.ends, strict=True)) == [(i, j) for _, i, j in spans[:count]]
    assert abs(found.none - p[0] * q[0]) < 1e-12


def test_of_equal_spans_the_earlier_comes_first() -> None:
    logits, context, first = np.zeros(4, np.float32), np.array([0, 1, 1, 1]) == 1, np.array([1, 0, 0, 0]) == 1
    every = [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3)]
    for count in range(1, 9):
        found = best_spans(logits, logits, context, first, count, 15)
        assert list(zip(found.starts, found.ends, strict=True)) == every[:count]
        assert found.scores.tolist() == [1 / 16] * min(count, 6)


def test_answers_are_whole_words_unless_told_otherwise() -> None:
    whole, free = (ANSWER(EXAMPLES, top_k=8, align_to_words=align) for align in (True, False))
    inside = 0
    for example, words, pieces in zip(EXAMPLES, whole, free, strict=True):
        text = example["context"]
        for one in words:
            # a word of the tokenizer's: letters, digits, or signs, never cut within a run of letters
            for place in (one["start"], one["end"]):
                around = text[max(place - 1, 0) : place + 1]
                assert not (len(around) == 2 and around.isascii() and around.isalpha()), (one, around)
        for one in pieces:
            around = text[max(one["start"] - 1, 0) : one["start"] + 1]
            inside += len(around) == 2 and around.isascii() and around.isalpha()
    assert inside > 0  # else the test shows nothing


def test_equal_answers_are_one_with_the_sum_of_their_scores() -> None:
    context = "the Dog is sad and the dog is happy"
    merged = ANSWER("what", context, top_k=50, max_answer_len=1)
    assert len({one["answer"].lower() for one in merged}) == len(merged)
    (dog,) = [one for one in merged if one["answer"].lower() == "dog"]
    apart = ANSWER("what", context.replace("Dog", "cat"), top_k=50, max_answer_len=1)
    assert dog["answer"] in ("dog", "Dog")
    assert len(apart) == len(merged) + 1
    total = sum(one["score"] for one in merged)
    assert 0 < total <= 1.0 + 1e-6


def test_no_answer_takes_part_when_asked_for() -> None:
    for example in EXAMPLES:
        found = ANSWER(example, top_k=10_000, handle_impossible_answer=True)
        (none,) = [one for one in found if (one["start"], one["end"]) == (0, 0)]
        assert none["answer"] == ""
        assert 0 < none["score"] < 1
        assert_same([one for one in found if one is not none], ANSWER(example, top_k=10_000))


def test_no_answer_of_a_long_context_is_as_likely_as_in_its_least_likely_window() -> None:
    exact = task_pipeline("question-answering", dtype="float64")
    products = []
    for window in exact.tokenizer.windows(WHO, LONG, truncation="only_second", max_length=64, stride=8):
        out = exact.model([window.ids])
        asked = np.array([part == 0 for part in window.sequence_ids])
        special = np.array([part is None for part in window.sequence_ids])
        special[0] = False
        product = 1.0
        for logits in (out.start_logits[0], out.end_logits[0]):
            e = np.where(asked | special, 0, np.exp(logits))
            product *= e[0] / e.sum()
        products.append(product)
    assert max(products) > 1.5 * min(products)
    found = exact(WHO, LONG, doc_stride=8, top_k=10_000, handle_impossible_answer=True)
    (none,) = [one for one in found if one["end"] == 0]
    assert abs(none["score"] - min(products)) < 1e-12


def test_long_contexts_are_read_in_windows() -> None:
    places = [ANSWER(question, LONG)["start"] for question in sentences(18, 6, 2, 5)]
    assert max(places) > len(LONG) / 3
    # with one window that holds all of it, the windows' own limits do not matter
    assert ANSWER(WHO, STORY, max_seq_len=64, doc_stride=3) == ANSWER(WHO, STORY)
    tokens = ANSWER.tokenizer(LONG, add_special_tokens=False).input_ids.shape[1]
    seen: list[int] = []
    windows = ANSWER.tokenizer.windows

    class Spy:
        def __getattr__(self, name: str) -> Any:
            return getattr(ANSWER.tokenizer, name)

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            return ANSWER.tokenizer(*arguments, **options)

        def windows(self, *arguments: Any, **options: Any) -> Any:
            found = windows(*arguments, **options)
            seen.append(len(found))
            return found

    pipe = nl.pipeline("question-answering", ANSWER.model, Spy())
    pipe("who", LONG, max_seq_len=40, doc_stride=8)
    room = 40 - 4 - ANSWER.tokenizer("who", add_special_tokens=False).input_ids.shape[1]
    assert seen == [-(-(tokens - 8) // (room - 8))]


def test_a_long_question_leaves_a_smaller_stride() -> None:
    question = "the " * 50  # leaves no room for the default stride of 32, where transformers gives up
    assert ANSWER(question, STORY)["answer"]
    with pytest.raises(InputError, match=r"doc_stride is 32; beside the question a window holds \d tokens: give 0 to"):
        ANSWER(question, STORY, doc_stride=32)


@settings(max_examples=15)
@given(st.permutations(range(16)), st.integers(1, 200))
def test_order_batches_and_padding_change_nothing(order: list[int], max_batch_tokens: int) -> None:
    pipe = nl.pipeline("question-answering", ANSWER.model, ANSWER.tokenizer, max_batch_tokens=max_batch_tokens)
    assert_same(pipe([EXAMPLES[index] for index in order]), [ONE_BY_ONE[index] for index in order])


def test_a_start_token_in_the_question_is_no_answer() -> None:
    found = ANSWER("<s> who <s>", STORY, top_k=1000, max_answer_len=100)
    assert all(one["answer"] and STORY[one["start"] : one["end"]] == one["answer"] for one in found)


def test_damaged_weights_are_named() -> None:
    model = task_models.model("question-answering")
    model.params["qa_outputs.bias"] = np.full(2, np.nan, np.float32)
    with pytest.raises(NpprelnormError, match="the scores are NaN: are the weights damaged"), np.errstate(all="ignore"):
        nl.pipeline("question-answering", model, ANSWER.tokenizer)(WHO, STORY)


@pytest.mark.parametrize(
    ("question", "context", "options", "message"),
    [
        (WHO, None, {}, "the question has no context; pass context="),
        ("", STORY, {}, "the question is ''; give a text"),
        (WHO, " \n", {}, r"the context of the question is ' \\n'; give a text"),
        (5, STORY, {}, "the question is a int; give a string, a dict, or a list of them"),
        (WHO, 5, {}, "the context is a int; give a string, or a list of them"),
        ([WHO, 5], STORY, {}, r"question 1 \(counted from 0\) is 5; give a text"),
        ([WHO, WHO], [STORY], {}, "there are 2 questions and 1 contexts; give one context for each"),
        ({"question": WHO}, None, {}, "the question is {'question': 'Who lost it"),
        ({"question": WHO, "context": STORY}, STORY, {}, "the context of the question is given twice"),
        (WHO, STORY, {"top_k": 0}, "top_k is 0; it must be a whole number from 1"),
        (WHO, STORY, {"max_answer_len": "a"}, "max_answer_len is 'a'"),
        (WHO, STORY, {"max_question_len": 0}, "max_question_len is 0"),
        (WHO, STORY, {"max_question_len": 3}, r"the question has \d+ tokens, more than max_question_len=3; shorten it"),
        (WHO, STORY, {"max_seq_len": 65}, "max_seq_len is 65; it must be from 1 to 64"),
        (WHO, STORY, {"max_seq_len": 4}, "the question has .* leaves no room for the context in a window of 4"),
        (WHO, STORY, {"doc_stride": -1}, "doc_stride is -1"),
        (WHO, STORY, {"doc_stride": 1.5}, "doc_stride is 1.5"),
        (WHO, STORY, {"doc_stride": 64}, "doc_stride is 64"),
        ("the " * 80, STORY, {}, "the question has .* leaves no room"),
        (WHO, "a\ud800", {}, "half a character"),
    ],
)
def test_wrong_input(question: Any, context: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, TokenizerError), match=message):
        ANSWER(question, context, **options)


def test_a_checkpoint_without_this_head_is_refused(tmp_path: Path) -> None:
    folder = task_models.save("text-classification", tmp_path)
    with pytest.raises(
        (CheckpointMismatchError, ConfigError), match=r"^question-answering needs a checkpoint that was"
    ):
        nl.pipeline("question-answering", folder)
