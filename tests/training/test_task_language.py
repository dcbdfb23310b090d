"""The tasks of language models: rows without gaps, and masks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_data import changed, everything

from npprelnorm.errors import InputError
from npprelnorm.heads import IGNORE
from npprelnorm.training.catalog import task_class
from npprelnorm.training.tasks.base import TaskOptions
from npprelnorm.training.tasks.language import packed


@given(st.lists(st.integers(1, 25), max_size=30), st.integers(2, 12))
def test_packed_rows_hold_everything_and_cut_only_what_is_too_long(sizes: list[int], limit: int) -> None:
    texts, number = [], 0
    for size in sizes:
        texts.append(np.arange(number, number + size))
        number += size
    rows = packed(texts, limit)
    assert all(2 <= len(row) <= limit for row in rows)
    flat = [int(token) for row in rows for token in row]
    assert flat == sorted(flat)
    ends = {int(text[-1]) for text in texts}
    lost = set(range(number)) - set(flat)
    assert all(token in ends for token in lost)  # single tokens at the end of what was cut
    size_of = {int(token): len(text) for text in texts for token in text}
    for row in rows:  # a row begins and ends within a text only if that is longer than a row
        first, last = int(row[0]), int(row[-1])
        assert first == 0 or first - 1 in ends or size_of[first] > limit
        assert last in ends or size_of[last] > limit
    for row, after in itertools.pairwise(rows):  # and it is full: the next piece did not fit
        piece = min(size_of[int(after[0])], limit)
        assert len(row) + piece > limit or size_of[int(after[0])] > limit


def test_whole_lines_share_a_row(write_lines: Callable[..., Path], tokenizer: Any, config: Any) -> None:
    texts = ["Anna sings.", "The cat purrs.", "Tom gave the book to Mary."]
    path = write_lines("a.jsonl", [{"text": text} for text in texts])
    rows = [tokenizer(text).input_ids[0].tolist() for text in texts]
    task = task_class("causal-lm")(path, None, TaskOptions(max_length=len(rows[0]) + len(rows[1])))
    config = changed(config, task)
    assert config.is_decoder
    batch = everything(task.data(0, tokenizer, config))
    assert batch["input_ids"][0].tolist() == rows[0] + rows[1]
    assert batch["input_ids"][1, : len(rows[2])].tolist() == rows[2]
    real = batch["attention_mask"] == 1
    assert (batch["labels"][real] == batch["input_ids"][real]).all()
    assert (batch["labels"][~real] == IGNORE).all()


def test_masks_are_new_each_time_and_fixed_in_the_evaluation(
    write_lines: Callable[..., Path], tokenizer: Any, config: Any
) -> None:
    path = write_lines("a.jsonl", [{"text": f"Tom gave the {thing} to Mary."} for thing in ("book", "cup", "boat")] * 9)
    task: Any = task_class("masked-lm")(path, path, TaskOptions(mask_rate=0.3, max_length=20))
    data = task.data(0, tokenizer, config)
    one, other = (data.collate(np.arange(3), np.random.default_rng(seed))["labels"] for seed in (1, 2))
    assert not np.array_equal(one, other)
    fixed = [task.data(1, tokenizer, config).fixed() for _ in range(2)]
    first = fixed[0].collate(np.array([4, 1]), np.random.default_rng(1))
    second = fixed[1].collate(np.array([1]), np.random.default_rng(2))
    width = int(first["attention_mask"][1].sum())
    assert np.array_equal(first["input_ids"][1, :width], second["input_ids"][0, :width])
    assert np.array_equal(first["labels"][1, :width], second["labels"][0, :width])
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert not np.isin(first["labels"], special).any()


def test_whole_words_of_a_real_tokenizer(write_lines: Callable[..., Path], tokenizer: Any, config: Any) -> None:
    path = write_lines("a.jsonl", [{"text": "Anna unbuttoned the embroidered coat, slowly."}])
    task = task_class("masked-lm")(path, None, TaskOptions(mask_rate=0.1, whole_words=True))
    data = task.data(0, tokenizer, config)
    sizes = set()
    for seed in range(20):
        batch = data.collate(np.array([0]), np.random.default_rng(seed))
        hidden = batch["labels"][0][batch["labels"][0] != IGNORE]
        text = tokenizer.decode(hidden.tolist()).strip()
        assert text in {"Anna", "unbuttoned", "the", "embroidered", "coat", ",", "slowly", "."}
        sizes.add(len(hidden))
    assert max(sizes) > 1


def test_a_model_without_masks_or_words(config: Any, write_lines: Callable[..., Path], tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"the masking rate is 2\.0"):
        TaskOptions(mask_rate=2.0)
    with pytest.raises(InputError, match="the masking strategy is 'some'"):
        TaskOptions(mask_strategy="some")
