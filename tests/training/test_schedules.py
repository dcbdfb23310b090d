"""The learning rate over the steps: numbers worked out by hand, and what must hold for all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npprelnorm.errors import InputError
from npprelnorm.training.schedules import SCHEDULES, factor

COSINE_DOWN = (
    1.0, 0.9619397662556434, 0.8535533905932737, 0.6913417161825449, 0.5, 0.3086582838174551, 0.14644660940672627,
    0.03806023374435663, 0.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0, 0.0]),
        ("constant", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (
            "cosine",  # (1 + cos(pi k / 8)) / 2
            [0.0, 0.5, *COSINE_DOWN, 0.0],
        ),
    ],
)
def test_two_steps_up_and_eight_down(schedule: str, expected: list[float]) -> None:
    found = [factor(schedule, step, 2, 10) for step in range(12)]
    # beyond its end the cosine would rise again; a run never gets there
    assert found[:11] == pytest.approx(expected[:11], abs=1e-15)


@given(st.sampled_from(SCHEDULES), st.integers(0, 50), st.integers(1, 100))
def test_it_rises_to_one_and_never_rises_again(schedule: str, warmup: int, decay: int) -> None:
    total = warmup + decay
    values = [factor(schedule, step, warmup, total) for step in range(total + 1)]
    assert all(0.0 <= value <= 1.0 for value in values)
    assert values[warmup] == 1.0
    assert values[: warmup + 1] == sorted(values[: warmup + 1])
    assert values[warmup:] == sorted(values[warmup:], reverse=True)
    if schedule != "constant":
        assert math.isclose(values[total], 0.0, abs_tol=1e-12)


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(InputError, match="schedule is 'step'; allowed: linear, cosine, constant"):
        factor("step", 0, 0, 1)
