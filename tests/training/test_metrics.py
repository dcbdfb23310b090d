"""The metrics on examples worked out by hand, and what must hold for all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npprelnorm.training.tasks.metrics import (
    accuracy,
    answer_f1,
    entities,
    entity_scores,
    exact_match,
    f1_of_counts,
    macro_f1,
    pearson,
)


def test_accuracy_and_macro_f1() -> None:
    true, predicted = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 3])
    assert accuracy(true, predicted) == 0.6
    # class 0: 2 of 2 and 2 of 3; class 1: 1 of 2 and 1 of 1; classes 2 and 3: nothing
    assert macro_f1(true, predicted) == pytest.approx((0.8 + 2 / 3 + 0.0 + 0.0) / 4)


def test_f1_where_there_is_nothing() -> None:
    assert f1_of_counts(0, 0, 0) == (0.0, 0.0, 0.0)
    assert f1_of_counts(0, 3, 0) == (0.0, 0.0, 0.0)
    assert f1_of_counts(2, 4, 2) == (0.5, 1.0, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O O", set()),
        ("B-A I-A O B-A", {("A", 0, 2), ("A", 3, 4)}),
        ("B-A B-A I-A", {("A", 0, 1), ("A", 1, 3)}),
        ("I-A I-A", {("A", 0, 2)}),  # an I- at the start begins a span
        ("O I-A O", {("A", 1, 2)}),
        ("B-A I-B I-B", {("A", 0, 1), ("B", 1, 3)}),  # and one of another type ends it
        ("B-A I-A", {("A", 0, 2)}),
        ("B-a-b I-a-b O", {("a-b", 0, 2)}),
        ("NOUN B O-A", set()),
    ],
)
def test_entities(tags: str, spans: set[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == spans


@given(st.lists(st.sampled_from(["O", "B-A", "I-A", "B-B", "I-B"]), max_size=12))
def test_entities_cover_what_is_not_outside(tags: list[str]) -> None:
    covered = sorted(index for _, start, end in entities(tags) for index in range(start, end))
    assert covered == [index for index, tag in enumerate(tags) if tag != "O"]


def test_entity_scores() -> None:
    true = ["B-PER I-PER O B-LOC".split(), "B-PER".split()]  # noqa: SIM905  # reads better
    predicted = ["B-PER O O B-LOC".split(), "B-LOC".split()]  # noqa: SIM905
    scores = entity_scores(true, predicted)
    assert scores["precision"] == pytest.approx(1 / 3)
    assert scores["recall"] == pytest.approx(1 / 3)
    assert scores["f1"] == pytest.approx(1 / 3)
    assert scores["f1_PER"] == 0.0
    assert scores["f1_LOC"] == pytest.approx(2 / 3)
    assert entity_scores([["O"]], [["O"]]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_pearson() -> None:
    x = np.array([1.0, 2.0, 4.0])
    assert pearson(x, 3.0 * x - 1.0) == pytest.approx(1.0)
    assert pearson(x, -x) == pytest.approx(-1.0)
    y = np.array([2.0, 1.0, 5.0])
    assert pearson(x, y) == pytest.approx(float(np.corrcoef(x, y)[0, 1]), abs=1e-12)
    assert pearson(x, np.ones(3)) == 0.0


@pytest.mark.parametrize(
    ("predicted", "golden", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1.0, 1.0),
        ("in the Eiffel tower", ["Eiffel tower"], 0.0, 0.8),
        ("a cat", ["dog", "cat", "the cat sat"], 1.0, 1.0),
        ("blue", ["red"], 0.0, 0.0),
        ("", [""], 1.0, 1.0),
        ("something", [""], 0.0, 0.0),
        ("", ["something"], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),  # articles are nothing
        ("cat cat", ["cat"], 0.0, pytest.approx(2 / 3)),  # a word counts once for each time
    ],
)
def test_answers(predicted: str, golden: list[str], exact: float, f1: float) -> None:
    assert exact_match(predicted, golden) == exact
    assert answer_f1(predicted, golden) == pytest.approx(f1)
