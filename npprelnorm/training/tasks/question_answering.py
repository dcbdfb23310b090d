"""Where in a text the answer to a question is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...classifiers import RobertaPreLayerNormForQuestionAnswering
from ...config import RobertaPreLayerNormConfig
from ...errors import TokenizerError
from ..loop import Inputs
from .base import (
    Evaluator,
    MeanLoss,
    Task,
    TaskOptions,
    check_vocabulary,
    lengths_of,
    outputs,
    padded,
    token_limit,
)
from .metrics import answer_f1, exact_match
from .records import Record, show

if TYPE_CHECKING:
    from ...tokenizer import Tokenizer

MAX_QUESTION_TOKENS = 64
MAX_STRIDE = 128
MAX_ANSWER_TOKENS = 30


class Question(NamedTuple):
    """One checked example; without an answer, `answers` is empty."""

    question: str
    context: str
    answers: list[str]
    start: int  # of the first answer, in characters


class Window(NamedTuple):
    """One row: the question and as much of the context as fits."""

    example: int
    ids: np.ndarray  # (T,)
    types: np.ndarray  # (T,), token types
    places: np.ndarray  # (K,), which tokens are of the context
    offsets: np.ndarray  # (K, 2), where in the context each of them is, in characters
    start: int  # token of the answer's first and last; 0 and 0 (the first token) where it is not here
    end: int


class QuestionAnswering(Task):
    """Fine-tuning of `RobertaPreLayerNormForQuestionAnswering`.

    A context that is longer than a row becomes several that overlap; a question is cut after 64 tokens, or half a
    row. Where a row does not hold the answer, or there is none, the first token stands for "no answer".

    Fields of a line
    ----------------
    question, context : str
    answer : str or list of str
        As it stands in the context; missing, null, ``""`` or ``[]`` where there is none. Of several, each is right;
        training uses the first.
    start : int or list of int
        Where in the context each answer begins, counted in characters from 0.
    """

    model_class = RobertaPreLayerNormForQuestionAnswering
    metric = "f1"
    greater_is_better = True

    def __init__(
        self, train: str | os.PathLike[str], evaluation: str | os.PathLike[str] | None, options: TaskOptions
    ) -> None:
        super().__init__(train, evaluation, options)
        self._questions = [[_question(record) for record in part] for part in self.records]

    def config_changes(self, config: RobertaPreLayerNormConfig) -> dict[str, Any]:
        """Two scores for each token."""
        return ({} if config.num_labels == 2 else {"num_labels": 2}) | self.changes_to_encoder(config)

    def data(self, part: int, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> WindowData:
        """The examples of a file."""
        limit = token_limit(tokenizer, config, self.options.max_length, least=16)
        windows: list[Window] = []
        for index, (record, question) in enumerate(zip(self.records[part], self._questions[part], strict=True)):
            try:
                windows += question_windows(tokenizer, index, question, limit)
            except TokenizerError as error:
                record.fail(str(error))
        check_vocabulary([window.ids for window in windows], tokenizer, config)
        return WindowData(windows, config)

    def evaluator(self, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> Evaluator:
        """Loss, and exact match and F1 as SQuAD counts them."""
        data, questions = self.data(1, tokenizer, config), self._questions[1]
        may_be_none = any(not question.answers for question in self._questions[0] + questions)

        def evaluate(model: Any) -> dict[str, float]:
            loss = MeanLoss()
            best = [(-np.inf, "")] * len(questions)
            none = [np.inf] * len(questions)
            for indices, inputs, output in outputs(model, data):
                loss.add(model, inputs, output.loss)
                for index, start, end in zip(indices, output.start_logits, output.end_logits, strict=True):
                    window = data.windows[index]
                    none[window.example] = min(none[window.example], float(start[0]) + float(end[0]))
                    score, first, last = best_span(start[window.places], end[window.places])
                    if score > best[window.example][0]:
                        span = slice(window.offsets[first, 0], window.offsets[last, 1])
                        best[window.example] = (score, questions[window.example].context[span])
            answers = [
                "" if may_be_none and nothing > score else text
                for nothing, (score, text) in zip(none, best, strict=True)
            ]
            golden = [question.answers or [""] for question in questions]
            return {
                "loss": loss.value,
                "exact_match": float(np.mean([exact_match(a, g) for a, g in zip(answers, golden, strict=True)])),
                "f1": float(np.mean([answer_f1(a, g) for a, g in zip(answers, golden, strict=True)])),
            }

        return evaluate


def _question(record: Record) -> Question:
    question, context = record.text("question"), record.text("context")
    answers, starts = record.values.get("answer"), record.values.get("start")
    several = isinstance(answers, list)
    if not answers:
        return Question(question, context, [], 0)
    if several != isinstance(starts, list):
        record.fail(f"answer is {show(answers)} and start {show(starts)}; give both as lists, or neither")
    texts = record.texts("answer") if several else [record.text("answer")]
    if several:
        assert isinstance(starts, list)
        if len(starts) != len(texts):
            record.fail(f"it has {len(texts)} answers but {len(starts)} starts; give one start for each answer")
        numbers = starts
    else:
        numbers = [record.integer("start")]
    for text, start in zip(texts, numbers, strict=True):
        if type(start) is not int:
            record.fail(f"start holds {show(start)}, not a whole number")
        if not text.strip():
            record.fail("an answer is empty; remove it, or fill it in")
        if start < 0 or context[start : start + len(text)] != text:
            found = context.find(text)
            where = f"it is at {found}" if found >= 0 else "it is nowhere in it"
            have = show(context[start : start + len(text)]) if start >= 0 else "nothing"
            record.fail(f"the answer {show(text)} is not at {start} of the context, which has {have} there; {where}")
    return Question(question, context, texts, numbers[0])


def question_windows(tokenizer: Tokenizer, example: int, question: Question, limit: int) -> list[Window]:
    """The rows of one example."""
    asked = tokenizer(question.question, add_special_tokens=False, return_offsets=True)
    around = tokenizer("", "").input_ids.shape[1]
    longest = min(MAX_QUESTION_TOKENS, (limit - around) // 2)
    text, tokens = question.question, asked.input_ids.shape[1]
    if tokens > longest:
        text = text[: asked.offset_mapping[0, longest - 1, 1]]
        tokens = tokenizer(text, add_special_tokens=False).input_ids.shape[1]
    room = limit - around - tokens
    rows = tokenizer(
        text,
        question.context,
        truncation="only_second",
        max_length=limit,
        stride=max(0, min(MAX_STRIDE, room // 2)),
        padding=tokenizer.pad_token_id is not None,
        return_offsets=True,
        return_special_tokens_mask=True,
        return_token_type_ids=True,
        return_overflowing=True,
    )
    windows = []
    for index, real in enumerate(rows.attention_mask == 1):
        ids, types = rows.input_ids[index, real], rows.token_type_ids[index, real]
        special, offsets = rows.special_tokens_mask[index, real], rows.offset_mapping[index, real]
        places = np.flatnonzero(special == 0)[tokens:]  # after the question's
        spans = offsets[places]
        first, last = _answer_tokens(question, spans)
        found = first is not None and last is not None
        start, end = (int(places[first]), int(places[last])) if found else (0, 0)
        windows.append(Window(example, ids, types, places, spans, start, end))
    return windows


def _answer_tokens(question: Question, spans: np.ndarray) -> tuple[int | None, int | None]:
    """Which of the context's tokens are the answer's first and last; None if it is not all in this row."""
    if not question.answers or not len(spans):
        return None, None
    start, end = question.start, question.start + len(question.answers[0])
    inside = np.flatnonzero((spans[:, 1] > start) & (spans[:, 0] < end))
    if not inside.size or spans[inside[0], 0] > start or spans[inside[-1], 1] < end:
        return None, None
    return int(inside[0]), int(inside[-1])


def best_span(start: np.ndarray, end: np.ndarray) -> tuple[float, int, int]:
    """Greatest start + end with start <= end < start + 30. Scores (K,) each -> score, first, last."""
    best, first, last = -np.inf, 0, 0
    for width in range(min(MAX_ANSWER_TOKENS, len(start))):
        sums = start[: len(start) - width] + end[width:]
        place = int(sums.argmax())
        if sums[place] > best:
            best, first, last = float(sums[place]), place, place + width
    return best, first, last


class WindowData:
    """Rows of ids with the ends of the answer."""

    def __init__(self, windows: list[Window], config: RobertaPreLayerNormConfig) -> None:
        self.windows, self.config = windows, config
        self.lengths = lengths_of([window.ids for window in windows])

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> Inputs:
        """`input_ids`, `attention_mask`, `start_positions` and `end_positions`."""
        chosen = [self.windows[i] for i in indices]
        types = [window.types for window in chosen]
        return padded([window.ids for window in chosen], self.config, types) | {
            "start_positions": np.array([window.start for window in chosen], np.int64),
            "end_positions": np.array([window.end for window in chosen], np.int64),
        }
