"""What `npprelnorm pretrain` is made of: tokenizer, files, packed rows and masked batches."""

from __future__ import annotations

import gzip
import math
import string
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npprelnorm as nl
from npprelnorm.errors import DataError, InputError
from npprelnorm.heads import IGNORE
from npprelnorm.smallworld import small_world
from npprelnorm.tokenizer import Tokenizer
from npprelnorm.training.pretraining import (
    Masking,
    Packed,
    PretrainingData,
    masked_loss,
    pack,
    positions,
    read_texts,
    split,
)
from npprelnorm.training.tokenizer_training import SMALLEST, train_tokenizer

TEXTS = small_world().sentences(300, seed=9)

TOKENIZER = train_tokenizer(TEXTS, 420, model_max_length=32)


any_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda text: "<" not in text
)


def small_model(dtype: str = "float64") -> nl.RobertaPreLayerNormForMaskedLM:
    config = nl.RobertaPreLayerNormConfig(
        vocab_size=len(TOKENIZER), hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=34, type_vocab_size=1, layer_norm_eps=1e-5, initializer_range=0.3,
    )  # fmt: skip
    return nl.RobertaPreLayerNormForMaskedLM(config, rng=1, dtype=dtype)


# ---- the tokenizer


def test_special_tokens_have_robertas_ids_and_the_mask_comes_last() -> None:
    assert len(TOKENIZER) == 420
    assert TOKENIZER.convert_ids_to_tokens([0, 1, 2, 3, 419]) == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    ids = (TOKENIZER.bos_token_id, TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, TOKENIZER.mask_token_id)
    assert ids == (0, 1, 2, 419)
    assert TOKENIZER.model_max_length == 32


def test_a_mask_takes_the_space_before_it() -> None:
    with_space, without = TOKENIZER(["The <mask>.", "The<mask>."]).input_ids
    assert with_space.tolist() == without.tolist()


@given(any_text)
def test_any_text_can_be_spelled(text: str) -> None:
    row = TOKENIZER.encode_rows([text])[0]
    assert TOKENIZER.decode(row[1:-1]) == text
    assert TOKENIZER.unk_token_id not in row


def test_frequent_words_are_one_token_and_the_same_text_gives_the_same_tokenizer(tmp_path: Path) -> None:
    assert len(TOKENIZER.encode_rows([" the capital is"])[0]) == 5
    again = train_tokenizer(TEXTS, 420, model_max_length=32)
    again.save_pretrained(tmp_path)
    assert again.get_vocab() == TOKENIZER.get_vocab()
    read = Tokenizer.from_pretrained(tmp_path)
    assert read.get_vocab() == TOKENIZER.get_vocab()
    assert read.model_max_length == 32
    assert [row.tolist() for row in read.encode_rows(TEXTS)] == [row.tolist() for row in TOKENIZER.encode_rows(TEXTS)]


def test_a_vocabulary_that_is_too_small_is_told() -> None:
    with pytest.raises(InputError, match=rf"vocab_size is 260; allowed: {SMALLEST} or more"):
        train_tokenizer(TEXTS, 260, model_max_length=32)
    assert len(train_tokenizer(TEXTS, SMALLEST, model_max_length=32)) == SMALLEST


# ---- files


def test_texts_are_read_from_plain_and_packed_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffÀ first.\r\n\n  second  \n".encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"third\nfourth"))
    assert list(read_texts([tmp_path / "a.txt", tmp_path / "b.txt.gz"])) == ["À first.", "second", "third", "fourth"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "does not exist"),
        ("latin.txt", b"one\nt\xe9t\n", "line 2 is not UTF-8 (byte 1)"),
        ("long.txt", b"ok\n" + b"x" * (1 << 20) + b"y\n", "line 2 is longer than 1048576 characters"),
        ("no.gz", b"plain text", "is not a whole gzip file"),
        ("cut.gz", gzip.compress(b"some text that is long enough" * 50, mtime=0)[:-12], "is not a whole gzip file"),
        ("bad.gz", gzip.compress(b"some text" * 50, mtime=0)[:14] + b"\xff" * 30, "is not a whole gzip file"),
    ],
)
def test_a_bad_file_is_named(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_texts([tmp_path / name]))
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_text_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        list(read_texts([tmp_path]))


def test_split_holds_back_a_seeded_part() -> None:
    texts = [str(number) for number in range(100)]
    learnt, judged = split(texts, 0.1, seed=0)
    assert (len(learnt), len(judged)) == (90, 10)
    assert sorted(learnt + judged, key=int) == texts
    assert learnt == sorted(learnt, key=int)
    assert split(texts, 0.1, seed=0)[1] == judged
    assert split(texts, 0.1, seed=1)[1] != judged
    assert split(texts, 0.0, seed=0) == (texts, [])
    assert split(["only"], 0.9, seed=0) == (["only"], [])
    with pytest.raises(InputError, match=r"eval_part is 1\.0"):
        split(texts, 1.0, seed=0)


# ---- rows


