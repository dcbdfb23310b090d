"""What tasks make of their files, beginning with classification: rows, labels, metrics, and lines that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from task_data import changed, everything

import npprelnorm as nl
from npprelnorm.errors import DataError, InputError
from npprelnorm.training.catalog import TASKS, task_class
from npprelnorm.training.tasks.base import TaskOptions, ordered_labels, token_limit
from npprelnorm.training.tasks.classification import PROBLEM_TYPES

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
