"""The tasks by name: where each is, and what its files hold. Nothing else is imported until a task is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InputError

if TYPE_CHECKING:
    from .tasks.base import Task


class Entry(NamedTuple):
    """A task of the catalog."""

    module: str
    name: str
    summary: str
    fields: dict[str, str]  # what a line of its files holds


_TEXT = {"text": "a line or paragraph; as many whole ones as fit share a row, a longer one is cut into several"}

TASKS = {
    "classification": Entry(
        "classification",
        "Classification",
        "a label, several labels or a number for each text or pair of texts",
        {
            "text": "the text",
            "text_pair": "the second text of a pair (every line or none)",
            "label": "a class, by name or whole number; numbers with a fraction mean regression",
            "labels": "instead of label: a list of classes that all hold, perhaps none (CSV: class|class)",
        },
    ),
    "token-classification": Entry(
        "token_classification",
        "TokenClassification",
        "a tag for each word, such as named entities",
        {
            "tokens": "a list of words (CSV: with spaces between them)",
            "tags": "a list of as many tags, such as B-PER I-PER O (CSV: with spaces between them)",
        },
    ),
    "multiple-choice": Entry(
        "multiple_choice",
        "MultipleChoice",
        "the right one of several choices",
        {
            "prompt": "the text that every choice is put after",
            "choices": "a list of 2 or more texts, in every line as many (CSV: columns choice0, choice1, ...)",
            "label": "which choice is right, counted from 0",
        },
    ),
    "question-answering": Entry(
        "question_answering",
        "QuestionAnswering",
        "the part of a text that answers a question",
        {
            "question": "the question",
            "context": "the text that holds the answer",
            "answer": "the answer as it stands there, or a list of right ones; empty or missing: there is none",
            "start": "where it begins in the context, in characters from 0 (a list for several answers)",
        },
    ),
    "causal-lm": Entry("language", "CausalLM", "predict the next token (a decoder)", _TEXT),
    "masked-lm": Entry("language", "MaskedLM", "predict masked tokens", _TEXT),
}


def task_class(name: str) -> type[Task]:
    """The class of a task.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if name not in TASKS:
        raise InputError(f"task is {name!r}; allowed: {', '.join(TASKS)}")
    entry = TASKS[name]
    kind: type[Task] = getattr(importlib.import_module(f".tasks.{entry.module}", __package__), entry.name)
    return kind
