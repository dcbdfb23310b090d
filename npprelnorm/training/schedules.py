"""The learning rate over the steps, as a factor of its peak: warm-up, then linear or cosine decay to 0."""

from __future__ import annotations

import math

from ..errors import InputError

SCHEDULES = ("linear", "cosine", "constant")


def factor(schedule: str, step: int, warmup: int, total: int) -> float:
    """Factor of the peak learning rate at a step.

    Equal to transformers' ``get_{linear,cosine,constant}_schedule_with_warmup``.

    Parameters
    ----------
    schedule : {"linear", "cosine", "constant"}
    step : int
        Counted from 0.
    warmup : int
        Steps over which the factor rises from 0 to 1.
    total : int
        Step at which it reaches 0.

    Raises
    ------
    InputError
        For another name.
    """
    if schedule not in SCHEDULES:
        raise InputError(f"schedule is {schedule!r}; allowed: {', '.join(SCHEDULES)}")
    if step < warmup:
        return step / max(1, warmup)
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return max(0.0, (total - step) / max(1, total - warmup))
    progress = (step - warmup) / max(1, total - warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
