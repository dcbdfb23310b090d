"""Text files to masked-language-model batches.

Texts are cut or packed into rows of one length. Texts that share a row do not see each other: the attention mask is
block-diagonal and the positions begin again, so a packed row computes what its texts would alone, without padding.
B rows, T tokens of a row.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arguments import whole_number
from ..errors import DataError, InputError
from ..heads import IGNORE
from ..language_models import RobertaPreLayerNormForMaskedLM
from ..tokenizer import Tokenizer
from .masking import Words, check_masking, mask_tokens

MAX_LINE_CHARACTERS = 1 << 20  # what Tokenizer takes
_BATCH_OF_TEXTS = 2_000
_UNFILLED = 32  # rows that still take texts: enough to leave little padding, few enough to stay quick


def read_texts(paths: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    """Texts of files, one a line (a sentence or a paragraph); empty lines are left out. ``.gz`` files are unpacked.

    Raises
    ------
    DataError
        For a missing or unreadable file, or a line that is not UTF-8 or beyond a million characters.
    """
    for path in map(Path, paths):
        number = 0
        try:
            with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
                while line := file.readline(4 * MAX_LINE_CHARACTERS + 1):
                    number += 1
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                    if len(text) > MAX_LINE_CHARACTERS or len(line) > 4 * MAX_LINE_CHARACTERS:
                        raise DataError(
                            f"{path}, line {number} is longer than {MAX_LINE_CHARACTERS} characters; "
                            "put one sentence or paragraph on a line"
                        )
                    if text:
                        yield text
        except FileNotFoundError:
            raise DataError(f"{path} does not exist; name text files, one sentence or paragraph a line") from None
        except IsADirectoryError:
            raise DataError(f"{path} is a folder; name the text files in it") from None
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, line {number} is not UTF-8 (byte {error.start}); convert the file to UTF-8"
            ) from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path} is not a whole gzip file ({error}); unpack it or fetch it again") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


class Packed(NamedTuple):
    """Rows of one length, each with one text or several."""

    ids: np.ndarray  # (N, T) int32
    texts: np.ndarray  # (N, T) uint8: 1, 2, ... for the texts of a row, 0 for padding

    def __len__(self) -> int:
        return len(self.ids)


def pack(texts: Iterable[str], tokenizer: Tokenizer, length: int, window: int | None = None) -> Packed:
    """Tokenize texts into rows of `length` tokens.

    A text that is longer than `window` tokens (by default, than a row) becomes several windows of nearly one
    length; shorter ones share a row, each in the first of the newest rows that has room. Each text or window has
    its own ``<s>`` and ``</s>``.

    Raises
    ------
    InputError
        If `length` leaves no room, or the tokenizer lacks the special tokens.
    """
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id)
    if None in roles:
        raise InputError("the tokenizer lacks one of bos, eos, pad and mask token; train one, or name another")
    if length < 4:
        raise InputError(f"sequence_length is {length}; allowed: 4 or more")
    longest = length if window is None else window
    if not 4 <= longest <= length:
        raise InputError(f"window is {window}; allowed: 4 to {length} (the sequence_length)")
    rows: list[list[int]] = []
    marks: list[list[int]] = []
    unfilled: list[int] = []
    for piece in _windows(texts, tokenizer, longest):
        # a row counts its texts in a byte
        fits = (i for i in unfilled if len(rows[i]) + len(piece) <= length and (not marks[i] or marks[i][-1] < 255))
        index = next(fits, len(rows))
        if index == len(rows):
            rows.append([])
            marks.append([])
            unfilled = [*unfilled[1 - _UNFILLED :], index]
        marks[index] += [marks[index][-1] + 1 if marks[index] else 1] * len(piece)
        rows[index] += piece
    ids = np.full((len(rows), length), tokenizer.pad_token_id, np.int32)
    owner = np.zeros((len(rows), length), np.uint8)
    for index, (row, mark) in enumerate(zip(rows, marks, strict=True)):
        ids[index, : len(row)] = row
        owner[index, : len(mark)] = mark
    return Packed(ids, owner)


def _windows(texts: Iterable[str], tokenizer: Tokenizer, longest: int) -> Iterator[list[int]]:
    inner = longest - 2
    for batch in _batches(texts):
        for ids in tokenizer.encode_rows(batch):
            body = ids[1:-1]
            count = -(-len(body) // inner)
            for part in np.array_split(body, count) if count else ():
                yield [int(ids[0]), *part.tolist(), int(ids[-1])]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH_OF_TEXTS:
            yield batch
            batch = []
    if batch:
        yield batch


class Masking(NamedTuple):
    """How tokens are hidden.

    Attributes
    ----------
    rates : tuple of float
        Each batch takes one of them at random.
    strategy : {"mask", "80-10-10"}
    whole_words : bool
        All tokens of a chosen word are hidden.
    """

    rates: tuple[float, ...] = (0.15,)
    strategy: str = "mask"
    whole_words: bool = False

    def check(self) -> None:
        """Raise an `InputError` for what is not allowed."""
        if not self.rates:
            raise InputError("mask_rate is empty; give at least one rate, such as 0.15")
        for rate in self.rates:
            check_masking(rate, self.strategy)


class PretrainingData:
    """Packed rows as the training loop takes them; see `training.loop.TrainingData`.

    Parameters
    ----------
    packed : Packed
    tokenizer : Tokenizer
    masking : Masking
    """

    def __init__(self, packed: Packed, tokenizer: Tokenizer, masking: Masking) -> None:
        masking.check()
        self.packed, self.masking = packed, masking
        self.lengths = np.full(len(packed), packed.ids.shape[1])
        assert tokenizer.mask_token_id is not None and tokenizer.pad_token_id is not None  # noqa: PT018 (`pack` checks)
        self.mask_id, self.pad_id = tokenizer.mask_token_id, tokenizer.pad_token_id
        self.vocab_size = max(tokenizer.get_vocab().values()) + 1
        roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, self.pad_id, self.mask_id)
        special = [number for number in roles if number is not None]
        self._special = np.zeros(self.vocab_size, np.bool_)
        self._special[special] = True
        self.words = Words(tokenizer.get_vocab(), special)

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        """A masked batch."""
        ids = self.packed.ids[indices].astype(np.int64)  # (B, T)
        texts = self.packed.texts[indices]
        rates, strategy, whole_words = self.masking
        masked = mask_tokens(
            ids,
            ~self._special[ids],
            rate=rates[int(rng.integers(len(rates)))],
            mask_id=self.mask_id,
            vocab_size=self.vocab_size,
            rng=rng,
            strategy=strategy,
            word_ids=self.words.number(ids) if whole_words else None,
        )
        return {
            "input_ids": masked.input_ids,
            "attention_mask": (texts[:, :, None] == texts[:, None, :]).astype(np.int64),  # (B, T, T)
            "position_ids": positions(texts, self.pad_id),
            "labels": masked.labels,
            "labelled_only": True,
        }


def positions(texts: np.ndarray, pad_id: int) -> np.ndarray:
    """Position ids that begin again with each text: pad_id + 1, + 2, ...; pad_id for padding. (B, T) -> (B, T)."""
    columns = np.arange(texts.shape[1])
    first = np.ones(texts.shape, np.bool_)
    first[:, 1:] = texts[:, 1:] != texts[:, :-1]
    start = np.maximum.accumulate(np.where(first, columns, 0), axis=1)  # column where the own text begins
    return np.where(texts > 0, pad_id + 1 + columns - start, pad_id)


def masked_loss(
    model: RobertaPreLayerNormForMaskedLM, data: PretrainingData, *, batch_size: int = 32, seed: int = 0
) -> dict[str, float]:
    """How well a model fills what is hidden in held-out rows.

    Returns
    -------
    dict
        ``loss``, nats a hidden token; ``accuracy``, how often the likeliest token is the right one. The same seed
        hides the same tokens.
    """
    rng = np.random.default_rng(whole_number("seed", seed))
    total, right, count = 0.0, 0, 0
    for start in range(0, len(data.packed), batch_size):
        batch = data.collate(np.arange(start, min(start + batch_size, len(data.packed))), rng)
        output = model(**batch)
        labels = batch["labels"][batch["labels"] != IGNORE]
        total += float(output.loss) * labels.size
        right += int((output.logits.argmax(axis=-1) == labels).sum())
        count += labels.size
    return {"loss": total / count, "accuracy": right / count}


def split(texts: Sequence[str], part: float, seed: int) -> tuple[list[str], list[str]]:
    """Texts for training and a seeded choice of `part` of them for evaluation, in their order.

    At least one text stays for training; 0 holds nothing back.
    """
    if not 0.0 <= part < 1.0:
        raise InputError(f"eval_part is {part}; allowed: 0 up to, but not with, 1")
    count = min(round(part * len(texts)), len(texts) - 1) if texts else 0
    held = np.zeros(len(texts), np.bool_)
    held[np.random.default_rng([whole_number("seed", seed), 2]).permutation(len(texts))[:count]] = True
    train = [text for text, out in zip(texts, held, strict=True) if not out]
    return train, [text for text, out in zip(texts, held, strict=True) if out]
