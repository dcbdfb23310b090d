"""Text to token ids and back: a thin class over the `tokenizers` library.

What it adds: arrays that a model takes as they are, truncation and padding by the call and never by what a file has
saved, and errors that say what to do. T tokens, B batch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from .arguments import collection_of_names
from .errors import InputError
from .files import write_json, write_text
from .tokenizer_files import FILE_NAMES, TokenizerFiles, read_tokenizer, rust_errors, settings_to_save, to_json
from .tokenizer_inputs import batch_of_texts, check_text, checked_ids

_STRATEGIES = ("longest_first", "only_first", "only_second")


class Encoding(dict[str, np.ndarray]):
    """Arrays by name, also as attributes: ``model(**encoding)``, ``encoding["input_ids"]``, ``encoding.input_ids``."""

    def __getattr__(self, name: str) -> np.ndarray:
        if name not in self:
            raise AttributeError(f"this encoding has no {name!r}; it has {', '.join(self)}")
        return self[name]


class Tokenizer:
    """A tokenizer read from files; see `from_pretrained`.

    Attributes
    ----------
    bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token : str or None
        The special tokens, None where the vocabulary does not have them; their ids are `bos_token_id` and so on.
    model_max_length : int or None
        How many tokens the model was made for, if the files say so.
    padding_side, truncation_side : {"right", "left"}
        Where padding is put and what is cut away.
    """

    def __init__(self, files: TokenizerFiles) -> None:
        self._files = files
        self._backend: tokenizers.Tokenizer = files.backend
        # the library keeps truncation in the tokenizer itself, so that two threads would see each other's
        self._lock = threading.Lock()
        self.model_max_length = files.model_max_length
        self.padding_side = files.padding_side
        self.truncation_side = files.truncation_side
        self.bos_token, self.bos_token_id = self._special("bos_token")
        self.eos_token, self.eos_token_id = self._special("eos_token")
        self.unk_token, self.unk_token_id = self._special("unk_token")
        self.sep_token, self.sep_token_id = self._special("sep_token")
        self.pad_token, self.pad_token_id = self._special("pad_token")
        self.cls_token, self.cls_token_id = self._special("cls_token")
        self.mask_token, self.mask_token_id = self._special("mask_token")

    def _special(self, role: str) -> tuple[str | None, int | None]:
        token = self._files.special.get(role)
        return token, None if token is None else self.token_to_id(token)

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self._files,)

    def __repr__(self) -> str:
        return f"Tokenizer({len(self)} tokens, model_max_length={self.model_max_length})"

    # ---- files

    @classmethod
    def from_pretrained(
        cls, path_or_id: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False
    ) -> Tokenizer:
        """Read tokenizer.json, or else vocab.json and merges.txt (RoBERTa's BPE), or vocab.txt (BERT's WordPiece).

        Special tokens and limits come from tokenizer_config.json and special_tokens_map.json, if they are there.
        Truncation and padding that a tokenizer.json has saved are switched off.

        Parameters
        ----------
        path_or_id : str or os.PathLike
            A folder, or the id of a model on the hub.
        revision : str, optional
            Branch, tag or commit of a hub model.
        local_files_only : bool
            Whether to look for a hub model in the cache only.

        Raises
        ------
        CheckpointNotFoundError
            There is no such folder or model, or it has no tokenizer.
        TokenizerError
            A file is damaged.
        """
        from .checkpoint import hub

        folder = hub.resolve(
            path_or_id, revision=revision, local_files_only=local_files_only, files=FILE_NAMES, weights=False
        )
        return cls(read_tokenizer(folder))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write tokenizer.json and tokenizer_config.json, which this class and transformers both read."""
        with self._lock:
            write_text(Path(folder) / "tokenizer.json", to_json(self._backend))
        write_json(Path(folder) / "tokenizer_config.json", settings_to_save(self._files))

    # ---- tokens and ids

    @property
    def vocab_size(self) -> int:
        """Number of tokens that were trained; ``len(tokenizer)`` counts those too that were added later."""
        return int(self._backend.get_vocab_size(with_added_tokens=False))

    def __len__(self) -> int:
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def get_vocab(self) -> dict[str, int]:
        """Token -> id, added tokens included; a token's leading space is spelled ``Ġ``."""
        return dict(self._backend.get_vocab(with_added_tokens=True))

    def token_to_id(self, token: str) -> int | None:
        """Id of a token as the vocabulary spells it (``Ġ`` for a space), None if there is no such token."""
        check_text(token, "the token")
        number: int | None = self._backend.token_to_id(token)
        return number

    def id_to_token(self, number: int) -> str | None:
        """The token of an id as the vocabulary spells it, None if there is no such id."""
        return self.convert_ids_to_tokens([number])[0]

    def convert_tokens_to_ids(self, tokens: Sequence[str]) -> list[int | None]:
        """Ids of several tokens; that of `unk_token` for those that there are not. For one token: `token_to_id`."""
        ids = [self.token_to_id(token) for token in collection_of_names("tokens", tokens)]
        return [self.unk_token_id if number is None else number for number in ids]

    def convert_ids_to_tokens(self, ids: Any) -> list[str | None]:
        """Tokens of several ids."""
        return [self._backend.id_to_token(number) for number in checked_ids(ids)]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text that tokens, spelled as in the vocabulary, stand for."""
        names, decoder = collection_of_names("tokens", tokens), self._backend.decoder
        return str(decoder.decode(list(names))) if decoder else " ".join(names)

    # ---- text to ids

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        stride: int = 0,
        add_special_tokens: bool = True,
        return_offsets: bool = False,
        return_special_tokens_mask: bool = False,
        return_token_type_ids: bool = False,
        return_overflowing: bool = False,
    ) -> Encoding:
        """Tokenize a text or several.

        Parameters
        ----------
        text : str or sequence of str
            One text or a batch.
        text_pair : str or sequence of str, optional
            The second text of each pair; the two become ``<s> text </s></s> text_pair </s>``. An empty one counts.
        padding : bool or {"longest", "max_length"}
            Fill rows up to the longest of them (True) or to `max_length`. Rows of different lengths need it.
        truncation : bool or {"longest_first", "only_first", "only_second"}
            Cut what is longer than `max_length` tokens; of a pair the longer text first (True), or only that one.
        max_length : int, optional
            Limit for truncation and padding, special tokens included; `model_max_length` by default.
        stride : int
            How many tokens each overflowing row repeats of the one before.
        add_special_tokens : bool
            Whether to put ``<s>`` and ``</s>`` around the texts.
        return_offsets : bool
            Add ``offset_mapping``: where each token begins and ends, in characters of its text; (0, 0) for the
            special tokens put around it and for padding.
        return_special_tokens_mask : bool
            Add ``special_tokens_mask``: 1 for those tokens and padding, 0 for what is in the text.
        return_token_type_ids : bool
            Add ``token_type_ids``: 1 for the second text of a pair where the tokenizer tells them apart (BERT's
            does), 0 for all else.
        return_overflowing : bool
            Make further rows of what truncation cuts away, and add ``overflow_to_sample_mapping`` (B,): which text
            each row is from.

        Returns
        -------
        Encoding
            ``input_ids`` and ``attention_mask`` (B, T), and what was asked for. int64, and always with a batch axis:
            a single text is a batch of 1.

        Raises
        ------
        InputError
            Rows of different lengths without padding, or arguments that do not fit each other.
        TokenizerError
            A text with a lone surrogate or beyond a million characters, or one too short to cut as asked.
        """
        if padding not in (False, True, "longest", "max_length"):
            raise InputError(f"padding is {padding!r}; allowed: False, True, 'longest', 'max_length'")
        if max_length is not None and not truncation and padding != "max_length":
            raise InputError(
                f"max_length={max_length!r} does nothing by itself; "
                "pass truncation=True to cut longer texts, or padding='max_length' to fill shorter ones"
            )
        rows, samples = self._encode(
            text, text_pair, truncation, max_length, stride, add_special_tokens, return_overflowing
        )
        width = self._width(rows, padding, max_length)
        result = Encoding(
            input_ids=self._pad([row.ids for row in rows], width, self.pad_token_id or 0),
            attention_mask=self._pad([row.attention_mask for row in rows], width, 0),
        )
        if return_offsets:
            flat = [[place for offset in row.offsets for place in offset] for row in rows]
            result["offset_mapping"] = self._pad(flat, 2 * width, 0).reshape(len(rows), width, 2)
        if return_special_tokens_mask:
            result["special_tokens_mask"] = self._pad([row.special_tokens_mask for row in rows], width, 1)
        if return_token_type_ids:
            result["token_type_ids"] = self._pad([row.type_ids for row in rows], width, 0)
        if return_overflowing:
            result["overflow_to_sample_mapping"] = np.array(samples, np.int64)
        return result

    def encode_rows(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str] | None = None,
        *,
        truncation: bool | str = False,
        max_length: int | None = None,
    ) -> list[np.ndarray]:
        """Ids of each text, or pair, as an int64 array of its own length; arguments as for a call."""
        if isinstance(texts, str):
            raise InputError("encode_rows takes a list of texts, not one text")
        rows, _ = self._encode(texts, text_pairs, truncation, max_length, 0, True, False)
        return [np.array(row.ids, np.int64) for row in rows]

    def encode_pairs(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str],
        *,
        truncation: bool | str = False,
        max_length: int | None = None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids and token types of each pair, int64 arrays of its own length; arguments as for a call."""
        if isinstance(texts, str):
            raise InputError("encode_pairs takes lists of texts, not one text")
        rows, _ = self._encode(texts, text_pairs, truncation, max_length, 0, True, False)
        return [(np.array(row.ids, np.int64), np.array(row.type_ids, np.int64)) for row in rows]

    def windows(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        truncation: bool | str = False,
        max_length: int | None = None,
        stride: int = 0,
    ) -> list[Any]:
        """One text (or pair) as `tokenizers.Encoding` objects: what is longer than `max_length` goes on in the next.

        They tell, for each token, its word and its characters. Arguments as for a call.
        """
        rows, _ = self._encode(text, text_pair, truncation, max_length, stride, True, bool(truncation))
        return rows

    def _encode(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None,
        truncation: bool | str,
        max_length: int | None,
        stride: int,
        add_special_tokens: bool,
        overflowing: bool,
    ) -> tuple[list[Any], list[int]]:
        """Encodings of the library, and which text each of them is from."""
        batch = batch_of_texts(text, text_pair)
        limits = None
        if truncation:
            limits = self._limits(truncation, max_length, stride, text_pair is not None, add_special_tokens)
        elif overflowing or stride:
            raise InputError("stride and return_overflowing are about what truncation cuts away; pass truncation=True")
        with self._lock, rust_errors("the text cannot be tokenized"):
            try:
                if limits:
                    self._backend.enable_truncation(**limits)
                encodings = self._backend.encode_batch(batch, add_special_tokens=add_special_tokens)
            finally:
                self._backend.no_truncation()
        rows, samples = [], []
        for index, encoding in enumerate(encodings):
            pieces = [encoding, *encoding.overflowing] if overflowing else [encoding]
            rows.extend(pieces)
            samples.extend([index] * len(pieces))
        return rows, samples

    def _limits(
        self, truncation: bool | str, max_length: int | None, stride: int, pair: bool, add_special_tokens: bool
    ) -> dict[str, Any]:
        """Checked arguments of the library's truncation."""
        if truncation is not True and truncation not in _STRATEGIES:
            raise InputError(f"truncation is {truncation!r}; allowed: False, True, {str(_STRATEGIES)[1:-1]}")
        length = self._length_limit(max_length, "truncation")
        around = self._backend.num_special_tokens_to_add(pair) if add_special_tokens else 0
        if length <= around:
            raise InputError(f"max_length={length} leaves no room beside the {around} special tokens; raise it")
        if type(stride) is not int or not 0 <= stride < length - around:
            raise InputError(f"stride is {stride!r}; it must be from 0 to {length - around - 1}, less than a row holds")
        return {
            "max_length": length,
            "stride": stride,
            "strategy": "longest_first" if truncation is True else truncation,
            "direction": self.truncation_side,
        }

    def _length_limit(self, max_length: int | None, purpose: str) -> int:
        if max_length is None:
            max_length = self.model_max_length
        if max_length is None:
            raise InputError(f"{purpose} needs max_length, since this tokenizer's files name no model_max_length")
        if type(max_length) is not int or max_length < 1:
            raise InputError(f"max_length is {max_length!r}; it must be a whole number from 1")
        return max_length

    def _width(self, rows: list[Any], padding: bool | str, max_length: int | None) -> int:
        """Columns of the batch."""
        lengths = [len(row.ids) for row in rows]
        longest = max(lengths, default=0)
        if padding == "max_length":
            width = self._length_limit(max_length, "padding='max_length'")
            if longest > width:
                raise InputError(
                    f"text {lengths.index(longest)} has {longest} tokens, more than max_length={width}; "
                    "pass truncation=True or raise max_length"
                )
            longest = width
        if not padding and len(set(lengths)) > 1:
            raise InputError(
                f"the texts have from {min(lengths)} to {longest} tokens, which is no rectangular array; "
                "pass padding=True"
            )
        if self.pad_token_id is None and min(lengths, default=longest) < longest:
            raise InputError("this tokenizer has no pad_token; tokenize one text at a time, without padding")
        return longest

    def _pad(self, rows: list[list[int]], width: int, fill: int) -> np.ndarray:
        result = np.full((len(rows), width), fill, np.int64)
        for line, row in zip(result, rows, strict=True):
            if self.padding_side == "right":
                line[: len(row)] = row
            else:
                line[width - len(row) :] = row
        return result

    # ---- ids to text

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        """Text of one row of ids; ids without a token (beyond the vocabulary) leave nothing."""
        with rust_errors("the ids cannot be decoded"):
            text: str = self._backend.decode(checked_ids(ids), skip_special_tokens=skip_special_tokens)
        return text

    def batch_decode(self, rows: Any, skip_special_tokens: bool = False) -> list[str]:
        """Texts of several rows of ids."""
        return [self.decode(row, skip_special_tokens) for row in rows]
