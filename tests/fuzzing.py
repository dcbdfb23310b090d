"""What is fuzzed: for each format, small good files, their damage, how they are read, and which errors are ours."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import struct
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mutation
import numpy as np
import torch_files as tf

from npprelnorm.checkpoint.safetensors_file import SafetensorsFile
from npprelnorm.checkpoint.sharded import INDEX_NAME, ShardedFile
from npprelnorm.checkpoint.tensors import TensorFile
from npprelnorm.checkpoint.torch_zip import TorchZipFile
from npprelnorm.config import RobertaPreLayerNormConfig
from npprelnorm.errors import CheckpointError, CheckpointFormatError, ConfigError, NpprelnormWarning, TokenizerError
from npprelnorm.tokenizer import Tokenizer

Files = dict[str, bytes]


class Format(NamedTuple):
    make: Callable[[random.Random], Files]  # one damaged checkpoint: file names to contents
    read: Callable[[Path], None]  # all of it, from that folder
    errors: tuple[type[Exception], ...]  # what reading may raise


class Outcome(NamedTuple):
    kind: str  # "accepted" or the class of one of our errors; "FAILED" for anything else
    details: str = ""


def run_case(name: str, seed: int, number: int, folder: Path) -> Outcome:
    """Make, write and read one case; the same one each time for the same seed and number."""
    kind = FORMATS[name]
    files = kind.make(random.Random(f"{name} {seed} {number}"))
    place = folder / str(number)  # a new folder each time: what a mapped file holds must not change
    place.mkdir()
    try:
        for file, content in files.items():
            (place / file).write_bytes(content)
        with warnings.catch_warnings(), np.errstate(all="raise"):
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", NpprelnormWarning)
            kind.read(place)
    except kind.errors as error:
        message = str(error)
        if "\n" in message or len(message) > 2000:
            return Outcome("FAILED", f"the message has {len(message)} characters or several lines: {message[:300]!r}")
        return Outcome(type(error).__name__)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a panic of a library in Rust is no Exception
        return Outcome("FAILED", traceback.format_exc())
    finally:
        shutil.rmtree(place)
    return Outcome("accepted")


def run_cases(name: str, seed: int, numbers: range, folder: Path) -> Iterator[tuple[int, Outcome]]:
    """Outcomes of many cases, each in a folder of its own within `folder`."""
    for number in numbers:
        yield number, run_case(name, seed, number, folder)


def read_all(file: TensorFile, size: int) -> None:
    """Touch every number; no tensor may be larger than the bytes that it came from (bfloat16: twice)."""
    for name in file.names():
        info = file.info(name)
        array = file.read(name)
        assert array.shape == info.shape
        assert array.nbytes <= 2 * size
        array.tobytes()
    file.close()


# torch


def _torch_files() -> list[list[tf.Entry]]:
    rng = np.random.default_rng(0)
    kinds = {name: (rng.random(6) * 3).astype(name) for name in tf.KINDS}
    shared = tf.storage("FloatStorage", "0", 24)
    half = tf.storage("BFloat16Storage", "1", 6)
    # memorised as the pickler does it: names, the OrderedDict, and one tensor that occurs twice
    memorised = (
        tf.tensor(shared, [4, 6], [6, 1]).replace(b"_v2\n", b"_v2\nq\x00").replace(b"Storage\n", b"Storage\nq\x01")
    )
    views = {
        "embeddings.weight": memorised + b"q\x02",
        "decoder.weight": b"h\x02",
        "transposed": tf.tensor(shared, [6, 4], [1, 6]).replace(tf.name("torch", "FloatStorage"), b"h\x01"),
        "column": tf.tensor(shared, [4, 1], [6, 1], 5),
        "half": tf.tensor(half, [2, 3], [3, 1]),
        "half.t": tf.tensor(half, [3, 2], [1, 3]),
        "scalar": tf.tensor(half, [], [], 3),
        "empty": tf.tensor(half, [0, 3], [3, 1]),
    }
    metadata = b"}" + tf.text("_metadata") + b"}" + tf.text("") + b"}" + tf.text("version") + b"K\x01sss"
    numbers = {"0": rng.random(24).astype(np.float32).tobytes(), "1": rng.bytes(12)}
    entries = tf.entries_of(tf.program(tf.state(views, metadata)), numbers, folder="pytorch_model")
    return [tf.checkpoint({"w": kinds["float32"]}), tf.checkpoint(kinds, byteorder="big"), entries, entries]


def _make_torch(rng: random.Random) -> Files:
    entries = [dataclasses.replace(entry, local={}, central={}) for entry in rng.choice(_TORCH)]
    options: dict[str, Any] = {"zip64": rng.random() < 0.7}
    kind = rng.random()
    if kind < 0.3:
        return {"model.bin": mutation.mutate_bytes(tf.make_zip(entries, **options), rng)}
    # the rest has right checksums and, mostly, a right zip around what is wrong
    if kind < 0.65:
        entries[0].data = mutation.mutate_opcodes(entries[0].data, rng)
    elif kind < 0.8:
        entries[0].data = mutation.mutate_bytes(entries[0].data, rng)
    elif kind < 0.85:
        entry = rng.choice(entries)
        entry.data = mutation.mutate_bytes(entry.data, rng)
    elif kind < 0.9:
        _change_records(entries, rng)
    else:
        for _ in range(rng.choice((1, 1, 2))):
            _change_fields(entries, options, rng)
    return {"model.bin": tf.make_zip(entries, **options)}


def _change_records(entries: list[tf.Entry], rng: random.Random) -> None:
    index = rng.randrange(len(entries))
    other = rng.choice(entries)
    action = rng.randrange(4)
    if action == 0:
        del entries[index]
    elif action == 1:
        entries.insert(index, dataclasses.replace(other))
    elif action == 2:
        entries[index] = dataclasses.replace(entries[index], name=other.name)
    else:
        endings = ("x", "/", "/../x", "\\", "\n", "é")
        entries[index] = dataclasses.replace(entries[index], name=entries[index].name + rng.choice(endings))


def _change_fields(entries: list[tf.Entry], options: dict[str, Any], rng: random.Random) -> None:
    """Lies in one field of one header, in both headers, or in an end of the directory."""
    if rng.random() < 0.25:
        end = rng.choice(("end", "end64"))
        field = rng.choice(("count", "here", "length", "begin", "disk"))
        largest = 2**32 - 1 if end == "end64" and field == "disk" else 2**16 - 1
        options[end] = {field: rng.choice([edge for edge in mutation.EDGES if edge <= largest])}
        return
    entry = rng.choice(entries)
    field = rng.choice(("flags", "method", "crc", "packed", "size", "offset", "name", "extra", "disk", "version"))
    value: Any
    if field in ("name", "extra"):
        full = struct.pack("<2H3Q", 1, 24, *(rng.choice((0, len(entry.data), 2**64 - 1)) for _ in range(3)))
        old = entry.name.encode() if field == "name" else full
        value = rng.choice((old, mutation.mutate_bytes(old, rng)))[:60000]
    else:
        largest = 2**16 - 1 if field in ("flags", "method", "disk", "version") else 2**32 - 1
        value = rng.choice([edge for edge in (*mutation.EDGES, len(entry.data), 0x0800, 0x0808) if edge <= largest])
    where = rng.randrange(3)
    if where != 0:
        entry.local[field] = value
    if where != 1:
        entry.central[field] = value
    entry.described = rng.random() < 0.7


def _read_torch(folder: Path) -> None:
    path = folder / "model.bin"
    read_all(TorchZipFile(path), path.stat().st_size)


# safetensors


def safetensors(tensors: Mapping[str, tuple[str, list[int], bytes]], metadata: dict[str, str]) -> tuple[Any, bytes]:
    header: dict[str, Any] = {"__metadata__": metadata}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    return header, data


_TENSORS = {
    "a.weight": ("F32", [2, 3], np.arange(6, dtype=np.float32).tobytes()),
    "a.bias": ("BF16", [3], bytes(range(6))),
    "ids": ("I64", [1, 2], bytes(16)),
    "flags": ("BOOL", [2], b"\x00\x01"),
    "scalar": ("F64", [], bytes(8)),
    "empty": ("F16", [0, 4], b""),
    "eight": ("F8_E4M3", [2], b"ab"),
}
_HEADER, _DATA = safetensors({k: v for k, v in _TENSORS.items() if k != "eight"}, {"format": "pt"})


def _container(header: bytes, data: bytes, rng: random.Random) -> bytes:
    length = len(header)
    if rng.random() < 0.1:
        length = rng.choice((length + 1, max(0, length - 1), *(edge for edge in mutation.EDGES if edge < 2**64)))
    return struct.pack("<Q", length) + header + data


def _make_safetensors(rng: random.Random) -> Files:
    if rng.random() < 0.3:
        good = json.dumps(_HEADER).encode()
        return {"model.safetensors": mutation.mutate_bytes(struct.pack("<Q", len(good)) + good + _DATA, rng)}
    header = mutation.mutate_json(_HEADER, rng)
    data = mutation.mutate_bytes(_DATA, rng) if rng.random() < 0.1 else _DATA
    return {"model.safetensors": _container(header, data, rng)}


def _read_safetensors(folder: Path) -> None:
    path = folder / "model.safetensors"
    read_all(SafetensorsFile(path), path.stat().st_size)


# a sharded folder

_SHARDS = {f"model-0000{i}-of-00002.safetensors": (f"a{i}", f"b{i}") for i in (1, 2)}
_INDEX = {
    "metadata": {"total_size": 48},
    "weight_map": {name: shard for shard, names in _SHARDS.items() for name in names},
}


def _make_index(rng: random.Random) -> Files:
    files = {}
    for shard, names in _SHARDS.items():
        header, data = safetensors({name: ("F32", [3], bytes(12)) for name in names}, {"format": "pt"})
        text = json.dumps(header).encode()
        files[shard] = struct.pack("<Q", len(text)) + text + data
    index = json.dumps(_INDEX).encode()
    kind = rng.random()
    if kind < 0.2:
        index = mutation.mutate_bytes(index, rng)
    elif kind < 0.9:
        index = mutation.mutate_json(_INDEX, rng)
    else:
        shard = rng.choice(sorted(_SHARDS))
        if rng.random() < 0.3:
            del files[shard]
        else:
            files[shard] = mutation.mutate_bytes(files[shard], rng)
    return {INDEX_NAME: index, **files}


def _read_index(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.iterdir())
    read_all(ShardedFile(folder / INDEX_NAME), size)


# the configuration

_CONFIG = RobertaPreLayerNormConfig(
    vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, type_vocab_size=1
).to_dict() | {"torch_dtype": "float32", "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}


def _make_config(rng: random.Random) -> Files:
    if rng.random() < 0.2:
        return {"config.json": mutation.mutate_bytes(json.dumps(_CONFIG).encode(), rng)}
    return {"config.json": mutation.mutate_json(_CONFIG, rng)}


def _read_config(folder: Path) -> None:
    config = RobertaPreLayerNormConfig.from_pretrained(folder)
    json.dumps(config.to_dict(), allow_nan=False)
    assert RobertaPreLayerNormConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


# the tokenizer


def _tokenizer_files() -> list[Files]:
    """RoBERTa's layout, with a few merges; as one file, and as vocab.json with merges.txt."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("c", "at"), ("a", "t"), ("Ġ", "cat")]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *letters, *(a + b for a, b in merges), "<mask>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    special = [
        {"id": vocab[token], "content": token, "single_word": False, "lstrip": token == "<mask>", "rstrip": False,
         "normalized": False, "special": True}
        for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True,
                           "add_prefix_space": False},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": [f"{a} {b}" for a, b in merges]},
    }  # fmt: skip
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
             "cls_token": "<s>", "mask_token": "<mask>"}  # fmt: skip
    settings = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512, "add_prefix_space": False, **roles}
    mask = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
    one = {"tokenizer.json": tokenizer, "tokenizer_config.json": settings}
    parts = {
        "vocab.json": vocab,
        "tokenizer_config.json": settings,
        "special_tokens_map.json": roles | {"mask_token": mask},
    }
    lines = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges)
    return [
        {name: json.dumps(value).encode() for name, value in one.items()},
        {name: json.dumps(value).encode() for name, value in parts.items()} | {"merges.txt": lines.encode()},
    ]  # fmt: skip


def _make_tokenizer(rng: random.Random) -> Files:
    files = dict(rng.choice(_TOKENIZERS))
    name = rng.choice(sorted(files))
    if name.endswith(".json") and rng.random() < 0.8:
        files[name] = mutation.mutate_json(json.loads(files[name]), rng)
    else:
        files[name] = mutation.mutate_bytes(files[name], rng)
    return files


def _read_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(folder)
    for text in ("the cat", " The <mask> 😀\n", ""):
        (ids,) = tokenizer(text)["input_ids"]
        assert isinstance(tokenizer.decode(ids), str)


_TORCH = _torch_files()
_TOKENIZERS = _tokenizer_files()
FORMATS = {
    "bin": Format(_make_torch, _read_torch, (CheckpointFormatError,)),
    "safetensors": Format(_make_safetensors, _read_safetensors, (CheckpointFormatError,)),
    "index": Format(_make_index, _read_index, (CheckpointError,)),
    "config": Format(_make_config, _read_config, (ConfigError, CheckpointFormatError)),
    "tokenizer": Format(_make_tokenizer, _read_tokenizer, (TokenizerError,)),
}
