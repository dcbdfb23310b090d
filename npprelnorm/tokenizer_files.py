"""From the files of a tokenizer to a `tokenizers.Tokenizer` and the names of its special tokens.

The Rust library underneath reports bad input in three ways: as an exception, as another exception, and by a panic,
which arrives in Python as a `PanicException` that is no `Exception`. `rust_errors` makes one of them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from .errors import CheckpointFormatError, CheckpointNotFoundError, NpprelnormError, TokenizerError
from .files import read_json

FILE_NAMES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "added_tokens.json",
)
MAX_FILE_BYTES = 64 << 20  # RoBERTa's own is 2 MB, the largest multilingual ones about 20 MB
MAX_ID = (1 << 31) - 1
MAX_GAP = 100_000
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_SIDES = ("right", "left")
_NO_LIMIT = 10**9  # transformers writes 1e30 for "no limit"


@contextlib.contextmanager
def rust_errors(what: str) -> Iterator[None]:
    """Turn whatever the Rust library raises inside into a `TokenizerError` that begins with `what`."""
    try:
        yield
    except NpprelnormError:
        raise
    except Exception as error:
        raise TokenizerError(f"{what}: {_reason(error)}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # an interrupt, an exit
            raise
        raise TokenizerError(f"{what}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    if "untagged enum" in text or "unknown variant" in text or "Unknown tokenizer version" in text:
        text += " (damaged, or written by a newer version: try `pip install --upgrade tokenizers`)"
    return text or type(error).__name__


@dataclass
class TokenizerFiles:
    """What the files of a tokenizer say."""

    backend: tokenizers.Tokenizer
    special: dict[str, str]  # role -> token, for the roles that there are
    model_max_length: int | None = None
    padding_side: str = "right"
    truncation_side: str = "right"
    settings: dict[str, Any] = field(default_factory=dict)  # tokenizer_config.json as it was


def read_tokenizer(folder: Path) -> TokenizerFiles:
    """Read tokenizer.json, or else vocab.json and merges.txt, or vocab.txt; and the settings beside them."""
    settings = _json(folder / "tokenizer_config.json")
    try:  # JSON can spell what it cannot hold: "\\ud800" and 1e999; `save_pretrained` could not write it back
        json.dumps(settings, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except ValueError as error:
        raise TokenizerError(f"{folder / 'tokenizer_config.json'} is damaged: {error}") from None
    if (folder / "tokenizer.json").is_file():
        backend = _from_tokenizer_json(folder / "tokenizer.json")
        word_pieces = isinstance(backend.model, models.WordPiece)
        special = _special_tokens(folder, settings, BERT_TOKENS if word_pieces else ROBERTA_TOKENS)
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        special = _special_tokens(folder, settings, ROBERTA_TOKENS)
        backend = _from_vocab_and_merges(folder, settings, special)
    elif (folder / "vocab.txt").is_file():
        special = _special_tokens(folder, settings, BERT_TOKENS)
        backend = _from_word_pieces(folder, settings, special)
    else:
        raise CheckpointNotFoundError(
            f"{folder} has no tokenizer: neither tokenizer.json, nor vocab.json together with merges.txt, nor "
            "vocab.txt (transformers' AutoTokenizer saves a SentencePiece model as tokenizer.json)"
        )
    backend.no_truncation()
    backend.no_padding()
    return TokenizerFiles(
        backend,
        {role: token for role, (token, _) in special.items() if backend.token_to_id(token) is not None},
        _max_length(folder, settings),
        _side(folder, settings, "padding_side"),
        _side(folder, settings, "truncation_side"),
        settings,
    )


def _json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file."""
    if not path.exists():
        return {}
    try:
        return read_json(path, max_bytes=MAX_FILE_BYTES)
    except CheckpointFormatError as error:
        raise TokenizerError(str(error)) from None


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise TokenizerError(f"{path} is larger than {MAX_FILE_BYTES} bytes, which no tokenizer needs")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} is damaged: it is not UTF-8 (byte {error.start})") from None


def _from_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    text = _text(path)
    with rust_errors(f"{path} is not a usable tokenizer"):
        return tokenizers.Tokenizer.from_str(text)


