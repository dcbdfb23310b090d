"""A checkpoint of a model so small that a run takes a moment, and files of labelled examples."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grammar
import pytest

import npprelnorm as nl


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model of one layer of 8 with the embedded model's tokenizer, fresh weights."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = nl.Tokenizer.from_pretrained(nl.embedded_model_path())
    config = nl.RobertaPreLayerNormConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=66,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        initializer_range=0.2,
    )
    nl.RobertaPreLayerNormForMaskedLM(config, rng=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> nl.Tokenizer:
    """The embedded model's, which is the tiny checkpoint's too."""
    return nl.Tokenizer.from_pretrained(nl.embedded_model_path())


@pytest.fixture
def config(tiny_checkpoint: Path) -> nl.RobertaPreLayerNormConfig:
    """That of the tiny checkpoint."""
    return nl.RobertaPreLayerNormConfig.from_pretrained(tiny_checkpoint)


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes objects as JSON Lines and returns the file."""

    def write(name: str, objects: list[dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(one) + "\n" for one in objects), encoding="utf-8")
        return path

    return write


def _stories(count: int, seed: int) -> list[tuple[str, str, str, str]]:
    generator = random.Random(seed)
    result = []
    for _ in range(count):
        giver, taker = generator.sample(grammar.PEOPLE, 2)
        thing = generator.choice(grammar.THINGS)
        result.append((giver, taker, thing, f"{giver} gave the {thing} to {taker}."))
    return result


@pytest.fixture
def examples() -> Callable[[str, int, int], list[dict[str, Any]]]:
    """A function from (kind of task, how many, seed) to the objects of a file."""

    def make(kind: str, count: int = 24, seed: int = 0) -> list[dict[str, Any]]:
        girls = grammar.PEOPLE[:6]
        lines: list[dict[str, Any]] = []
        for index, (giver, taker, thing, text) in enumerate(_stories(count, seed)):
            other = grammar.THINGS[(grammar.THINGS.index(thing) + 1) % len(grammar.THINGS)]
            lines.append(
                {
                    "single": {"text": text, "label": "girl" if giver in girls else "boy"},
                    "pair": {"text": text, "text_pair": f"{taker} has the {thing}.", "label": index % 3},
                    "multi": {
                        "text": text,
                        "labels": [n for n, p in (("from girl", giver), ("to girl", taker)) if p in girls],
                    },
                    "regression": {"text": text, "label": len(text) / 10},
                    "tags": {
                        "tokens": [giver, "Smith", "gave", "the", thing, "to", taker],
                        "tags": ["B-PER", "I-PER", "O", "O", "B-THING", "O", "B-PER"],
                    },
                    "choice": {
                        "prompt": text,
                        "choices": [f"The {thing} is old.", f"The {other} is old."][:: 1 - 2 * (index % 2)],
                        "label": index % 2,
                    },
                    "question": {
                        "question": f"Who got the {thing}?",
                        "context": text,
                        "answer": taker,
                        "start": text.rindex(taker),
                    },
                    "lines": {"text": text},
                }[kind]
            )
        return lines

    return make
