"""Checkpoint folders made by hand, and comparing what is loaded from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from strategies import random_model, tiny_config

import npprelnorm as nl
from npprelnorm.checkpoint.safetensors_file import write_safetensors
from npprelnorm.files import write_json
from npprelnorm.params import BASE_PREFIX as BASE


def write(
    folder: Path, tensors: Mapping[str, np.ndarray], config: nl.RobertaPreLayerNormConfig, **changes: Any
) -> None:
    """A checkpoint made by hand; a change to None takes the key away."""
    write_safetensors(folder / "model.safetensors", tensors)
    values = config.to_dict() | changes
    write_json(folder / "config.json", {key: value for key, value in values.items() if value is not None})


def masked_lm(**changes: Any) -> Any:
    return random_model("ForMaskedLM", tiny_config(**changes), dtype="float32")


def renamed(params: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.replace(BASE, prefix): value for name, value in params.items()}


def same_params(ours: Any, expected: Mapping[str, np.ndarray]) -> None:
    assert set(ours.params) == set(expected)
    for name, value in expected.items():
        assert ours.params[name].dtype == ours.dtype
        np.testing.assert_array_equal(ours.params[name], value, err_msg=name)