def _from_vocab_and_merges(
    folder: Path, settings: dict[str, Any], special: dict[str, tuple[str, AddedToken]]
) -> tokenizers.Tokenizer:
    """RoBERTa's byte-level BPE; the special tokens are matched in the text before anything else."""
    vocab = _vocabulary(folder / "vocab.json")
    merges = _merges(folder / "merges.txt")
    prefix_space = settings.get("add_prefix_space", False)
    trim_offsets = settings.get("trim_offsets", True)
    for name, value in (("add_prefix_space", prefix_space), ("trim_offsets", trim_offsets)):
        if not isinstance(value, bool):
            raise TokenizerError(f"{folder / 'tokenizer_config.json'}: {name} is {value!r:.80}, not true or false")
    with rust_errors(f"{folder / 'vocab.json'} and merges.txt do not make a tokenizer"):
        backend = tokenizers.Tokenizer(
            models.BPE(vocab=vocab, merges=merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
        )
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
        backend.decoder = decoders.ByteLevel()
        _add_tokens(backend, folder, settings, "vocab.json")
        # those that the vocabulary lacks get the next free ids, as in transformers
        backend.add_special_tokens([added for _, added in special.values()])
        sep, cls = ((token, backend.token_to_id(token)) for token, _ in (special["sep_token"], special["cls_token"]))
        # by position: `cls` has another name from tokenizers 0.23 on
        backend.post_processor = processors.RobertaProcessing(
            sep, cls, add_prefix_space=prefix_space, trim_offsets=trim_offsets
        )
    return backend


def _from_word_pieces(
    folder: Path, settings: dict[str, Any], special: dict[str, tuple[str, AddedToken]]
) -> tokenizers.Tokenizer:
    """BERT's WordPiece, a piece a line; a piece that goes on a word begins with ``##``."""
    path = folder / "vocab.txt"
    pieces = _text(path).split("\n")
    if pieces[-1] == "":
        pieces.pop()
    vocab = {piece.removesuffix("\r"): number for number, piece in enumerate(pieces)}  # of equal ones the last
    missing = [special[role][0] for role in BERT_TOKENS if special[role][0] not in vocab]
    if missing:
        raise TokenizerError(f"{path} has no {missing[0]}, which a BERT tokenizer needs; is it another kind of file?")
    flags = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None}
    for name, usual in flags.items():
        value = settings.get(name, usual)
        if not isinstance(value, bool) and not (value is None and name == "strip_accents"):
            raise TokenizerError(f"{folder / 'tokenizer_config.json'}: {name} is {value!r:.80}, not true or false")
        flags[name] = value
    sep, cls = ((token, vocab[token]) for token, _ in (special["sep_token"], special["cls_token"]))
    with rust_errors(f"{path} does not make a tokenizer"):
        backend = tokenizers.Tokenizer(models.WordPiece(vocab=vocab, unk_token=special["unk_token"][0]))
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=flags["tokenize_chinese_chars"],
            strip_accents=flags["strip_accents"],
            lowercase=flags["do_lower_case"],
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix="##")
        _add_tokens(backend, folder, settings, "vocab.txt")
        backend.add_special_tokens([added for _, added in special.values()])
        backend.post_processor = processors.TemplateProcessing(
            single=f"{cls[0]}:0 $A:0 {sep[0]}:0",
            pair=f"{cls[0]}:0 $A:0 {sep[0]}:0 $B:1 {sep[0]}:1",
            special_tokens=[cls, sep],
        )
    return backend


def _vocabulary(path: Path) -> dict[str, int]:
    vocab = _json(path)
    for token, number in vocab.items():
        if type(number) is not int or not 0 <= number <= MAX_ID:
            raise TokenizerError(f"{path}: the id of {token[:80]!r} is {number!r:.80}, not a number from 0 to {MAX_ID}")
    if len(set(vocab.values())) != len(vocab):
        raise TokenizerError(f"{path} gives one id to two tokens")
    if not vocab:
        raise TokenizerError(f"{path} is empty")
    return vocab


def _merges(path: Path) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    # split at line feeds alone: splitlines() would also cut at characters that a merge may hold, such as U+0085
    for number, line in enumerate(_text(path).split("\n"), 1):
        pair = line.removesuffix("\r")
        if not pair or (number == 1 and pair.startswith("#version")):
            continue
        left, space, right = pair.partition(" ")
        if not (left and space and right) or " " in right:
            raise TokenizerError(f"{path}, line {number}: {pair[:80]!r} is not two tokens with a space between them")
        merges.append((left, right))
    return merges


