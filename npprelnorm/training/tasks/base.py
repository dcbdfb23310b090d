"""What every task is, and what the tasks share: limits, padding, and running a model over examples to judge it."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...config import RobertaPreLayerNormConfig
from ...errors import InputError
from ...model import BodyModel
from ..batches import pad
from ..loop import Inputs, TrainingData, counted
from ..masking import check_masking
from .records import read_records

if TYPE_CHECKING:
    from ...tokenizer import Tokenizer

Evaluator = Callable[[Any], Mapping[str, float]]

MAX_BATCH_TOKENS = 2048  # of an evaluation, padding included


@dataclass(frozen=True)
class TaskOptions:
    """How a task reads its files and makes examples of them.

    Attributes
    ----------
    max_length : int, optional
        Tokens of a row, special ones included; by default what the model takes.
    problem_type : str, optional
        Of classification; by default told by the labels.
    mask_rate, mask_strategy, whole_words
        Of masked-lm; see `mask_tokens`.

    Raises
    ------
    InputError
        For a value that is not allowed.
    """

    max_length: int | None = None
    problem_type: str | None = None
    mask_rate: float = 0.4
    mask_strategy: str = "mask"
    whole_words: bool = False

    def __post_init__(self) -> None:
        check_masking(self.mask_rate, self.mask_strategy)


class Task(ABC):
    """What `npprelnorm train` can teach: from files to examples, and from a model to metrics.

    Construction reads and checks every line (`DataError`) before any model is loaded.

    Parameters
    ----------
    train : path
        The file to learn from.
    evaluation : path, optional
        The file to judge models by.
    options : TaskOptions

    Attributes
    ----------
    model_class : type of model
    metric : str
        The metric that decides which model is best.
    greater_is_better : bool
    """

    model_class: ClassVar[type[BodyModel]]
    metric: str
    greater_is_better: bool

    def __init__(
        self, train: str | os.PathLike[str], evaluation: str | os.PathLike[str] | None, options: TaskOptions
    ) -> None:
        self.options = options
        # the training file's examples, and the evaluation file's
        self.records = (read_records(train), [] if evaluation is None else read_records(evaluation))

    @abstractmethod
    def config_changes(self, config: RobertaPreLayerNormConfig) -> dict[str, Any]:
        """What the checkpoint's configuration must become: labels and the like."""

    @abstractmethod
    def data(self, part: int, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> TrainingData:
        """The examples of the training file (0) or the evaluation file (1)."""

    @abstractmethod
    def evaluator(self, tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> Evaluator:
        """From a model to metrics on the evaluation file."""

    def changes_to_encoder(self, config: RobertaPreLayerNormConfig) -> dict[str, Any]:
        """What makes an encoder of a decoder's checkpoint: every token has to see the whole text."""
        return {"is_decoder": False, "add_cross_attention": False} if config.is_decoder else {}


def token_limit(tokenizer: Tokenizer, config: RobertaPreLayerNormConfig, max_length: int | None, least: int = 8) -> int:
    """Tokens of a row: `max_length`, or what model and tokenizer allow.

    Raises
    ------
    InputError
        If it is more than that, or less than a row of this task needs.
    """
    limits = (config.max_tokens, tokenizer.model_max_length)
    longest = min(limit for limit in limits if limit is not None)
    if max_length is None:
        return longest
    if not least <= max_length <= longest:
        raise InputError(f"max_length is {max_length}; this model and task allow {least} to {longest}")
    return max_length


def encode(
    tokenizer: Tokenizer, texts: list[str], pairs: list[str] | None, limit: int
) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """Ids of each text or pair, cut to `limit` tokens; and the token types of pairs."""
    if pairs is None:
        return tokenizer.encode_rows(texts, truncation=True, max_length=limit), None
    rows: list[np.ndarray] = []
    types: list[np.ndarray] = []
    size = 256 if tokenizer.pad_token_id is not None else 1  # few enough to be padded together for a moment
    for start in range(0, len(texts), size):
        chunk = slice(start, start + size)
        encoding = tokenizer(
            texts[chunk], pairs[chunk], padding=size > 1, truncation=True, max_length=limit, return_token_type_ids=True
        )
        real = encoding.attention_mask == 1
        rows += [ids[mask] for ids, mask in zip(encoding.input_ids, real, strict=True)]
        types += [ids[mask] for ids, mask in zip(encoding.token_type_ids, real, strict=True)]
    return rows, types


def check_vocabulary(rows: Sequence[Any], tokenizer: Tokenizer, config: RobertaPreLayerNormConfig) -> None:
    """Raise `InputError` where the tokenizer gives ids that the model does not know."""
    largest = max((max(row) for row in rows if len(row)), default=0)
    if largest >= config.vocab_size:
        raise InputError(
            f"the tokenizer makes {tokenizer.id_to_token(largest)!r}, id {largest}, of the texts, but the model knows "
            f"only {config.vocab_size} tokens; use the tokenizer that it was trained with"
        )


def padded(rows: Sequence[Any], config: RobertaPreLayerNormConfig, types: Sequence[Any] | None = None) -> Inputs:
    """`input_ids` and `attention_mask` (B, T) of rows of ids; `token_type_ids` where the model tells pairs by them."""
    inputs = {
        "input_ids": pad(rows, config.pad_token_id or 0),
        "attention_mask": pad([[1] * len(row) for row in rows], 0),
    }
    if types is not None and config.family.pairs_by_token_type:
        inputs["token_type_ids"] = pad(types, 0)
    return inputs


def lengths_of(rows: Sequence[Any]) -> np.ndarray:
    """Tokens of each row."""
    return np.array([len(row) for row in rows], np.int64)


def outputs(model: Any, data: TrainingData) -> Iterator[tuple[np.ndarray, Inputs, Any]]:
    """Indices, inputs and output of each batch of all examples, without dropout; longest first.

    `data.collate` gets a generator of a fixed seed: a model is judged on the same inputs each time.
    """
    rng = np.random.default_rng(0)
    order = np.argsort(-data.lengths, kind="stable")
    while order.size:
        count = max(1, MAX_BATCH_TOKENS // max(1, int(data.lengths[order[0]])))
        indices, order = order[:count], order[count:]
        inputs = data.collate(indices, rng)
        yield indices, inputs, model(**inputs, packed=True, return_dict=True)


class MeanLoss:
    """Mean of the batches' losses, each weighted by how many labels it counts; 0 where none does."""

    def __init__(self) -> None:
        self.total, self.weight = 0.0, 0

    def add(self, model: Any, inputs: Inputs, loss: Any) -> None:
        """Take in one batch."""
        weight = counted(model, inputs)
        if weight:
            self.total += float(loss) * weight
            self.weight += weight

    @property
    def value(self) -> float:
        """The mean so far."""
        return self.total / self.weight if self.weight else 0.0


def ordered_labels(names: set[str], config: RobertaPreLayerNormConfig) -> dict[int, str]:
    """Ids of labels: those that the checkpoint has where it knows them all, else by number or alphabet."""
    known = config.id2label
    if names <= set(known.values()):
        return dict(known)
    if all(name.lstrip("-").isdecimal() and name.isascii() for name in names):
        return dict(enumerate(sorted(names, key=int)))
    return dict(enumerate(sorted(names)))


def perplexity(loss: float) -> float:
    """exp(loss), for a loss in nats; at most 1e300."""
    return math.exp(min(loss, 690.0))
