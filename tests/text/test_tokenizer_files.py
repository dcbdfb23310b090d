"""The files of a tokenizer: what they may say, what is refused, and what is written."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npprelnorm import tokenizer_files
from npprelnorm.assets import embedded_model_path
from npprelnorm.errors import NpprelnormError, TokenizerError
from npprelnorm.tokenizer import Tokenizer

SOURCE = embedded_model_path()
TOKENIZER_JSON = json.loads((SOURCE / "tokenizer.json").read_text(encoding="utf-8"))
SETTINGS = json.loads((SOURCE / "tokenizer_config.json").read_text(encoding="utf-8"))
GOLDEN = json.loads((Path(__file__).parent / "golden" / "tokenizer.json").read_text())["records"]
TEXTS = [record["text"] for record in GOLDEN]
FREE = len(TOKENIZER_JSON["model"]["vocab"]) + 1  # the first id after <mask>, which is the last


def write(folder: Path, **files: Any) -> Path:
    """Files by name with `__` for the dot; a string is written as it is, anything else as JSON."""
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def vocab_and_merges(*, with_mask: bool = True) -> dict[str, Any]:
    vocab = dict(TOKENIZER_JSON["model"]["vocab"])
    if with_mask:
        vocab["<mask>"] = len(vocab)
    merges = "\n".join(" ".join(pair) for pair in TOKENIZER_JSON["model"]["merges"])
    return {"vocab__json": vocab, "merges__txt": f"#version: 0.2\n{merges}\n"}


def assert_same(one: Tokenizer, other: Tokenizer) -> None:
    for text in TEXTS:
        a, b = (tokenizer(text, return_offsets=True, return_special_tokens_mask=True) for tokenizer in (one, other))
        for name in a:
            assert np.array_equal(a[name], b[name]), (text, name)
        assert one.decode(a.input_ids[0]) == other.decode(b.input_ids[0])


# ---- vocab.json and merges.txt


@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("settings", [{}, {"tokenizer_config__json": SETTINGS}])
def test_vocab_and_merges_make_the_same_tokenizer(tmp_path: Path, with_mask: bool, settings: dict[str, Any]) -> None:
    made = Tokenizer.from_pretrained(write(tmp_path, **vocab_and_merges(with_mask=with_mask), **settings))
    assert made.mask_token_id == len(TOKENIZER_JSON["model"]["vocab"])
    assert made.model_max_length == (128 if settings else None)
    assert_same(made, Tokenizer.from_pretrained(SOURCE))


def test_carriage_returns_and_a_missing_version_line(tmp_path: Path) -> None:
    files = vocab_and_merges()
    (tmp_path / "merges.txt").write_bytes(files["merges__txt"].split("\n", 1)[1].replace("\n", "\r\n").encode())
    assert_same(
        Tokenizer.from_pretrained(write(tmp_path, vocab__json=files["vocab__json"])), Tokenizer.from_pretrained(SOURCE)
    )


def test_special_tokens_map_and_added_tokens(tmp_path: Path) -> None:
    made = Tokenizer.from_pretrained(
        write(
            tmp_path,
            **vocab_and_merges(),
            special_tokens_map__json={"mask_token": {"content": "<mask>", "lstrip": False}, "pad_token": "<pad>"},
            added_tokens__json={"zebra": FREE, "quagga": FREE + 1},
        )
    )
    assert len(made) == FREE + 2
    ids = made("a <mask> quaggazebra").input_ids[0].tolist()
    assert ids[-3:-1] == [FREE + 1, FREE]
    assert made.convert_ids_to_tokens(ids)[1:4] == ["a", "Ġ", "<mask>"]  # lstrip switched off: the space stays


def test_added_tokens_decoder(tmp_path: Path) -> None:
    added = {
        str(FREE): {"content": "<ent>", "special": True, "rstrip": True},
        str(FREE + 1): {"content": "zebra", "special": False, "single_word": True},
    }
    made = Tokenizer.from_pretrained(
        write(tmp_path, **vocab_and_merges(), tokenizer_config__json=SETTINGS | {"added_tokens_decoder": added})
    )
    ids = made("<ent> a zebra zebras").input_ids[0].tolist()
    assert ids[1] == FREE
    assert ids.count(FREE + 1) == 1
    assert made.decode(ids, skip_special_tokens=True) == "a zebra zebras"


# ---- settings


def test_saved_truncation_and_padding_are_switched_off(tmp_path: Path) -> None:
    saved = TOKENIZER_JSON | {
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 64},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 1,
            "pad_type_id": 0,
            "pad_token": "<pad>",
        },
    }
    assert_same(Tokenizer.from_pretrained(write(tmp_path, tokenizer__json=saved)), Tokenizer.from_pretrained(SOURCE))


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    for value in (10**30, 1e30):
        write(tmp_path, tokenizer__json=TOKENIZER_JSON, tokenizer_config__json={"model_max_length": value})
        tokenizer = Tokenizer.from_pretrained(tmp_path)
        assert tokenizer.model_max_length is None
        with pytest.raises(NpprelnormError, match="truncation needs max_length, since this tokenizer's files name no"):
            tokenizer("a", truncation=True)


def test_a_tokenizer_without_padding_or_mask(tmp_path: Path) -> None:
    bare = json.loads(json.dumps(TOKENIZER_JSON))
    bare["added_tokens"] = [token for token in bare["added_tokens"] if token["content"] not in ("<pad>", "<mask>")]
    bare["model"]["vocab"]["[other]"] = bare["model"]["vocab"].pop("<pad>")
    tokenizer = Tokenizer.from_pretrained(write(tmp_path, tokenizer__json=bare))
    assert tokenizer.pad_token is None
    assert tokenizer.mask_token_id is None
    assert tokenizer(["a", "b"], padding=True).input_ids.shape == (2, 3)  # nothing to fill
    for options in ({"padding": True}, {"padding": "max_length", "max_length": 9}):
        with pytest.raises(NpprelnormError, match="has no pad_token"):
            tokenizer(["a", "The dog"], **options)


# ---- saving


@pytest.mark.parametrize("kind", ["tokenizer.json", "vocab and merges"])
def test_save_and_load(tmp_path: Path, kind: str) -> None:
    (tmp_path / "one").mkdir()
    files = {"tokenizer__json": TOKENIZER_JSON} if kind == "tokenizer.json" else vocab_and_merges()
    extra = {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "some_key": [1, "ü"], "padding_side": "left"}
    write(tmp_path / "one", **files, tokenizer_config__json=SETTINGS | extra)
    first = Tokenizer.from_pretrained(tmp_path / "one")
    first("a b c", truncation=True, max_length=3)
    first.save_pretrained(tmp_path / "new" / "two")
    second = Tokenizer.from_pretrained(tmp_path / "new" / "two")
    assert_same(first, second)
    settings = json.loads((tmp_path / "new" / "two" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings == SETTINGS | {"some_key": [1, "ü"], "padding_side": "left"}
    assert json.loads((tmp_path / "new" / "two" / "tokenizer.json").read_text(encoding="utf-8"))["truncation"] is None
    assert (second.model_max_length, second.padding_side) == (128, "left")
    assert sorted(path.name for path in (tmp_path / "new" / "two").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_ids_far_apart_are_not_saved(tmp_path: Path) -> None:
    """The library would count to the largest id, here for hours."""
    small = {"a": 0, "b": 2**31 - 1, "<s>": 1, "</s>": 2, "<pad>": 3, "<unk>": 4, "<mask>": 5}
    tokenizer = Tokenizer.from_pretrained(write(tmp_path, vocab__json=small, merges__txt=""))
    assert tokenizer("b").input_ids.tolist() == [[1, 2**31 - 1, 2]]
    with pytest.raises(TokenizerError, match="cannot be saved: its 7 tokens have ids up to 2147483647"):
        tokenizer.save_pretrained(tmp_path / "new")
    assert not list(tmp_path.glob("new/*"))


# ---- damaged files


def changed(**parts: Any) -> dict[str, Any]:
    return TOKENIZER_JSON | parts


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer__json": ""},
        {"tokenizer__json": "{"},
        {"tokenizer__json": "{}"},
        {"tokenizer__json": "[]"},
        {"tokenizer__json": "[" * 100_000},
        {"tokenizer__json": changed(version="9.0")},
        {"tokenizer__json": changed(model=None)},
        {"tokenizer__json": changed(model={"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]})},
        {"tokenizer__json": changed(model={"type": "BPE", "vocab": {"a": -1}, "merges": []})},
        {"tokenizer__json": changed(pre_tokenizer={"type": "FromTheFuture"})},
        {"tokenizer__json": changed(added_tokens=[{"id": 1e9}])},
        # a panic in Rust, which is no Exception in Python
        {"tokenizer__json": changed(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})},
        {"vocab__json": "[]", "merges__txt": ""},
        {"vocab__json": "{}", "merges__txt": ""},
        {"vocab__json": '{"a": 0, "a": 1}', "merges__txt": ""},
        {"vocab__json": {"a": 0, "b": 0}, "merges__txt": ""},
        {"vocab__json": {"a": -1}, "merges__txt": ""},
        {"vocab__json": {"a": True}, "merges__txt": ""},
        {"vocab__json": {"a": 1.0}, "merges__txt": ""},
        {"vocab__json": {"a": 2**40}, "merges__txt": ""},
        {"vocab__json": '{"\\ud800": 0}', "merges__txt": ""},
        {"vocab__json": {"a": 0}, "merges__txt": "a b c\n"},
        {"vocab__json": {"a": 0}, "merges__txt": "abc\n"},
        {"vocab__json": {"a": 0}, "merges__txt": "a b\n"},
        vocab_and_merges() | {"added_tokens__json": {"zebra": 7}},
        vocab_and_merges() | {"added_tokens__json": {"zebra": 5000}},
        vocab_and_merges() | {"added_tokens__json": {"zebra": "x"}},
        vocab_and_merges() | {"tokenizer_config__json": {"add_prefix_space": 1}},
        vocab_and_merges() | {"tokenizer_config__json": {"added_tokens_decoder": {"0": "<s>"}}},
        vocab_and_merges() | {"tokenizer_config__json": {"added_tokens_decoder": {"-1": {"content": "q"}}}},
        {"tokenizer__json": TOKENIZER_JSON, "tokenizer_config__json": "{"},
        {"tokenizer__json": TOKENIZER_JSON, "tokenizer_config__json": "[]"},
        {"tokenizer__json": TOKENIZER_JSON, "tokenizer_config__json": '{"x": 1e999}'},
        {"tokenizer__json": TOKENIZER_JSON, "tokenizer_config__json": '{"x": "\\ud800"}'},
        {"tokenizer__json": TOKENIZER_JSON, "tokenizer_config__json": {"model_max_length": -1}},
        {"tokenizer__json": TOKENIZER_JSON, "tokenizer_config__json": {"model_max_length": "128"}},
        {"tokenizer__json": TOKENIZER_JSON, "tokenizer_config__json": {"model_max_length": True}},
        {"tokenizer__json": TOKENIZER_JSON, "tokenizer_config__json": {"mask_token": 5}},
        {"tokenizer__json": TOKENIZER_JSON, "tokenizer_config__json": {"mask_token": {"content": 5}}},
        {"tokenizer__json": TOKENIZER_JSON, "tokenizer_config__json": {"mask_token": ""}},
        {"tokenizer__json": TOKENIZER_JSON, "tokenizer_config__json": {"mask_token": {"content": "m", "lstrip": 1}}},
        {"tokenizer__json": TOKENIZER_JSON, "tokenizer_config__json": {"padding_side": "top"}},
        {"tokenizer__json": TOKENIZER_JSON, "special_tokens_map__json": '{"mask_token": "\\ud800"}'},
    ],
    ids=lambda files: str({name: str(value)[:40] for name, value in files.items()}).replace("/", "_")[:120],
)
def test_damaged_files(tmp_path: Path, files: dict[str, Any]) -> None:
    write(tmp_path, **files)
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_pretrained(tmp_path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path))
    assert "\n" not in message
    assert len(message) < 400 + 2 * len(str(tmp_path))


def test_a_newer_format_is_explained(tmp_path: Path) -> None:
    write(tmp_path, tokenizer__json=changed(pre_tokenizer={"type": "FromTheFuture"}))
    with pytest.raises(TokenizerError, match="pip install --upgrade tokenizers"):
        Tokenizer.from_pretrained(tmp_path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b'{"version": "\xff"}')
    with pytest.raises(TokenizerError, match="not UTF-8"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_files, "MAX_FILE_BYTES", 1000)
    for name in ("tokenizer.json", "vocab.json"):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(SOURCE / "tokenizer.json", folder / name)
        (folder / "merges.txt").write_text("")
        with pytest.raises(TokenizerError, match="larger than 1000 bytes"):
            Tokenizer.from_pretrained(folder)


def test_a_panic_while_tokenizing_is_our_error(tmp_path: Path) -> None:
    template = {
        "type": "TemplateProcessing",
        "pair": [],
        "special_tokens": {},
        "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}],
    }
    tokenizer = Tokenizer.from_pretrained(write(tmp_path, tokenizer__json=changed(post_processor=template)))
    with pytest.raises(TokenizerError, match="the text cannot be tokenized"):
        tokenizer("a")


def test_an_interrupt_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt), tokenizer_files.rust_errors("x"):
        raise KeyboardInterrupt


def test_mutated_files_give_only_our_errors(tmp_path: Path) -> None:
    """A byte here and there: it loads and tokenizes, or one of our errors says why not."""
    source = random.Random(5)
    small = {"a": 0, "b": 1, "ab": 2, "<s>": 3, "</s>": 4, "<mask>": 5, "<pad>": 6, "Ġ": 7}
    parts = TOKENIZER_JSON | {"model": TOKENIZER_JSON["model"] | {"vocab": small, "merges": [["a", "b"]]}}
    files = {
        "tokenizer.json": json.dumps(parts).encode(),
        "tokenizer_config.json": json.dumps(SETTINGS).encode(),
    }
    refused = 0
    for _ in range(400):
        broken = {name: bytearray(data) for name, data in files.items()}
        data = broken[source.choice(list(broken))]
        for _ in range(source.choice([1, 1, 1, 3])):
            data[source.randrange(len(data))] = source.choice(b'"{}[]:,-0159atn\xff\x00 \\')
        for name, content in broken.items():
            (tmp_path / name).write_bytes(bytes(content))
        try:
            Tokenizer.from_pretrained(tmp_path)("ab <mask> a", truncation=True, max_length=6)
        except NpprelnormError:
            refused += 1
    assert 100 < refused < 400