def _add_tokens(backend: tokenizers.Tokenizer, folder: Path, settings: dict[str, Any], vocabulary: str) -> None:
    """Tokens that were added to the vocabulary after training, in the order of their ids."""
    source = folder / "tokenizer_config.json"
    described = settings.get("added_tokens_decoder") or {}
    if isinstance(described, dict) and described:
        wanted = {number: _added_token(value, f"{source}, added token {number}") for number, value in described.items()}
    else:
        source = folder / "added_tokens.json"
        wanted = {str(number): AddedToken(token, normalized=False) for token, number in _json(source).items()}
    if not all(number.isascii() and number.isdigit() and len(number) <= 10 for number in wanted):
        raise TokenizerError(f"{source}: the ids of added tokens are not all whole numbers")
    for number in sorted(wanted, key=int):
        added = wanted[number]
        if added.special:
            backend.add_special_tokens([added])
        else:
            backend.add_tokens([added])
        if backend.token_to_id(added.content) != int(number):
            raise TokenizerError(
                f"{source} gives {added.content!r} the id {number}, but beside {vocabulary} it can only have "
                f"{backend.token_to_id(added.content)}: save the tokenizer again as tokenizer.json"
            )


def _special_tokens(folder: Path, settings: dict[str, Any], usual: dict[str, str]) -> dict[str, tuple[str, AddedToken]]:
    """Role -> token, from tokenizer_config.json, else special_tokens_map.json, else the usual one, if there is one."""
    result: dict[str, tuple[str, AddedToken]] = {}
    for role in ROLES:
        source = folder / "tokenizer_config.json"
        value = settings.get(role)
        if value is None:
            source = folder / "special_tokens_map.json"
            value = _json(source).get(role)
        if value is None:
            value = usual.get(role)
        if value is None:
            continue
        if isinstance(value, str):
            # RoBERTa learnt its mask without the space before it, so that a mask takes this space with it
            value = {"content": value, "lstrip": role == "mask_token" and usual is ROBERTA_TOKENS}
        added = _added_token(value, f"{source}: {role}", special=True)
        if not added.content:
            raise TokenizerError(f"{source}: {role} is empty")
        result[role] = (added.content, added)
    return result


def _added_token(value: Any, where: str, special: bool = False) -> AddedToken:
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise TokenizerError(f"{where} is {value!r:.80}, not a string or an object with 'content'")
    flags = {name: value.get(name, False) for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TokenizerError(f"{where}: {name} is {flag!r:.80}, not true or false")
    flags["special"] = flags["special"] or special
    with rust_errors(where):
        return AddedToken(value["content"], **flags)


def _max_length(folder: Path, settings: dict[str, Any]) -> int | None:
    value = settings.get("model_max_length")
    if value is None or (isinstance(value, int | float) and value > _NO_LIMIT):
        return None
    if type(value) is not int or value < 1:
        raise TokenizerError(
            f"{folder / 'tokenizer_config.json'}: model_max_length is {value!r:.80}, not a whole number from 1"
        )
    return value


def _side(folder: Path, settings: dict[str, Any], name: str) -> str:
    value = settings.get(name, "right")
    if value not in _SIDES:
        raise TokenizerError(f"{folder / 'tokenizer_config.json'}: {name} is {value!r:.80}; allowed: 'right', 'left'")
    return str(value)


def to_json(backend: tokenizers.Tokenizer) -> str:
    """The tokenizer as the text of a tokenizer.json (`encode` leaves no truncation or padding in it)."""
    ids = backend.get_vocab(with_added_tokens=True).values()
    if max(ids, default=0) > 4 * len(ids) + MAX_GAP:  # the library looks at every number up to the largest
        raise TokenizerError(f"this tokenizer cannot be saved: its {len(ids)} tokens have ids up to {max(ids)}")
    with rust_errors("this tokenizer cannot be saved"):
        text: str = backend.to_str(pretty=True)
    return text + "\n"


def settings_to_save(files: TokenizerFiles) -> dict[str, Any]:
    """A tokenizer_config.json: what was there, without the keys that make other libraries run code from a folder."""
    kept = {key: value for key, value in files.settings.items() if key not in ("auto_map", "name_or_path")}
    added = {token.content: token for token in files.backend.get_added_tokens_decoder().values()}
    kept.update({role: _description(token, added.get(token)) for role, token in files.special.items()})
    word_pieces = isinstance(files.backend.model, models.WordPiece)
    kept.setdefault("tokenizer_class", "BertTokenizer" if word_pieces else "RobertaTokenizer")
    if files.model_max_length is not None:
        kept["model_max_length"] = files.model_max_length
    return kept


def _description(token: str, added: AddedToken | None) -> str | dict[str, Any]:
    """A special token as tokenizer_config.json has it: with its flags if any of them is not the usual one."""
    if added is None or not (added.lstrip or added.rstrip or added.single_word):
        return token
    flags = ("content", "lstrip", "rstrip", "single_word", "normalized", "special")
    return {"__type": "AddedToken", **{name: getattr(added, name) for name in flags}}