def texts_of(packed: Packed) -> list[list[int]]:
    """The token ids of every text or window of the rows."""
    found = []
    for ids, marks in zip(packed.ids, packed.texts, strict=True):
        count = int(marks.max(initial=0))
        assert marks.tolist() == sorted(marks.tolist(), key=lambda mark: mark or 256)  # one after another, then padding
        assert (ids[marks == 0] == TOKENIZER.pad_token_id).all()
        found += [ids[marks == number].tolist() for number in range(1, count + 1)]
    return found


@given(st.lists(st.one_of(any_text, st.sampled_from(TEXTS)), max_size=12), st.integers(4, 40), st.data())
def test_rows_hold_every_token_of_every_text_once(texts: list[str], length: int, data: st.DataObject) -> None:
    window = data.draw(st.one_of(st.none(), st.integers(4, length)))
    packed = pack(texts, TOKENIZER, length, window)
    assert packed.ids.shape == packed.texts.shape == (len(packed), length)
    found = Counter(map(tuple, texts_of(packed)))
    expected: Counter[tuple[int, ...]] = Counter()
    for row in TOKENIZER.encode_rows(texts):
        body = row[1:-1].tolist()
        count = math.ceil(len(body) / ((window or length) - 2))
        sizes = [len(part) for part in np.array_split(body, count)]
        assert max(sizes) - min(sizes) <= 1
        for size in sizes:
            expected[(0, *body[:size], 2)] += 1
            body = body[size:]
    assert found == expected


def test_short_texts_share_rows_with_little_padding() -> None:
    packed = pack(TEXTS, TOKENIZER, 64)
    assert (packed.texts > 0).mean() > 0.9
    assert packed.texts.max() >= 3


def test_rows_that_are_too_short_are_told() -> None:
    with pytest.raises(InputError, match="sequence_length is 3"):
        pack(TEXTS, TOKENIZER, 3)
    with pytest.raises(InputError, match=r"window is 33; allowed: 4 to 32"):
        pack(TEXTS, TOKENIZER, 32, 33)


def test_positions_begin_again_with_each_text() -> None:
    texts = np.array([[1, 1, 1, 2, 2, 0], [1, 2, 3, 3, 3, 3]], np.uint8)
    assert positions(texts, 1).tolist() == [[2, 3, 4, 2, 3, 1], [2, 2, 2, 3, 4, 5]]


def test_a_packed_row_computes_what_its_texts_would_alone() -> None:
    model = small_model()
    packed = pack(TEXTS[:20], TOKENIZER, 32)
    data = PretrainingData(packed, TOKENIZER, Masking((0.3,)))
    batch = data.collate(np.arange(len(packed)), np.random.default_rng(0))
    together = model(**{**batch, "labelled_only": False}).logits
    for row in range(len(packed)):
        for number in range(1, packed.texts[row].max() + 1):
            own = packed.texts[row] == number
            alone = model(input_ids=batch["input_ids"][row][own][None]).logits[0]
            np.testing.assert_allclose(together[row][own], alone, rtol=0, atol=1e-12)


def test_logits_of_labelled_tokens_alone_give_the_same_loss_and_gradients() -> None:
    model = small_model()
    packed = pack(TEXTS[:20], TOKENIZER, 32)
    batch = PretrainingData(packed, TOKENIZER, Masking((0.3,))).collate(np.arange(3), np.random.default_rng(0))
    some, some_grads = model.loss_and_grads(**batch)
    all_, all_grads = model.loss_and_grads(**{**batch, "labelled_only": False})
    labelled = batch["labels"] != IGNORE
    np.testing.assert_allclose(some.logits, all_.logits[labelled], rtol=0, atol=1e-13)
    assert abs(some.loss - all_.loss) < 1e-13
    assert some_grads.keys() == all_grads.keys() == model.params.keys()
    for name, gradient in some_grads.items():
        np.testing.assert_allclose(gradient, all_grads[name], rtol=0, atol=1e-13, err_msg=name)


def test_labelled_only_needs_labels() -> None:
    with pytest.raises(InputError, match="there are no labels; give labels"):
        small_model()(input_ids=[[0, 5, 2]], labelled_only=True)
    with pytest.raises(InputError, match=r"labels has shape \(1, 2\); expected \(1, 3\)"):
        small_model()(input_ids=[[0, 5, 2]], labels=[[5, 5]], labelled_only=True)


# ---- masks


def collated(masking: Masking, seed: int = 0, rows: int = 40) -> tuple[PretrainingData, dict[str, np.ndarray]]:
    data = PretrainingData(pack(TEXTS, TOKENIZER, 32), TOKENIZER, masking)
    return data, data.collate(np.arange(rows), np.random.default_rng(seed))


def test_words_are_runs_of_letters_and_single_marks() -> None:
    text = "The barn's owl (an owlet) hoots, twice."
    data = PretrainingData(pack([text], TOKENIZER, 64), TOKENIZER, Masking())
    (numbers,) = data.words.number(data.packed.ids)
    pieces: dict[int, str] = {}
    for number, token in zip(numbers, data.packed.ids[0], strict=True):
        if token not in (0, 1, 2):
            pieces[number] = pieces.get(number, "") + TOKENIZER.decode([token])
    assert [piece.strip() for piece in pieces.values()] == [
        "The", "barn", "'", "s", "owl", "(", "an", "owlet", ")", "hoots", ",", "twice", ".",
    ]  # fmt: skip


