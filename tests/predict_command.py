"""Texts for `npprelnorm predict`, and what its output says."""

from __future__ import annotations

import json
from typing import Any

import task_models

TEXTS = ["the dog found it", "Anna lives in Paris", "  what\u00a0 a very sad house "]

LONG = "the dog found it. " * 40


def parsed(out: str) -> list[dict[str, Any]]:
    """The objects of JSON Lines."""
    return [json.loads(line) for line in out.splitlines()]


def close(ours: Any, expected: Any) -> None:
    """Equal but for the rounding of another batch."""
    task_models.assert_same(ours, expected, 1e-6)
