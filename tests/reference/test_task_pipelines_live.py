"""The task pipelines against transformers' own, live, on random texts full of what is hard to count in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import task_models
from reference_pipelines import theirs

pytestmark = pytest.mark.reference

COUNT = 110
CASES = task_models.cases(seed=100, count=COUNT)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The models are so small that threads only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ["RUST_BACKTRACE"] = "0"
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {task: task_models.save(task, tmp_path_factory.mktemp(task)) for task in task_models.CLASSES}


def named(case: tuple[str, dict[str, Any], list[Any]]) -> str:
    return " ".join([case[0], *(f"{name}={value}" for name, value in case[1].items())])


@pytest.mark.parametrize("case", CASES, ids=named)
def test_answers_are_transformers(case: tuple[str, dict[str, Any], list[Any]], folders: dict[str, str]) -> None:
    task, options, inputs = case
    expected = theirs(folders[task], task, options, inputs)
    compared = 0
    cut = {"truncation": True} if task == "token-classification" and "stride" not in options else {}
    for index, (one, answer) in enumerate(
        zip(expected, task_models.task_pipeline(task)(inputs, **options, **cut), strict=True)
    ):
        if one is None:
            continue
        compared += 1
        task_models.assert_same(answer, one, place=f"{inputs[index]!r}: ")
    assert compared >= len(inputs) - 3
    assert compared >= (25 if "stride" in options else 100)


@pytest.mark.parametrize(
    "changes",
    [
        {"problem_type": "regression", "num_labels": 1, "id2label": None},
        {"problem_type": "regression"},
        {"problem_type": "multi_label_classification"},
        {"num_labels": 1, "id2label": None},
    ],
    ids=str,
)
def test_what_makes_scores_of_logits(changes: dict[str, Any], tmp_path: Path) -> None:
    changes = {name: value for name, value in changes.items() if value is not None} | (
        {"id2label": {0: "LABEL_0"}} if changes.get("num_labels") == 1 else {}
    )
    folder = task_models.save("text-classification", tmp_path, **changes)
    pipe = task_models.task_pipeline("text-classification", **changes)
    texts = task_models.sentences(7, 20, most=8)
    for options in ({}, {"top_k": None}, {"function_to_apply": "softmax"}):
        task_models.assert_same(pipe(texts, **options), theirs(folder, "text-classification", options, texts))


def test_the_shape_of_answers(folders: dict[str, str]) -> None:
    import transformers

    pipe = task_models.task_pipeline("text-classification")
    other = transformers.pipeline("text-classification", model=folders["text-classification"], device="cpu")
    for given in ("the dog", {"text": "the dog"}, {"text": "the dog", "text_pair": "a cat"}, ["the dog"]):
        for options in ({}, {"top_k": 1}, {"top_k": 2}, {"top_k": None}):
            task_models.assert_same(pipe(given, **options), other(given, **options))


def test_multiple_choice_is_the_softmax_of_the_model(folders: dict[str, str]) -> None:
    import torch
    import transformers

    theirs = transformers.RobertaPreLayerNormForMultipleChoice.from_pretrained(folders["multiple-choice"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["multiple-choice"])
    pipe = task_models.task_pipeline("multiple-choice")
    prompts = task_models.sentences(5, 110, most=5)
    options = [task_models.sentences(index, 2 + index % 4, most=4) for index in range(110)]
    ours = pipe([{"prompt": p, "choices": c} for p, c in zip(prompts, options, strict=True)], truncation=True)
    for prompt, choices, ranked in zip(prompts, options, ours, strict=True):
        batch = tokenizer([prompt] * len(choices), choices, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            logits = theirs(**{name: value[None] for name, value in batch.items()}).logits[0]
        scores = logits.softmax(0).tolist()
        assert sorted(one["index"] for one in ranked) == list(range(len(choices)))
        assert [one["score"] for one in ranked] == sorted((one["score"] for one in ranked), reverse=True)
        for one in ranked:
            assert one["choice"] == choices[one["index"]]
            assert abs(one["score"] - scores[one["index"]]) <= 1e-5
