"""Small encoder-decoder pairs: those of tests/golden/pairs.npz, which transformers computed, and random ones."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from strategies import random_params, tiny_config

import npprelnorm as nl

FILE = Path(__file__).parent / "golden" / "pairs.npz"


@dataclass(frozen=True)
class GoldenPair:
    """One pair, a labelled call to it, and what transformers made of it."""

    name: str
    config: dict[str, Any]
    params: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    results: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    searches: list[tuple[dict[str, Any], np.ndarray]]  # settings of `generate`, and the tokens

    def __str__(self) -> str:
        return self.name

    def model(self, dtype: str = "float64") -> Any:
        """The pair itself."""
        return nl.EncoderDecoderModel.from_params(nl.EncoderDecoderConfig(**self.config), self.params, dtype=dtype)


@functools.cache
def golden_pairs() -> tuple[GoldenPair, ...]:
    """All pairs of the file."""
    with np.load(FILE, allow_pickle=False) as stored:
        arrays = dict(stored)
    manifest = json.loads(arrays.pop("manifest").tobytes())

    def under(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    result = []
    for name, config in manifest["pairs"].items():
        tokens = under(f"{name}/tokens/")
        weights = {key: value.astype(np.float64) for key, value in under(f"{name}/weights/").items()}
        for values in (arrays, weights):
            for array in values.values():
                array.flags.writeable = False
        result.append(
            GoldenPair(
                name,
                config,
                weights,
                under(f"{name}/in/"),
                under(f"{name}/out/"),
                under(f"{name}/gradients/"),
                [(settings, tokens[str(index)]) for index, settings in enumerate(manifest["searches"])],
            )
        )
    return tuple(result)


def pair_config(encoder: dict[str, Any] | None = None, decoder: dict[str, Any] | None = None, **own: Any) -> Any:
    """A pair of tiny configurations; `encoder` and `decoder` change theirs."""
    return nl.EncoderDecoderConfig(
        encoder=tiny_config(**(encoder or {})),
        decoder=tiny_config(**{"is_decoder": True, "add_cross_attention": True} | (decoder or {})),
        **{"pad_token_id": 1, "decoder_start_token_id": 0} | own,
    )


def random_pair(seed: int = 0, *, pooler: bool = False, dtype: str = "float64", **config: Any) -> Any:
    """A pair with random weights in all its parameters."""
    made = pair_config(**config)
    shapes = nl.EncoderDecoderModel.shapes(made, pooler=pooler)
    return nl.EncoderDecoderModel.from_params(made, random_params(shapes, seed, dtype), dtype=dtype)


def batch(model: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """A labelled batch, the encoder's second row padded."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(2, model.config.encoder.vocab_size, (2, 5))
    ids[1, 3:] = 1
    labels = rng.integers(2, model.config.decoder.vocab_size, (2, 4))
    labels[0, 3] = -100
    return {"input_ids": ids, "attention_mask": (ids != 1).astype(np.int64), "labels": labels}
