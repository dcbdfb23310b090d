"""question-answering: the part of a context that answers a question. T tokens of a window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..classifiers import RobertaPreLayerNormForQuestionAnswering
from ..errors import InputError, NpprelnormError
from ..ops.attention import softmax
from ..ops.top_k import largest
from .base import Pipeline


class Example(NamedTuple):
    """A question, its context, and what errors call it."""

    question: str
    context: str
    name: str


class Spans(NamedTuple):
    """The best answers of one window, and the probability that it has none."""

    starts: np.ndarray  # token indices
    ends: np.ndarray
    scores: np.ndarray
    none: float


class QuestionAnsweringPipeline(Pipeline):
    """Finds answers; see `__call__`."""

    task = "question-answering"
    model_class = RobertaPreLayerNormForQuestionAnswering

    def __call__(
        self,
        question: str | Mapping[str, str] | Sequence[str] | Sequence[Mapping[str, str]],
        context: str | Sequence[str] | None = None,
        *,
        top_k: int = 1,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        max_question_len: int | None = None,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
    ) -> Any:
        """Answer a question, or several.

        Parameters
        ----------
        question : str, dict, or sequence of them
            A question, or several, with `context` beside them; or dicts ``{"question": ..., "context": ...}``.
        context : str or sequence of str, optional
            The text that holds the answer, one for all questions or one for each; longer ones are read in windows.
        top_k : int
            How many answers to give.
        max_answer_len : int
            Most tokens of an answer.
        max_seq_len : int, optional
            Tokens of a window, the question included; by default as many as the model takes, at most 384.
        doc_stride : int, optional
            Tokens that two windows share; by default half of a window, at most 128, and less beside a long question.
        max_question_len : int, optional
            Most tokens of a question; a longer one is an error. By default as many as leave room for a context.
        handle_impossible_answer : bool
            Whether "no answer" (an empty text) takes part.
        align_to_words : bool
            Whether answers are widened to whole words.

        Returns
        -------
        dict or list
            ``score``, ``start`` and ``end`` (characters of the context), ``answer``; with `top_k` above 1 a list of
            them, best first, and shorter where a context has not that many different answers; for a sequence of
            questions a list of all this. Answers that differ in capitals only are one, with the sum of their scores.

        Raises
        ------
        InputError
            An empty question or context, a question that is too long, or an argument that is not allowed.
        """
        for name, value in (
            ("top_k", top_k),
            ("max_answer_len", max_answer_len),
            ("max_question_len", max_question_len),
        ):
            if (type(value) is not int or value < 1) and (name != "max_question_len" or value is not None):
                raise InputError(f"{name} is {value!r}; it must be a whole number from 1")
        size = min(self.max_tokens, 384) if max_seq_len is None else max_seq_len
        if type(size) is not int or not 1 <= size <= self.max_tokens:
            raise InputError(f"max_seq_len is {size!r}; it must be from 1 to {self.max_tokens}, what the model takes")
        examples = _examples(question, context)
        windows = [self._windows(example, size, doc_stride, max_question_len) for example in examples]
        # aligning to words can make one answer of several, so that more are taken first
        spans = self._spans(windows, examples, 2 * top_k + 10 if align_to_words else top_k, max_answer_len)
        answers = [
            _answers(example.context, own, [next(spans) for _ in own], top_k, handle_impossible_answer, align_to_words)
            for example, own in zip(examples, windows, strict=True)
        ]
        result: list[Any] = [one[0] for one in answers] if top_k == 1 else answers
        return result[0] if isinstance(question, str | Mapping) else result

    def _windows(self, example: Example, size: int, doc_stride: int | None, max_question_len: int | None) -> list[Any]:
        """The question with as much of its context as fits, again and again."""
        question, context, name = example
        asked = len(self.tokenizer(question, add_special_tokens=False)["input_ids"][0])
        if max_question_len is not None and asked > max_question_len:
            raise InputError(f"{name} has {asked} tokens, more than max_question_len={max_question_len}; shorten it")
        room = size - asked - len(self.tokenizer("", "")["input_ids"][0])
        if room < 1:
            raise InputError(
                f"{name} has {asked} tokens and leaves no room for the context in a window of {size}; shorten it"
            )
        if doc_stride is None:
            doc_stride = min(size // 2, 128, room - 1)
        elif type(doc_stride) is not int or not 0 <= doc_stride < room:
            raise InputError(
                f"doc_stride is {doc_stride!r}; beside {name} a window holds {room} tokens: give 0 to {room - 1}"
            )
        windows = self.tokenizer.windows(
            question, context, truncation="only_second", max_length=size, stride=doc_stride
        )
        if not any(1 in window.sequence_ids for window in windows):
            raise InputError(f"the context of {name} is {context!r:.80}, of which the tokenizer makes no tokens")
        return windows

    def _spans(
        self, windows: list[list[Any]], examples: list[Example], count: int, max_answer_len: int
    ) -> Iterator[Spans]:
        """The best spans of each window of each example, in their order."""
        flat = [window for own in windows for window in own]
        rows = [np.array(window.ids, np.int64) for window in flat]
        names = [example.name for example, own in zip(examples, windows, strict=True) for _ in own]
        self.check_rows(rows, [f"{name} with its context" for name in names])
        spans: list[Any] = [None] * len(rows)
        for batch in self.batches(rows, [np.array(window.type_ids, np.int64) for window in flat]):
            out = self.model(**batch.inputs, packed=True)
            for line, (index, length) in enumerate(zip(batch.indices, batch.lengths, strict=True)):
                spans[index] = best_spans(
                    out.start_logits[line, :length],
                    out.end_logits[line, :length],
                    np.array([part == 1 for part in flat[index].sequence_ids]),
                    rows[index] == self.tokenizer.cls_token_id,
                    count,
                    max_answer_len,
                )
        return iter(spans)


def _answers(
    context: str, windows: list[Any], spans: list[Spans], top_k: int, impossible: bool, align: bool
) -> list[dict[str, Any]]:
    """The best answers of all windows of a context."""
    found: dict[str, dict[str, Any]] = {}
    for window, span in zip(windows, spans, strict=True):
        for start, end, score in zip(span.starts.tolist(), span.ends.tolist(), span.scores.tolist(), strict=True):
            first, last = _characters(window, start, end, align)
            text = context[first:last]
            if text.lower() in found:
                found[text.lower()]["score"] += score
            else:
                found[text.lower()] = {"score": score, "start": first, "end": last, "answer": text}
    answers = list(found.values())
    if impossible:
        answers.append({"score": min(span.none for span in spans), "start": 0, "end": 0, "answer": ""})
    return sorted(answers, key=lambda answer: -float(answer["score"]))[:top_k]


def best_spans(
    start: np.ndarray, end: np.ndarray, context: np.ndarray, first: np.ndarray, count: int, longest: int
) -> Spans:
    """The `count` spans of highest probability p(start) p(end), of at most `longest` tokens, within the context.

    start and end (T,) are logits; context and first (T,) say which tokens are of the context, and which are ``<s>``,
    which stands for "no answer" and takes part in the softmax only.
    """
    lowest = np.asarray(-10000.0, start.dtype)  # as transformers has it: far below all others
    p_start = softmax(np.where(context | first, start, lowest))
    p_end = softmax(np.where(context | first, end, lowest))
    # (T, T): spans that begin and end in the context, from start to start + longest - 1
    allowed = np.tril(np.triu(np.outer(context, context)), longest - 1)
    starts, ends = np.nonzero(allowed)
    scores = p_start[starts] * p_end[ends]
    if not np.isfinite(scores).all():
        raise NpprelnormError("the scores are NaN: are the weights damaged? (`npprelnorm inspect`)")
    chosen = largest(scores, count)
    return Spans(starts[chosen], ends[chosen], scores[chosen], float(p_start[0] * p_end[0]))


def _characters(window: Any, start: int, end: int, align: bool) -> tuple[int, int]:
    """Where a span of tokens begins and ends in the context; whole words if `align`."""
    if align:
        words = window.token_to_word(start), window.token_to_word(end)
        places = [None if word is None else window.word_to_chars(word, 1) for word in words]
        if places[0] is not None and places[1] is not None:
            return places[0][0], places[1][1]
    return window.offsets[start][0], window.offsets[end][1]


def _examples(question: Any, context: Any) -> list[Example]:
    """Checked questions, each with its context."""
    single = isinstance(question, str | Mapping)
    if not single and not isinstance(question, list | tuple | np.ndarray):
        raise InputError(f"the question is a {type(question).__name__}; give a string, a dict, or a list of them")
    if context is not None and not isinstance(context, str | list | tuple | np.ndarray):
        raise InputError(f"the context is a {type(context).__name__}; give a string, or a list of them")
    questions = [question] if single else list(question)
    contexts = [context] * len(questions) if context is None or isinstance(context, str) else list(context)
    if len(contexts) != len(questions):
        raise InputError(
            f"there are {len(questions)} questions and {len(contexts)} contexts; give one context for each"
        )
    return [
        _example(one, text, Pipeline.name_of(index, questions, "question"))
        for index, (one, text) in enumerate(zip(questions, contexts, strict=True))
    ]


def _example(question: Any, context: Any, name: str) -> Example:
    if isinstance(question, Mapping):
        if set(question) != {"question", "context"}:
            raise InputError(f"{name} is {dict(question)!r:.80}; give {{'question': ..., 'context': ...}}")
        if context is not None:
            raise InputError(f"the context of {name} is given twice; dicts bring their own")
        question, context = question["question"], question["context"]
    elif context is None:
        raise InputError(f"{name} has no context; pass context=, the text that holds the answer")
    for what, value in ((name, question), (f"the context of {name}", context)):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{what} is {value!r:.80}; give a text")
    return Example(question, context, name)
