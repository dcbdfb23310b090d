"""question-answering: the part of a context that answers a question. T tokens of a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..classifiers import RobertaPreLayerNormForQuestionAnswering
from ..errors import InputError
from ..ops.attention import softmax
from .base import Pipeline


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
        question: str | Mapping[str, str] | Sequence[Mapping[str, str]],
        context: str | None = None,
        *,
        top_k: int = 1,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        max_question_len: int = 64,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
    ) -> Any:
        """Answer a question, or several.

        Parameters
        ----------
        question : str, dict, or sequence of dicts
            A question, with `context` beside it; or dicts ``{"question": ..., "context": ...}``.
        context : str, optional
            The text that holds the answer; longer ones are read in windows.
        top_k : int
            How many answers to give.
        max_answer_len : int
            Most tokens of an answer.
        max_seq_len : int, optional
            Tokens of a window, the question included; by default as many as the model takes, at most 384.
        doc_stride : int, optional
            Tokens that two windows share; by default half of a window, at most 128.
        max_question_len : int
            Most tokens of a question; a longer one is an error.
        handle_impossible_answer : bool
            Whether "no answer" (an empty text) takes part.
        align_to_words : bool
            Whether answers are widened to whole words.

        Returns
        -------
        dict or list
            ``score``, ``start`` and ``end`` (characters of the context), ``answer``; with `top_k` above 1 a list of
            them, best first; for a sequence of questions a list of all this.

        Raises
        ------
        InputError
            An empty question or context, a question that is too long, or an argument that is not allowed.
        """
        for name, value in (("top_k", top_k), ("max_answer_len", max_answer_len)):
            if type(value) is not int or value < 1:
                raise InputError(f"{name} is {value!r}; it must be a whole number from 1")
        size = min(self.max_tokens, 384) if max_seq_len is None else max_seq_len
        if type(size) is not int or not 1 <= size <= self.max_tokens:
            raise InputError(f"max_seq_len is {size!r}; it must be from 1 to {self.max_tokens}, what the model takes")
        stride = min(size // 2, 128) if doc_stride is None else doc_stride
        single = isinstance(question, str | Mapping)
        answers = []
        for example in _examples(question, context):
            windows = self._windows(*example, size, stride, max_question_len, doc_stride is None)
            answers.append(
                self._answer(example[1], windows, top_k, max_answer_len, handle_impossible_answer, align_to_words)
            )
        return answers[0] if single else answers

    def _windows(
        self, question: str, context: str, size: int, stride: int, max_question_len: int, default_stride: bool
    ) -> list[Any]:
        asked = len(self.tokenizer(question, add_special_tokens=False)["input_ids"][0])
        if asked > max_question_len:
            raise InputError(
                f"the question has {asked} tokens, more than max_question_len={max_question_len}; shorten it"
            )
        around = len(self.tokenizer("", "")["input_ids"][0])
        room = size - asked - around
        if room < 1:
            raise InputError(
                f"the question has {asked} tokens and leaves no room for the context in max_seq_len={size}; shorten it"
            )
        if default_stride:
            stride = min(stride, room - 1)
        elif not 0 <= stride < room:
            raise InputError(f"doc_stride is {stride}; beside this question a window holds {room} tokens: give less")
        return self.tokenizer.windows(question, context, truncation="only_second", max_length=size, stride=stride)

    def _answer(
        self, context: str, windows: list[Any], top_k: int, max_answer_len: int, impossible: bool, align: bool
    ) -> Any:
        rows = [np.array(window.ids, np.int64) for window in windows]
        self.check_rows(rows, ["the question with its context"] * len(rows))
        spans: list[Spans | None] = [None] * len(rows)
        # aligning to words can make one answer of several, so that more are taken first
        count = 2 * top_k + 10 if align else top_k
        for batch in self.batches(rows):
            out = self.model(batch.input_ids, batch.attention_mask)
            for line, (index, length) in enumerate(zip(batch.indices, batch.lengths, strict=True)):
                inside = np.array([part == 1 for part in windows[index].sequence_ids])
                first = rows[index] == self.tokenizer.cls_token_id
                spans[index] = best_spans(
                    out.start_logits[line, :length],
                    out.end_logits[line, :length],
                    inside | first,
                    count,
                    max_answer_len,
                )
        found: list[dict[str, Any]] = []
        none = 1.0
        for window, span in zip(windows, spans, strict=True):
            assert span is not None, "each window is in one batch"
            none = min(none, span.none)
            for start, end, score in zip(span.starts.tolist(), span.ends.tolist(), span.scores.tolist(), strict=True):
                first_char, last_char = _characters(window, start, end, align)
                text = context[first_char:last_char]
                same = next((answer for answer in found if answer["answer"].lower() == text.lower()), None)
                if same:
                    same["score"] += score
                else:
                    found.append({"score": score, "start": first_char, "end": last_char, "answer": text})
        if impossible:
            found.append({"score": none, "start": 0, "end": 0, "answer": ""})
        found = sorted(found, key=lambda answer: -float(answer["score"]))[:top_k]
        return found[0] if len(found) == 1 else found


def best_spans(start: np.ndarray, end: np.ndarray, allowed: np.ndarray, count: int, longest: int) -> Spans:
    """The `count` spans of highest probability p(start) p(end), of at most `longest` tokens, within `allowed`.

    start and end (T,) are logits; the first token stands for "no answer", and takes part in the softmax only.
    """
    lowest = -10000.0  # as transformers has it: far below, and still a number that float32 adds to
    p_start = softmax(np.where(allowed, start, np.asarray(lowest, start.dtype)))
    p_end = softmax(np.where(allowed, end, np.asarray(lowest, end.dtype)))
    none = float(p_start[0] * p_end[0])
    p_start[0] = p_end[0] = 0.0
    products = np.tril(np.triu(np.outer(p_start, p_end)), longest - 1)  # (T, T): end from start to start + longest - 1
    flat = products.ravel()
    if count == 1:
        order = np.array([flat.argmax()])
    elif flat.size <= count:
        order = np.argsort(-flat)
    else:
        top = np.argpartition(-flat, count)[:count]
        order = top[np.argsort(-flat[top])]
    starts, ends = np.unravel_index(order, products.shape)
    good = allowed[starts] & allowed[ends]
    return Spans(starts[good], ends[good], flat[order][good], none)


def _characters(window: Any, start: int, end: int, align: bool) -> tuple[int, int]:
    """Where a span of tokens begins and ends in the context; whole words if `align`."""
    if align:
        first, last = window.token_to_word(start), window.token_to_word(end)
        if first is not None and last is not None:
            return window.word_to_chars(first, 1)[0], window.word_to_chars(last, 1)[1]
    return window.offsets[start][0], window.offsets[end][1]


def _examples(question: Any, context: str | None) -> list[tuple[str, str]]:
    if isinstance(question, str):
        if context is None:
            raise InputError("the question has no context; pass context=, the text that holds the answer")
        question = {"question": question, "context": context}
    elif context is not None:
        raise InputError("context is given twice; dicts bring their own")
    examples = [question] if isinstance(question, Mapping) else list(question)
    for example in examples:
        if not isinstance(example, Mapping) or set(example) != {"question", "context"}:
            raise InputError(f"a question is {str(example):.80}; give {{'question': ..., 'context': ...}}")
        for name in ("question", "context"):
            if not isinstance(example[name], str) or not example[name].strip():
                raise InputError(f"the {name} is {example[name]!r:.80}; give a text")
    return [(example["question"], example["context"]) for example in examples]
