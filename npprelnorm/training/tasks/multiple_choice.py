"""Which of several continuations is right."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ...classifiers import RobertaPreLayerNormForMultipleChoice
from ...config import RobertaPreLayerNormConfig
from ..loop import Inputs
from .base import (
    Evaluator,
    MeanLoss,
    Task,
    TaskOptions,
    check_vocabulary,
    encode,
    outputs,
    padded,
    token_limit,
)
from .metrics import accuracy
from .records import Record

if TYPE_CHECKING:
    from ...tokenizer import Tokenizer


class MultipleChoice(Task):
    """Fine-tuning of `RobertaPreLayerNormForMultipleChoice`.

    Fields of a line
    ----------------
    prompt : str
        What every choice is put after.
    choices : list of str
        Two or more, in every line as many. In CSV, columns ``choice0``, ``choice1``, and so on.
    label : int
        Which choice is right, counted from 0.
    """

    model_class = RobertaPreLayerNormForMultipleChoice
    metric = "accuracy"
    greater_is_better = True

    def __init__(
        self, train: str | os.PathLike[str], evaluation: str | os.PathLike[str] | None, options: TaskOptions
    ) -> None:
        super().__init__(train, evaluation, options)
        self._examples = [[_example(record) for record in part] for part in self.records]
        self._count = len(self._examples[0][0][1])
        for part, examples in zip(self.records, self._examples, strict=True):
            for record, (_, choices, _) in zip(part, examples, strict=True):
                if len(choices) != self._count:
                    record.fail(f"it has {len(choices)} choices, but the first line has {self._count}; give as many")

    def config_changes(self, config: RobertaPreLayerNormConfig) -> dict[str, Any]:
        """Nothing but an encoder."""
        return self.changes_to_encoder(config)

    def data(self, part: int, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> ChoiceData:
        """The examples of a file."""
        limit = token_limit(tokenizer, config, self.options.max_length)
        examples = self._examples[part]
        prompts = [prompt for prompt, choices, _ in examples for _ in choices]
        rows, types = encode(tokenizer, prompts, [choice for _, choices, _ in examples for choice in choices], limit)
        check_vocabulary(rows, tokenizer, config)
        assert types is not None, "a prompt and a choice are a pair"
        paired = list(zip(rows, types, strict=True))
        groups = [paired[start : start + self._count] for start in range(0, len(paired), self._count)]
        return ChoiceData(groups, np.array([label for _, _, label in examples], np.int64), config)

    def evaluator(self, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> Evaluator:
        """Loss and accuracy."""
        data = self.data(1, tokenizer, config)

        def evaluate(model: Any) -> dict[str, float]:
            loss = MeanLoss()
            predicted = np.zeros_like(data.labels)
            for indices, inputs, output in outputs(model, data):
                predicted[indices] = output.logits.argmax(axis=1)
                loss.add(model, inputs, output.loss)
            return {"loss": loss.value, "accuracy": accuracy(data.labels, predicted)}

        return evaluate


def _example(record: Record) -> tuple[str, list[str], int]:
    prompt = record.text("prompt")
    if record.is_csv:
        names = [f"choice{index}" for index in range(sum(name.startswith("choice") for name in record.values))]
        choices = [record.text(name) for name in names]
    else:
        choices = record.texts("choices")
    if len(choices) < 2:
        record.fail(f"it has {len(choices)} choices; give at least 2")
    for index, choice in enumerate(choices):
        if not choice.strip():
            record.fail(f"choices[{index}] is empty; fill it in")
    label = record.integer("label")
    if not 0 <= label < len(choices):
        record.fail(f"label is {label}; with {len(choices)} choices it must be 0 to {len(choices) - 1}")
    return prompt, choices, label


class ChoiceData:
    """Rows of ids, with their token types, for each choice of each example."""

    def __init__(
        self,
        groups: list[list[tuple[np.ndarray, np.ndarray]]],
        labels: np.ndarray,
        config: RobertaPreLayerNormConfig,
    ) -> None:
        self.groups, self.labels, self.config = groups, labels, config
        # what an example costs: all its choices, each padded to the longest
        self.lengths = np.array([len(group) * max(len(row) for row, _ in group) for group in groups], np.int64)

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> Inputs:
        """`input_ids` and `attention_mask` (B, choices, T), `labels` (B,)."""
        rows, types = zip(*(pair for i in indices for pair in self.groups[i]), strict=True)
        flat = padded(rows, self.config, types)
        shaped = {name: value.reshape(len(indices), -1, value.shape[1]) for name, value in flat.items()}
        return shaped | {"labels": self.labels[indices]}
