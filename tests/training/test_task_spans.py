"""Tasks about places in a text: the words' tags, and where an answer begins and ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_data import changed

import npprelnorm as nl
from npprelnorm.errors import DataError
from npprelnorm.heads import IGNORE
from npprelnorm.training.catalog import task_class
from npprelnorm.training.tasks.base import TaskOptions
from npprelnorm.training.tasks.question_answering import Question, best_span, question_windows
from npprelnorm.training.tasks.token_classification import word_rows

# ---- tokens


def test_the_first_token_of_each_word_has_its_tag(tokenizer: Any) -> None:
    words = ["Anna", "unbuttoned", "two  spaces", "👍🏽", "naïve", ",", "the", "x" * 30]
    tags = np.arange(len(words))
    (row,) = word_rows(tokenizer, 0, words, tags, 500)
    whole = tokenizer(" ".join(words), return_offsets=True)
    assert row.ids.tolist() == whole.input_ids[0].tolist()
    assert row.words.tolist() == tags.tolist()
    places = np.flatnonzero(row.labels != IGNORE)
    assert row.labels[places].tolist() == tags.tolist()
    assert row.labels[0] == row.labels[-1] == IGNORE
    starts = np.cumsum([0] + [len(word) + 1 for word in words[:-1]])
    for place, start in zip(places, starts, strict=True):
        first, last = whole.offset_mapping[0, place]
        # the token begins where its word does, or is the space before it alone
        assert first == start or (first == last == start)


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip), min_size=1)
)
def test_any_words_get_their_tags_in_any_row_length(words: list[str]) -> None:
    tokenizer = nl.Tokenizer.from_pretrained(nl.embedded_model_path()) if not _KEPT else _KEPT[0]
    _KEPT[:] = [tokenizer]
    tags = np.arange(len(words))
    whole = tokenizer(" ".join(words)).input_ids[0]
    for limit in (8, 13, 500):
        rows = word_rows(tokenizer, 7, words, tags, limit)
        assert np.concatenate([row.ids[1:-1] for row in rows]).tolist() == whole[1:-1].tolist()
        labels = np.concatenate([row.labels[row.labels != IGNORE] for row in rows])
        assert labels.tolist() == np.concatenate([row.words for row in rows]).tolist()
        assert sorted(set(labels.tolist())) == labels.tolist()  # each once, in order
        for row in rows:
            assert len(row.ids) == len(row.labels) <= limit
            assert (row.ids[0], row.ids[-1]) == (whole[0], whole[-1])
            assert row.labels[0] == row.labels[-1] == IGNORE
        if not any(character.isspace() for word in words for character in word):
            assert labels.tolist() == tags.tolist()


_KEPT: list[Any] = []


def test_long_sentences_are_cut_between_words(tokenizer: Any) -> None:
    words = ["Anna", "unbuttoned", "it"] * 10
    rows = word_rows(tokenizer, 0, words, np.arange(30), 12)
    assert len(rows) > 2
    assert all(row.labels[1] != IGNORE for row in rows)  # each begins with a word's first token
    assert [len(row.ids) <= 12 for row in rows] == [True] * len(rows)


def test_tags_and_entities(write_lines: Callable[..., Path], tokenizer: Any, config: Any) -> None:
    lines = [{"tokens": ["Anna", "sings"], "tags": ["B-PER", "O"]}, {"tokens": ["in", "Rome"], "tags": ["O", "B-LOC"]}]
    path = write_lines("a.jsonl", lines)
    task = task_class("token-classification")(path, path, TaskOptions())
    config = changed(config, task)
    assert config.id2label == {0: "B-LOC", 1: "B-PER", 2: "O"}
    assert task.metric == "f1"

    class Fixed:
        """A model that calls every token PER."""

        def __call__(self, input_ids: np.ndarray, labels: np.ndarray, **_: Any) -> Any:
            logits = np.zeros((*input_ids.shape, 3))
            logits[..., 1] = 5.0
            return type("Output", (), {"logits": logits, "loss": 1.5})

    scores = task.evaluator(tokenizer, config)(Fixed())
    assert scores["loss"] == 1.5
    assert scores["accuracy"] == 0.25
    assert scores["precision"] == 0.25  # four entities, one of them right
    assert scores["recall"] == 0.5
    assert scores["f1_PER"] == pytest.approx(0.4)
    assert scores["f1_LOC"] == 0.0


def test_tags_without_entities_and_csv(tmp_path: Path, config: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_text("tokens,tags\nAnna sings,NOUN VERB\n", encoding="utf-8")
    task = task_class("token-classification")(path, None, TaskOptions())
    assert task.metric == "accuracy"
    assert changed(config, task).id2label == {0: "NOUN", 1: "VERB"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "line 2: it has 2 tokens but 1 tags; give one tag for each token"),
        ({"tokens": [], "tags": []}, "line 2: tokens is empty"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, r"line 2: tokens\[1\] is empty"),
        ({"tokens": ["a"], "tags": [""]}, r"line 2: tags\[0\] is empty"),
        ({"tokens": "a b", "tags": ["O", "O"]}, "line 2: tokens is 'a b', not a list of strings"),
        ({"tokens": ["a"], "tags": [1]}, r"line 2: tags\[0\] is 1, not a string"),
        ({"tokens": ["a"]}, "line 2: the field 'tags' is missing; the line has 'tokens'"),
        ({"tokens": ["a"], "tags": ["O"]}, "line 2: up to here all tags are 'O'; at least 2 are needed"),
    ],
)
def test_bad_token_lines(write_lines: Callable[..., Path], line: Any, message: str) -> None:
    path = write_lines("a.jsonl", [{"tokens": ["a"], "tags": ["O"]}, line])
    with pytest.raises(DataError, match=message):
        task_class("token-classification")(path, None, TaskOptions())


def test_an_unknown_tag_of_the_evaluation_is_named(write_lines: Callable[..., Path]) -> None:
    train = write_lines("a.jsonl", [{"tokens": ["a", "b"], "tags": ["O", "B-X"]}])
    other = write_lines("b.jsonl", [{"tokens": ["a"], "tags": ["I-X"]}])
    with pytest.raises(
        DataError, match=r"b\.jsonl, line 1: the tag 'I-X' is not in the training file, which has B-X, O"
    ):
        task_class("token-classification")(train, other, TaskOptions())


# ---- questions


CONTEXT = "Anna gave the book to Tom. Mary took the naïve 👍🏽 letter from Paul in the garden. " * 3


@given(st.integers(0, len(CONTEXT) - 2), st.integers(1, 30), st.sampled_from((16, 24, 64)))
def test_every_answer_is_found_in_the_windows(start: int, width: int, limit: int) -> None:
    tokenizer = nl.Tokenizer.from_pretrained(nl.embedded_model_path()) if not _KEPT else _KEPT[0]
    _KEPT[:] = [tokenizer]
    answer = CONTEXT[start : start + width]
    windows = question_windows(tokenizer, 3, Question("Who is it?", CONTEXT, [answer], start), limit)
    asked = tokenizer("Who is it?", add_special_tokens=False).input_ids[0].tolist()
    covered = np.zeros(len(CONTEXT), bool)
    for window in windows:
        assert window.example == 3
        assert len(window.ids) <= limit
        assert window.ids[1 : 1 + len(asked)].tolist() == asked[: (limit - 4) // 2]
        assert len(window.places) == len(window.offsets)
        for first, last in window.offsets:
            covered[first:last] = True
        if window.start:
            ends = dict(zip(window.places.tolist(), window.offsets.tolist(), strict=True))
            # all of the answer, and nothing more than the rest of its first and last token
            assert ends[window.start][0] <= start
            assert ends[window.start][1] > start
            assert ends[window.end][1] >= start + len(answer)
            assert ends[window.end][0] < start + len(answer)
    assert all(covered[i] or CONTEXT[i] == " " for i in range(len(CONTEXT)))


def test_no_answer_is_the_first_token(tokenizer: Any) -> None:
    for window in question_windows(tokenizer, 0, Question("Who?", CONTEXT, [], 0), 32):
        assert (window.start, window.end) == (0, 0)


def test_best_span_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 60):
        start, end = rng.standard_normal(count), rng.standard_normal(count)
        spans = [(start[i] + end[j], i, j) for i in range(count) for j in range(i, min(count, i + 30))]
        assert best_span(start, end) == pytest.approx(max(spans))
    assert best_span(np.zeros(0), np.zeros(0)) == (-np.inf, 0, 0)


@pytest.mark.parametrize("with_none", [False, True])
def test_answers_are_judged_over_all_windows(
    write_lines: Callable[..., Path], tokenizer: Any, config: Any, with_none: bool
) -> None:
    place = CONTEXT.index("Paul", 100)
    lines = [{"question": "Who?", "context": CONTEXT, "answer": "Paul", "start": place}]
    lines += [{"question": "Why?", "context": CONTEXT, "answer": None}] if with_none else []
    path = write_lines("a.jsonl", lines)
    task = task_class("question-answering")(path, path, TaskOptions(max_length=24))
    data = task.data(1, tokenizer, config)

    class Right:
        """A model that knows every row's answer, and is surest where there is one."""

        def __call__(self, input_ids: Any, start_positions: Any, end_positions: Any, **_: Any) -> Any:
            scores = np.zeros((2, *input_ids.shape))
            for side, places in enumerate((start_positions, end_positions)):
                scores[side, np.arange(len(places)), places] = np.where(np.asarray(places) > 0, 9.0, 3.0)
            return type("Output", (), {"start_logits": scores[0], "end_logits": scores[1], "loss": 0.5})

    assert len(data.lengths) > len(lines)
    assert task.evaluator(tokenizer, config)(Right()) == {"loss": 0.5, "exact_match": 1.0, "f1": 1.0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"answer": "Tom", "start": 3},
            "line 1: the answer 'Tom' is not at 3 of the context, which has 'a g' there; it",
        ),
        ({"answer": "Tim", "start": 3}, "there; it is nowhere in it"),
        ({"answer": "Tom", "start": -1}, "which has nothing there; it is at 11"),
        ({"answer": "Tom", "start": "11"}, "line 1: start is '11', not a whole number"),
        ({"answer": "Tom"}, "line 1: the field 'start' is missing"),
        ({"answer": ["Tom"], "start": 11}, "give both as lists, or neither"),
        ({"answer": ["Tom"], "start": [11, 12]}, "line 1: it has 1 answers but 2 starts"),
        ({"answer": ["Tom"], "start": [11.0]}, "line 1: start holds 11.0, not a whole number"),
        ({"answer": ["Tom", ""], "start": [11, 0]}, "line 1: an answer is empty"),
        ({"answer": 7, "start": 11}, "line 1: answer is 7, not a string"),
        ({"question": "", "answer": "Tom", "start": 11}, "line 1: question is empty"),
    ],
)
def test_bad_question_lines(write_lines: Callable[..., Path], line: dict[str, Any], message: str) -> None:
    path = write_lines("a.jsonl", [{"question": "Who?", "context": "Anna gave Tom it.".replace("Tom", " Tom")} | line])
    with pytest.raises(DataError, match=message):
        task_class("question-answering")(path, None, TaskOptions())


def test_several_right_answers(write_lines: Callable[..., Path]) -> None:
    line = {"question": "Who?", "context": "Anna or Tom", "answer": ["Tom", "Anna"], "start": [8, 0]}
    task: Any = task_class("question-answering")(write_lines("a.jsonl", [line]), None, TaskOptions())
    assert task._questions[0] == [Question("Who?", "Anna or Tom", ["Tom", "Anna"], 8)]
