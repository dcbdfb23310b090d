"""One label, several labels, or a number for a text or a pair of texts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ...classifiers import RobertaPreLayerNormForSequenceClassification
from ...config import RobertaPreLayerNormConfig
from ...errors import InputError
from ..loop import Inputs
from .base import (
    Evaluator,
    MeanLoss,
    Task,
    TaskOptions,
    check_vocabulary,
    encode,
    lengths_of,
    ordered_labels,
    outputs,
    padded,
    token_limit,
)
from .metrics import accuracy, f1_of_counts, macro_f1, pearson
from .records import Record, as_number, show

if TYPE_CHECKING:
    from ...tokenizer import Tokenizer

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
PROBLEM_TYPES = (SINGLE, MULTI, REGRESSION)


class Classification(Task):
    """Fine-tuning of `RobertaPreLayerNormForSequenceClassification`.

    Fields of a line
    ----------------
    text : str
    text_pair : str, optional
        The second text of a pair; either every line has one or none.
    label : str, int or float
        A class by name or number; a number with a fraction anywhere in the file means regression, as does
        ``problem_type="regression"``.
    labels : list of str
        In place of `label`: all classes that hold, perhaps none. In CSV, with ``|`` between them.
    """

    model_class = RobertaPreLayerNormForSequenceClassification

    def __init__(
        self, train: str | os.PathLike[str], evaluation: str | os.PathLike[str] | None, options: TaskOptions
    ) -> None:
        super().__init__(train, evaluation, options)
        first = self.records[0][0]
        self._pairs = first.has("text_pair")
        self._texts = [[self._text(record) for record in part] for part in self.records]
        self.problem_type = options.problem_type or self._told()
        if self.problem_type not in PROBLEM_TYPES:
            raise InputError(f"problem_type is {self.problem_type!r}; allowed: {', '.join(PROBLEM_TYPES)}")
        self._labels: list[list[Any]] = [[self._label(record) for record in part] for part in self.records]
        self._names: set[str] = set()
        if self.problem_type != REGRESSION:
            self._names = {name for one in self._labels[0] for name in ([one] if isinstance(one, str) else one)}
            self._check_names()
        self.metric = {SINGLE: "accuracy", MULTI: "micro_f1", REGRESSION: "mse"}[self.problem_type]
        self.greater_is_better = self.problem_type != REGRESSION

    def _text(self, record: Record) -> tuple[str, str | None]:
        if record.has("text_pair") != self._pairs:
            has = "has a" if not self._pairs else "has no"
            record.fail(f"it {has} text_pair, unlike the first line; give every line one, or none")
        return record.text("text"), record.text("text_pair") if self._pairs else None

    def _told(self) -> str:
        """The problem type from the training file's labels."""
        records = self.records[0]
        if any("labels" in record.values for record in records) and not any(r.has("label") for r in records):
            return MULTI
        labels = [record.values.get("label") for record in records]
        if records[0].is_csv:
            labels = [as_number(label) if isinstance(label, str) else None for label in labels]
            return REGRESSION if None not in labels and any(type(label) is float for label in labels) else SINGLE
        return REGRESSION if any(type(label) is float for label in labels) else SINGLE

    def _label(self, record: Record) -> Any:
        if self.problem_type == REGRESSION:
            return record.number("label")
        if self.problem_type == MULTI:
            names = [] if record.is_csv and not record.has("labels") else record.texts("labels")
            for index, name in enumerate(names):
                if not name:
                    record.fail("labels holds an empty name; remove it")
                if name in names[:index]:
                    record.fail(f"labels holds {show(name)} twice; name each label once")
            return names
        if record.has("labels") and not record.has("label"):
            record.fail("it has labels where other lines have label; use one of the two in all lines")
        value = record.get("label")
        if isinstance(value, bool) or not isinstance(value, str | int):
            record.fail(f"label is {show(value)}; give a class as a string or a whole number")
        name = str(value).strip()
        if not name:
            record.fail("label is empty; remove the line, or fill it in")
        return name

    def _check_names(self) -> None:
        least = 2 if self.problem_type == SINGLE else 1
        if len(self._names) < least:
            only = f"all labels are {show(min(self._names))}" if self._names else "no line has a label"
            self.records[0][-1].fail(f"up to here {only}; at least {least} are needed to learn anything")
        for record, label in zip(self.records[1], self._labels[1], strict=True):
            for name in [label] if isinstance(label, str) else label:
                if name not in self._names:
                    known = ", ".join(sorted(self._names)[:8]) + (", ..." if len(self._names) > 8 else "")
                    record.fail(f"the label {show(name)} is not in the training file, which has {known}")

    def config_changes(self, config: RobertaPreLayerNormConfig) -> dict[str, Any]:
        """Labels and problem type."""
        if self.problem_type == REGRESSION:
            labels: dict[str, Any] = {"num_labels": 1}
        else:
            labels = {"id2label": ordered_labels(self._names, config)}
        return labels | {"problem_type": self.problem_type} | self.changes_to_encoder(config)

    def data(self, part: int, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> ClassificationData:
        """The examples of a file."""
        limit = token_limit(tokenizer, config, self.options.max_length)
        texts = self._texts[part]
        pairs = [pair for _, pair in texts if pair is not None]
        rows, types = encode(tokenizer, [text for text, _ in texts], pairs if self._pairs else None, limit)
        check_vocabulary(rows, tokenizer, config)
        return ClassificationData(rows, self._targets(part, config), config, types)

    def _targets(self, part: int, config: RobertaPreLayerNormConfig) -> np.ndarray:
        labels = self._labels[part]
        if self.problem_type == REGRESSION:
            return np.array(labels, np.float64)
        ids = config.label2id
        if self.problem_type == SINGLE:
            return np.array([ids[name] for name in labels], np.int64)
        result = np.zeros((len(labels), config.num_labels))
        for row, names in zip(result, labels, strict=True):
            row[[ids[name] for name in names]] = 1.0
        return result

    def evaluator(self, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> Evaluator:
        """Loss, and: accuracy and macro F1; or accuracy of whole sets, micro and macro F1; or MSE and Pearson's r."""
        data, targets = self.data(1, tokenizer, config), self._targets(1, config)

        def evaluate(model: Any) -> dict[str, float]:
            loss = MeanLoss()
            logits = np.zeros((len(targets), config.num_labels))
            for indices, inputs, output in outputs(model, data):
                logits[indices] = output.logits
                loss.add(model, inputs, output.loss)
            return {"loss": loss.value} | self._scores(targets, logits)

        return evaluate

    def _scores(self, targets: np.ndarray, logits: np.ndarray) -> dict[str, float]:
        if self.problem_type == REGRESSION:
            values = logits[:, 0]
            return {"mse": float(np.square(values - targets).mean()), "pearson": pearson(targets, values)}
        if self.problem_type == SINGLE:
            predicted = logits.argmax(axis=1)
            return {"accuracy": accuracy(targets, predicted), "macro_f1": macro_f1(targets, predicted)}
        chosen, right = logits > 0.0, targets > 0.5  # a probability above one half
        both = (chosen & right).sum(axis=0)
        each = [f1_of_counts(*counts)[2] for counts in zip(both, chosen.sum(axis=0), right.sum(axis=0), strict=True)]
        return {
            "accuracy": float((chosen == right).all(axis=1).mean()),
            "micro_f1": f1_of_counts(float(both.sum()), float(chosen.sum()), float(right.sum()))[2],
            "macro_f1": float(np.mean(each)),
        }


class ClassificationData:
    """Rows of ids, with token types where they are pairs, and what each is to be given."""

    def __init__(
        self,
        rows: list[np.ndarray],
        targets: np.ndarray,
        config: RobertaPreLayerNormConfig,
        types: list[np.ndarray] | None = None,
    ) -> None:
        self.rows, self.targets, self.config, self.types = rows, targets, config, types
        self.lengths = lengths_of(rows)

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> Inputs:
        """`input_ids`, `attention_mask` and `labels`."""
        types = None if self.types is None else [self.types[i] for i in indices]
        return padded([self.rows[i] for i in indices], self.config, types) | {"labels": self.targets[indices]}
