"""A short run of what `tools/fuzz.py` does at length: damaged files of each format give only our errors."""

from __future__ import annotations

import collections
import random
from pathlib import Path

import fuzzing
import pytest

CASES = {"bin": 600, "safetensors": 400, "index": 150, "config": 200, "tokenizer": 150}


@pytest.mark.parametrize("name", fuzzing.FORMATS)
def test_only_our_errors(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`capfd`, since Rust prints its panics although they are caught."""
    counts: collections.Counter[str] = collections.Counter()
    for number, outcome in fuzzing.run_cases(name, 1, range(CASES[name]), tmp_path):
        assert outcome.kind != "FAILED", f"python tools/fuzz.py {name} --seed 1 --case {number}\n{outcome.details}"
        counts[outcome.kind] += 1
    # damage that is never accepted, or always, would test little
    assert CASES[name] // 100 < counts["accepted"] < CASES[name] * 0.9


def test_cases_can_be_repeated_and_differ() -> None:
    for format_ in fuzzing.FORMATS.values():
        cases = [format_.make(random.Random(seed)) for seed in range(20)]
        assert cases == [format_.make(random.Random(seed)) for seed in range(20)]
        assert len({tuple(sorted(case.items())) for case in cases}) > 15
