"""Checkpoints of random weights, always the same for a size, and the inputs that go through them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import npprelnorm as nl
from npprelnorm.files import read_json, write_json, write_text

from .errors import BenchmarkError
from .workloads import SIZES, Workload

SEED = 20220216
VOCABULARY = 50265  # RoBERTa's
MASKED = 0.15  # of the tokens, in training
IGNORED = -100
PADDING, FIRST, LAST, UNKNOWN = 1, 0, 2, 3  # ids of RoBERTa's special tokens, the mask aside

_CLASSES: dict[str, Any] = {
    "fill-mask": nl.RobertaPreLayerNormForMaskedLM,
    "train": nl.RobertaPreLayerNormForMaskedLM,
    "classify": nl.RobertaPreLayerNormForSequenceClassification,
    "generate": nl.RobertaPreLayerNormForCausalLM,
    "next-token": nl.RobertaPreLayerNormForCausalLM,
}


def checkpoint(work: Path, size: str, task: str) -> Path:
    """Folder with a model for this task, float32, and its tokenizer; made if it is not there yet."""
    kind = _CLASSES[task]
    folder = work / f"{size}-{kind.__name__.removeprefix('RobertaPreLayerNormFor').lower()}"
    done = folder / "benchmark.json"  # written last: without it the folder is half a checkpoint
    sizes: dict[str, Any] = dict(SIZES[size])
    tokenizer, vocabulary = _tokenizer(VOCABULARY if size != "toy" else 0)
    config = nl.RobertaPreLayerNormConfig(
        **sizes,
        vocab_size=vocabulary,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        num_labels=3,
        **({"is_decoder": True} if kind is nl.RobertaPreLayerNormForCausalLM else {}),
    )
    recipe = {"seed": SEED, "config": json.loads(json.dumps(config.to_dict()))}
    if not done.exists() or read_json(done) != recipe:
        done.unlink(missing_ok=True)
        kind(config, rng=SEED).save_pretrained(folder)
        for name, content in tokenizer.items():
            write_text(folder / name, json.dumps(content))
        write_json(done, recipe)
    return folder


def _tokenizer(vocabulary: int) -> tuple[dict[str, Any], int]:
    """The files of the embedded model's tokenizer, filled up with tokens that no text has, and its size."""
    own = nl.embedded_model_path()
    tokenizer = json.loads((own / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    size = 1 + int(max(*vocab.values(), *(token["id"] for token in tokenizer["added_tokens"])))
    vocab |= {f"Ġfiller{index}": index for index in range(size, vocabulary)}
    settings = read_json(own / "tokenizer_config.json") | {"model_max_length": 512}
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": settings}, max(size, vocabulary)


def inputs(workload: Workload, folder: Path) -> dict[str, Any]:
    """Keyword arguments of the engines' run function, as JSON can carry them; the same in every run."""
    rng = np.random.default_rng([SEED, *workload.lengths])
    tokenizer: Any = nl.Tokenizer.from_pretrained(folder)
    if workload.task == "fill-mask":
        return {"texts": [_text(length, tokenizer, rng) for length in workload.lengths]}
    rows, longest = len(workload.lengths), max(workload.lengths)
    ids = np.full((rows, longest), PADDING)
    mask = np.zeros((rows, longest), np.int64)
    for row, length in enumerate(workload.lengths):
        # below the filler, so that a vocabulary of any size will do
        ids[row, :length] = [FIRST, *rng.integers(UNKNOWN + 1, tokenizer.mask_token_id, length - 2), LAST]
        mask[row, :length] = 1
    result = {"input_ids": ids, "attention_mask": mask}
    if workload.task == "train":
        chosen = (rng.random(ids.shape) < MASKED) & (ids > UNKNOWN)
        chosen[0, 1] = True  # at least one, however short the rows
        result["labels"] = np.where(chosen, ids, IGNORED)
        result["input_ids"] = np.where(chosen, tokenizer.mask_token_id, ids)
    return {name: array.tolist() for name, array in result.items()}


def _text(length: int, tokenizer: Any, rng: np.random.Generator) -> str:
    """A text of `length` tokens, two special ones and a mask among them."""
    words = [
        word
        for index in range(UNKNOWN + 1, tokenizer.mask_token_id)
        if (word := tokenizer.decode(index)).startswith(" ") and word[1:].isalpha() and word[1:].islower()
    ]
    chosen = rng.choice(words, length - 3).tolist()
    chosen.insert(len(chosen) // 2, f" {tokenizer.mask_token}")
    text = "".join(chosen)
    found = len(tokenizer(text)["input_ids"][0])
    if found != length:
        raise BenchmarkError(f"a text made for {length} tokens has {found}; the words of the tokenizer do not fit")
    return text
