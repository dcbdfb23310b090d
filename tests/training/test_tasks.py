"""What each task makes of its files: rows, labels, metrics, and what it says of lines that cannot be used."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npprelnorm as nl
from npprelnorm.errors import DataError, InputError
from npprelnorm.heads import IGNORE
from npprelnorm.training.catalog import TASKS, task_class
from npprelnorm.training.tasks.base import TaskOptions, ordered_labels, token_limit
from npprelnorm.training.tasks.classification import PROBLEM_TYPES
from npprelnorm.training.tasks.language import packed
from npprelnorm.training.tasks.question_answering import Question, best_span, question_windows
from npprelnorm.training.tasks.token_classification import word_rows

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def tokenizer() -> nl.Tokenizer:
    return nl.Tokenizer.from_pretrained(nl.embedded_model_path())


@pytest.fixture
def config(tiny_checkpoint: Path) -> nl.RobertaPreLayerNormConfig:
    return nl.RobertaPreLayerNormConfig.from_pretrained(tiny_checkpoint)


def changed(config: nl.RobertaPreLayerNormConfig, task: Any) -> nl.RobertaPreLayerNormConfig:
    return nl.RobertaPreLayerNormConfig.from_dict(config.to_dict(), **task.config_changes(config))


def everything(data: Any) -> dict[str, np.ndarray]:
    """All examples in one batch."""
    return data.collate(np.arange(len(data.lengths)), np.random.default_rng(0))


# ---- the catalog


@pytest.mark.parametrize("name", TASKS)
def test_the_catalog_tells_what_the_tasks_document(name: str) -> None:
    kind = task_class(name)
    assert kind.__doc__ is not None
    section = kind.__doc__.split("Fields of a line")[1]
    names = [line.split(":")[0] for line in section.splitlines() if " : " in line]
    documented = {word.strip() for name in names for word in name.split(",")}
    assert documented == set(TASKS[name].fields)


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(InputError, match="task is 'ner'; allowed: classification, token-classification"):
        task_class("ner")


# ---- classification


def test_single_labels_by_name(write_lines: Callable[..., Path], tokenizer: Any, config: Any) -> None:
    path = write_lines("a.jsonl", [{"text": "Anna", "label": "no"}, {"text": "The cat purrs.", "label": "a yes"}])
    task = task_class("classification")(path, path, TaskOptions())
    config = changed(config, task)
    assert config.problem_type == "single_label_classification"
    assert config.id2label == {0: "a yes", 1: "no"}
    assert config.label2id == {"a yes": 0, "no": 1}
    batch = everything(task.data(0, tokenizer, config))
    assert batch["labels"].tolist() == [1, 0]
    assert batch["input_ids"][1].tolist() == tokenizer("The cat purrs.").input_ids[0].tolist()
    assert batch["attention_mask"].sum(axis=1).tolist() == [3, tokenizer("The cat purrs.").input_ids.shape[1]]
    assert (task.metric, task.greater_is_better) == ("accuracy", True)


def test_numbers_that_are_classes_are_in_order(write_lines: Callable[..., Path], config: Any) -> None:
    path = write_lines("a.jsonl", [{"text": "a", "label": n} for n in (10, 9, 2)])
    task = task_class("classification")(path, None, TaskOptions())
    assert changed(config, task).id2label == {0: "2", 1: "9", 2: "10"}


def test_a_checkpoint_that_knows_the_labels_keeps_its_order(config: Any) -> None:
    config.id2label = {0: "yes", 1: "no", 2: "maybe"}
    assert ordered_labels({"no", "yes"}, config) == {0: "yes", 1: "no", 2: "maybe"}
    assert ordered_labels({"no", "never"}, config) == {0: "never", 1: "no"}


@pytest.mark.parametrize("pairs", [False, True])
def test_pairs_and_csv(tmp_path: Path, tokenizer: Any, config: Any, pairs: bool) -> None:
    path = tmp_path / "a.csv"
    head, cell = (",text_pair", ",She sings.") if pairs else ("", "")
    path.write_text(f"id,text{head},label\n1,Anna{cell},x\n2,Mary had a lamb{cell},y\n", encoding="utf-8")
    task = task_class("classification")(path, None, TaskOptions(max_length=9))
    batch = everything(task.data(0, tokenizer, changed(config, task)))
    assert batch["labels"].tolist() == [0, 1]
    expected = [tokenizer(text, "She sings." if pairs else None, truncation=True, max_length=9).input_ids[0].tolist()
                for text in ("Anna", "Mary had a lamb")]  # fmt: skip
    for row, mask, right in zip(batch["input_ids"], batch["attention_mask"], expected, strict=True):
        assert row[mask == 1].tolist() == right


def test_several_labels(write_lines: Callable[..., Path], tmp_path: Path, tokenizer: Any, config: Any) -> None:
    path = write_lines("a.jsonl", [{"text": "a", "labels": []}, {"text": "b", "labels": ["y", "x"]}])
    other = tmp_path / "a.csv"
    other.write_text("text,labels\na,\nb,y|x\n", encoding="utf-8")
    for file in (path, other):
        task = task_class("classification")(file, file, TaskOptions())
        own = changed(config, task)
        assert (own.problem_type, own.id2label) == ("multi_label_classification", {0: "x", 1: "y"})
        assert everything(task.data(0, tokenizer, own))["labels"].tolist() == [[0.0, 0.0], [1.0, 1.0]]
        assert task.metric == "micro_f1"


def test_numbers_mean_regression(write_lines: Callable[..., Path], tmp_path: Path, tokenizer: Any, config: Any) -> None:
    path = write_lines("a.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": 2.5}])
    other = tmp_path / "a.csv"
    other.write_text("text,label\na,1\nb,2.5\n", encoding="utf-8")
    for file in (path, other):
        task = task_class("classification")(file, file, TaskOptions())
        own = changed(config, task)
        assert (own.problem_type, own.num_labels) == ("regression", 1)
        assert everything(task.data(0, tokenizer, own))["labels"].tolist() == [1.0, 2.5]
        assert (task.metric, task.greater_is_better) == ("mse", False)
    whole = write_lines("b.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": 2}])
    for option, expected in ((None, "single_label_classification"), ("regression", "regression")):
        task = task_class("classification")(whole, None, TaskOptions(problem_type=option))
        assert changed(config, task).problem_type == expected
    assert set(PROBLEM_TYPES) == {"single_label_classification", "multi_label_classification", "regression"}


GOOD = {"text": "a", "label": "x"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD, {"text": "b"}], "line 2: the field 'label' is missing; the line has 'text'"),
        ([GOOD, {"label": "y"}], "line 2: the field 'text' is missing"),
        ([GOOD, {"text": "b", "label": True}], "line 2: label is True; give a class as a string or a whole number"),
        ([GOOD, {"text": "b", "label": ["y"]}], r"line 2: label is \['y'\]; give a class"),
        ([GOOD, {"text": "b", "label": 0.5}], "line 1: label is 'x', not a finite number"),
        ([GOOD, {"text": "b", "label": " "}], "line 2: label is empty"),
        ([GOOD, {"text": "b", "text_pair": "c", "label": "y"}], "line 2: it has a text_pair, unlike the first line"),
        ([GOOD | {"text_pair": "c"}, GOOD], "line 2: it has no text_pair, unlike the first line"),
        ([GOOD, GOOD], "line 2: up to here all labels are 'x'; at least 2 are needed"),
        ([GOOD, {"text": "b", "labels": ["y"]}], "line 2: it has labels where other lines have label"),
        ([{"text": "a", "labels": ["x", "x"]}], "line 1: labels holds 'x' twice; name each label once"),
        ([{"text": "a", "labels": [""]}], "line 1: labels holds an empty name"),
        ([{"text": "a", "labels": "x"}], "line 1: labels is 'x', not a list of strings"),
        ([{"text": "a", "labels": []}], "line 1: up to here no line has a label"),
    ],
)
def test_bad_classification_lines(write_lines: Callable[..., Path], lines: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        task_class("classification")(write_lines("a.jsonl", lines), None, TaskOptions())


def test_an_unknown_label_of_the_evaluation_is_named(write_lines: Callable[..., Path]) -> None:
    train = write_lines("a.jsonl", [GOOD, {"text": "b", "label": "y"}])
    with pytest.raises(DataError, match=r"b\.jsonl, line 2: the label 'z' is not in the training file, which has x, y"):
        task_class("classification")(train, write_lines("b.jsonl", [GOOD, GOOD | {"label": "z"}]), TaskOptions())
    train = write_lines("a.jsonl", [{"text": "b", "labels": ["y"]}])
    with pytest.raises(DataError, match="line 1: the label 'z' is not in the training file, which has y"):
        task_class("classification")(
            train, write_lines("b.jsonl", [{"text": "b", "labels": ["y", "z"]}]), TaskOptions()
        )
    with pytest.raises(InputError, match="problem_type is 'single'; allowed: single_label"):
        task_class("classification")(train, None, TaskOptions(problem_type="single"))


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


# ---- choices


def test_choices(write_lines: Callable[..., Path], tmp_path: Path, tokenizer: Any, config: Any) -> None:
    path = write_lines("a.jsonl", [{"prompt": "Anna", "choices": ["sings.", "is a very old boat."], "label": 1}] * 2)
    other = tmp_path / "a.csv"
    other.write_text("prompt,choice0,choice1,label\n" + "Anna,sings.,is a very old boat.,1\n" * 2, encoding="utf-8")
    for file in (path, other):
        task = task_class("multiple-choice")(file, None, TaskOptions())
        data = task.data(0, tokenizer, config)
        batch = everything(data)
        assert batch["labels"].tolist() == [1, 1]
        assert batch["input_ids"].shape[:2] == (2, 2)
        for index, choice in enumerate(("sings.", "is a very old boat.")):
            row, mask = batch["input_ids"][0, index], batch["attention_mask"][0, index]
            assert row[mask == 1].tolist() == tokenizer("Anna", choice).input_ids[0].tolist()
        assert data.lengths.tolist() == [2 * batch["input_ids"].shape[2]] * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "a", "choices": ["x"], "label": 0}, "line 2: it has 1 choices; give at least 2"),
        ({"prompt": "a", "choices": ["x", "y"], "label": 2}, "line 2: label is 2; with 2 choices it must be 0 to 1"),
        ({"prompt": "a", "choices": ["x", "y"], "label": "1"}, "line 2: label is '1', not a whole number"),
        ({"prompt": "a", "choices": ["x", ""], "label": 0}, r"line 2: choices\[1\] is empty"),
        ({"prompt": "a", "choices": ["x", "y", "z"], "label": 0}, "line 2: it has 3 choices, but the first line has 2"),
        ({"choices": ["x", "y"], "label": 0}, "line 2: the field 'prompt' is missing"),
    ],
)
def test_bad_choice_lines(write_lines: Callable[..., Path], line: Any, message: str) -> None:
    path = write_lines("a.jsonl", [{"prompt": "a", "choices": ["x", "y"], "label": 0}, line])
    with pytest.raises(DataError, match=message):
        task_class("multiple-choice")(path, None, TaskOptions())


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


# ---- language models


@given(st.lists(st.integers(1, 25), max_size=30), st.integers(2, 12))
def test_packed_rows_hold_everything_and_cut_only_what_is_too_long(sizes: list[int], limit: int) -> None:
    texts, number = [], 0
    for size in sizes:
        texts.append(np.arange(number, number + size))
        number += size
    rows = packed(texts, limit)
    assert all(2 <= len(row) <= limit for row in rows)
    flat = [int(token) for row in rows for token in row]
    assert flat == sorted(flat)
    ends = {int(text[-1]) for text in texts}
    lost = set(range(number)) - set(flat)
    assert all(token in ends for token in lost)  # single tokens at the end of what was cut
    size_of = {int(token): len(text) for text in texts for token in text}
    for row in rows:  # a row begins and ends within a text only if that is longer than a row
        first, last = int(row[0]), int(row[-1])
        assert first == 0 or first - 1 in ends or size_of[first] > limit
        assert last in ends or size_of[last] > limit
    for row, after in itertools.pairwise(rows):  # and it is full: the next piece did not fit
        piece = min(size_of[int(after[0])], limit)
        assert len(row) + piece > limit or size_of[int(after[0])] > limit


def test_whole_lines_share_a_row(write_lines: Callable[..., Path], tokenizer: Any, config: Any) -> None:
    texts = ["Anna sings.", "The cat purrs.", "Tom gave the book to Mary."]
    path = write_lines("a.jsonl", [{"text": text} for text in texts])
    rows = [tokenizer(text).input_ids[0].tolist() for text in texts]
    task = task_class("causal-lm")(path, None, TaskOptions(max_length=len(rows[0]) + len(rows[1])))
    config = changed(config, task)
    assert config.is_decoder
    batch = everything(task.data(0, tokenizer, config))
    assert batch["input_ids"][0].tolist() == rows[0] + rows[1]
    assert batch["input_ids"][1, : len(rows[2])].tolist() == rows[2]
    real = batch["attention_mask"] == 1
    assert (batch["labels"][real] == batch["input_ids"][real]).all()
    assert (batch["labels"][~real] == IGNORE).all()


def test_masks_are_new_each_time_and_fixed_in_the_evaluation(
    write_lines: Callable[..., Path], tokenizer: Any, config: Any
) -> None:
    path = write_lines("a.jsonl", [{"text": f"Tom gave the {thing} to Mary."} for thing in ("book", "cup", "boat")] * 9)
    task: Any = task_class("masked-lm")(path, path, TaskOptions(mask_rate=0.3, max_length=20))
    data = task.data(0, tokenizer, config)
    one, other = (data.collate(np.arange(3), np.random.default_rng(seed))["labels"] for seed in (1, 2))
    assert not np.array_equal(one, other)
    fixed = [task.data(1, tokenizer, config).fixed() for _ in range(2)]
    first = fixed[0].collate(np.array([4, 1]), np.random.default_rng(1))
    second = fixed[1].collate(np.array([1]), np.random.default_rng(2))
    width = int(first["attention_mask"][1].sum())
    assert np.array_equal(first["input_ids"][1, :width], second["input_ids"][0, :width])
    assert np.array_equal(first["labels"][1, :width], second["labels"][0, :width])
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert not np.isin(first["labels"], special).any()


def test_whole_words_of_a_real_tokenizer(write_lines: Callable[..., Path], tokenizer: Any, config: Any) -> None:
    path = write_lines("a.jsonl", [{"text": "Anna unbuttoned the embroidered coat, slowly."}])
    task = task_class("masked-lm")(path, None, TaskOptions(mask_rate=0.1, whole_words=True))
    data = task.data(0, tokenizer, config)
    sizes = set()
    for seed in range(20):
        batch = data.collate(np.array([0]), np.random.default_rng(seed))
        hidden = batch["labels"][0][batch["labels"][0] != IGNORE]
        text = tokenizer.decode(hidden.tolist()).strip()
        assert text in {"Anna", "unbuttoned", "the", "embroidered", "coat", ",", "slowly", "."}
        sizes.add(len(hidden))
    assert max(sizes) > 1


def test_a_model_without_masks_or_words(config: Any, write_lines: Callable[..., Path], tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"the masking rate is 2\.0"):
        TaskOptions(mask_rate=2.0)
    with pytest.raises(InputError, match="the masking strategy is 'some'"):
        TaskOptions(mask_strategy="some")


# ---- limits


def test_limits(tokenizer: Any, config: Any) -> None:
    assert token_limit(tokenizer, config, None) == config.max_tokens == 64
    assert token_limit(tokenizer, config, 20) == 20
    for wrong in (3, 65):
        with pytest.raises(InputError, match=f"max_length is {wrong}; this model and task allow 8 to 64"):
            token_limit(tokenizer, config, wrong)


def test_a_tokenizer_of_another_model_is_refused(
    write_lines: Callable[..., Path], tokenizer: Any, config: Any, examples: Callable[..., Any]
) -> None:
    small = nl.RobertaPreLayerNormConfig.from_dict(config.to_dict(), vocab_size=100)
    for name, kind in (
        ("classification", "single"), ("token-classification", "tags"), ("multiple-choice", "choice"),
        ("question-answering", "question"), ("masked-lm", "lines"), ("causal-lm", "lines"),
    ):  # fmt: skip
        task = task_class(name)(write_lines("a.jsonl", examples(kind)), None, TaskOptions())
        with pytest.raises(InputError, match="but the model knows only 100 tokens; use the tokenizer that it was"):
            task.data(0, tokenizer, changed(small, task))


def test_a_decoder_becomes_an_encoder(write_lines: Callable[..., Path], config: Any, examples: Any) -> None:
    decoder = nl.RobertaPreLayerNormConfig.from_dict(config.to_dict(), is_decoder=True, add_cross_attention=True)
    for name, kind in (("classification", "single"), ("masked-lm", "lines")):
        task = task_class(name)(write_lines("a.jsonl", examples(kind)), None, TaskOptions())
        own = changed(decoder, task)
        assert (own.is_decoder, own.add_cross_attention) == (False, False)


def test_errors_are_one_line(write_lines: Callable[..., Path]) -> None:
    path = write_lines("a.jsonl", [{"text": "a", "label": "x\ny" * 200}, {"text": "\n" * 9, "label": "z"}])
    with pytest.raises(DataError) as caught:
        task_class("classification")(path, None, TaskOptions())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert json.dumps(str(caught.value))
