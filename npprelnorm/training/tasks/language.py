"""Language models: hidden tokens, or the next one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...config import RobertaPreLayerNormConfig
from ...errors import InputError
from ...heads import IGNORE
from ...language_models import RobertaPreLayerNormForCausalLM, RobertaPreLayerNormForMaskedLM
from ..batches import pad
from ..loop import Inputs
from ..masking import Masked, Words, mask_tokens
from .base import (
    Evaluator,
    MeanLoss,
    Task,
    TaskOptions,
    check_vocabulary,
    lengths_of,
    outputs,
    padded,
    perplexity,
    token_limit,
)

if TYPE_CHECKING:
    from ...tokenizer import Tokenizer
_EVALUATION_SEED = 0  # of the masks that models are judged on


def packed(texts: Sequence[np.ndarray], limit: int) -> list[np.ndarray]:
    """Rows of at most `limit` ids: whole texts one after the other, each with its own special tokens.

    A text longer than a row is cut into pieces, which are rows of their own but for the last.
    """
    rows: list[np.ndarray] = []
    current: list[np.ndarray] = []
    size = 0
    for text in texts:
        pieces = [text[start : start + limit] for start in range(0, len(text), limit)]
        for piece in pieces:
            if size + len(piece) > limit:
                rows.append(np.concatenate(current))
                current, size = [], 0
            current.append(piece)
            size += len(piece)
    if current:
        rows.append(np.concatenate(current))
    return [row for row in rows if len(row) > 1]  # of a single token there is nothing to learn


class _LanguageTask(Task):
    """What both language models share: texts packed into rows."""

    metric = "loss"
    greater_is_better = False

    def __init__(
        self, train: str | os.PathLike[str], evaluation: str | os.PathLike[str] | None, options: TaskOptions
    ) -> None:
        super().__init__(train, evaluation, options)
        self._texts = [[record.text("text") for record in part] for part in self.records]

    def _rows(self, part: int, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> list[np.ndarray]:
        limit = token_limit(tokenizer, config, self.options.max_length)
        texts = tokenizer.encode_rows(self._texts[part])
        check_vocabulary(texts, tokenizer, config)
        return packed(texts, limit)


class CausalLM(_LanguageTask):
    """Training of `RobertaPreLayerNormForCausalLM`, a decoder: each token is predicted from those before it.

    Fields of a line
    ----------------
    text : str
        A line or paragraph. As many whole ones as fit are packed into a row; longer ones are cut into several.
    """

    model_class = RobertaPreLayerNormForCausalLM

    def config_changes(self, config: RobertaPreLayerNormConfig) -> dict[str, Any]:
        """A decoder."""
        return {"is_decoder": True}

    def data(self, part: int, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> CausalData:
        """The examples of a file."""
        return CausalData(self._rows(part, tokenizer, config), config)

    def evaluator(self, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> Evaluator:
        """Loss in nats a token, and its exponential, the perplexity."""
        data = self.data(1, tokenizer, config)

        def evaluate(model: Any) -> dict[str, float]:
            loss = MeanLoss()
            for _, inputs, output in outputs(model, data):
                loss.add(model, inputs, output.loss)
            return {"loss": loss.value, "perplexity": perplexity(loss.value)}

        return evaluate


class CausalData:
    """Rows of ids that are their own labels."""

    def __init__(self, rows: list[np.ndarray], config: RobertaPreLayerNormConfig) -> None:
        self.rows, self.config = rows, config
        self.lengths = lengths_of(rows)

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> Inputs:
        """`input_ids`, `attention_mask` and `labels`."""
        rows = [self.rows[i] for i in indices]
        return padded(rows, self.config) | {"labels": pad(rows, IGNORE)}


class MaskedLM(_LanguageTask):
    """Training of `RobertaPreLayerNormForMaskedLM`: hidden tokens are predicted from all around them.

    Fields of a line
    ----------------
    text : str
        A line or paragraph. As many whole ones as fit are packed into a row; longer ones are cut into several.
    """

    model_class = RobertaPreLayerNormForMaskedLM

    def config_changes(self, config: RobertaPreLayerNormConfig) -> dict[str, Any]:
        """Nothing but an encoder."""
        return self.changes_to_encoder(config)

    def data(self, part: int, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> MaskedData:
        """The examples of a file, masked anew each time."""
        return MaskedData(self._rows(part, tokenizer, config), Masking(tokenizer, self.options, config), config)

    def evaluator(self, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> Evaluator:
        """Loss in nats a masked token, its exponential, and how often the likeliest token is right.

        Each row has masks of its own from a fixed seed: the same for every model, whatever the batches.
        """
        data = self.data(1, tokenizer, config).fixed()

        def evaluate(model: Any) -> dict[str, float]:
            loss = MeanLoss()
            right = count = 0
            for _, inputs, output in outputs(model, data):
                loss.add(model, inputs, output.loss)
                asked = inputs["labels"] != IGNORE
                right += int((output.logits.argmax(axis=-1) == inputs["labels"][asked]).sum())
                count += int(asked.sum())
            accuracy = right / count if count else 0.0
            return {"loss": loss.value, "perplexity": perplexity(loss.value), "accuracy": accuracy}

        return evaluate


class Masking:
    """`mask_tokens` for one tokenizer and one set of options."""

    def __init__(self, tokenizer: Tokenizer, options: TaskOptions, config: RobertaPreLayerNormConfig) -> None:
        if tokenizer.mask_token_id is None:
            raise InputError("this tokenizer has no mask token, so nothing can be masked; use another, or causal-lm")
        self.mask_id = tokenizer.mask_token_id
        self.options = options
        special = (
            tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.cls_token_id,
            tokenizer.pad_token_id, tokenizer.mask_token_id,
        )  # fmt: skip
        self.special = np.array(sorted({number for number in special if number is not None}))
        vocabulary = tokenizer.get_vocab()
        self.vocab_size = min(len(tokenizer), config.vocab_size)
        self.words = Words(vocabulary, self.special.tolist()) if options.whole_words else None

    def __call__(self, ids: np.ndarray, attention_mask: np.ndarray, rng: np.random.Generator) -> Masked:
        """ids and attention_mask (B, T) -> what the model sees, and what it is asked for."""
        maskable = (attention_mask == 1) & ~np.isin(ids, self.special)
        words = None if self.words is None else self.words.number(ids)
        return mask_tokens(
            ids,
            maskable,
            rate=self.options.mask_rate,
            mask_id=self.mask_id,
            vocab_size=self.vocab_size,
            rng=rng,
            strategy=self.options.mask_strategy,
            word_ids=words,
        )


class MaskedData:
    """Rows of ids that are masked when they are asked for."""

    def __init__(self, rows: list[np.ndarray], masking: Masking, config: RobertaPreLayerNormConfig) -> None:
        self.rows, self.masking, self.config = rows, masking, config
        self.lengths = lengths_of(rows)

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> Inputs:
        """`input_ids`, `attention_mask`, `labels`, and that logits are of use only where a label counts."""
        inputs = padded([self.rows[i] for i in indices], self.config)
        masked = self.masking(inputs["input_ids"], inputs["attention_mask"], rng)
        return inputs | {"input_ids": masked.input_ids, "labels": masked.labels, "labelled_only": True}

    def fixed(self) -> FixedData:
        """All rows, each masked once, by its own number."""
        masked = [
            self.masking(row[None], np.ones_like(row[None]), np.random.default_rng([_EVALUATION_SEED, index]))
            for index, row in enumerate(self.rows)
        ]
        return FixedData([one.input_ids[0] for one in masked], [one.labels[0] for one in masked], self.config)


class FixedData:
    """Rows of ids that have been masked, with their labels."""

    def __init__(self, rows: list[np.ndarray], labels: list[np.ndarray], config: RobertaPreLayerNormConfig) -> None:
        self.rows, self.labels, self.config = rows, labels, config
        self.lengths = lengths_of(rows)

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> Inputs:
        """As from `MaskedData`."""
        rows = padded([self.rows[i] for i in indices], self.config)
        return rows | {"labels": pad([self.labels[i] for i in indices], IGNORE), "labelled_only": True}