def test_whole_words_are_hidden_whole() -> None:
    data, batch = collated(Masking((0.2,), whole_words=True))
    hidden = batch["labels"] != IGNORE
    words = data.words.number(data.packed.ids[:40].astype(np.int64))
    for row in range(40):
        for number in np.unique(words[row][hidden[row]]):
            assert hidden[row][words[row] == number].all()
    several = collated(Masking((0.2,)))[1]["labels"] != IGNORE
    assert any((several[r] != several[r][words[r] == n].all()).any() for r in range(40) for n in words[r][several[r]])


def test_special_tokens_are_never_hidden_and_the_rest_keeps_its_id() -> None:
    data, batch = collated(Masking((0.5,)))
    ids = data.packed.ids[:40]
    hidden = batch["labels"] != IGNORE
    assert not np.isin(ids[hidden], [0, 1, 2, 419]).any()
    assert (batch["labels"][hidden] == ids[hidden]).all()
    assert (batch["input_ids"][hidden] == 419).all()
    assert (batch["input_ids"][~hidden] == ids[~hidden]).all()
    maskable = ~np.isin(ids, [0, 1, 2])
    assert hidden.sum() == sum(round(0.5 * int(row.sum())) for row in maskable)


def test_the_80_10_10_strategy() -> None:
    _, batch = collated(Masking((0.5,), "80-10-10"), rows=len(pack(TEXTS, TOKENIZER, 32)))
    hidden = batch["labels"] != IGNORE
    shown = batch["input_ids"][hidden]
    truth = batch["labels"][hidden]
    assert abs((shown == 419).mean() - 0.8) < 0.05
    assert abs((shown == truth).mean() - 0.1) < 0.04


def test_each_batch_takes_one_of_the_rates() -> None:
    data = PretrainingData(pack(TEXTS, TOKENIZER, 32), TOKENIZER, Masking((0.1, 0.6)))
    seen = set()
    for seed in range(12):
        batch = data.collate(np.arange(20), np.random.default_rng(seed))
        parts = (batch["labels"] != IGNORE).sum(axis=1) / (data.packed.texts[:20] > 0).sum(axis=1)
        assert parts.max() < 0.2 or parts.min() > 0.3
        seen.add(bool(parts.max() < 0.2))
    assert seen == {True, False}


def test_a_batch_is_told_by_its_generator() -> None:
    masking = Masking((0.15, 0.3), whole_words=True)
    first, again, other = (collated(masking, seed)[1]["input_ids"] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("masking", "message"),
    [
        (Masking((0.0,)), "rate is 0.0"),
        (Masking((0.2, 1.5)), "rate is 1.5"),
        (Masking(()), "mask_rate is empty"),
        (Masking((0.2,), "half"), "strategy is 'half'"),
    ],
)
def test_wrong_masking_is_told(masking: Masking, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PretrainingData(pack(TEXTS, TOKENIZER, 32), TOKENIZER, masking)


def test_masked_loss_is_the_mean_over_all_hidden_tokens() -> None:
    model = small_model()
    data = PretrainingData(pack(TEXTS[:60], TOKENIZER, 32), TOKENIZER, Masking((0.3,)))
    found = masked_loss(model, data, batch_size=4, seed=5)
    assert found == masked_loss(model, data, batch_size=4, seed=5)
    assert found != masked_loss(model, data, batch_size=4, seed=6)
    rng = np.random.default_rng(5)
    surprise, right = [], []
    for start in range(0, len(data.packed), 4):
        batch = data.collate(np.arange(start, min(start + 4, len(data.packed))), rng)
        logits = model(**{**batch, "labelled_only": False, "labels": None}).logits
        logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        for row, column in np.argwhere(batch["labels"] != IGNORE):
            label = batch["labels"][row, column]
            surprise.append(-logs[row, column, label])
            right.append(int(logs[row, column].argmax()) == label)
    assert found["loss"] == pytest.approx(np.mean(surprise), rel=1e-9)
    assert found["accuracy"] == pytest.approx(np.mean(right), rel=1e-12)


def test_the_alphabet_of_words_is_ascii_punctuation() -> None:
    """Letters beyond ASCII are spelled by bytes, none of which looks like a mark."""
    data = PretrainingData(pack(["Déjà été là, n'est-ce pas?"], TOKENIZER, 64), TOKENIZER, Masking())
    (numbers,) = data.words.number(data.packed.ids)
    words: dict[int, list[int]] = {}
    for number, token in zip(numbers, data.packed.ids[0], strict=True):
        if token not in (0, 1, 2):
            words.setdefault(number, []).append(int(token))
    read = [TOKENIZER.decode(ids).strip() for ids in words.values()]
    assert read == ["Déjà", "été", "là", ",", "n", "'", "est", "-", "ce", "pas", "?"]
    assert set(read) & set(string.punctuation) == {",", "'", "-", "?"}
