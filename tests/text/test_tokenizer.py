"""Tokenizer: the ids, offsets and texts of transformers (golden), its arguments, and its errors."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npprelnorm.assets import embedded_model_path
from npprelnorm.config import RobertaPreLayerNormConfig
from npprelnorm.errors import CheckpointNotFoundError, InputError, NpprelnormError, TokenizerError
from npprelnorm.tokenizer import Tokenizer
from npprelnorm.tokenizer_inputs import MAX_TEXT_CHARACTERS

GOLDEN = json.loads((Path(__file__).parent / "golden" / "tokenizer.json").read_text())["records"]
TOKENIZER = Tokenizer.from_pretrained(embedded_model_path())
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def call(record: dict[str, Any], **options: Any) -> Any:
    options |= record["options"]
    if options.get("truncation"):
        options["return_overflowing"] = True
    return TOKENIZER(record["text"], record["text_pair"], **options)


@pytest.mark.parametrize("record", GOLDEN, ids=range(len(GOLDEN)))
def test_golden(record: dict[str, Any]) -> None:
    encoding = call(record, padding=True, return_offsets=True, return_special_tokens_mask=True)
    lengths = encoding["attention_mask"].sum(axis=1)
    rows = range(len(lengths))
    for name in ("input_ids", "offset_mapping", "special_tokens_mask"):
        assert [encoding[name][row, : lengths[row]].tolist() for row in rows] == record[name]
    assert TOKENIZER.batch_decode(record["input_ids"]) == record["decoded"]
    assert TOKENIZER.batch_decode(record["input_ids"], skip_special_tokens=True) == record["decoded_without_special"]


def test_golden_covers_what_it_should() -> None:
    texts = [record["text"] for record in GOLDEN]
    assert len(GOLDEN) >= 80
    assert {"", "\x00", "<mask>", " <mask>"} <= set(texts)
    assert sum(len(record["input_ids"]) > 1 for record in GOLDEN) >= 5  # rows that overflow
    assert max(len(record["input_ids"][0]) for record in GOLDEN) > 500


def test_arrays_are_int64_and_two_dimensional() -> None:
    encoding = TOKENIZER("The dog barks.", return_offsets=True, return_special_tokens_mask=True)
    assert {name: (array.dtype.name, array.ndim) for name, array in encoding.items()} == {
        "input_ids": ("int64", 2),
        "attention_mask": ("int64", 2),
        "offset_mapping": ("int64", 3),
        "special_tokens_mask": ("int64", 2),
    }
    assert encoding.input_ids is encoding["input_ids"]
    with pytest.raises(AttributeError, match="no 'token_type_ids'; it has input_ids, attention_mask"):
        _ = encoding.token_type_ids


def test_empty_batch() -> None:
    encoding = TOKENIZER([], return_offsets=True)
    assert encoding.input_ids.shape == (0, 0)
    assert encoding["offset_mapping"].shape == (0, 0, 2)


@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_a_padded_batch_is_its_rows(texts: list[str]) -> None:
    batch = TOKENIZER(texts, padding=True, return_offsets=True, return_special_tokens_mask=True)
    assert batch.input_ids.shape[1] == batch.attention_mask.sum(axis=1).max()
    rows = TOKENIZER.encode_rows(texts)
    for index, text in enumerate(texts):
        single = TOKENIZER(text, return_offsets=True, return_special_tokens_mask=True)
        length = single.input_ids.shape[1]
        assert single.attention_mask.all()
        assert rows[index].tolist() == single.input_ids[0].tolist()
        for name, fill in (("input_ids", 1), ("attention_mask", 0), ("offset_mapping", 0), ("special_tokens_mask", 1)):
            assert np.array_equal(batch[name][index, :length], single[name][0])
            assert (batch[name][index, length:] == fill).all()


@given(TEXTS.filter(lambda text: not any(token in text for token in ("<s>", "</s>", "<pad>", "<unk>", "<mask>"))))
def test_decoding_gives_the_text_back(text: str) -> None:
    ids = TOKENIZER(text).input_ids[0]
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == text
    assert TOKENIZER.decode(ids) == f"<s>{text}</s>"


@given(TEXTS)
def test_offsets_lie_in_the_text_in_order(text: str) -> None:
    encoding = TOKENIZER(text, return_offsets=True)
    inner = encoding["offset_mapping"][0, 1:-1]
    assert (inner[:, 0] <= inner[:, 1]).all()
    assert (np.diff(inner, axis=0) >= 0).all()
    assert inner.size == 0 or (inner.min() >= 0 and inner.max() <= len(text))


@given(TEXTS, st.integers(3, 12), st.integers(0, 8))
def test_overflowing_rows_hold_the_whole_text(text: str, length: int, stride: int) -> None:
    stride = min(stride, length - 3)
    encoding = TOKENIZER(text, truncation=True, max_length=length, stride=stride, return_overflowing=True, padding=True)
    whole = TOKENIZER.encode_rows([text])[0][1:-1].tolist()
    joined: list[int] = []
    for number, (row, mask) in enumerate(zip(encoding.input_ids, encoding.attention_mask, strict=True)):
        assert mask.sum() <= length
        inner = row[: mask.sum()][1:-1].tolist()
        joined += inner if number == 0 else inner[stride:]
    assert joined == whole
    assert (encoding["overflow_to_sample_mapping"] == 0).all()


def test_overflow_names_the_text_of_each_row() -> None:
    encoding = TOKENIZER(
        ["The dog.", "The dog barks. The cat purrs. The cow moos.", "A"],
        truncation=True,
        max_length=8,
        return_overflowing=True,
        padding="max_length",
    )
    source = encoding["overflow_to_sample_mapping"].tolist()
    assert source[0] == 0
    assert source[-1] == 2
    assert source.count(1) == len(source) - 2 > 1
    assert encoding.input_ids.shape == (len(source), 8)


def test_truncation_keeps_the_special_tokens_and_is_forgotten() -> None:
    text = "The dog barks. " * 50
    assert TOKENIZER(text, truncation=True).input_ids.shape == (1, 128)
    cut = TOKENIZER(text, truncation=True, max_length=6).input_ids[0]
    assert (len(cut), cut[0], cut[-1]) == (6, TOKENIZER.cls_token_id, TOKENIZER.sep_token_id)
    assert TOKENIZER(text).input_ids.shape[1] > 128


def test_pairs_in_a_batch() -> None:
    batch = TOKENIZER(["The dog", "A"], ["barks.", "b c"], padding=True)
    assert TOKENIZER.batch_decode(batch.input_ids)[0].startswith("<s>The dog</s></s>barks.</s>")
    assert TOKENIZER.decode(batch.input_ids[1][batch.attention_mask[1] == 1]) == "<s>A</s></s>b c</s>"


def test_left_padding_and_truncation() -> None:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    batch = tokenizer(["The dog barks in the garden.", "A"], padding=True, truncation=True, max_length=5)
    assert batch.attention_mask.tolist() == [[1] * 5, [0, 0, 1, 1, 1]]
    assert tokenizer.decode(batch.input_ids[0]) == "<s> the garden.</s>"


def test_two_threads_do_not_see_each_others_truncation() -> None:
    text = "The dog barks. " * 40
    lengths: dict[int, set[int]] = {5: set(), 7: set()}

    def work(limit: int) -> None:
        for _ in range(100):
            lengths[limit].add(TOKENIZER(text, truncation=True, max_length=limit).input_ids.shape[1])

    threads = [threading.Thread(target=work, args=(limit,)) for limit in lengths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == {5: {5}, 7: {7}}


def test_special_tokens_and_vocabulary() -> None:
    assert (TOKENIZER.bos_token_id, TOKENIZER.pad_token_id, TOKENIZER.eos_token_id) == (0, 1, 2)
    assert (TOKENIZER.cls_token, TOKENIZER.sep_token, TOKENIZER.unk_token_id) == ("<s>", "</s>", 3)
    size = RobertaPreLayerNormConfig.from_pretrained(embedded_model_path()).vocab_size
    mask = size - 1
    assert (TOKENIZER.mask_token, TOKENIZER.mask_token_id) == ("<mask>", mask)
    assert (len(TOKENIZER), TOKENIZER.model_max_length) == (size, 128)
    vocabulary = TOKENIZER.get_vocab()
    assert len(vocabulary) == size
    assert TOKENIZER.token_to_id("ĠParis") == vocabulary["ĠParis"]
    assert TOKENIZER.id_to_token(vocabulary["ĠParis"]) == "ĠParis"
    assert TOKENIZER.token_to_id(" Paris") is None
    assert TOKENIZER.id_to_token(size) is None
    assert TOKENIZER.convert_tokens_to_ids(["ĠParis", "nothing such", "<mask>"]) == [vocabulary["ĠParis"], 3, mask]
    assert TOKENIZER.convert_ids_to_tokens([0, mask, 50_000]) == ["<s>", "<mask>", None]


def test_a_text_is_no_list_of_tokens() -> None:
    for convert in (TOKENIZER.convert_tokens_to_ids, TOKENIZER.convert_tokens_to_string):
        with pytest.raises(InputError, match=r"^tokens is the string '<mask>'; .* such as \['<mask>'\]$"):
            convert("<mask>")
        with pytest.raises(InputError, match=r"^tokens holds an entry that is 3; give a collection of strings$"):
            convert([3])


def test_decode_takes_what_numpy_takes() -> None:
    assert TOKENIZER.decode([]) == ""
    mask = TOKENIZER.mask_token_id
    for ids in (mask, [mask], (mask,), np.array([mask], np.uint16), np.int64(mask)):
        assert TOKENIZER.decode(ids) == "<mask>"
    assert TOKENIZER.decode([0, 4_000_000_000, 2]) == "<s></s>"  # as transformers: nothing for what is no token
    assert TOKENIZER.batch_decode(np.array([[0, 2], [1, mask]])) == ["<s></s>", "<pad><mask>"]


def test_pickle_and_copies() -> None:
    for other in (pickle.loads(pickle.dumps(TOKENIZER)), copy.deepcopy(TOKENIZER)):
        assert other("a <mask> 世").input_ids.tolist() == TOKENIZER("a <mask> 世").input_ids.tolist()
        assert other.mask_token_id == TOKENIZER.mask_token_id


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((["a", "The dog barks."],), {}, "from 3 to 6 tokens, which is no rectangular array; pass padding=True"),
        ((5,), {}, "text is a int; give a string or a list of strings"),
        ((None,), {}, "text is a NoneType"),
        ((b"abc",), {}, "text is a bytes"),
        ((["a", b"abc"],), {"padding": True}, r"text\[1\] is a bytes, not a string; decode it first"),
        ((["a", None],), {"padding": True}, r"text\[1\] is a NoneType, not a string"),
        (([["a", "b"]],), {}, r"text\[0\] is a list, not a string"),
        (("a", ["b"]), {}, "text is one string and text_pair a list of 1"),
        ((["a"], ["b", "c"]), {}, "text is a list of 1 and text_pair a list of 2"),
        (("a",), {"padding": "shortest"}, "padding is 'shortest'; allowed: False, True, 'longest', 'max_length'"),
        (("a",), {"truncation": "first"}, "truncation is 'first'; allowed: False, True, 'longest_first'"),
        (("a",), {"max_length": 5}, "max_length=5 does nothing by itself; pass truncation=True"),
        (("a",), {"truncation": True, "max_length": 2}, "max_length=2 leaves no room beside the 2 special tokens"),
        (("a", "b"), {"truncation": True, "max_length": 4}, "leaves no room beside the 4 special tokens"),
        (("a",), {"truncation": True, "max_length": 0}, "max_length is 0; it must be a whole number from 1"),
        (("a",), {"truncation": True, "max_length": 5.0}, "max_length is 5.0; it must be a whole number"),
        (("a",), {"truncation": True, "max_length": True}, "max_length is True"),
        (("a",), {"truncation": True, "max_length": 5, "stride": 3}, "stride is 3; it must be from 0 to 2"),
        (("a",), {"truncation": True, "max_length": 5, "stride": -1}, "stride is -1"),
        (("a",), {"stride": 2}, "pass truncation=True"),
        (("a",), {"return_overflowing": True}, "pass truncation=True"),
        ((["a", "The dog barks."],), {"padding": "max_length", "max_length": 4}, "text 1 has 6 tokens, more than"),
    ],
)
def test_wrong_arguments(arguments: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        TOKENIZER(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, -100], "-100 is not a token id; take out what is not a token, such as labels of -100"),
        ([2**32], "4294967296 is not a token id"),
        ([0.5], "ids are of type float64; they must be whole numbers"),
        ([True], "ids are of type bool"),
        (["a"], "they must be whole numbers"),
        ([None], "they must be whole numbers"),
        ([[0, 1], [2, 3]], "more than one row; use batch_decode"),
        ([[0, 1], [2]], "more than one row; use batch_decode"),
    ],
)
def test_wrong_ids(ids: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TOKENIZER.decode(ids)


def test_a_lone_surrogate_is_an_error_that_says_where() -> None:
    with pytest.raises(TokenizerError, match=r"text\[1\] has half a character .*ud83d.* at position 3"):
        TOKENIZER(["fine", "abc\ud83d"], padding=True)
    with pytest.raises(TokenizerError, match="half a character"):
        TOKENIZER("a", "\udc00")
    with pytest.raises(TokenizerError, match="half a character"):
        TOKENIZER.token_to_id("\udc00")


def test_a_text_that_cannot_be_cut_as_asked() -> None:
    with pytest.raises(TokenizerError, match="the text cannot be tokenized: Truncation error"):
        TOKENIZER("a", "The dog barks. " * 9, truncation="only_first", max_length=10)


def test_a_text_beyond_the_limit() -> None:
    with pytest.raises(TokenizerError, match=f"has {MAX_TEXT_CHARACTERS + 1} characters, more .* cut it into parts"):
        TOKENIZER("a" * (MAX_TEXT_CHARACTERS + 1))


def test_a_long_text_without_a_space() -> None:
    assert TOKENIZER("~" * 200_000).input_ids.shape == (1, 200_002)


@given(st.text(st.characters(), max_size=20))  # lone surrogates too
def test_any_text_is_tokenized_or_refused_by_us(text: str) -> None:
    surrogate = any("\ud800" <= character <= "\udfff" for character in text)
    try:
        TOKENIZER(text)
    except TokenizerError:
        assert surrogate
    else:
        assert not surrogate


def test_missing_folder_and_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        Tokenizer.from_pretrained(tmp_path / "nothing")
    with pytest.raises(CheckpointNotFoundError, match=r"has no tokenizer: neither tokenizer\.json, nor vocab\.json"):
        Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(NpprelnormError, match="is a file"):
        Tokenizer.from_pretrained(embedded_model_path() / "tokenizer.json")


def test_a_hub_id_is_found_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = tmp_path / "models--some--model"
    snapshot = model / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    TOKENIZER.save_pretrained(snapshot)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for options in ({}, {"revision": "main"}, {"revision": commit}):
        found = Tokenizer.from_pretrained("some/model", local_files_only=True, **options)
        assert found.get_vocab() == TOKENIZER.get_vocab()
    with pytest.raises(CheckpointNotFoundError, match="'some/other' is not a local folder and not in the hub cache"):
        Tokenizer.from_pretrained("some/other", local_files_only=True)
