"""Which tokens are masked, how many, and by what."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npprelnorm as nl
from npprelnorm.errors import InputError
from npprelnorm.heads import IGNORE
from npprelnorm.training.masking import Words, mask_tokens

MASK, VOCABULARY = 4, 50


def batch(seed: int, rows: int = 4, tokens: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Random ids from 5 on, with special tokens (0 to 3) here and there, and which of them may be masked."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, VOCABULARY, (rows, tokens))
    special = rng.random((rows, tokens)) < 0.25
    ids[special] = rng.integers(0, 4, int(special.sum()))
    return ids, ~special


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0), st.sampled_from(("mask", "80-10-10")))
def test_rate_special_tokens_and_labels(seed: int, rate: float, strategy: str) -> None:
    ids, maskable = batch(seed)
    before = ids.copy()
    rng = np.random.default_rng(seed)
    masked = mask_tokens(ids, maskable, rate=rate, mask_id=MASK, vocab_size=VOCABULARY, rng=rng, strategy=strategy)
    assert np.array_equal(ids, before)
    chosen = masked.labels != IGNORE
    assert not (chosen & ~maskable).any()
    assert np.array_equal(masked.labels[chosen], ids[chosen])
    assert np.array_equal(masked.input_ids[~chosen], ids[~chosen])
    for row in range(len(ids)):
        count = int(maskable[row].sum())
        assert int(chosen[row].sum()) == (max(1, round(rate * count)) if count else 0)
    if strategy == "mask":
        assert (masked.input_ids[chosen] == MASK).all()
    again = mask_tokens(
        ids,
        maskable,
        rate=rate,
        mask_id=MASK,
        vocab_size=VOCABULARY,
        rng=np.random.default_rng(seed),
        strategy=strategy,
    )
    assert np.array_equal(again.input_ids, masked.input_ids)
    assert np.array_equal(again.labels, masked.labels)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0))
def test_whole_words_stay_whole(seed: int, rate: float) -> None:
    ids, maskable = batch(seed)
    rng = np.random.default_rng(seed)
    words = np.cumsum(rng.random(ids.shape) < 0.5, axis=1)
    masked = mask_tokens(ids, maskable, rate=rate, mask_id=MASK, vocab_size=VOCABULARY, rng=rng, word_ids=words)
    chosen = masked.labels != IGNORE
    for row in range(len(ids)):
        names = np.unique(words[row][maskable[row]])
        hidden = 0
        for name in names:
            of_word = chosen[row][maskable[row] & (words[row] == name)]
            assert of_word.all() or not of_word.any()
            hidden += int(of_word.all())
        assert hidden == (max(1, round(rate * names.size)) if names.size else 0)


def test_eighty_ten_ten() -> None:
    count, vocabulary = 40_000, 1000
    ids = np.full((1, count), 7)
    masked = mask_tokens(
        ids, ids > 0, rate=1.0, mask_id=MASK, vocab_size=vocabulary, rng=np.random.default_rng(3), strategy="80-10-10"
    )
    # a swap may draw the mask or the token itself, each once in a thousand
    shares = {MASK: 0.8 + 0.1 / vocabulary, 7: 0.1 + 0.1 / vocabulary}
    for token, share in shares.items():
        found = int((masked.input_ids == token).sum())
        assert abs(found - share * count) <= 5 * np.sqrt(count * share * (1 - share))  # 5 standard deviations
    swapped = masked.input_ids[(masked.input_ids != MASK) & (masked.input_ids != 7)]
    expected = 0.1 * (1 - 2 / vocabulary)
    assert abs(swapped.size - expected * count) <= 5 * np.sqrt(count * expected * (1 - expected))
    # uniform over the vocabulary: mean and spread of the drawn ids
    assert abs(swapped.mean() - (vocabulary - 1) / 2) <= 5 * vocabulary / np.sqrt(12 * swapped.size)


def test_every_token_is_chosen_as_often_as_any_other() -> None:
    ids, rng, runs = np.arange(5, 25)[None], np.random.default_rng(0), 4000
    hits = sum(
        (mask_tokens(ids, ids > 0, rate=0.15, mask_id=MASK, vocab_size=50, rng=rng).labels != IGNORE).astype(int)
        for _ in range(runs)
    )
    assert int(np.sum(hits)) == 3 * runs
    assert (np.abs(hits - 0.15 * runs) <= 5 * np.sqrt(runs * 0.15 * 0.85)).all()


def test_words_begin_with_a_space_a_mark_or_after_a_special_token() -> None:
    tokenizer = nl.Tokenizer.from_pretrained(nl.embedded_model_path())
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    ids = tokenizer("Anna unbuttoned it, quickly.").input_ids[0]
    (numbers,) = Words(tokenizer.get_vocab(), special).number(ids[None])
    words: dict[int, list[int]] = {}
    for token, number in zip(ids, numbers, strict=True):
        words.setdefault(int(number), []).append(int(token))
    texts = [tokenizer.decode([t for t in tokens if t not in special]).strip() for tokens in words.values()]
    assert texts == ["", "Anna", "unbuttoned", "it", ",", "quickly", ".", ""]
    with pytest.raises(InputError, match="no token of this vocabulary begins with a space"):
        Words({"a": 0, "##b": 1}, special)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "the masking rate is 0.0; allowed: above 0, up to 1"),
        ({"rate": 1.5}, "the masking rate is 1.5"),
        ({"rate": float("nan")}, "the masking rate is nan"),
        ({"rate": 0.2, "strategy": "random"}, "the masking strategy is 'random'; allowed: mask, 80-10-10"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    ids, maskable = batch(0)
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=message):
        mask_tokens(ids, maskable, mask_id=MASK, vocab_size=VOCABULARY, rng=rng, **options)  # type: ignore[arg-type]
