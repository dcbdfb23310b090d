"""Reader of tests/golden: what transformers computed, in float64, for the cases of tools/golden_cases.py.

    cases = golden_files.load("4.56.2")        # or "5.2.0"; kind="cousins": the post-LN model types

A case is one model (class name, configuration, all parameters) and one or more calls to it. Each call has its
arguments by the names that transformers and npprelnorm share, and its results: arrays by output name, those that
transformers gives as a tuple over layers stacked along a new first axis, the key/value cache as `cache_keys` and
`cache_values` (N, B, H, T, D), and `cache_cross_keys` and `cache_cross_values` for cross attention.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "golden"
VERSIONS = ("4.56.2", "5.2.0")


@dataclass(frozen=True)
class GoldenCall:
    """One call: `arguments` in, `results` out; `outputs` are their names in the order of the plain tuple."""

    arguments: dict[str, Any]
    outputs: list[str]
    results: dict[str, np.ndarray]


@dataclass(frozen=True)
class GoldenCase:
    """One model and the calls made to it, one after the other."""

    name: str
    class_name: str
    config: dict[str, Any]
    construct: dict[str, Any]  # arguments of the class other than the configuration
    params: dict[str, np.ndarray]
    calls: list[GoldenCall]
    keep_cache: bool  # each call is given the cache that the one before returned
    gradients: dict[str, np.ndarray] | None  # of the last call: the loss, or sum(output * cotangent), by parameter
    input_gradients: dict[str, np.ndarray]  # of the same, by the inputs that have gradients; in their own shapes
    cotangents: dict[str, np.ndarray]  # output name -> array; empty where the gradients are those of the loss
    problem_type: str | None  # the configuration's, after the last call

    def __str__(self) -> str:
        return self.name


def _unflatten(flat: np.ndarray, layout: list[tuple[str, list[int]]]) -> dict[str, np.ndarray]:
    sizes = [int(np.prod(shape)) for _, shape in layout]
    assert sum(sizes) == flat.size
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(layout, parts, strict=True)}


@functools.cache
def load(version: str, kind: str = "transformers") -> tuple[GoldenCase, ...]:
    """All cases that transformers `version` made."""
    manifest = json.loads((FOLDER / f"{kind}-{version}.json").read_text("utf-8"))
    with np.load(FOLDER / f"{kind}-{version}.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    for array in arrays.values():
        array.flags.writeable = False  # many cases share them, and no call may write to its arguments
    weights = {
        key: _unflatten(arrays[f"weights/{key}"].astype(np.float64), layout)
        for key, layout in manifest["weights"].items()
    }
    cases = []
    for entry in manifest["cases"]:
        name = entry["name"]
        calls = [
            GoldenCall(
                arguments=call["options"] | {key: arrays[f"{name}/{number}/in/{key}"] for key in call["arrays"]},
                outputs=call["outputs"],
                results={key: arrays[f"{name}/{number}/out/{key}"] for key in call["results"]},
            )
            for number, call in enumerate(entry["calls"])
        ]
        gradients = None
        if entry["gradients"]:
            gradients = _unflatten(arrays[f"{name}/gradients"], manifest["weights"][entry["weights"]])
        cases.append(
            GoldenCase(
                name=name,
                class_name=entry["class"],
                config=entry["config"],
                construct=entry["construct"],
                params=weights[entry["weights"]],
                calls=calls,
                keep_cache=entry["keep_cache"],
                gradients=gradients,
                input_gradients={
                    key: arrays[f"{name}/input-gradients/{key}"] for key in entry.get("input_gradients", ())
                },
                cotangents={key: arrays[f"{name}/cotangents/{key}"] for key in entry["cotangents"]},
                problem_type=entry.get("problem_type"),
            )
        )
    return tuple(cases)


def assert_close(ours: Any, theirs: np.ndarray, tolerance: float, what: str) -> None:
    """Same shape, NaN in the same places, and elsewhere apart by at most `tolerance * max(1, largest of theirs)`."""
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, theirs {theirs.shape}"
    assert np.array_equal(np.isnan(ours), np.isnan(theirs)), f"{what}: NaN in other places"
    if not theirs.size or np.isnan(theirs).all():
        return
    error = float(np.nanmax(np.abs(ours.astype(np.float64) - theirs.astype(np.float64))))
    allowed = tolerance * max(1.0, float(np.nanmax(np.abs(theirs))))
    assert error <= allowed, f"{what}: {error:.3g} apart, allowed {allowed:.3g}"


def stacked_results(output: Any) -> dict[str, np.ndarray]:
    """The arrays of one of npprelnorm's outputs under the names of `GoldenCall.results`."""
    results: dict[str, np.ndarray] = {}
    for name, value in output.items():
        if name == "past_key_values":
            results["cache_keys"] = np.stack([layer.key for layer in value])
            results["cache_values"] = np.stack([layer.value for layer in value])
            if value[0].cross_key is not None:
                results["cache_cross_keys"] = np.stack([layer.cross_key for layer in value])
                results["cache_cross_values"] = np.stack([layer.cross_value for layer in value])
        else:
            results[name] = np.stack(value) if isinstance(value, tuple) else np.asarray(value)
    return results
